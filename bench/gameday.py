"""A game day: the fault catalogue against a rehearsed environment under load, and what became of it.

    python bench/gameday.py                        an environment of its own, made and removed again (an hour on two cores)
    python bench/gameday.py --faults host,zone     only these of the catalogue (`--list` names them)
    python bench/gameday.py --keep                 leave the environment for the next game day: scripts/rehearse down ends it

Visitors load pages, and writers put hackathons into VibeJudge's database and remember each that was acknowledged. Per fault: after how many
seconds something noticed (and what), after how many all was well again, requests failed, acknowledged writes that are lost.
Ends with 1 when a write is lost or a fault does not end well. Seconds are real; health checks and draining run `--speed` times as fast
as on AWS.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench import bad_releases  # noqa: E402 - the project's folder must be on the path first
from bench.environment import Environment, say  # noqa: E402
from bench.writers import Writers  # noqa: E402
from plugins.modules.acm_site_certificate import LIFE, self_signed  # noqa: E402
from prober.process import ProbeProcess  # noqa: E402
from prober.report import table  # noqa: E402

NAME, HTTPS, HTTP, PORT = "rehearsal-gameday", 29143, 29180, 29170
APPS = ["portal", "judge"]
READY = "/judge/api/health/ready"
AWAY = 30.0  # seconds that what is taken away stays away
HOG = "kept = []\nwhile True:\n    kept.append(bytearray(20_000_000))\n"
# joins every control group of a unit's main process, and then takes memory until something ends it
INTO_UNIT = """set -e
pid=$(systemctl show --property=MainPID --value {unit})
while IFS=: read -r _ kinds path; do
  for root in "/sys/fs/cgroup/${{kinds#name=}}" /sys/fs/cgroup/unified /sys/fs/cgroup; do
    if [ -w "$root$path/cgroup.procs" ]; then echo $$ >"$root$path/cgroup.procs"; break; fi
  done
done <"/proc/$pid/cgroup"
exec python3 -c '{program}'
"""
# The clock of services that begin, and that of intervals, which they only compare with itself (libfaketime 0.9.10 refuses to sleep when
# that one is left as it is); times of files stay true.
SLOW = "LD_PRELOAD=/usr/lib/libfaketime.so.1 FAKETIME=-20m FAKETIME_DISABLE_SHM=1 NO_FAKE_STAT=1"
# apps begin in their other slot, so that nobody notices
AGAIN = """systemctl daemon-reload && systemctl restart pergola-instance pergola-agent && pergola status --json | python3 -c '
import json, subprocess, sys
for app in json.load(sys.stdin)["apps"]:
    subprocess.run(["pergola", "deploy", app["app"], app["release"], "--again", "--cut-sessions", "--quiet"], check=True)
'"""


@dataclass
class Outcome:
    """How one fault ended: seconds until it was noticed (None: nothing notices it) and until all was well, and by what it was noticed."""

    detected: float | None
    recovered: float
    by: str


