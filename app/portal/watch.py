"""How the apps of this host are doing: asks each over the unix socket of its live slot.

A cheap question (does it answer, how much is it used) is asked at most every 5 s. The expensive one for a screen, which
runs its script, is asked every 60 s for the cards and every 5 s for the host's own readiness. However many visitors look,
each question is asked once.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import httpx

from app.portal.site import App

QUICK_SECONDS: Final = 5.0
DEEP_SECONDS: Final = 60.0
ANSWER_SECONDS: Final = 2.0
SCRIPT_SECONDS: Final = 12.0

_SESSIONS: Final = re.compile(r"^active_sessions(?:\{[^}]*\})? (\d+)", re.MULTILINE)


class State(StrEnum):
    """How a service, or a whole app, is doing."""

    UP = "up"
    DEGRADED = "degraded"  # an app of which one service works and the other does not
    BROKEN = "broken"  # it answers, but it cannot do its work
    DOWN = "down"  # it does not answer
    ABSENT = "absent"  # nothing of it was released here yet
    CHECKING = "checking"


@dataclass(frozen=True)
class Service:
    """One service of an app. `reason` is a sentence for a visitor and holds nothing an app said about itself."""

    state: State
    reason: str = ""
    release: str = ""
    requests: int | None = None
    sessions: int | None = None
    uptime_seconds: float | None = None


@dataclass(frozen=True)
class AppState:
    """An app and its services."""

    app: App
    services: Mapping[str, Service] = field(default_factory=dict)

    @property
    def state(self) -> State:
        """The worst that a visitor would meet."""
        states = {service.state for service in self.services.values()}
        if not states or State.CHECKING in states:
            return State.CHECKING
        if states == {State.ABSENT}:
            return State.ABSENT
        if states == {State.UP}:
            return State.UP
        if State.UP in states:
            return State.DEGRADED
        return State.BROKEN if State.BROKEN in states else State.DOWN

    @property
    def release(self) -> str:
        """The release being served; empty when nobody told."""
        return next((service.release for service in self.services.values() if service.release), "")

    @property
    def reasons(self) -> list[str]:
        """Why the app is not up, one sentence a service."""
        return [service.reason for service in self.services.values() if service.reason]

    @property
    def requests(self) -> int | None:
        """Requests that the API answered since its release went live, watching not counted."""
        return next((service.requests for service in self.services.values() if service.requests is not None), None)

    @property
    def sessions(self) -> int | None:
        """Screens that are open right now."""
        return next((service.sessions for service in self.services.values() if service.sessions is not None), None)


class Remembered:
    """The answer to one question, asked again when it is too old, and by one caller at a time."""

    def __init__(self, ask: Callable[[], Awaitable[Service]]) -> None:
        self._ask = ask
        self._lock = asyncio.Lock()
        self._answer: Service | None = None
        self._at = 0.0

    async def get(self, max_age: float) -> Service:
        """The answer, at most `max_age` seconds old."""
        async with self._lock:
            if self._answer is None or time.monotonic() - self._at >= max_age:
                self._answer = await self._ask()
                self._at = time.monotonic()
            return self._answer

    def forget(self) -> None:
        """Ask again next time."""
        self._answer = None


class Watcher:
    """Watches the apps of a site."""

    def __init__(self, apps: tuple[App, ...]) -> None:
        self._clients: list[httpx.AsyncClient] = []
        self._going: set[asyncio.Future[AppState]] = set()
        self._api: dict[str, Remembered] = {}
        self._screen: dict[str, Remembered] = {}
        self._script: dict[str, Remembered] = {}
        for app in apps:
            if app.api:
                self._api[app.name] = Remembered(self._asks_api(app, app.api))
            if app.ui:
                self._screen[app.name] = Remembered(self._asks_screen(app, app.ui))
                self._script[app.name] = Remembered(self._asks_script(app, app.ui))

    async def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            await client.aclose()

    async def look(self, app: App, *, deep_age: float = DEEP_SECONDS) -> AppState:
        """How `app` is doing; its screen's script ran at most `deep_age` seconds ago."""
        asked: dict[str, Awaitable[Service]] = {}
        if app.name in self._api:
            asked["api"] = self._api[app.name].get(QUICK_SECONDS)
        if app.name in self._screen:
            asked["ui"] = self._look_at_screen(app, deep_age)
        answers = await asyncio.gather(*asked.values())
        return AppState(app, dict(zip(asked, answers, strict=True)))

    async def look_all(self, apps: tuple[App, ...], *, deep_age: float = DEEP_SECONDS) -> list[AppState]:
        """How several apps are doing, asked at the same time."""
        return list(await asyncio.gather(*(self.look(app, deep_age=deep_age) for app in apps)))

    async def glance(self, apps: tuple[App, ...], seconds: float) -> list[AppState]:
        """The same within `seconds`; what is not known by then is being checked."""

        async def one(app: App) -> AppState:
            task = asyncio.ensure_future(self.look(app))
            done, _ = await asyncio.wait({task}, timeout=seconds)
            if done:
                return task.result()
            self._going.add(task)  # it goes on: the page asks for it in a moment
            task.add_done_callback(self._going.discard)
            kinds = [kind for kind, socket in (("api", app.api), ("ui", app.ui)) if socket]
            return AppState(app, {kind: Service(State.CHECKING) for kind in kinds})

        return list(await asyncio.gather(*(one(app) for app in apps)))

    async def _look_at_screen(self, app: App, deep_age: float) -> Service:
        quick = await self._screen[app.name].get(QUICK_SECONDS)
        if quick.state is not State.UP:
            self._script[app.name].forget()  # when it is back, it has to prove itself again
            return quick
        deep = await self._script[app.name].get(deep_age)
        return Service(deep.state, deep.reason, deep.release, sessions=quick.sessions)

    def _asks_api(self, app: App, socket: Path) -> Callable[[], Awaitable[Service]]:
        client = self._client(socket)

        async def ask() -> Service:
            return await _carefully("The API", socket, lambda: _ask_api(client, app))

        return ask

    def _asks_screen(self, app: App, socket: Path) -> Callable[[], Awaitable[Service]]:
        client = self._client(socket)

        async def ask() -> Service:
            return await _carefully("The screen", socket, lambda: _ask_screen(client, app))

        return ask

    def _asks_script(self, app: App, socket: Path) -> Callable[[], Awaitable[Service]]:
        client = self._client(socket, SCRIPT_SECONDS)

        async def ask() -> Service:
            return await _carefully("The screen", socket, lambda: _ask_script(client, app))

        return ask

    def _client(self, socket: Path, seconds: float = ANSWER_SECONDS) -> httpx.AsyncClient:
        # a new connection for each question: the socket's path is a link that a release moves
        transport = httpx.AsyncHTTPTransport(
            uds=str(socket), verify=False, limits=httpx.Limits(max_keepalive_connections=0)
        )
        client = httpx.AsyncClient(transport=transport, base_url="http://app", timeout=seconds)
        self._clients.append(client)
        return client


