"""The portal: one page with a card for every app, the state behind it as JSON, and the health of the host.

On its own socket `/health/ready` speaks for the portal alone, so that a release of the portal never waits for another app.
Through nginx it speaks for the host: every app's API and screen.
"""

import asyncio
import contextlib
import datetime as dt
import hashlib
import logging
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import FileResponse, HTMLResponse
from jinja2 import Environment, FileSystemLoader, select_autoescape
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from app.core.api import create_api
from app.core.asgi import through_proxy
from app.core.logs import request_id
from app.core.settings import Settings, get_settings
from app.portal import operation
from app.portal import site as sites
from app.portal.watch import QUICK_SECONDS, AppState, Service, State, Watcher

log = logging.getLogger(__name__)

HERE: Final = Path(__file__).parent
FIRST_LOOK_SECONDS: Final = 1.0
"""How long the page waits for the apps before it shows them as being checked."""

_POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_STATIC: Final = ("portal.css", "portal.js", "icon.svg")
_LABELS: Final = {
    State.UP: "Working",
    State.DEGRADED: "Partly working",
    State.BROKEN: "Not working",
    State.DOWN: "Not answering",
    State.ABSENT: "Not released",
    State.CHECKING: "Checking",
}
_KINDS: Final = {"api": "API", "ui": "Screen"}


class ServiceView(BaseModel):
    """One service of an app."""

    kind: Literal["api", "ui"]
    name: str = Field(description="what a visitor calls it")
    state: State
    label: str


class AppView(BaseModel):
    """One app's card."""

    name: str
    title: str
    summary: str
    icon: str
    url: str = Field(description="where a visitor begins")
    docs_url: str = Field(description="description of the API; empty without one")
    health_url: str
    state: State
    label: str = Field(description="the state in words")
    reason: str = Field(description="why it is not working; empty when it is")
    release: str
    requests: int | None = Field(description="requests answered by this release; null when unknown")
    sessions: int | None = Field(description="screens open now; null when unknown or without a screen")
    services: list[ServiceView]

    @property
    def has_screen(self) -> bool:
        """Whether there is a screen that can be open."""
        return any(service.kind == "ui" for service in self.services)


class AppList(BaseModel):
    """Every app of the host."""

    at: float = Field(description="when this was so, seconds since 1970")
    summary: str = Field(description="the state of all apps in one sentence")
    state: State
    apps: list[AppView]


class HostStatus(BaseModel):
    """The host and every app of it."""

    status: Literal["ready", "not ready"]
    environment: str
    release: str = Field(description="release of the portal")
    uptime_seconds: float
    apps: list[AppView]


class HostReady(BaseModel):
    """Who is ready."""

    status: Literal["ready"] = "ready"
    scope: Literal["host", "portal"]
    apps: dict[str, State]


class Live(BaseModel):
    """The host can serve."""

    status: Literal["ok"] = "ok"
    app: str
    release: str


class BackupView(BaseModel):
    """The last backup of one thing of an app."""

    what: str = Field(description="what is backed up: database or storage")
    hours: float | None = Field(description="hours since the last good one; null when there was none yet")
    limit_hours: float = Field(description="older than this is an alarm")
    in_order: bool

    @property
    def age(self) -> str:
        """The age in words."""
        return "not yet" if self.hours is None else f"{_span(self.hours * 3600)} ago"


class AppOperation(BaseModel):
    """How an app has been running."""

    name: str
    title: str
    icon: str
    url: str
    state: State
    label: str
    release: str
    since: float | None = Field(description="when this release went live, seconds since 1970; null when unknown")
    uptime_day: float | None = Field(
        description="share of the last 24 hours at which it worked, 0 to 1; null when not seen yet"
    )
    uptime_month: float | None = Field(description="the same of the last 30 days")
    backups: list[BackupView]

    @property
    def since_text(self) -> str:
        """The moment in words."""
        return "–" if self.since is None else f"{dt.datetime.fromtimestamp(self.since, dt.UTC):%Y-%m-%d %H:%M} UTC"


class AlarmView(BaseModel):
    """Something that is not in order."""

    urgent: bool = Field(description="visitors notice, or data is at risk")
    text: str


class DrillView(BaseModel):
    """The last time that all backups were restored into a scratch place and compared."""

    days: float
    good: bool
    rto_seconds: float = Field(description="the longest that one of them took to restore and compare")
    rpo_seconds: float = Field(description="the age of the oldest of them")

    @property
    def text(self) -> str:
        """It in a sentence."""
        if not self.good:
            return "found a backup that does not restore"
        return f"every backup restores, the slowest within {self.rto_seconds:.0f} s"


