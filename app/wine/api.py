"""VinoVoyant's API.

`POST /predict` and `/predict/batch` answer; `GET /model`, `/model/versions` and `/analytics` tell about the model and its data;
`/admin/retrain` trains anew. Each worker holds the model in memory and looks for a newer one every few seconds.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator
from functools import lru_cache
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from app.core import auth, job, metrics, serving
from app.core.api import create_api
from app.core.settings import get_settings
from app.core.storage import open_storage
from app.wine import batch
from app.wine.analytics import Filters, analyse, options
from app.wine.dataset import DataError
from app.wine.schemas import (
    Analytics,
    Answer,
    Batch,
    BatchAnswer,
    Candidate,
    ModelInfo,
    ModelVersion,
    Note,
    Term,
    Training,
)
from app.wine.settings import WineSettings
from app.wine.store import ModelStore, NoModel, Served

log = logging.getLogger(__name__)

TRAINING: Final = "app.wine.train"
UPLOAD_BYTES: Final = 10 * 1024 * 1024
_BUCKETS: Final = (0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 15.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2000.0, 5000.0)

settings = get_settings(WineSettings)
store = ModelStore(open_storage(settings.storage))
latency = metrics.histogram("PredictionLatency", "Milliseconds to answer one note", buckets=_BUCKETS)
abstentions = metrics.counter("wine_abstentions", "Notes that got no country")
swaps = metrics.counter("wine_models_loaded", "Models taken into service by a worker")


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Load the model, then look for newer ones until the end."""
    await serving.look(store.refresh, swaps)
    if store_is_empty() and not settings.on_host:  # on a host the release's preparation has trained
        with contextlib.suppress(job.Busy):
            await asyncio.to_thread(job.start, settings.state_dir, TRAINING)
    async with serving.watching(store.refresh, settings.poll_seconds, swaps):
        yield


def store_is_empty() -> bool:
    """Whether there is no model in service."""
    try:
        return not store.current
    except NoModel:
        return True


def ready() -> dict[str, Any]:
    """The model is loaded and its test predictions are right; raises otherwise."""
    served = store.current
    served.model.check()
    return {"model": served.version, "classes": len(served.model.classes), "test_predictions": len(served.model.probes)}


async def current() -> Served:
    """The model in service, or 503."""
    try:
        return store.current
    except NoModel as error:
        raise HTTPException(
            503, "The model is being trained; try again in half a minute.", {"Retry-After": "10"}
        ) from error


app = create_api(
    "VinoVoyant", summary="Where does this wine come from?", lifespan=lifespan, ready=ready, settings=settings
)
app.include_router(auth.router())

InService = Annotated[Served, Depends(current)]


@app.post("/predict", tags=["prediction"], summary="Where does this wine come from?")
async def predict(note: Note, served: InService) -> Answer:
    """Country of origin with calibrated probabilities and the terms that pushed the answer.

    Some milliseconds of arithmetic: handing it to a thread would cost more than it frees.
    """
    return _answer(served, batch.Item(note.description, note.variety, note.top_k))


@app.post(
    "/predict/batch",
    tags=["prediction"],
    summary="Many notes at once",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "The answers, streamed while they are made. `Accept` chooses the form; a CSV is answered with a CSV.",
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/BatchAnswer"}},
                "application/x-ndjson": {"schema": {"type": "string", "description": "one Answer a line"}},
                "text/csv": {"schema": {"type": "string", "description": "the rows that came, and the answers"}},
            },
        },
        413: {"description": "More than 10 MB", "content": {"application/problem+json": {}}},
        415: {"description": "Neither JSON nor CSV", "content": {"application/problem+json": {}}},
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/Batch"}},
                "text/csv": {
                    "schema": {"type": "string"},
                    "example": "description,variety\nRipe plum and violets,Malbec\n",
                },
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["file"],
                        "properties": {"file": {"type": "string", "format": "binary", "description": "a CSV file"}},
                    }
                },
            },
        }
    },
)
async def predict_batch(request: Request, served: InService) -> StreamingResponse:
    """Up to 1000 items as JSON, or a CSV (column `description`, perhaps `variety`; at most 10,000 rows)."""
    columns, items = await _read_batch(request)
    wanted = _form(request.headers.get("accept", ""), csv_came=columns is not None)

    def answer(item: batch.Item) -> Answer:
        return _answer(served, item)

    headers = {"X-Model-Version": served.version, "X-Total-Count": str(len(items)), "Cache-Control": "no-store"}
    stream: Iterator[bytes]
    if wanted == "text/csv":
        if columns is None:
            columns = ["description", "variety"]
            items = [
                batch.Item(item.description, item.variety, item.top_k, None, [item.description, item.variety or ""])
                for item in items
            ]
        stream = batch.as_csv(columns, items, answer)
        headers["Content-Disposition"] = 'attachment; filename="predictions.csv"'
    elif wanted == "application/x-ndjson":
        stream = batch.as_lines(items, answer)
    else:
        stream = batch.as_json(items, answer, served.version)
    return StreamingResponse(stream, media_type=wanted, headers=headers)


@app.get("/model", tags=["model"], summary="The model in service")
async def model(served: InService) -> ModelInfo:
    """Version, classes, measures, and what it was trained on and with."""
    report = served.report
    return ModelInfo(
        version=served.version,
        sha256=served.sha256,
        **{name: report[name] for name in ModelInfo.model_fields if name not in {"version", "sha256"}},
    )


@app.get("/model/versions", tags=["model"], summary="All stored models")
def versions() -> list[ModelVersion]:
    """Newest first, with their measures."""
    return [ModelVersion(**row) for row in store.versions()]


