"""The FastAPI application every app begins with: request ids, access log, problems, health, metrics.

    app = create_api("VinoVoyant", lifespan=lifespan, ready=service.ready)

What it returns is an ordinary FastAPI: add routes, routers and middleware as usual.
"""

import asyncio
import inspect
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final
from uuid import uuid4

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core import access, docs, logs, metrics, problems
from app.core.asgi import believe_nginx, client_address, is_loopback, through_proxy
from app.core.settings import Settings, get_settings

log = logging.getLogger(__name__)

Ready = Callable[[], Mapping[str, Any] | Awaitable[Mapping[str, Any]]]
Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]

REQUEST_ID_HEADER: Final = "X-Request-ID"
READY_SECONDS: Final = 10.0
MOST_AT_ONCE: Final = 256
"""Requests that one worker takes at once; a further one is sent away.

More would be answered after their visitors have left, and so would all that come behind them: without an end to the queue, an app that
was asked too much for a minute serves nobody for many.
"""
TOO_MANY: Final = "too many requests at once; try again in a moment"
NOT_READY: Final = "the app is not ready; its log says why"
_SAFE_ID: Final = re.compile(r"[A-Za-z0-9._-]{8,64}")
_QUIET: Final = ("/health", "/metrics", "/auth/check")
_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"  # data, never a page; a page says its own


