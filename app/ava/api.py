"""The API of AVA Dataset Management. All but CVAT's webhook needs a login."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI

from app.ava.context import Context
from app.ava.routes import control, projects
from app.ava.worker import Worker
from app.core import auth, database, migrate
from app.core.api import create_api
from app.core.ratelimit import RateLimit, RateLimitMiddleware

parts = Context.read()
settings = parts.settings


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """On a laptop the tables are made and the worker is a thread; on a host both are somebody else's."""
    if settings.on_host:
        yield
        return
    await asyncio.to_thread(migrate.ensure, settings)
    worker = Worker(parts.work)
    if settings.work_here:
        worker.start()
    try:
        yield
    finally:
        await asyncio.to_thread(worker.stop)


def ready() -> dict[str, Any]:
    """Attributes and database are good; raises otherwise. CVAT is not asked: a release must not wait for it."""
    with database.session(read_only=True) as db:
        db.connection()
    return {"actions": len(parts.profile.actions), "cvat": bool(settings.cvat_host)}


app = create_api(
    "AVA Dataset Management",
    summary="From clips to a checked AVA dataset through CVAT.",
    lifespan=lifespan,
    ready=ready,
    settings=settings,
)
app.state.context = parts
app.add_middleware(RateLimitMiddleware, limit=settings.rate_default, seconds=60)
app.include_router(auth.router(limit=RateLimit(settings.rate_auth, 60, "auth")))
app.include_router(projects.routes)
app.include_router(control.routes)
