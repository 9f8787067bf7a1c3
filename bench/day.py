"""A day of one host, in less: every cron job of 24 hours in order, two releases, a rotated secret, a renewed certificate; what grew.

    python bench/day.py                 a host of its own, made and removed again (half an hour)
    python bench/day.py --hours 2       the first hours only
    python bench/day.py --keep          leave the host for another look (PERGOLA_LOCAL_HOST=pergola-day make destroy-local ends it)

The day is the first of a month and a Sunday, on which weekly and monthly jobs fall, too. The host's own cron is stopped: this reads its
tables and begins what is due in each minute, all that cron would begin at once together, and goes on to the next when they have ended.
Visitors and writers come all the while, so a day holds fewer of their requests than a real one; the host's clock tells real time, so what
counts days by it (a backup's retention, once a day) is asked for at midnight. Ends with 1 when a job or a request fails, a write is lost,
or memory or disk grows past what is stated.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import re
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.bars import Bars  # noqa: E402 - the project's folder must be on the path first
from bench.environment import for_host, say  # noqa: E402
from bench.host import memory as services  # noqa: E402
from bench.writers import Writers  # noqa: E402
from emulator.scaling import cron  # noqa: E402
from prober.hosts import ContainerHost, HostError  # noqa: E402
from prober.process import ProbeProcess  # noqa: E402
from prober.report import table  # noqa: E402

NAME, HTTPS, HTTP = "pergola-day", 29843, 29880
APPS = ("portal", "wine", "judge")
MIDNIGHT = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)  # the first of a month, and a Sunday
JOB = re.compile(r"^(\S+ \S+ \S+ \S+ \S+) root (.+)$")
SPREAD = re.compile(r" --spread \d+")  # the wait of one host among many
DISK = "du -sm --exclude=.backup /var/lib/pergola /opt/pergola /var/lib/pergola/.backup /var/log /tmp /var/tmp | awk '{ print $1 }'"
FOLDERS = ("data", "releases", "backups", "logs", "temporary")
GROWTH_MIB = 60.0  # of memory, from the first hour to the last
BACKUPS_MIB = 150.0  # repositories, for the day's writes
LOGS_MIB = 120.0


@dataclass(frozen=True)
class Due:
    """A line of a cron table."""

    schedule: str
    command: str

    @property
    def title(self) -> str:
        """The job's name for people."""
        return self.command.rpartition("pergola-")[2]