def create_api(
    title: str,
    *,
    version: str | None = None,
    summary: str | None = None,
    lifespan: Lifespan | None = None,
    ready: Ready | None = None,
    settings: Settings | None = None,
    status: Callable[[], Mapping[str, Any]] | None = None,
    health_routes: bool = True,
) -> FastAPI:
    """A FastAPI with everything the platform asks of an app.

    `ready` is asked by `/health/ready`: it returns details (anything JSON can hold) or raises with the reason; it may be
    async, and a plain function runs in a thread. What `status` returns is added to `/health/status`. The portal answers `/health*`
    itself and says `health_routes=False`.
    """
    settings = settings or get_settings()
    logs.configure(settings=settings)
    app = _Api(
        title=title,
        summary=summary,
        version=version or settings.release,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.settings = settings
    problems.install(app)
    docs.install(app)
    if health_routes:
        _add_health(app, settings, ready, status)

    @app.get("/metrics", include_in_schema=False)
    def metrics_text(request: Request) -> Response:
        # how much an app is used is for those on the host, not for every visitor behind nginx
        if through_proxy(request.scope) and not is_loopback(client_address(request.scope)):
            raise HTTPException(404, "Not Found")
        return Response(metrics.exposition(), media_type=metrics.CONTENT_TYPE)

    return app


class _Api(FastAPI):
    """A FastAPI whose outermost layer is ours, also outside of whatever middleware the app adds later."""

    settings: Settings

    def build_middleware_stack(self) -> ASGIApp:
        rules = access.rules_for(
            self.settings.app, api_prefix=self.settings.api_prefix, base_path=self.settings.base_path
        )
        if rules.protected:
            # innermost: rate limits and measures see refused requests too
            self.user_middleware.append(Middleware(access.AccessMiddleware, rules))
        inner = super().build_middleware_stack()
        return RequestMiddleware(inner, self.settings.app, self.settings.api_prefix)


async def check_ready(ready: Ready | None) -> tuple[bool, dict[str, Any]]:
    """Whether the app can do its work, with details or `{"reason": ...}`."""
    if ready is None:
        return True, {}
    try:
        async with asyncio.timeout(READY_SECONDS):
            if inspect.iscoroutinefunction(ready):
                answer = await ready()
            else:
                answer = await asyncio.to_thread(ready)
                if inspect.isawaitable(answer):
                    answer = await answer
    except TimeoutError:
        return False, {"reason": f"no answer within {READY_SECONDS:g} s"}
    except Exception as error:  # any reason is the answer
        log.warning("not ready: %s", error, exc_info=True)
        return False, {"reason": f"{type(error).__name__}: {error}"[:500]}
    return True, dict(answer)


def _add_health(
    app: FastAPI, settings: Settings, ready: Ready | None, more: Callable[[], Mapping[str, Any]] | None
) -> None:
    started = time.time()

    @app.get("/health", tags=["health"], summary="The process answers")
    @app.get("/health/live", tags=["health"], summary="The process answers")
    async def live() -> dict[str, str]:
        return {"status": "ok", "app": settings.app, "release": settings.release}

    @app.get("/health/ready", tags=["health"], summary="The app can do its work")
    async def ready_(request: Request) -> Response:
        good, details = await check_ready(ready)
        if good:
            return JSONResponse({"status": "ready", "app": settings.app, "checks": details})
        # the text of an exception is for the operator on the host, not for a visitor behind nginx
        reason = NOT_READY if through_proxy(request.scope) else details["reason"]
        return problems.problem(503, reason, instance="/health/ready", app=settings.app)

    @app.get("/health/status", tags=["health"], summary="Version, slot, uptime and readiness")
    async def status(request: Request) -> dict[str, Any]:
        good, details = await check_ready(ready)
        if not good and through_proxy(request.scope):
            details = {"reason": NOT_READY}
        return {
            "app": settings.app,
            "title": app.title,
            "version": app.version,
            "release": settings.release,
            "slot": settings.slot,
            "env": settings.env,
            "uptime_seconds": round(time.time() - started, 1),
            "requests": int(metrics.total("http_requests", _is_use)),
            "ready": good,
            "checks": details,
            **(more() if more is not None else {}),
        }


def _is_use(labels: Mapping[str, str]) -> bool:
    """Whether a count of requests is of people using the app, not of machines watching it."""
    return not labels.get("route", "").startswith((*_QUIET, "/docs"))


class RequestMiddleware:
    """Outermost layer of an API: who asks (from nginx), a request id, one access line, metrics, and a last catch."""

    def __init__(self, app: ASGIApp, app_name: str, root_path: str = "") -> None:
        self._app = app
        self._root_path = root_path
        self._requests = metrics.counter("http_requests", "Requests answered", ("app", "method", "route", "status"))
        self._seconds = metrics.histogram("http_request_seconds", "Seconds to answer", ("app", "method", "route"))
        self._turned_away = metrics.counter(
            "http_turned_away", "Requests sent away because too many were waiting", ("app",)
        )
        self._name = app_name
        self._at_once = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        believe_nginx(scope)
        scope.setdefault("root_path", "")
        scope["root_path"] = scope["root_path"] or self._root_path
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        identity = given if _SAFE_ID.fullmatch(given) else uuid4().hex
        token = logs.request_id.set(identity)
        began = time.perf_counter()
        status, sent, whole = 0, 0, False

        async def send_with_id(message: Message) -> None:
            nonlocal status, sent, whole
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID_HEADER] = identity
                headers.setdefault("Content-Security-Policy", _POLICY)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("X-Frame-Options", "DENY")
                headers.setdefault("Cache-Control", "no-store")
            elif message["type"] == "http.response.body":
                sent += len(message.get("body", b""))
                whole = not message.get("more_body", False)
            await send(message)

        self._at_once += 1
        try:
            if self._at_once > MOST_AT_ONCE and not scope["path"].startswith(_QUIET):
                self._turned_away.labels(self._name).inc()
                refusal = problems.problem(503, TOO_MANY, instance=scope["path"], headers={"Retry-After": "1"})
                await refusal(scope, receive, send_with_id)
            else:
                await self._app(scope, receive, send_with_id)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if not whole:  # half an answer is out: break the connection, so that the client knows
                raise
        finally:
            self._at_once -= 1
            self._account(scope, status, sent, time.perf_counter() - began)
            logs.request_id.reset(token)

    def _account(self, scope: Scope, status: int, sent: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")  # the template, so that labels stay few
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._requests.labels(self._name, method, route, str(status)).inc()
        self._seconds.labels(self._name, method, route).observe(seconds)
        quiet = status < 400 and scope["path"].startswith(_QUIET)
        log.log(
            logging.DEBUG if quiet else logging.INFO,
            "%s %s %s",
            scope["method"],
            scope["path"],
            status,
            extra={
                "event": "access",
                "method": scope["method"],
                "path": scope["path"],
                "route": route,
                "status": status,
                "bytes": sent,
                "duration_ms": round(seconds * 1000, 2),
                "client": client_address(scope),
            },
        )


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