@app.get("/analytics", tags=["analytics"], summary="What the reviews say as a whole")
def analytics(
    served: InService,
    country: Annotated[list[str] | None, Query(max_length=100, description="only these countries")] = None,
    variety: Annotated[list[str] | None, Query(max_length=100, description="only these grapes")] = None,
    min_points: Annotated[float | None, Query(ge=0, le=100)] = None,
    max_points: Annotated[float | None, Query(ge=0, le=100)] = None,
    min_price: Annotated[float | None, Query(ge=0, le=1e6, description="US dollars")] = None,
    max_price: Annotated[float | None, Query(ge=0, le=1e6, description="US dollars")] = None,
) -> Analytics:
    """Numbers and a sentence for every chart; filters choose the reviews."""
    filters = Filters(tuple(country or ()), tuple(variety or ()), min_points, max_points, min_price, max_price)
    answer, choices = _analysis(served.version, filters)
    return Analytics(model_version=served.version, source=served.report["data"]["source"], options=choices, **answer)


@app.post(
    "/admin/retrain", tags=["admin"], status_code=202, summary="Train anew", dependencies=[Depends(auth.require_admin)]
)
def retrain() -> Training:
    """Start a training on the operator's reviews (or the starter corpus); the new model goes into service by itself."""
    try:
        progress = job.start(settings.state_dir, TRAINING)
    except job.Busy as error:
        raise HTTPException(409, str(error)) from error
    return Training(**vars(progress))


@app.get(
    "/admin/retrain", tags=["admin"], summary="How far the training is", dependencies=[Depends(auth.require_admin)]
)
def training() -> Training:
    """Progress of the training that runs, or how the last one ended."""
    return Training(**vars(job.read_progress(settings.state_dir)))


def _answer(served: Served, item: batch.Item) -> Answer:
    began = time.perf_counter()
    if item.problem is not None:
        return Answer(
            predicted_country=None,
            reason=item.problem,
            confidence=0.0,
            top=[],
            terms=[],
            model_version=served.version,
            latency_ms=0.0,
        )
    found = served.model.predict(item.description, item.variety, item.top_k)
    milliseconds = (time.perf_counter() - began) * 1000
    latency.observe(milliseconds)
    if found.country is None:
        abstentions.inc()
    return Answer(
        predicted_country=found.country,
        reason=found.reason,
        confidence=round(found.confidence, 6),
        top=[Candidate(country=country, probability=round(probability, 6)) for country, probability in found.top],
        terms=[Term(term=term, weight=round(weight, 5)) for term, weight in found.terms],
        model_version=served.version,
        latency_ms=round(milliseconds, 3),
    )


async def _read_batch(request: Request) -> tuple[list[str] | None, list[batch.Item]]:
    """Columns (of a CSV) and items of the request. Raises RequestValidationError naming the field."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        try:
            asked = Batch.model_validate_json(await _body(request))
        except ValidationError as error:
            raise RequestValidationError(
                [{**item, "loc": ("body", *item["loc"])} for item in error.errors(include_url=False)]
            ) from error
        return None, [batch.Item(note.description, note.variety, note.top_k) for note in asked.items]
    if kind == "text/csv":
        return _upload("body", await _body(request))
    if kind == "multipart/form-data":
        length = request.headers.get("content-length", "")
        if not length.isdigit():
            raise HTTPException(411, "A form must say how long it is (Content-Length).")
        if int(length) > UPLOAD_BYTES + 65536:
            raise HTTPException(413, "The upload is larger than 10 MB; split the file.")
        async with request.form(max_files=1, max_fields=5, max_part_size=65536) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise _invalid("file", "missing", "a CSV file is needed here")
            return _upload("file", await file.read())
    raise HTTPException(415, "Send application/json, text/csv, or a form with a file.")


async def _body(request: Request) -> bytes:
    received = bytearray()
    async for part in request.stream():
        received += part
        if len(received) > UPLOAD_BYTES:
            raise HTTPException(413, "The request is larger than 10 MB; split it.")
    return bytes(received)


def _upload(where: str, data: bytes) -> tuple[list[str], list[batch.Item]]:
    try:
        upload = batch.read_upload(data)
    except DataError as error:
        raise _invalid(where, "value_error", str(error)) from error
    return upload.columns, upload.items


def _invalid(where: str, kind: str, message: str) -> RequestValidationError:
    place = ("body",) if where == "body" else ("body", where)
    return RequestValidationError([{"type": kind, "loc": place, "msg": message}])


def _form(accept: str, *, csv_came: bool) -> str:
    """The first form of an Accept header that we can give; what came otherwise."""
    for part in accept.split(","):
        name = part.partition(";")[0].strip().lower()
        if name in {"application/json", "application/x-ndjson", "text/csv"}:
            return name
    return "text/csv" if csv_came else "application/json"


@lru_cache(maxsize=64)
def _analysis(version: str, filters: Filters) -> tuple[dict[str, Any], dict[str, Any]]:
    served = store.current
    table = served.model.table
    if table is None or served.version != version:
        raise HTTPException(503, "The model is being replaced; try again.", {"Retry-After": "1"})
    return analyse(table, filters), options(table)


def _describe(schema: dict[str, Any]) -> dict[str, Any]:
    """Add what only the batch route speaks of, which FastAPI cannot see in a signature."""
    for kind in (Batch, BatchAnswer):
        own = kind.model_json_schema(ref_template="#/components/schemas/{model}")
        schema["components"]["schemas"].update(own.pop("$defs", {}))
        schema["components"]["schemas"][kind.__name__] = own
    return schema


_openapi = app.openapi


def openapi() -> dict[str, Any]:
    """The API's description."""
    fresh = app.openapi_schema is None
    schema = _openapi()
    return _describe(schema) if fresh else schema


app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI documents
