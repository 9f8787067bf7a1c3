"""The maintenance calendar: what is done again and again, where and when. The one place; hosts, workflows and pages derive from it.

A host runs its jobs by cron through ``pergola-job``, which keeps when each ran last and how it ended. Jobs of the control node are run by
``scripts/maintenance``, from a scheduled workflow or anybody's cron.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from app.core.schedules import longest_gap

HOST, CONTROL = "host", "control"


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        name: What commands call it.
        title: What the status page calls it.
        where: ``host`` or ``control``.
        schedule: Five cron fields, UTC.
        commands: What is run, one after the other, until one fails; on the control node, playbooks with their extra variables.
        purpose: What it is for, in the documentation.
        minutes: After which a run is ended.
        backups: Only where something is backed up.
    """

    name: str
    title: str
    where: str
    schedule: str
    commands: tuple[tuple[str, ...], ...]
    purpose: str
    minutes: int = 60
    backups: bool = False

    @property
    def limit_hours(self) -> float:
        """Hours after which the last run is too old: twice the longest time between two."""
        return longest_gap(self.schedule) / dt.timedelta(hours=1) * 2


CALENDAR = (
    Job(
        "backup-check", "Backups verified", HOST, "10 3 * * *", (("pergola-backup", "check", "--sample", "5"),),
        "restic looks through the repositories, and reads a twentieth of their data", minutes=120, backups=True,
    ),
    Job(
        "log-digest", "Log digest", HOST, "20 5 * * *", (("pergola-job", "digest"),),
        "counts what a day's logs hold: errors by app, failed requests, kills for memory, restarts, refused logins",
    ),
    Job(
        "packages", "Packages compared", HOST, "15 6 * * 3", (("pergola-job", "packages"),),
        "every file that Debian's packages installed, with its checksum; fails when a program was changed",
    ),
    Job(
        "backup-full-check", "Backups read in full", HOST, "40 1 1 * *", (("pergola-backup", "check"),),
        "reads every byte of the repositories and compares checksums", minutes=600, backups=True,
    ),
    Job(
        "capacity", "Capacity report", HOST, "50 5 1 * *", (("pergola-job", "capacity"),),
        "disk, memory and journal, what each app keeps, and when the disk will be full at this rate",
    ),
    Job(
        "patches", "Security patches", CONTROL, "0 4 * * 2",
        (("bake.yml", "release=live", "force=true"), ("deploy.yml", "release=live", "newest_image=true")),
        "an image baked anew from Debian's newest, brought out by a normal deploy", minutes=180,
    ),
    Job(
        "cost", "Cost report", CONTROL, "30 6 1 * *", (("cost.yml",), ("status.yml",)),
        "what the environment should cost, what was spent, and its hosts", minutes=30,
    ),
)  # fmt: skip


def job(name: str) -> Job:
    """Return a job by its name. Raises KeyError with the names there are."""
    for one in CALENDAR:
        if one.name == name:
            return one
    raise KeyError(f"there is no job {name}; there are {', '.join(one.name for one in CALENDAR)}")


def for_host(*, backups: bool, cloud: bool) -> list[dict[str, Any]]:
    """Return what a host runs, and what its status page shows.

    Args:
        backups: Whether it backs something up.
        cloud: Whether it is a host of a fleet, which the control node looks after too.
    """
    return [
        {
            "name": one.name,
            "title": one.title,
            "where": one.where,
            "schedule": one.schedule,
            "commands": [list(command) for command in one.commands] if one.where == HOST else [],
            "minutes": one.minutes,
            "limit_hours": round(one.limit_hours, 3),
        }
        for one in CALENDAR
        if (backups or not one.backups) and (cloud or one.where == HOST)
    ]
