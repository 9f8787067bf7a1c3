"""What the status page tells beside the apps' health: uptime, last deploys, backups, the last drill, and what is not in order.

All of it is read from this host: the portal's own record of what it saw once a minute, and the files in which `pergola` and
`pergola-backup` keep their state. Nothing that an app or a failed command said is passed on.
"""

import datetime as dt
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.portal.site import App
from app.portal.watch import AppState, State

LOOK_SECONDS: Final = 60.0
DAY_HOURS: Final = 24
MONTH_HOURS: Final = 30 * 24
DISK_PERCENT: Final = 80
MEMORY_PERCENT: Final = 85
DRILL_DAYS: Final = 15
HOST_STATE: Final = Path("/var/lib/pergola")
_SEEN: Final = {State.UP: 1, State.DEGRADED: 0, State.BROKEN: 0, State.DOWN: 0}
"""What counts, and as how good; an app without a release and one that is being checked do not."""


class Record:
    """How often each app was found working, in hours: a small SQLite file that outlives the portal."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=10)
        connection.execute(
            "CREATE TABLE IF NOT EXISTS hours (app TEXT, hour INTEGER, looked INTEGER, good INTEGER, PRIMARY KEY (app, hour))"
        )
        return connection

    def note(self, states: Iterable[AppState], now: float) -> None:
        """Note what was seen of each app at `now` (seconds since 1970), and forget what is older than the month."""
        hour = int(now // 3600)
        rows = [(state.app.name, hour, _SEEN[state.state]) for state in states if state.state in _SEEN]
        with closing(self._open()) as connection, connection:
            connection.executemany(
                "INSERT INTO hours VALUES (?, ?, 1, ?) ON CONFLICT DO UPDATE SET looked = looked + 1, good = good + excluded.good",
                rows,
            )
            connection.execute("DELETE FROM hours WHERE hour < ?", (hour - MONTH_HOURS,))

    def shares(self, hours: int, now: float) -> dict[str, float]:
        """Share of looks (0 to 1) at which each app worked within the last `hours`; an app that was not seen is not in it."""
        with closing(self._open()) as connection:
            rows = connection.execute(
                "SELECT app, sum(good) * 1.0 / sum(looked) FROM hours WHERE hour > ? GROUP BY app",
                (int(now // 3600) - hours,),
            )
            return dict(rows.fetchall())


@dataclass(frozen=True)
class Backup:
    """The last backup of one thing. `hours` is its age, None when there was none yet."""

    what: str
    hours: float | None
    limit: float
    shrunk: bool
    failed: bool

    @property
    def late(self) -> bool:
        """Whether it is older than it may be; what was never backed up is told by `missing`."""
        return self.hours is not None and self.hours > self.limit


@dataclass(frozen=True)
class Drill:
    """The last time that all backups were restored into a scratch place and compared."""

    days: float
    good: bool
    slowest_seconds: float
    oldest_seconds: float


@dataclass(frozen=True)
class Job:
    """The last run of a job of the maintenance calendar. `hours` since it began, None when it never ran here."""

    title: str
    hours: float | None
    limit: float
    good: bool
    text: str
    """What our own report said, a sentence with numbers."""

    @property
    def late(self) -> bool:
        """Whether the last run is older than it may be."""
        return self.hours is not None and self.hours > self.limit


@dataclass(frozen=True)
class Alarm:
    """Something that is not in order. `urgent`: visitors notice, or data is at risk."""

    text: str
    urgent: bool


def backups(app: App, now: float, state: Path = HOST_STATE) -> list[Backup]:
    """Return the last backups of an app."""
    found = []
    for what, limit in app.backups:
        told = _read(state / ".backup" / f"{app.name}-{what}.json")
        age = _age(told.get("time"), now)
        hours = None if age is None else age / 3600
        found.append(Backup(what, hours, limit, bool(told.get("shrunk")), "failed" in told))
    return found


def drill(now: float, state: Path = HOST_STATE) -> Drill | None:
    """Return the last drill; None when there was none."""
    told = _read(state / ".backup" / "drill.json")
    age = _age(told.get("time"), now)
    if age is None:
        return None
    rows = [row for row in told.get("rows", []) if isinstance(row, dict)]
    return Drill(
        days=age / 86400,
        good=told.get("good") is True,
        slowest_seconds=max((float(row.get("rto_seconds", 0)) for row in rows), default=0.0),
        oldest_seconds=max((float(row.get("rpo_seconds", 0)) for row in rows), default=0.0),
    )


def jobs(calendar: Iterable[tuple[str, str, float]], now: float, state: Path = HOST_STATE) -> list[Job]:
    """Return the last run of each job."""
    found = []
    for name, title, limit in calendar:
        told = _read(state / ".jobs" / f"{name}.json")
        age = _age(told.get("time"), now)
        hours = None if age is None else age / 3600
        found.append(Job(title, hours, limit, told.get("good") is True, str(told.get("text", ""))))
    return found


def live_since(app: App, state: Path = HOST_STATE) -> float | None:
    """Return when the release that serves went live, in seconds since 1970."""
    live = _read(state / ".host" / f"{app.name}.json").get("live")
    return _instant(live.get("since")) if isinstance(live, dict) else None


def alarms(
    states: Iterable[AppState],
    kept: Mapping[str, list[Backup]],
    since: Mapping[str, float | None],
    drilled: Drill | None,
    done: Iterable[Job],
    now: float,
) -> list[Alarm]:
    """Return what is not in order on this host, the urgent first."""
    found = []
    for state in states:
        title, name = state.app.title, state.app.name
        if state.state in {State.BROKEN, State.DOWN, State.DEGRADED}:
            found.append(Alarm(f"{title}: {' '.join(state.reasons) or 'it does not work.'}", urgent=True))
        for backup in kept.get(name, []):
            started = since.get(name)
            if backup.late:
                found.append(Alarm(f"{title}: the last backup of its {backup.what} is too old.", urgent=True))
            elif backup.hours is None and started is not None and now - started > backup.limit * 3600:
                found.append(Alarm(f"{title}: its {backup.what} was never backed up.", urgent=True))
            elif backup.failed:
                found.append(Alarm(f"{title}: the last run of the backup of its {backup.what} failed.", urgent=False))
            if backup.shrunk:
                found.append(Alarm(f"{title}: the backup of its {backup.what} shrank to less than half.", urgent=True))
    if drilled and not drilled.good:
        found.append(Alarm("The last drill found a backup that does not restore.", urgent=True))
    elif drilled and drilled.days > DRILL_DAYS:
        found.append(Alarm(f"The last drill of the backups was {drilled.days:.0f} days ago.", urgent=False))
    found += [*_upkeep(done), *_resources()]
    return sorted(found, key=lambda alarm: not alarm.urgent)


def _upkeep(done: Iterable[Job]) -> Iterable[Alarm]:
    for job in done:
        if job.late:
            yield Alarm(f"Maintenance: “{job.title}” has not run for too long.", urgent=False)
        elif job.hours is not None and not job.good:
            yield Alarm(f"Maintenance: the last run of “{job.title}” failed.", urgent=False)


def _resources() -> Iterable[Alarm]:
    fullest = max(_disks(), default=0.0)
    if fullest > DISK_PERCENT:
        yield Alarm(f"A disk is {fullest:.0f} % full.", urgent=False)
    pages, free = os.sysconf("SC_PHYS_PAGES"), _available_pages()
    if free is not None and 100 * (pages - free) / pages > MEMORY_PERCENT:
        yield Alarm(f"{100 * (pages - free) / pages:.0f} % of the memory is used.", urgent=False)


def _disks() -> Iterable[float]:
    """Give how full the disks are, percent: the system's, and those that are mounted for the state of apps."""
    for place in (Path("/"), HOST_STATE, *HOST_STATE.glob("[a-z]*")):
        try:
            usage = shutil.disk_usage(place)
        except OSError:  # not there, or not ours to look into
            continue
        yield 100 - 100 * usage.free / usage.total


def _available_pages() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024 // os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
    return None


def _read(path: Path) -> dict[str, Any]:
    """Return what a state file tells; nothing when it is not there, not readable or damaged."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _instant(text: object) -> float | None:
    try:
        return dt.datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None


def _age(text: object, now: float | None = None) -> float | None:
    at = _instant(text)
    return None if at is None else max(0.0, (time.time() if now is None else now) - at)
