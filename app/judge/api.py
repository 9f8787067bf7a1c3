"""The API of VibeJudge. Routes are below `/api/v1`; all but registering, logging in and `/public` need a key."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core import database, leases, metrics, migrate
from app.core.api import create_api
from app.core.settings import get_settings
from app.judge import keys
from app.judge.routes import analysis, api_keys, hackathons, organizers, public, submissions, usage
from app.judge.settings import JudgeSettings
from app.judge.tables import Task

log = logging.getLogger(__name__)

PREFIX: Final = "/api/v1"
WATCH_SECONDS: Final = 15.0
RECENT_SECONDS: Final = 300.0

settings = get_settings(JudgeSettings)
queue_age = metrics.gauge("JudgeQueueAge", "Seconds the oldest submission has waited to be judged", mode="max")
failed = metrics.gauge("JudgeFailed", "Submissions of the last 5 minutes that could not be judged", mode="max")


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Bring the tables up to date on a laptop, and watch the queue."""
    if not settings.on_host:  # on a host the release's preparation has done it
        await asyncio.to_thread(migrate.ensure, settings)
    watching = asyncio.create_task(_watch())
    try:
        yield
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def _watch() -> None:
    """Tell the metrics how the queue is; the worker has no port of its own to be asked at."""
    while True:
        try:
            await asyncio.to_thread(measure_queue)
        except SQLAlchemyError as error:
            log.warning("the queue cannot be measured: %s", type(error).__name__)
        await asyncio.sleep(WATCH_SECONDS)


def measure_queue() -> None:
    """Set the gauges."""
    now = time.time()
    with database.session(read_only=True) as db:
        oldest = db.scalar(select(func.min(Task.created_at)).where(Task.state == leases.WAITING))
        broken = db.scalar(select(func.count()).where(Task.state == "failed", Task.finished_at > now - RECENT_SECONDS))
    queue_age.set(max(0.0, now - oldest) if oldest is not None else 0.0)
    failed.set(broken or 0)


def ready() -> dict[str, Any]:
    """The database works; raises otherwise."""
    with database.session(read_only=True) as db:
        waiting = db.scalar(select(func.count()).where(Task.state == leases.WAITING))
    return {"waiting": int(waiting or 0)}


class Metered:
    """Notes the requests of organizers that failed: those were counted, and usage says how they ended."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, told)
        finally:
            org_id = scope.get("state", {}).get("billed")
            if org_id and status >= 400:
                try:
                    await run_in_threadpool(keys.note_failure, org_id)
                except SQLAlchemyError as error:
                    log.warning("a failed request was not noted: %s", type(error).__name__)


app = create_api(
    "VibeJudge",
    summary="Judge the repositories of a hackathon by rules, and see who wrote what.",
    lifespan=lifespan,
    ready=ready,
    settings=settings,
)
app.add_middleware(Metered)

_v1 = APIRouter(prefix=PREFIX)
for part in (
    organizers.router(settings),
    hackathons.routes,
    submissions.router(settings),
    analysis.router(settings),
    public.router(settings),
    api_keys.routes,
    usage.routes,
):
    _v1.include_router(part)


@_v1.get("/health", tags=["health"], summary="The process answers")
def health() -> dict[str, str]:
    """For clients that know only the address of the routes."""
    return {"status": "ok", "app": settings.app, "release": settings.release}


app.include_router(_v1)