@dataclass
class Ran:
    """What became of all runs of a job."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0


def tables(text: str) -> list[Due]:
    """Return the lines of cron tables.

    Raises:
        ValueError: There are none.
    """
    found = [JOB.match(line) for line in text.splitlines()]
    due = [Due(match[1], SPREAD.sub("", match[2])) for match in found if match]
    if not due:
        msg = "the host's cron tables have no jobs"
        raise ValueError(msg)
    return due


class Day:
    """The host, and what happens on it."""

    def __init__(self, writers: Writers) -> None:
        self.host, self.writers = ContainerHost(NAME), writers
        self.ran: dict[str, Ran] = {}
        self.samples: list[tuple[int, int, list[int]]] = []
        self.run = for_host(NAME, HTTPS, HTTP)  # a command of the project

    def site(self, *flags: str) -> None:
        """Bring the host to what the inventory says."""
        self.run("scripts/up", "--extra-vars", json.dumps({"pergola_apps": APPS}), *flags)

    def free(self) -> None:
        """Give the organizer the tier that may write all day, as an operator would."""
        email = self.writers.register()
        program = (
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=30); c.execute(sys.argv[2]); c.commit()"
        )
        sql = f"UPDATE organizer SET tier = 'enterprise' WHERE email = '{email}'"  # noqa: S608  an address made here
        self.host.sh(f"runuser -u pergola-judge -- python3 -c '{program}' /var/lib/pergola/judge/judge.db \"{sql}\"")

    def begin(self, due: Due) -> None:
        """Run a job as cron does, and remember how it ended."""
        began = time.monotonic()
        done = self.host.ask(due.command, timeout=1800)
        ran = self.ran.setdefault(due.title, Ran())
        ran.seconds.append(time.monotonic() - began)
        ran.failed += done.returncode != 0
        if done.returncode:
            say(f"  {due.title} ended with {done.returncode}: {(done.stdout + done.stderr)[-300:]}")

    def sample(self, hour: int) -> None:
        """Keep how much memory and disk are used."""
        memory, disk = (
            sum(row[2] for row in services(self.host)),
            [int(part) for part in self.host.sh(DISK, check=False).split()[:5]],
        )
        self.samples.append((hour, memory, disk))
        say(f"hour {hour}: {memory} MiB of memory, disk {dict(zip(FOLDERS, disk, strict=True))} MiB")

    # ---------------------------------------------------------------- what an operator does in a day

    def release(self) -> None:
        """Bring out another release of an app."""
        stamp = str(time.time_ns())

        def change(folder: Path) -> None:
            (folder / "day.txt").write_text(stamp, encoding="utf-8")

        found = self.host.install_changed("wine", change)
        answer = self.host.pergola("deploy", "wine", found, "--timeout=300", "--cut-sessions")
        if not answer.get("changed"):
            raise SystemExit(f"bench: the release was not brought out: {answer}")

    def rotate(self) -> None:
        """Give an app's secret another value, by the runbook's page."""
        self.host.sh("rm /etc/pergola/secrets/wine/admin_password && pergola secret wine")
        answer = self.host.pergola(
            "deploy", "wine", self.host.app("wine")["release"], "--again", "--timeout=300", "--cut-sessions"
        )
        if not answer.get("changed"):
            raise SystemExit(f"bench: the secret did not reach the app: {answer}")

    def renew(self) -> None:
        """Have a certificate that counts as nearly over replaced."""
        before = ssl.get_server_certificate(("127.0.0.1", HTTPS))
        self.site("--extra-vars", "nginx_tls_renew_days=398")
        if ssl.get_server_certificate(("127.0.0.1", HTTPS)) == before:
            raise SystemExit("bench: the certificate was not renewed")

    def midnight(self) -> None:
        """Have old backups forgotten, which the host does once a day of its own clock."""
        self.begin(Due("", "pergola-backup prune"))

    def live(self, hours: int, factor: float) -> None:
        """Go through the day, minute by minute, at most so many times as fast as a clock."""
        due = tables(self.host.sh("cat /etc/cron.d/pergola-*"))
        events: dict[str, Callable[[], None]] = {
            "02:17": self.renew,
            "05:43": self.rotate,
            "09:12": self.release,
            "15:37": self.release,
        }
        began = time.monotonic()
        with ThreadPoolExecutor(max_workers=len(due)) as pool:
            for minute in range(hours * 60):
                time.sleep(max(0.0, began + minute * 60 / factor - time.monotonic()))
                now = MIDNIGHT + dt.timedelta(minutes=minute)
                if minute % 60 == 0:
                    self.sample(minute // 60)
                if event := events.get(f"{now:%H:%M}"):
                    say(f"{now:%H:%M} {(event.__doc__ or '').rstrip('.').lower()}")
                    event()
                list(pool.map(self.begin, [job for job in due if cron(job.schedule, now)]))


def judge(day: Day, seen: dict[str, Any], lost: int) -> Bars:
    """Compare what was found with what is allowed."""
    (_, memory, disk), (_, memory_after, disk_after), bars = day.samples[1], day.samples[-1], Bars()
    grown = dict(zip(FOLDERS, (after - before for after, before in zip(disk_after, disk, strict=True)), strict=True))
    bars.hold("jobs that failed", sum(ran.failed for ran in day.ran.values()), 0)
    bars.hold("requests failed", seen["failed"], 0)
    bars.hold("acknowledged writes lost", lost, 0)
    bars.hold("memory grown, MiB", memory_after - memory, GROWTH_MIB)
    bars.hold("backups grown, MiB", grown["backups"], BACKUPS_MIB)
    bars.hold("logs grown, MiB", grown["logs"], LOGS_MIB)
    bars.hold("temporary files grown, MiB", grown["temporary"], 1)
    return bars


def main() -> int:
    """Live the day and print what became of it; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=int, default=24, help="of the day (default %(default)s)")
    parser.add_argument(
        "--factor", type=float, default=60, help="times as fast as a clock, at most (default %(default)s)"
    )
    parser.add_argument("--keep", action="store_true", help="leave the host")
    options = parser.parse_args()
    if not 2 <= options.hours <= 24:
        parser.error("--hours: 2 to 24")
    url = f"https://127.0.0.1:{HTTPS}"
    day = Day(Writers(url))
    began = time.monotonic()
    try:
        day.site()
        day.host.sh("systemctl stop cron")
        say(f"a host: {time.monotonic() - began:.0f} s")
        day.free()
        began = time.monotonic()
        thread = threading.Thread(target=day.writers.run)
        with ProbeProcess(url, "--rate=5", "--sessions=1", "--rerun-seconds=5") as probe:
            thread.start()
            try:
                day.live(options.hours, options.factor)
            finally:
                day.writers.over.set()
                thread.join()
            seen = probe.stop()
        day.host.wait_settled("wine", 1200)  # the sessions of an old slot are over, and so is the slot
        day.midnight()
        day.sample(options.hours)
        took, lost = time.monotonic() - began, day.writers.lost()
        said = Counter(row["app"] for row in day.host.pergola("status")["apps"] if row["state"] != "serving")
    except HostError as error:
        raise SystemExit(f"bench: {error}") from error
    finally:
        if not options.keep:
            day.run("scripts/local-host", "destroy")
    for failure, count in seen["failures"].items():
        say(f"  {count} x {failure}")
    print(
        f"{options.hours} hours in {took / 60:.0f} minutes; {seen['sent']} requests, {len(day.writers.acknowledged)} writes\n"
    )
    rows = [
        [title, len(ran.seconds), ran.failed, f"{sum(ran.seconds) / len(ran.seconds):.1f}", f"{max(ran.seconds):.1f}"]
        for title, ran in sorted(day.ran.items())
    ]
    print(table(["job", "runs", "failed", "mean s", "longest s"], rows))
    print()
    print(
        table(
            ["hour", "memory MiB", *(f"{name} MiB" for name in FOLDERS)],
            [[hour, memory, *disk] for hour, memory, disk in day.samples],
        )
    )
    print()
    bars = judge(day, seen, lost)
    print(table(["what", "found", "bar", ""], bars.rows))
    return 1 if said or bars.missed else 0


if __name__ == "__main__":
    sys.exit(main())
