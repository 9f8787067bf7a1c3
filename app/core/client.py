"""How a Streamlit script talks to its own API: one client, one kind of error.

    try:
        answer = api_client().post("/predict", json={"description": text}).json()
    except ApiError as error:
        st.error(str(error))

On a host it uses the API's socket in the same slot, so that screen and API are always of one release.
"""

import sys
from functools import lru_cache
from typing import Any, Final
from uuid import uuid4

import httpx

from app.core import logs
from app.core.settings import get_settings

IN_PROCESS: Final = "inprocess"
_TIMEOUT: Final = httpx.Timeout(60.0, connect=5.0)


class ApiError(Exception):
    """The API could not do it. The text is a sentence a visitor may read.

    `status` is 0 when there was no answer at all; `request_id` finds the log lines; `problem` is the API's own account.
    """

    def __init__(
        self, message: str, *, status: int = 0, request_id: str = "", problem: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id
        self.problem = problem or {}


class ApiClient(httpx.Client):
    """An httpx client whose every failure, refused connection or 4xx/5xx alike, is an ApiError."""

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send one request. Raises ApiError."""
        identity = request.headers.setdefault("X-Request-ID", logs.request_id.get() or uuid4().hex)
        if "X-Real-IP" not in request.headers and (visitor := _visitor()):
            request.headers["X-Real-IP"] = visitor
        try:
            response = super().send(request, **options)
            if response.is_error:
                response.read()
        except httpx.TimeoutException as error:
            raise ApiError("The answer took too long. Please try again.", request_id=identity) from error
        except httpx.TransportError as error:
            raise ApiError(
                "The service cannot be reached at the moment. Please try again shortly.", request_id=identity
            ) from error
        if response.is_error:
            raise _error(response, identity)
        return response


def _error(response: httpx.Response, identity: str) -> ApiError:
    told: dict[str, Any] = {}
    if "json" in response.headers.get("content-type", ""):
        try:
            body = response.json()
        except ValueError:
            body = None
        told = body if isinstance(body, dict) else {}
    status = response.status_code
    if status == httpx.codes.TOO_MANY_REQUESTS:
        wait = response.headers.get("retry-after", "")
        message = (
            f"Too many requests. Please wait {wait} seconds." if wait.isdigit() else "Too many requests. Please wait."
        )
    elif told.get("detail") and status < httpx.codes.INTERNAL_SERVER_ERROR:
        message = str(told["detail"])
    elif status == httpx.codes.SERVICE_UNAVAILABLE:
        message = "The service is starting or busy. Please try again shortly."
    else:
        message = f"The service reported an error ({status}). Quote request {identity} when you report it."
    return ApiError(message, status=status, request_id=response.headers.get("x-request-id", identity), problem=told)


def _visitor() -> str:
    """Address of the visitor whose script is running, so that limits count people and not this server."""
    if "streamlit" not in sys.modules:
        return ""
    from streamlit.runtime.scriptrunner import get_script_run_ctx  # noqa: PLC0415 - only inside Streamlit

    if get_script_run_ctx(suppress_warning=True) is None:
        return ""
    import streamlit as st  # noqa: PLC0415 - as above

    return st.context.headers.get("X-Real-IP") or ""


@lru_cache(maxsize=1)
def api_client() -> ApiClient:
    """The client for this app's API: over this slot's socket on a host, over `PERGOLA_API_URL` elsewhere.

    On a laptop `PERGOLA_API_URL=inprocess` runs the API within the screen's own process: one command, one process.

    One for the process; httpx clients are safe to share between threads.
    """
    settings = get_settings()
    if settings.api_url == IN_PROCESS:
        from app.core.inprocess import transport_of  # noqa: PLC0415 - loads the whole API

        return ApiClient(base_url=f"http://{settings.app}", timeout=_TIMEOUT, transport=transport_of(settings.app))
    if settings.api_socket is None:
        return ApiClient(base_url=settings.api_url, timeout=_TIMEOUT, transport=httpx.HTTPTransport(retries=2))
    transport = httpx.HTTPTransport(uds=str(settings.api_socket), retries=2)
    return ApiClient(base_url=f"http://{settings.app}", timeout=_TIMEOUT, transport=transport)