class Day(Environment):
    """The environment of a game day."""

    def __init__(self, speed: float) -> None:
        super().__init__(NAME, list(APPS), speed, https=HTTPS, http=HTTP, port=PORT)
        self.writers = Writers(self.url)

    @property
    def database(self) -> str:
        """Container of the database."""
        return f"{NAME}-db-pergola-rehearsal-db"

    def sql(self, text: str) -> str:
        """Run SQL in VibeJudge's database as nobody but AWS may; return what it says."""
        psql = "psql -h /run/rds -U rdsadmin -d pergola_judge -qAt -v ON_ERROR_STOP=1"
        line = ["docker", "exec", "-i", self.database, *psql.split()]
        done = subprocess.run(line, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"bench: {text}: {done.stderr}")
        return done.stdout.strip()

    def state(self, alarm: str) -> str:
        """Return the state of an alarm."""
        found = self.client("cloudwatch").describe_alarms(AlarmNames=[f"pergola-rehearsal-{alarm}"])
        return str(found["MetricAlarms"][0]["StateValue"])

    def on(self, instance: str, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script on a host; only faults do."""
        line = ["docker", "exec", f"{NAME}-{instance}", "sh", "-c", script]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    def well(self, name: str, what: str, *flags: str) -> None:
        """Run a playbook that has to end well."""
        done = self.play(name, *flags)
        if done.returncode:
            raise SystemExit(f"bench: {name} ended with {done.returncode} {what}\n{done.stdout[-3000:]}")

    def play(
        self, name: str, *flags: str, apps: list[Any] | None = None, inventory: str = "inventories/rehearsal"
    ) -> subprocess.CompletedProcess[str]:
        """Run a playbook, whatever becomes of it."""
        given = json.dumps({"pergola_apps": apps or self.apps})
        line = [".venv/bin/ansible-playbook", name, "-i", inventory, "-e", given, *flags]
        return subprocess.run(line, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)

    def answers(self, path: str = READY) -> int:
        """Return the status of a GET through the balancer; 0 when nothing answers."""
        try:
            return httpx.get(f"{self.url}{path}", verify=False, timeout=10).status_code  # noqa: S501  the rehearsal's own certificate
        except httpx.TransportError:
            return 0

    def on_host(self, instance: str, path: str) -> str:
        """Return what a host itself answers to a path, past the balancer."""
        return self.on(instance, f"curl -ksS --max-time 10 https://127.0.0.1{path}").stdout

    def free(self) -> None:
        """Give the organizer the tier that may write all day, as an operator would."""
        email = self.writers.register()
        self.sql(f"UPDATE organizer SET tier = 'enterprise' WHERE email = '{email}'")  # noqa: S608  an address made here


# ---------------------------------------------------------------- the catalogue


def host(day: Day) -> Outcome:
    """A host dies."""
    return Outcome(*day.hurt("kill"), "health checks")


def zone(day: Day) -> Outcome:
    """A zone is lost."""
    return Outcome(*day.hurt("zone"), "health checks")


def database(day: Day) -> Outcome:
    """The database is away."""
    began = time.monotonic()
    subprocess.run(["docker", "pause", day.database], check=True, stdout=subprocess.DEVNULL)
    detected = day.until(lambda: day.answers() != 200, "the apps' notice", 120)
    time.sleep(max(0.0, AWAY - detected))
    subprocess.run(["docker", "unpause", day.database], check=True, stdout=subprocess.DEVNULL)
    day.until(lambda: day.answers() == 200, "the database's return", 300)
    return Outcome(detected, time.monotonic() - began, "readiness")


def dropped(day: Day) -> Outcome:
    """A table is dropped by mistake; the database comes back as it was in the second before."""
    began = time.monotonic()
    # nobody writes for more than a second, as AWS takes whole ones
    moment = day.sql(
        "BEGIN; LOCK TABLE hackathon; SELECT to_char(date_trunc('second', clock_timestamp() AT TIME ZONE 'UTC' + interval '1 second'), "
        '\'YYYY-MM-DD"T"HH24:MI:SS"Z"\'); SELECT pg_sleep(1.1); DROP TABLE hackathon CASCADE; COMMIT;'
    ).split()[0]
    day.until(lambda: day.state("judge-errors") == "ALARM", "the alarm", 300)
    detected = time.monotonic() - began
    day.well("playbooks/restore_database.yml", "instead of bringing the database back", "-e", f"at={moment}")
    written = len(day.writers.acknowledged)
    day.until(lambda: len(day.writers.acknowledged) > written and day.answers() == 200, "the first write after it", 300)
    return Outcome(detected, time.monotonic() - began, "alarm errors")


def disk(day: Day) -> Outcome:
    """The disk of an app's state is full on a host."""
    one, folder = min(day.healthy()), "/var/lib/pergola/judge"
    began = time.monotonic()
    mounted = f"mount -t tmpfs -o size=1m,mode=1777 full {folder}"
    full = f"{mounted} && dd if=/dev/zero of={folder}/full bs=1M count=2 2>/dev/null; df {folder} | tail -1"
    said = day.on(one, full).stdout
    if "100%" not in said:
        raise SystemExit(f"bench: the disk could not be filled: {said}")
    detected = day.until(lambda: "isk" in day.on_host(one, "/api/status"), "the status page's notice", 300)
    day.on(one, f"umount {folder}")
    day.until(lambda: day.answers() == 200 and one in day.healthy(), "the host", 300)
    return Outcome(detected, time.monotonic() - began, "status page")


def memory(day: Day) -> Outcome:
    """A service takes memory past its limit."""
    one = min(day.healthy())
    unit = day.on(
        one, "systemctl list-units --plain --no-legend 'pergola-api@judge-*.service' | cut -d' ' -f1"
    ).stdout.split()[0]
    began = time.monotonic()
    day.on(one, INTO_UNIT.format(unit=unit, program=HOG))  # ends when it is ended
    detected = time.monotonic() - began
    day.until(lambda: '"ready"' in day.on_host(one, READY) or day.answers() == 200, "the service", 300)
    return Outcome(detected, time.monotonic() - began, "the unit's limit")


def network(day: Day) -> Outcome:
    """A host's network is slow: 1 kbit/s."""
    before, one = day.healthy(), min(day.healthy())
    began = time.monotonic()
    slow = day.on(one, "tc qdisc add dev eth0 root tbf rate 1kbit burst 1600 latency 400ms")
    if slow.returncode:
        raise SystemExit(f"bench: the network could not be made slow (needs iproute2 and sch_tbf): {slow.stderr}")
    day.until(lambda: one not in day.healthy(), "the balancer's notice", 300)
    detected = time.monotonic() - began
    day.on(one, "tc qdisc del dev eth0 root")
    day.until(lambda: len(day.healthy()) >= len(before), "the host or its successor")
    return Outcome(detected, time.monotonic() - began, "health checks")


def clock(day: Day) -> Outcome:
    """A host's clock is 20 minutes slow; AWS refuses what was signed more than 15 minutes ago."""
    one = min(day.healthy())
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        raise SystemExit("bench: a host's clock cannot be set without libfaketime (apt-get install libfaketime)")
    subprocess.run(
        ["docker", "cp", str(found[0]), f"{NAME}-{one}:/usr/lib/libfaketime.so.1"],
        check=True,
        stdout=subprocess.DEVNULL,
    )

    def taken(what: str) -> None:
        """Start the services again: they take the clock that is set for them then."""
        done = day.on(one, f"{what} && {AGAIN}")
        if done.returncode:
            raise SystemExit(
                f"bench: services did not start with another clock: {done.stdout[-1000:]}{done.stderr[-1000:]}"
            )

    folder = "/etc/systemd/system/service.d"
    began = time.monotonic()
    taken(f"mkdir -p {folder} && printf '[Service]\nEnvironment={SLOW}\n' >{folder}/clock.conf")
    day.until(lambda: day.state("main-clock") == "ALARM", "the alarm", 300)
    detected = time.monotonic() - began
    taken(f"rm {folder}/clock.conf")
    day.until(lambda: day.state("main-clock") == "OK" and one in day.healthy(), "the end of the alarm", 300)
    return Outcome(detected, time.monotonic() - began, "alarm clock")


def errors(day: Day) -> Outcome:
    """S3 and all of AWS answer one call in five with an error, while site.yml runs."""
    return meanwhile(day, "error", "0.2")


def throttled(day: Day) -> Outcome:
    """AWS refuses one call in three, while site.yml runs."""
    return meanwhile(day, "throttle", "0.3")


def meanwhile(day: Day, kind: str, share: str) -> Outcome:
    """Run site.yml while calls fail; it must end well, with nothing changed."""
    began = time.monotonic()
    day.run("scripts/rehearse", "fault", kind, share)
    try:
        day.well("site.yml", f"under {kind}")
    finally:
        day.run("scripts/rehearse", "fault", "none")
    return Outcome(0.0, time.monotonic() - began, "each call's retries")


def certificate(day: Day) -> Outcome:
    """The balancer's certificate has expired."""
    acm, began = day.client("acm"), time.monotonic()
    arn = str(acm.list_certificates()["CertificateSummaryList"][0]["CertificateArn"])
    # ACM takes none that has expired: this one does in a few seconds
    made = dt.datetime.now(dt.UTC) - LIFE + dt.timedelta(seconds=10)
    acm.import_certificate(CertificateArn=arn, **self_signed("rehearsal.example.test", [], made))
    detected = day.until(lambda: expires() < dt.datetime.now(dt.UTC), "the expired certificate at the balancer", 120)
    day.well("site.yml", "instead of replacing the certificate")
    day.until(lambda: expires() > dt.datetime.now(dt.UTC), "a certificate that is valid", 120)
    return Outcome(detected, time.monotonic() - began, "visitors' browsers; alarm days before")


def expires() -> dt.datetime:
    """Return when the certificate ends that visitors see now."""
    pem = ssl.get_server_certificate(("127.0.0.1", HTTPS))
    return x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc


def secret(day: Day) -> Outcome:
    """A secret was deleted."""
    began = time.monotonic()
    day.client("secretsmanager").delete_secret(
        SecretId="pergola-rehearsal/judge/session_key", ForceDeleteWithoutRecovery=True
    )
    found = day.play("playbooks/drift.yml")
    if found.returncode == 0 or "session_key" not in found.stdout:
        raise SystemExit(f"bench: drift.yml did not notice the deleted secret\n{found.stdout[-3000:]}")
    detected = time.monotonic() - began
    day.well("site.yml", "instead of making the secret again")
    return Outcome(detected, time.monotonic() - began, "drift.yml")


def release(day: Day) -> Outcome:
    """A poisoned release is deployed, and meanwhile a second operator deploys as well."""
    with tempfile.TemporaryDirectory() as scratch:
        kind = next(each for each in bad_releases.KINDS if each.name == "script raises")
        folder = bad_releases.copy("judge", Path(scratch), f"game day {time.time_ns()}", kind.change)
        apps = [{"path": str(folder)} if app == "judge" else app for app in APPS]
        with ThreadPoolExecutor(2) as operators:
            deploying = [operators.submit(day.play, "playbooks/deploy.yml", "-e", "allow_dirty=true", apps=apps)]
            began = time.monotonic()
            time.sleep(20)
            # of another name, as on another machine: on one machine the second run of an inventory does not begin at all
            desk = shutil.copytree(ROOT / "inventories" / "rehearsal", Path(scratch) / "another-desk")
            line = ("playbooks/deploy.yml", "-e", "allow_dirty=true")
            deploying.append(operators.submit(day.play, *line, apps=apps, inventory=str(desk)))
            ended = [one.result() for one in deploying]
    recovered = time.monotonic() - began
    for reason in ("taken back: ", "its lease ends in "):  # one of them has the lease, and the release does not work
        found = [
            line.strip() for done in ended if done.returncode for line in done.stdout.splitlines() if reason in line
        ]
        if not found:
            raise SystemExit(
                f"bench: no deploy ended with {reason!r}\n"
                + "\n".join(done.stdout[-2000:] + done.stderr[-500:] for done in ended)
            )
        say(f"  {found[0][:200]}")
    return Outcome(recovered, recovered, "deep readiness; the lease")


CATALOGUE: dict[str, Callable[[Day], Outcome]] = {
    "host": host, "zone": zone, "database": database, "dropped": dropped, "disk": disk, "memory": memory, "network": network,
    "clock": clock, "errors": errors, "throttled": throttled, "certificate": certificate, "secret": secret, "release": release,
}  # fmt: skip


@contextlib.contextmanager
def load(day: Day, seen: dict[str, Any]) -> Iterator[None]:
    """Have visitors and writers meanwhile; what they saw is in `seen` afterwards."""
    writers = day.writers
    writers.over.clear()
    writers.refused, already = 0, len(writers.acknowledged)
    thread = threading.Thread(target=writers.run)
    thread.start()
    try:
        with ProbeProcess(day.url, "--rate=10", "--get=/health", "--post=", "--sessions=0") as probe:
            time.sleep(3)
            yield
            time.sleep(3)
            seen |= probe.stop()
    finally:
        writers.over.set()
        thread.join()
    seen["written"], seen["refused"] = len(writers.acknowledged) - already, writers.refused


def arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", default=",".join(CATALOGUE), help="comma-separated (default: all)")
    parser.add_argument("--list", action="store_true", help="name the faults and end")
    parser.add_argument("--keep", action="store_true", help="leave the environment, and use one that is there")
    parser.add_argument("--speed", type=float, default=10, help="cloud seconds in one of ours (default %(default)s)")
    return parser.parse_args()


def main() -> int:
    """Break everything once and print the matrix."""
    options = arguments()
    if options.list:
        print("\n".join(f"{name:<12} {fault.__doc__}" for name, fault in CATALOGUE.items()))
        return 0
    chosen = options.faults.split(",")
    if unknown := set(chosen) - set(CATALOGUE):
        raise SystemExit(f"bench: no such fault: {', '.join(sorted(unknown))}; there are {', '.join(CATALOGUE)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    day = Day(options.speed)
    rows: list[list[object]] = []
    bad = 0
    try:
        if not options.keep:
            day.run("scripts/rehearse", "down")
        if options.keep and day.answers() == 200:
            say("the environment of the last game day is there")
        else:
            say(f"an environment: {day.up():.0f} s")
        day.free()
        for name in chosen:
            say(f"{name}: {CATALOGUE[name].__doc__}")
            seen, before = dict[str, Any](), frozenset(day.writers.acknowledged)
            with load(day, seen):
                outcome = CATALOGUE[name](day)
            lost = day.writers.lost(before)
            bad += lost > 0
            noticed = "-" if outcome.detected is None else f"{outcome.detected:.0f}"
            rows.append([
                name, noticed, outcome.by, f"{outcome.recovered:.0f}", seen["sent"], seen["failed"], seen["written"],
                seen["refused"], lost,
            ])  # fmt: skip
            say("  " + " ".join(str(cell) for cell in rows[-1]))
        at_the_end = day.writers.lost()
        bad += at_the_end > 0
    finally:
        if not options.keep:
            day.run("scripts/rehearse", "down")
    heads = ["fault", "detected s", "by", "recovered s", "requests", "failed", "writes", "refused", "lost"]
    print(table(heads, rows))
    print(
        f"real seconds; health checks and draining {options.speed:g} times as fast as on AWS; load {os.getloadavg()[0]:.1f}"
    )
    print(f"of {len(day.writers.acknowledged)} acknowledged writes of the whole day {at_the_end} are lost")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
