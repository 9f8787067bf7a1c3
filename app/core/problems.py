"""Errors as problem details (RFC 9457): every one has a request id, none has a stack trace."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from app.core.logs import request_id

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
DATABASE_SECONDS: Final = 5
"""What a client is told to wait when the database does not answer."""


class FieldError(BaseModel):
    """One field that was wrong."""

    field: str = Field(description="name of the field, dotted when nested: items.0.description")
    source: str = Field(description="where it was: body, query, path, header or cookie")
    message: str


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str = Field(description="path of the request")
    request_id: str = Field(description="quote it when asking for help: it finds the log lines")
    errors: list[FieldError] | None = None


def problem(
    status: int,
    detail: str,
    *,
    instance: str = "",
    errors: Sequence[FieldError] | None = None,
    headers: Mapping[str, str] | None = None,
    type: str = "about:blank",  # noqa: A002 - its name in RFC 9457
    **more: Any,
) -> JSONResponse:
    """A problem response; `more` become extension members of the object."""
    body = Problem(
        type=type,
        title=_title(status),
        status=status,
        detail=detail,
        instance=instance,
        request_id=request_id.get(),
        errors=list(errors) if errors is not None else None,
    ).model_dump(exclude_none=True)
    return JSONResponse({**more, **body}, status, dict(headers or {}), media_type=MEDIA_TYPE)


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


async def _http(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    extra: dict[str, Any] = {}
    if isinstance(error.detail, Mapping):
        extra = dict(error.detail)
        detail = str(extra.pop("detail", _title(error.status_code)))
    else:
        detail = str(error.detail)
    return problem(error.status_code, detail, instance=request.url.path, headers=error.headers, **extra)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    errors = [_field_error(item) for item in error.errors()]
    detail = "; ".join(f"{item.field}: {item.message}" for item in errors[:5])
    return problem(422, detail, instance=request.url.path, errors=errors[:50])


def _field_error(item: Mapping[str, Any]) -> FieldError:
    source, *path = (str(part) for part in item["loc"])
    if item["type"] == "json_invalid":
        return FieldError(field="body", source="body", message="this is not valid JSON")
    # never the input itself: it may be a secret, and it may be large
    return FieldError(field=".".join(path) or source, source=source, message=str(item["msg"]))


async def _broken(request: Request, _error: Exception) -> JSONResponse:
    # app.core.api logs the stack trace under the same id
    detail = f"Something broke on our side. Quote request {request_id.get()} when you report it."
    return problem(500, detail, instance=request.url.path)


async def _no_database(request: Request, error: Exception) -> JSONResponse:
    """The database restarts or is too busy: nothing of this request was kept, and asking again is right."""
    if (
        isinstance(error, DBAPIError)
        and not isinstance(error, InterfaceError | OperationalError)
        and not error.connection_invalidated
    ):
        raise error  # a mistake in a statement is ours
    # one line, not a stack for each of the many requests that meet it
    reason = " ".join(str(getattr(error, "orig", None) or error).split())[:300]
    log.error("the database does not answer: %s", reason, extra={"event": "database_unavailable"})
    return problem(
        503,
        f"The database does not answer at the moment and nothing was saved. Try again in {DATABASE_SECONDS} seconds.",
        instance=request.url.path,
        headers={"Retry-After": str(DATABASE_SECONDS)},
    )


def install(app: FastAPI) -> None:
    """Answer every error of `app` as a problem, and say so in its OpenAPI description."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    for unavailable in (DBAPIError, PoolTimeout):
        app.add_exception_handler(unavailable, _no_database)
    app.add_exception_handler(Exception, _broken)
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _with_problems(describe())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI documents


def _with_problems(schema: dict[str, Any]) -> dict[str, Any]:
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    own = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(own.pop("$defs", {}))
    schemas["Problem"] = own
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    responses = components.setdefault("responses", {})
    responses["Problem"] = {"description": "What went wrong", "content": content}
    reference = {"$ref": "#/components/responses/Problem"}
    for operations in schema.get("paths", {}).values():
        for operation in operations.values():
            answers = operation.setdefault("responses", {})
            if "422" in answers:
                answers["422"] = reference
            answers.setdefault("default", reference)
    return schema
