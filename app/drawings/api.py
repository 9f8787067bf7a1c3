"""The API of Children's Drawing Anomaly Detection. Routes are below `/api/v1`; what `app.yml` does not list as public needs a login."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core import auth, database, metrics, migrate
from app.core.api import create_api
from app.core.ratelimit import EXEMPT, RateLimit, RateLimitMiddleware
from app.drawings import prepare
from app.drawings.context import Context
from app.drawings.demo import samples
from app.drawings.routes import admin, analysis, demo, drawings, interpretability
from app.drawings.store import NoModel

log = logging.getLogger(__name__)

PREFIX: Final = "/api/v1"

errors = metrics.counter("ErrorCount", "Requests that failed on our side")
seconds = metrics.histogram("ResponseTime", "Seconds to answer a request")
parts = Context.read()
settings = parts.settings


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Open this environment's data, load the model, and start what runs beside the requests."""
    if not settings.on_host:  # on a host the release's preparation has done both
        await asyncio.to_thread(migrate.ensure, settings)
    await asyncio.to_thread(parts.open)
    if not settings.on_host:
        await asyncio.to_thread(_first_model)
    await asyncio.to_thread(_warm)
    parts.worker.start()
    try:
        yield
    finally:
        await asyncio.to_thread(parts.worker.stop)


def _first_model() -> None:
    try:
        _ = parts.store.current
    except NoModel:
        prepare.unpack(parts.storage, parts.encoder.sha256)
        parts.store.refresh()


def _warm() -> None:
    """Judge the samples once, so that the first visitor does not wait for it."""
    try:
        samples(parts.store.current, parts.encoder)
    except NoModel:
        log.warning("there is no model yet")


def ready() -> dict[str, Any]:
    """Model, encoder and database work; raises otherwise."""
    served = parts.store.current
    served.model.check()
    with database.session(read_only=True) as db:
        db.connection()
    return {"model": served.version, "age_groups": len(served.model.groups), "environment": parts.environment}


class Measured:
    """Counts what really happened: seconds of every answer, and each one that failed on our side."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"].startswith(EXEMPT):
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, told)
        except Exception:
            status = 500
            raise
        finally:
            seconds.observe(time.perf_counter() - began)
            if status >= 500:
                errors.inc()


app = create_api(demo.NAME, summary=demo.SUMMARY, lifespan=lifespan, ready=ready, settings=settings)
app.state.context = parts
app.add_middleware(RateLimitMiddleware, limit=settings.rate_default, seconds=60)
app.add_middleware(Measured)
app.include_router(auth.router(limit=RateLimit(settings.rate_auth, 60, "auth")))

_v1 = APIRouter(prefix=PREFIX)
for part in (
    drawings.router(settings),
    analysis.router(settings),
    interpretability.routes,
    demo.routes,
    *admin.ROUTERS,
):
    _v1.include_router(part)
app.include_router(_v1)