async def _carefully(what: str, socket: Path, ask: Callable[[], Awaitable[Service]]) -> Service:
    """Ask, and turn every way of not answering into a state."""
    try:
        if not socket.exists():  # noqa: ASYNC240 - a name in a tmpfs: no waiting
            return Service(State.ABSENT, f"{what} has no release on this host yet.")
        return await ask()
    except httpx.TimeoutException:
        return Service(State.DOWN, f"{what} takes too long to answer.")
    except (httpx.HTTPError, OSError):
        return Service(State.DOWN, f"{what} does not answer.")
    except (ValueError, KeyError, TypeError):
        return Service(State.BROKEN, f"{what} answers with something else than its state.")


async def _ask_api(client: httpx.AsyncClient, app: App) -> Service:
    answer = await client.get("/health/status")
    if (
        answer.status_code == httpx.codes.NOT_FOUND
    ):  # an ASGI app that is not made with app.core has its own shallow check
        answer = await client.get(app.health)
        return Service(State.UP) if answer.is_success else Service(State.BROKEN, "The API reports an error.")
    if not answer.is_success:
        return Service(State.BROKEN, "The API reports an error.")
    told: dict[str, Any] = answer.json()
    ready = bool(told["ready"])
    return Service(
        State.UP if ready else State.BROKEN,
        "" if ready else "The API is not ready.",
        release=str(told["release"]),
        requests=int(told["requests"]),
        uptime_seconds=float(told["uptime_seconds"]),
    )


async def _ask_screen(client: httpx.AsyncClient, app: App) -> Service:
    answer = await client.get(f"{app.path}_stcore/metrics", params={"families": "active_sessions"})
    found = _SESSIONS.search(answer.text) if answer.is_success else None
    if found is None:
        return Service(State.BROKEN, "The screen reports an error.")
    return Service(State.UP, sessions=int(found[1]))


async def _ask_script(client: httpx.AsyncClient, app: App) -> Service:
    answer = await client.get(f"{app.path}health/ready")
    if not answer.is_success:
        return Service(State.BROKEN, "The screen does not run.")
    return Service(State.UP, release=str(answer.json()["release"]))
