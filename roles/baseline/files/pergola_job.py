#!/usr/bin/python3
"""pergola-job: the maintenance calendar of this host. Cron calls ``run``; when each job ran last, and how it ended, is kept.

What a job says is in the journal (``journalctl -t pergola-job``). ``/var/lib/pergola/.jobs/<job>.json``, which the status page shows,
holds our own sentence with numbers in it, and no word that an app or a failed command said.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import datetime as dt
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CONFIG = Path("/etc/pergola/jobs.json")
STATE = Path("/var/lib/pergola/.jobs")
LOCKS = Path("/run/lock")
APPS = Path("/var/lib/pergola")
ACCESS = Path("/var/log/nginx")
DAY = 24 * 3600
BUSY = 75  # EX_TEMPFAIL


class Failure(Exception):
    """Something went wrong, and the message says what to do."""


def jobs() -> dict[str, dict[str, Any]]:
    """Return the jobs of this host by name."""
    try:
        return {row["name"]: row for row in json.loads(CONFIG.read_text(encoding="utf-8"))}
    except FileNotFoundError:
        raise Failure(f"{CONFIG} is missing; run site.yml on this host first") from None
    except ValueError as error:
        raise Failure(f"{CONFIG} is damaged ({error}); run site.yml again, it writes the file anew") from None


def kept(name: str) -> dict[str, Any]:
    """Return what is known of a job's last run; nothing when it never ran or the file is damaged."""
    try:
        return dict(json.loads((STATE / f"{name}.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}


def keep(name: str, told: dict[str, Any]) -> None:
    """Replace what is known of a job's last run, in one step."""
    STATE.mkdir(parents=True, exist_ok=True)
    STATE.chmod(0o755)
    new = STATE / f".{name}.{os.getpid()}"
    new.write_text(json.dumps(told, sort_keys=True, indent=1) + "\n", encoding="utf-8")
    new.chmod(0o644)
    new.replace(STATE / f"{name}.json")


def moment(seconds: float) -> str:
    """Return a time as UTC, ISO 8601."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# ---------------------------------------------------------------- running


def run(options: argparse.Namespace) -> int:
    """Run a job, unless its last run still goes on, and keep how it ended."""
    job = jobs().get(options.job)
    if job is None:
        raise Failure(f"there is no job {options.job}; this host has {', '.join(sorted(jobs())) or 'none'}")
    if options.spread:  # hosts of a fleet do not all begin at once
        name = Path("/etc/machine-id").read_text(encoding="ascii") + job["name"]
        time.sleep(int(hashlib.sha256(name.encode()).hexdigest(), 16) % (options.spread * 60))
    with (LOCKS / f"pergola-job-{job['name']}").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"pergola-job: {job['name']} still runs; the next time", file=sys.stderr)
            return BUSY
        began, facts = time.time(), {}
        good = True
        for command in job["commands"]:
            code, said = _run(command, began + job["minutes"] * 60)
            facts.update(said)
            if code:
                print(f"pergola-job: {job['name']} failed: {' '.join(command)} ended with {code}", file=sys.stderr)
                good = False
                break
        told = {"time": moment(began), "seconds": round(time.time() - began, 1), "good": good, **facts}
        keep(job["name"], told)
        print(json.dumps({"job": job["name"], **told}))
    return 0 if good else 1


def _run(command: list[str], until: float) -> tuple[int, dict[str, Any]]:
    """Run one command; what it says goes to whoever called. Returns its exit code and, of our own reports, what they tell."""
    report = command[0] == "pergola-job"
    with subprocess.Popen(
        command, stdout=subprocess.PIPE if report else None, text=True, start_new_session=True
    ) as child:
        try:
            out, _ = child.communicate(timeout=max(1.0, until - time.time()))
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, 15)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, 9)
            child.communicate()
            return 124, {}
    return child.returncode, json.loads(out) if report and child.returncode == 0 else {}


def listing(_: argparse.Namespace) -> int:
    """Show when each job ran last; end 1 when one failed or is late."""
    bad = False
    for name, job in jobs().items():
        told = kept(name)
        hours = (time.time() - dt.datetime.fromisoformat(told["time"]).timestamp()) / 3600 if told else None
        late = hours is not None and hours > job["limit_hours"]
        word = "not yet" if hours is None else "FAILED" if not told["good"] else "LATE" if late else "in order"
        bad = bad or word in ("FAILED", "LATE")
        shown = "" if hours is None else f"{hours:.1f} h ago, {told['seconds']:.0f} s"
        print(f"{name:<18} {job['schedule']:<14} {word:<9} {shown:<22} {told.get('text', '')}".rstrip())
    return int(bad)


# ---------------------------------------------------------------- the digest of a day's logs


def journal(*matches: str) -> Iterable[dict[str, Any]]:
    """Give the journal's entries of the last day that match, without their messages."""
    command = [
        "journalctl",
        "--quiet",
        "--since=-24h",
        "--output=json",
        "--output-fields=_SYSTEMD_UNIT,SYSLOG_IDENTIFIER,UNIT",
    ]
    done = subprocess.run([*command, *matches], capture_output=True, text=True, check=False)
    if done.returncode:  # it ends 1 also when nothing matches, or when a young journal has no such unit or boot yet
        print(done.stderr, end="", file=sys.stderr)
    return (json.loads(line) for line in done.stdout.splitlines())


def count(*matches: str) -> int:
    """Return how many entries of the last day match."""
    return sum(1 for _ in journal(*matches))


def app_of(entry: dict[str, Any]) -> str:
    """Return which app, or else which unit, an entry is of: ``pergola-api@wine-a.service`` is of ``wine``."""
    unit = str(entry.get("_SYSTEMD_UNIT") or entry.get("SYSLOG_IDENTIFIER") or "?")
    found = re.match(r"pergola-\w+@(.+)-[ab]\.service", unit)
    return found[1] if found else unit.removesuffix(".service")


def requests(now: float) -> collections.Counter[str]:
    """Return how many requests nginx logged in the last day, how many it could not serve, and how many it refused for their number."""
    counts: collections.Counter[str] = collections.Counter()
    for path in (ACCESS / "access.log.1", ACCESS / "access.log"):
        with contextlib.suppress(FileNotFoundError), path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    row = json.loads(line)
                    if now - float(row["epoch"]) > DAY:
                        continue
                    status = int(row["status"])
                except (ValueError, KeyError, TypeError):
                    continue
                counts["all"] += 1
                counts["failed"] += status >= 500
                counts["limited"] += status == 429
    return counts


def denied() -> int:
    """Return how many packets to the metadata service the firewall has refused since it was loaded."""
    if not shutil.which("nft"):
        return 0
    done = subprocess.run(
        ["nft", "-j", "list", "chain", "inet", "pergola", "output"], capture_output=True, text=True, check=False
    )
    if done.returncode:  # a host without our firewall
        return 0
    rules = [row["rule"]["expr"] for row in json.loads(done.stdout)["nftables"] if "rule" in row]
    return sum(part["counter"]["packets"] for rule in rules for part in rule if "counter" in part)


def digest(_: argparse.Namespace) -> int:
    """Count what the logs of the last day hold."""
    errors = collections.Counter(
        app_of(entry) for entry in journal("--unit=pergola-*", r'--grep="level": "(error|critical)"')
    )
    asked = requests(time.time())
    failed = subprocess.run(
        ["systemctl", "list-units", "--failed", "--plain", "--no-legend"], capture_output=True, text=True, check=True
    )
    told = {
        "errors": dict(errors.most_common()),
        "system_errors": dict(collections.Counter(map(app_of, journal("--priority=err"))).most_common(20)),
        "requests": asked["all"],
        "requests_failed": asked["failed"],
        "requests_limited": asked["limited"],
        "out_of_memory": count("--dmesg", "--grep=Out of memory|oom-kill")
        + count("--identifier=systemd", "--grep=killed by the OOM killer"),
        "restarts": count("--grep=Scheduled restart job", "--identifier=systemd"),
        "logins_refused": count(
            "--identifier=sshd", "--identifier=sshd-session", "--grep=Failed |Invalid user|Permission denied"
        ),
        "metadata_refused": denied(),
        "failed_units": len(failed.stdout.splitlines()),
    }
    told["text"] = (
        f"{sum(errors.values())} errors in {len(errors)} apps, {told['requests_failed']} of {told['requests']} requests failed, "
        f"{told['out_of_memory']} out of memory, {told['restarts']} restarts, {told['logins_refused']} logins refused"
    )
    print(json.dumps(told))
    return 0


# ---------------------------------------------------------------- packages


LEFT_OUT = re.compile(r"/usr/share/(doc|info|lintian|locale|man)/")  # an image may be without them


def packages(_: argparse.Namespace) -> int:
    """Compare what Debian's packages installed with their checksums; a configuration file may differ, a program may not."""
    done = subprocess.run(["dpkg", "--verify"], capture_output=True, text=True, check=False)
    # the marks of nine tests, what kind of file it is (c: configuration), its path
    rows = [re.match(r"(\S+)\s+(?:([a-z])\s+)?(/.*)", line) for line in done.stdout.splitlines()]
    differ = [row[3] for row in rows if row and row[2] != "c" and not LEFT_OUT.match(row[3])]
    for path in differ:
        print(f"pergola-job: {path} is not as its package has it", file=sys.stderr)
    told = {"configured": sum(1 for row in rows if row and row[2] == "c"), "differ": len(differ)}
    print(
        json.dumps(
            {**told, "text": f"no program differs from its package, {told['configured']} configuration files do"}
        )
    )
    return int(bool(differ))


# ---------------------------------------------------------------- capacity


def size(path: Path) -> int:
    """Return the bytes that a folder takes on disk."""
    done = subprocess.run(
        ["du", "-sxB1", str(path)], capture_output=True, text=True, check=False
    )  # files may vanish meanwhile
    return int(done.stdout.split()[0]) if done.stdout else 0


def capacity(_: argparse.Namespace) -> int:
    """Tell what is used, what it grew by since the last time, and when the disk will be full at this rate."""
    disk, now, before = shutil.disk_usage("/"), time.time(), kept("capacity")
    memory = {
        key: int(value.split()[0]) * 1024
        for key, _, value in (
            line.partition(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        )
        if key in ("MemTotal", "MemAvailable")
    }
    told: dict[str, Any] = {
        "disk_bytes": disk.total,
        "disk_used_bytes": disk.used,
        "memory_bytes": memory["MemTotal"],
        "memory_used_bytes": memory["MemTotal"] - memory["MemAvailable"],
        "load": os.getloadavg()[2],
        "journal_bytes": size(Path("/var/log/journal")),
        "apps_bytes": {
            path.name: size(path) for path in sorted(APPS.iterdir()) if path.is_dir() and path.name[0] != "."
        },
        "days_until_full": None,
    }
    text = f"disk {100 * disk.used / disk.total:.0f} % used"
    if "disk_used_bytes" in before:
        days = (now - dt.datetime.fromisoformat(before["time"]).timestamp()) / 86400
        grown = disk.used - before["disk_used_bytes"]
        text += f" ({grown / disk.total * 100:+.1f} % in {days:.0f} days)"
        if grown > 0 and days >= 1:
            told["days_until_full"] = round(disk.free / grown * days)
    text += f", memory {100 * told['memory_used_bytes'] / memory['MemTotal']:.0f} %"
    if told["days_until_full"] is not None and told["days_until_full"] < 365:
        text += f", full in {told['days_until_full']} days"
    print(json.dumps({**told, "text": text}))
    return 0


def main() -> int:
    """Run one command."""
    top = argparse.ArgumentParser(prog="pergola-job", description="The maintenance calendar of this host.")
    commands = top.add_subparsers(dest="action", required=True, metavar="command")
    for name, function, text in (
        ("run", run, "run a job now"),
        ("list", listing, "when each ran last, and how it ended"),
        ("digest", digest, "what the logs of the last day hold, as JSON"),
        ("packages", packages, "whether a file of Debian's packages was changed, as JSON"),
        ("capacity", capacity, "what is used and how it grows, as JSON"),
    ):
        one = commands.add_parser(name, help=text, description=text)
        one.set_defaults(function=function)
        if name == "run":
            one.add_argument("job", help="its name, as `pergola-job list` has it")
            one.add_argument(
                "--spread",
                type=int,
                default=0,
                metavar="MIN",
                help="begin within so many minutes, each host at its own",
            )
    options = top.parse_args()
    if os.geteuid() != 0:
        print("pergola-job: this needs root; run it with sudo", file=sys.stderr)
        return 1
    os.umask(0o022)
    try:
        return int(options.function(options))
    except (Failure, OSError, subprocess.SubprocessError) as error:
        print(f"pergola-job: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