class JobView(BaseModel):
    """The last run of a job of the maintenance calendar."""

    title: str
    hours: float | None = Field(description="hours since the last run began; null when it never ran on this host")
    limit_hours: float = Field(description="older than this is an alarm")
    in_order: bool
    text: str = Field(description="what it found, in numbers; empty for a job that only succeeds or fails")

    @property
    def result(self) -> str:
        """When and how, in words."""
        if self.hours is None:
            return "not yet"
        told = "in order" if self.in_order else "late" if self.hours > self.limit_hours else "failed"
        return f"{_span(self.hours * 3600)} ago, {told}"


class Operation(BaseModel):
    """The status page as data: this host, its apps over time, and what is not in order."""

    at: float = Field(description="when this was so, seconds since 1970")
    environment: str
    summary: str
    state: State
    alarms: list[AlarmView]
    apps: list[AppOperation]
    drill: DrillView | None
    jobs: list[JobView] = Field(description="the maintenance calendar")


class Portal:
    """The site, read again when the plan changes, and its watcher."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.started = time.monotonic()
        self._stamp: tuple[int, int] | None = None
        self._read_at = -QUICK_SECONDS
        self._error = ""
        self._site = sites.Site(settings.env, ())
        self._watcher = Watcher(())
        self.record = operation.Record(settings.state_dir / "uptime.db")

    async def site(self) -> tuple[sites.Site, Watcher]:
        """The site and who watches it. Raises SiteError."""
        now = time.monotonic()
        if now - self._read_at >= QUICK_SECONDS:
            self._read_at = now
            stamp = _stamp(self.settings.site)
            if self._error or stamp is None or stamp != self._stamp:
                await self._read(stamp)
        if self._error:
            raise sites.SiteError(self._error)
        return self._site, self._watcher

    async def _read(self, stamp: tuple[int, int] | None) -> None:
        try:
            site = sites.load(self.settings.site)
        except sites.SiteError as error:
            self._error = str(error)
            log.error("the apps of this host are unknown: %s", error)  # noqa: TRY400 - the sentence is the whole story
            return
        self._error, self._stamp = "", stamp
        if site != self._site:
            await self._watcher.close()
            self._site, self._watcher = site, Watcher(site.shown)

    async def keep_record(self) -> None:
        """Look at every app once a minute and note what was seen, until it is cancelled."""
        while True:
            try:
                site, watcher = await self.site()
                states = await watcher.look_all(site.shown)
                await asyncio.to_thread(self.record.note, states, time.time())
            except (
                sites.SiteError,
                sqlite3.Error,
                OSError,
                RuntimeError,
            ) as error:  # RuntimeError: the plan changed meanwhile
                log.warning("what was seen of the apps is not noted: %s", error)
            await asyncio.sleep(operation.LOOK_SECONDS)

    async def close(self) -> None:
        """End watching."""
        await self._watcher.close()


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def build(settings: Settings | None = None) -> FastAPI:
    """The portal's application."""
    settings = settings or get_settings()
    portal = Portal(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        record = asyncio.create_task(portal.keep_record())
        yield
        record.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await record
        await portal.close()

    app = create_api(
        "Pergola",
        summary="The apps of this host and how they are doing",
        settings=settings,
        lifespan=lifespan,
        health_routes=False,
    )
    _add_pages(app, portal)
    _add_state(app, portal)
    _add_health(app, portal)
    return app


def _add_pages(app: FastAPI, portal: Portal) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        try:
            site, watcher = await portal.site()
        except sites.SiteError as error:
            log.warning("the page shows no apps: %s", error)
            # on a laptop the sentence helps the one who reads it; on a host it is for the operator's log
            detail = "" if portal.settings.on_host else str(error)
            return _page("error.html", 503, kind="site", detail=detail, portal=portal)
        states = await watcher.glance(site.shown, FIRST_LOOK_SECONDS)
        return _page("index.html", 200, listed=_listed(states), site=site, portal=portal)

    @app.get("/status", include_in_schema=False)
    async def status_page() -> Response:
        try:
            told = await _operation(portal)
        except sites.SiteError as error:
            log.warning("the status page shows no apps: %s", error)
            return _page("error.html", 503, kind="site", detail="", portal=portal)
        return _page("status.html", 200, told=told, portal=portal)

    @app.get("/static/{name}", include_in_schema=False)
    def static(name: str, v: Annotated[str, Query()] = "") -> Response:
        if name not in _STATIC:
            raise HTTPException(404, "There is no such file.")
        forever = v == _fingerprint(name)
        return FileResponse(
            HERE / "static" / name,
            headers={"Cache-Control": "public, max-age=31536000, immutable" if forever else "no-cache"},
        )

    @app.get("/favicon.ico", include_in_schema=False)
    def favicon() -> Response:
        return FileResponse(HERE / "static" / "icon.svg", headers={"Cache-Control": "public, max-age=86400"})

    told = app.exception_handlers[HTTPException]

    async def missing(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and error.status_code == 404 and _wants_page(request):
            return _page("error.html", 404, kind="missing", detail="", portal=portal)
        answer: Response = await told(request, error)  # type: ignore[misc]  # ours, and it is async
        return answer

    app.add_exception_handler(HTTPException, missing)


def _add_state(app: FastAPI, portal: Portal) -> None:
    @app.get("/api/apps", tags=["apps"], summary="Every app of the host and how it is doing")
    async def apps() -> AppList:
        site, watcher = await _site_or_503(portal)
        return _listed(await watcher.look_all(site.shown))

    @app.get(
        "/api/status",
        tags=["apps"],
        summary="The status page as data: uptime, deploys, backups, and what is not in order",
    )
    async def status() -> Operation:
        await _site_or_503(portal)
        return await _operation(portal)


async def _operation(portal: Portal) -> Operation:
    """What the status page shows. Raises SiteError."""
    site, watcher = await portal.site()
    states = await watcher.look_all(site.shown)
    now, folder = time.time(), operation.HOST_STATE
    kept = {app.name: operation.backups(app, now, folder) for app in site.shown}
    since = {app.name: operation.live_since(app, folder) for app in site.shown}
    drilled = operation.drill(now, folder)
    try:
        day = await asyncio.to_thread(portal.record.shares, operation.DAY_HOURS, now)
        month = await asyncio.to_thread(portal.record.shares, operation.MONTH_HOURS, now)
    except (sqlite3.Error, OSError) as error:
        log.warning("the record of uptime cannot be read: %s", error)
        day = month = {}
    done = operation.jobs(site.calendar, now, folder)
    alarms = operation.alarms(states, kept, since, drilled, done, now)
    views = [_view(state) for state in states]
    apps = []
    for view in views:
        name = view.name
        rows = [
            BackupView(
                what=row.what,
                hours=row.hours,
                limit_hours=row.limit,
                in_order=not (row.late or row.shrunk or row.failed),
            )
            for row in kept[name]
        ]
        apps.append(
            AppOperation(
                **view.model_dump(include={"name", "title", "icon", "url", "state", "label", "release"}),
                uptime_day=day.get(name),
                uptime_month=month.get(name),
                since=since[name],
                backups=rows,
            )
        )
    return Operation(
        at=now,
        environment=site.environment,
        summary=_sentence(views),
        state=_worst(views),
        alarms=[AlarmView(urgent=alarm.urgent, text=alarm.text) for alarm in alarms],
        apps=apps,
        drill=None
        if drilled is None
        else DrillView(
            days=drilled.days,
            good=drilled.good,
            rto_seconds=drilled.slowest_seconds,
            rpo_seconds=drilled.oldest_seconds,
        ),
        jobs=[
            JobView(
                title=job.title,
                hours=job.hours,
                limit_hours=job.limit,
                in_order=job.hours is None or (job.good and not job.late),
                text=job.text,
            )
            for job in done
        ],
    )


def _span(seconds: float) -> str:
    """Return a length of time in words, with the unit that fits: 40 s, 5 min, 3 h, 12 days."""
    for unit, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


def _percent(share: float | None) -> str:
    """Return a share as text that never rounds a failure away."""
    if share is None:
        return "–"
    return "100 %" if share == 1 else f"{min(share * 100, 99.99):.2f} %"


def _add_health(app: FastAPI, portal: Portal) -> None:
    @app.get("/health", tags=["health"], summary="This host can serve")
    @app.get("/health/live", tags=["health"], summary="This host can serve")
    async def live() -> Live:
        return Live(app=portal.settings.app, release=portal.settings.release)

    @app.get("/health/ready", tags=["health"], summary="Every app of this host can do its work")
    async def ready(request: Request, scope: Annotated[Literal["host", "portal"] | None, Query()] = None) -> HostReady:
        """Through nginx it speaks for the host, on the portal's own socket for the portal; `scope` says it outright."""
        site, watcher = await _site_or_503(portal)
        scope = scope or ("host" if through_proxy(request.scope) else "portal")
        if scope == "portal":
            return HostReady(scope="portal", apps={})
        states = await watcher.look_all(site.shown, deep_age=QUICK_SECONDS)
        found = {state.app.name: state.state for state in states}
        if all(state is State.UP for state in found.values()):
            return HostReady(scope="host", apps=found)
        reasons = "; ".join(f"{state.app.title}: {' '.join(state.reasons)}" for state in states if state.reasons)
        raise HTTPException(503, {"detail": reasons, "apps": found})  # type: ignore[arg-type]  # members of the problem

    @app.get("/health/status", tags=["health"], summary="The state of this host and of every app")
    async def status() -> HostStatus:
        site, watcher = await _site_or_503(portal)
        states = await watcher.look_all(site.shown)
        good = all(state.state is State.UP for state in states)
        return HostStatus(
            status="ready" if good else "not ready",
            environment=site.environment,
            release=portal.settings.release,
            uptime_seconds=round(time.monotonic() - portal.started, 1),
            apps=[_view(state) for state in states],
        )


async def _site_or_503(portal: Portal) -> tuple[sites.Site, Watcher]:
    try:
        return await portal.site()
    except sites.SiteError as error:
        raise HTTPException(503, "The plan of this host cannot be read; the portal's log says why.") from error


def _listed(states: list[AppState]) -> AppList:
    views = [_view(state) for state in states]
    return AppList(at=time.time(), summary=_sentence(views), state=_worst(views), apps=views)


def _view(state: AppState) -> AppView:
    app = state.app
    return AppView(
        name=app.name,
        title=app.title,
        summary=app.summary,
        icon=app.icon,
        url=app.open_url,
        docs_url=app.docs_url,
        health_url=app.health_url,
        state=state.state,
        label=_LABELS[state.state],
        reason=_reason(state),
        release=state.release,
        requests=state.requests,
        sessions=state.sessions,
        services=[_service_view(kind, service) for kind, service in state.services.items()],
    )


def _reason(state: AppState) -> str:
    if state.state is State.ABSENT:
        return "No release of it is on this host yet."
    return " ".join(state.reasons)


def _service_view(kind: str, service: Service) -> ServiceView:
    return ServiceView(
        kind="api" if kind == "api" else "ui", name=_KINDS[kind], state=service.state, label=_LABELS[service.state]
    )


def _worst(views: list[AppView]) -> State:
    states = {view.state for view in views}
    order = (State.CHECKING, State.DOWN, State.BROKEN, State.DEGRADED, State.ABSENT)
    return next((state for state in order if state in states), State.UP if views else State.ABSENT)


def _sentence(views: list[AppView]) -> str:
    """The state of all apps in one sentence, for the head of the page and for screen readers."""
    if not views:
        return "There are no apps on this host yet."
    if any(view.state is State.CHECKING for view in views):
        return "Checking the apps."
    troubled = [view.title for view in views if view.state is not State.UP]
    if not troubled:
        return "The app is working." if len(views) == 1 else f"All {len(views)} apps are working."
    names = troubled[0] if len(troubled) == 1 else f"{', '.join(troubled[:-1])} and {troubled[-1]}"
    verb = "needs" if len(troubled) == 1 else "need"
    return f"{len(views) - len(troubled)} of {len(views)} apps are working. {names} {verb} attention."


@cache
def _fingerprint(name: str) -> str:
    return hashlib.sha256((HERE / "static" / name).read_bytes()).hexdigest()[:10]


def _static_url(name: str) -> str:
    return f"/static/{name}?v={_fingerprint(name)}"


@cache
def _templates() -> Environment:
    found = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=select_autoescape(), trim_blocks=True)
    found.globals["static"] = _static_url
    found.filters["percent"] = _percent
    found.filters["span"] = _span
    return found


def _page(template: str, status: int, **values: Any) -> HTMLResponse:
    text = _templates().get_template(template).render(request_id=request_id.get(), status=status, **values)
    return HTMLResponse(text, status, headers={"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"})


def _wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith(("/api/", "/health"))


def __getattr__(name: str) -> FastAPI:
    """`app.portal.api:app`, built when the server asks for it."""
    if name != "app":
        raise AttributeError(name)
    built = globals()["app"] = build()
    return built
