"""What visitors notice of deploys, what becomes of bad releases, and how long it all takes, in a rehearsed environment of its own.

    python bench/deploys.py                          everything, five times (four hours on a small machine)
    python bench/deploys.py --repeat 1 --parts good,rollback
    python bench/deploys.py --no-bodies              killed and times only, in an account without containers: minutes

Parts: good, rollback, dies (a new host dies in the middle), grows (the group scales out meanwhile), reboot (a host, without a deploy),
restart (the plain way, for contrast), bad (ten kinds of bad release), killed (the controller, with -9, at twelve points), baked (a host
from a baked image), times. Hosts boot from an image that is baked first; with --bare they begin as Debian's own.
Seconds are real ones; health checks and draining run `--speed` times as fast as on AWS, boots do not. Ends with 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

from botocore.exceptions import ClientError

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from app.core import cloud, manifest  # noqa: E402 - the project's folder must be on the path first
from app.core.cloud.site import COLOURS  # noqa: E402
from bench import bad_releases  # noqa: E402
from bench.bars import Bars  # noqa: E402
from bench.environment import Environment, say  # noqa: E402
from deploys import releases  # noqa: E402
from deploys.engine import Engine  # noqa: E402
from deploys.spec import Fleet, Release, Spec  # noqa: E402
from deploys.store import CURRENT, LEASE  # noqa: E402
from prober.process import ProbeProcess  # noqa: E402
from prober.report import table  # noqa: E402

NAME, HTTPS, HTTP, PORT = "rehearsal-deploys", 29943, 29980, 29970
VISIT = 90  # seconds of the cloud that a session lasts while a host reboots
VISITED = ("good", "rollback", "dies", "grows", "reboot")
PARTS = (*VISITED, "restart", "bad", "killed", "baked", "times")
BODILESS = ("killed", "times")
ENOUGH = 20_000  # requests behind "none failed"
WARM_SECONDS, BAKED_SECONDS = 5.0, 30.0  # goals
NEAR_FLAT = 2.0  # ten hosts may take this many times as long as two
SECOND_RUN_SECONDS = 120.0


# ---------------------------------------------------------------- what is measured


@dataclass(frozen=True)
class Outcome:
    """How a command of ``deploys`` ended: exit code, seconds, its lines with the second in which each came, its result."""

    code: int
    seconds: float
    lines: Sequence[tuple[float, str]]
    result: dict[str, Any]

    def at(self, pattern: str) -> float | None:
        """Return the second of the first line that matches."""
        return next((seconds for seconds, line in self.lines if re.search(pattern, line)), None)

    @property
    def reason(self) -> str:
        """Why it failed."""
        return str(self.result.get("msg", ""))


def command(
    name: str, description: dict[str, Any], on_line: Callable[[subprocess.Popen[str], str], None] | None = None
) -> Outcome:
    """Run ``python -m deploys`` as the playbooks do, and follow what it says."""
    began, lines, last = time.monotonic(), list[tuple[float, str]](), ""
    process = subprocess.Popen(
        [sys.executable, "-m", "deploys", name], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    if process.stdin is None or process.stdout is None:
        raise SystemExit("bench: the pipes to a deploy could not be made")
    process.stdin.write(json.dumps(description) + "\n")
    process.stdin.flush()
    for line in process.stdout:
        last = line.strip()
        lines.append((time.monotonic() - began, last))
        if on_line:
            on_line(process, last)
    code = process.wait()
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        result = json.loads(last)
    except ValueError:
        result = {}
    return Outcome(code, time.monotonic() - began, lines, result if isinstance(result, dict) else {})


def summary(values: Sequence[float]) -> str:
    """Return median and worst of some numbers."""
    return f"{statistics.median(values):.1f} / {max(values):.1f}" if values else "-"


def visitors_row(what: str, reports: Sequence[dict[str, Any]], seconds: Sequence[float]) -> list[object]:
    """Return the row of a part: what all its runs sent and lost, medians and worst."""
    return [
        what, len(reports), sum(row["sent"] for row in reports), sum(row["failed"] for row in reports),
        sum(row["sockets_cut"] for row in reports), summary([row["longest_gap_seconds"] for row in reports]), summary(seconds),
    ]  # fmt: skip


# ---------------------------------------------------------------- where it is measured


class Ground(Protocol):
    """An environment with releases that can be deployed in turn."""

    def describe(self, number: int) -> dict[str, Any]:
        """Return the description of a deploy to one of the releases; two numbers of different parity are two releases."""

    def engine(self) -> Engine:
        """Return something that can look."""


class Site:
    """The rehearsed environment with containers."""

    def __init__(self, options: argparse.Namespace, scratch: Path) -> None:
        self.options, self.scratch = options, scratch
        self.environment = Environment(NAME, options.apps.split(","), options.speed, https=HTTPS, http=HTTP, port=PORT)
        self.built: list[dict[str, Any]] = []  # records of the good releases
        self.bake_seconds = 0.0
        os.environ |= {key: self.environment.environment[key] for key in ("AWS_ENDPOINT_URL",)}
        os.environ |= {"AWS_ACCESS_KEY_ID": "rehearsal", "AWS_SECRET_ACCESS_KEY": "any-but-a-word-that-occurs"}

    def up(self) -> None:
        """Make it from nothing."""
        self.environment.run("scripts/rehearse", "down")
        say(f"an environment from nothing: {self.environment.up():.0f} s")

    def stands(self) -> bool:
        """Return whether an environment of this name is there and serves."""
        try:
            return bool(self.environment.healthy())
        except SystemExit:
            return False

    def bake(self) -> None:
        """Bake an image, and have every host that comes from now on boot it."""
        began = time.monotonic()
        self.play("bake", allow_dirty=True)
        self.bake_seconds = time.monotonic() - began
        say(f"an image: {self.bake_seconds:.0f} s")
        self.environment.up()

    def plan(self) -> dict[str, Any]:
        """Return the plan's section of a deploy, with this bench's address and times."""
        given, apps = self.environment.settings(), manifest.load_all(ROOT, self.environment.apps)
        account = self.environment.client("sts").get_caller_identity()["Account"]
        plan = cloud.build(given, apps, environment="rehearsal", account=account)["deploy"]
        probe = {**plan["probe"], "url": self.environment.url}
        return {
            **plan, "probe": probe, "bake_seconds": self.options.bake, "ready_seconds": self.options.ready,
            "lease_seconds": 15, "operator": "bench", "keep_old_seconds": 3600,
        }  # fmt: skip

    def describe_record(self, record: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """Return the description of a deploy of a recorded release; without a record, of what was live before."""
        plan = self.plan()
        none = {"key": "", "sha256": "0" * 64}
        wanted = {name: {key: row[key] for key in none} for name, row in record.get("fleets", {}).items()}
        return {
            **plan,
            "fleets": [{**row, "release": wanted.get(row["name"], none)} for row in plan["fleets"]],
            **changes,
        }

    def describe(self, number: int) -> dict[str, Any]:
        """Return the description of a deploy of one of two good releases."""
        while len(self.built) < 2:
            self.built.append(self.release(f"good {len(self.built)}")[0])
        return self.describe_record(self.built[number % 2])

    def engine(self) -> Engine:
        """Return something that can look."""
        return Engine(Spec.of(self.describe_record({})), lambda _: None, threading.Event())

    def release(self, stamp: str, change: Callable[[Path], None] = lambda _: None) -> tuple[dict[str, Any], float]:
        """Build and upload a changed copy of the app by the playbook; return the release's record and the seconds."""
        folder = bad_releases.copy(self.options.app, self.scratch, f"{stamp} {time.time_ns()}", change)
        apps = [{"path": str(folder)} if app == self.options.app else app for app in self.environment.apps]
        before = {row["id"] for row in releases.listed(self.engine().store)}
        began = time.monotonic()
        self.play("release", pergola_apps=apps, allow_dirty=True, keep=1000)
        seconds = time.monotonic() - began
        (made,) = (row for row in releases.listed(self.engine().store) if row["id"] not in before)
        return made, seconds

    def play(self, name: str, **variables: Any) -> None:
        """Run a playbook."""
        given = {"pergola_apps": self.environment.apps, **variables}
        self.environment.run(
            ".venv/bin/ansible-playbook",
            f"playbooks/{name}.yml",
            "-i",
            "inventories/rehearsal",
            "-e",
            json.dumps(given),
        )

    def _first(self) -> tuple[Engine, Fleet, str]:
        """Return something that can look, the first fleet, and its live colour."""
        engine = self.engine()
        fleet = engine.spec.fleets[0]
        return engine, fleet, engine.live(fleet)

    def live(self) -> tuple[str, list[str]]:
        """Return the live colour of the first fleet and its hosts."""
        engine, fleet, colour = self._first()
        return colour, sorted(engine.cloud.hosts(fleet, colour))

    def serving(self) -> list[str]:
        """Return the healthy hosts of the live colour of the first fleet; those of the other one may be warm still."""
        engine, fleet, colour = self._first()
        return sorted(host for host, state in engine.cloud.hosts(fleet, colour).items() if state == "healthy")

    def standing(self) -> tuple[str, Release | None]:
        """Return the live colour of the first fleet and its release."""
        engine, fleet, colour = self._first()
        return colour, engine.cloud.release_of(fleet.groups[colour])

    @contextlib.contextmanager
    def visitors(self, *more: str) -> Iterator[dict[str, Any]]:
        """Have visitors while something happens; what they saw is in the mapping afterwards. ``more`` are flags of the prober."""
        seen: dict[str, Any] = {}
        flags = [f"--rate={self.options.rate}", f"--sessions={self.options.sessions}", "--rerun-seconds=1", *more]
        with ProbeProcess(self.environment.url, *flags) as probe:
            time.sleep(self.options.around)
            probe.mark("during")
            yield seen
            probe.mark("after")
            time.sleep(self.options.around)
            seen |= probe.stop()
        for failure, count in seen["failures"].items():
            say(f"  {count} x {failure}")
        for cut in seen["sockets_cut_why"]:
            say(f"  session cut: {cut}")


class Account:
    """An account without containers, in which every host is healthy as soon as it is launched."""

    def __init__(self, state: Path) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = int(sock.getsockname()[1])
        self._command = [sys.executable, "-m", "rehearsal", "--state", str(state)]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        os.environ |= {
            "AWS_ENDPOINT_URL": self.endpoint, "AWS_ACCESS_KEY_ID": "rehearsal", "AWS_SECRET_ACCESS_KEY": "rehearsal",
        }  # fmt: skip

    def __enter__(self) -> Self:
        """Start it."""
        flags = ["--no-bodies", "--speed", "50", "--port", str(self.port), "--name", f"bench-{self.port}"]
        subprocess.run([*self._command, "up", *flags], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        subprocess.run([*self._command, "down"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


class Bodiless:
    """An environment in such an account."""

    def __init__(self, account: Account, hosts: int = 2) -> None:
        # the tests' own environment: what is timed here is what is tested there
        from tests.deploys.conftest import Environment as Emulated  # noqa: PLC0415 - only this way round needs pytest

        self.hosts, self.environment = hosts, Emulated(account.endpoint, hosts=hosts)

    def spec(self, release: str) -> Spec:
        """Return a deploy of a release that has a name only."""
        spec: Spec = self.environment.spec(release)
        fleets = tuple(replace(fleet, high=2 * self.hosts, desired=self.hosts) for fleet in spec.fleets)
        return replace(spec, fleets=fleets, bake_seconds=1, lease_seconds=5, keep_old_seconds=3600)

    def describe(self, number: int) -> dict[str, Any]:
        """Return the description of a deploy of one of two releases."""
        from tests.deploys.conftest import plain  # noqa: PLC0415 - see above

        return dict(plain(self.spec(f"release {number % 2}")))

    def engine(self) -> Engine:
        """Return something that can look."""
        return Engine(self.spec("one"), lambda _: None, threading.Event())


# ---------------------------------------------------------------- good, rollback, dies, grows, reboot, restart


def settled(site: Site) -> None:
    """Let the colour that visitors left give its hosts back, so that the next deploy begins as the first did."""
    engine, groups = site.engine(), site.environment.client("autoscaling")
    for fleet in engine.spec.fleets:
        other = COLOURS[1 - COLOURS.index(engine.live(fleet))]
        name = fleet.groups[other]
        engine.cloud.stay(name)
        engine.cloud.resize(name, 0, 0, 0)
        hooks = groups.describe_lifecycle_hooks(AutoScalingGroupName=name)["LifecycleHooks"]

        def gone(fleet: Fleet = fleet, other: str = other, name: str = name, hooks: list[Any] = hooks) -> bool:
            """Let hosts go that wait for their visitors' end: there are none, and one that never came up would not tell."""
            hosts = engine.cloud.hosts(fleet, other)
            held = [host for host, state in hosts.items() if state == "Terminating:Wait"]
            for host, hook in itertools.product(held, hooks):
                if hook["LifecycleTransition"].endswith("TERMINATING"):
                    with contextlib.suppress(ClientError):  # it has told itself
                        groups.complete_lifecycle_action(
                            AutoScalingGroupName=name, LifecycleHookName=hook["LifecycleHookName"], InstanceId=host,
                            LifecycleActionResult="CONTINUE",
                        )  # fmt: skip
            return not hosts

        site.environment.until(gone, "the end of the old colour")


def calm(site: Site) -> None:
    """Wait until no alarm fires: what the last bad release logged is told for some minutes, and nothing is deployed into an alarm."""
    engine = site.engine()
    site.environment.until(lambda: not engine.cloud.firing(engine.spec.alarms), "the end of the last alarm", 600)


def once_at(pattern: str, action: Callable[[], None]) -> Callable[[subprocess.Popen[str], str], None]:
    """Do something, in a thread of its own, when the first line comes that matches."""
    begun = threading.Event()

    def on_line(_: subprocess.Popen[str], line: str) -> None:
        if not begun.is_set() and re.search(pattern, line):
            begun.set()
            threading.Thread(target=action, daemon=True).start()

    return on_line


def kill_a_new_host(site: Site) -> None:
    """Kill a host of the colour that visitors are moving to."""
    engine = site.engine()
    fleet = engine.spec.fleets[0]
    new = COLOURS[1 - COLOURS.index(engine.live(fleet))]  # weight 10: the old colour has more
    site.environment.run("scripts/rehearse", "fault", "kill", min(engine.cloud.hosts(fleet, new)))


def scale_out(site: Site) -> None:
    """Ask for one more host in the colour that is live."""
    colour, hosts = site.live()
    group = site.engine().spec.fleets[0].groups[colour]
    site.environment.client("autoscaling").set_desired_capacity(
        AutoScalingGroupName=group, DesiredCapacity=len(hosts) + 1
    )


def reboot(site: Site) -> float:
    """Reboot a live host and wait until its group has another one in its place; return the seconds."""
    before = site.serving()
    victim = before[0]

    def mended() -> bool:
        return len(now := site.serving()) >= len(before) and victim not in now

    site.environment.client("ec2").reboot_instances(InstanceIds=[victim])
    return site.environment.until(mended, "the rebooted host's successor")


def rolling_restart(site: Site) -> float:
    """Restart the apps of one host after the other, as plain scripts do; return the seconds."""
    began = time.monotonic()
    for host in site.live()[1]:
        script = "for u in $(systemctl list-units --plain --no-legend 'pergola-api@*' 'pergola-ui@*' | cut -d' ' -f1); do echo $u; done"
        found = subprocess.run(
            ["docker", "exec", f"{NAME}-{host}", "sh", "-c", script], capture_output=True, text=True, check=True
        )
        units = found.stdout.split()
        for verb in ("stop", "start"):
            subprocess.run(["docker", "exec", f"{NAME}-{host}", "systemctl", verb, *units], check=True)
        time.sleep(10)
    return time.monotonic() - began


def visited(site: Site, part: str, number: int) -> tuple[dict[str, Any], float]:
    """Do one part under the eyes of visitors; return their report and the seconds."""
    if part in {"good", "dies", "grows"}:
        settled(site)
    description = site.describe_record({}) if part == "rollback" else site.describe(number)
    watch = {
        "dies": once_at(r"weight 10 .*watched", lambda: kill_a_new_host(site)),
        "grows": once_at(r"hosts healthy", lambda: scale_out(site)),
    }.get(part)
    # EC2 gives a reboot four minutes, so whoever visits for longer is cut: these leave in time
    with site.visitors(*([f"--visit-seconds={VISIT / site.options.speed}"] if part == "reboot" else [])) as seen:
        if part == "reboot":
            seconds = reboot(site)
        elif part == "restart":
            seconds = rolling_restart(site)
        else:
            done = command("rollback" if part == "rollback" else "deploy", description, watch)
            if done.code or not done.result.get("changed"):
                raise SystemExit(f"bench: {part}: {done.reason or 'nothing was changed'}")
            seconds = done.seconds
    return seen, seconds


def visits(site: Site, parts: Sequence[str], repeat: int, bars: Bars) -> list[list[object]]:
    """Measure the parts that visitors judge; return the rows of their table."""
    reports: dict[str, list[dict[str, Any]]] = {part: [] for part in parts}
    seconds: dict[str, list[float]] = {part: [] for part in parts}
    moved = 0
    for run in range(repeat):
        for part in parts:
            say(f"{part}, {run + 1} of {repeat}")
            if part == "rollback" and not any(done in parts for done in ("good", "dies", "grows")):
                settled(site)
                command("deploy", site.describe(moved))
                moved += 1
            try:
                seen, took = visited(site, part, moved)
            except SystemExit as error:  # the others are measured all the same
                say(str(error))
                bars.hold(f"{part}, {run + 1} of {repeat}: {str(error)[:80]}", 1, 0)
                continue
            moved += part in {"good", "dies", "grows"}
            moved -= part == "rollback"
            reports[part].append(seen)
            seconds[part].append(took)
            say(f"  {took:.0f} s, {seen['sent']} requests, {seen['failed']} failed, {seen['sockets_cut']} sessions cut")
    judged = [row for part in parts if part in VISITED for row in reports[part]]
    if judged:
        bars.hold(
            "requests in good, rollback, dies, grows, reboot", sum(row["sent"] for row in judged), ENOUGH, least=True
        )
        bars.hold("of these failed", sum(row["failed"] for row in judged), 0)
        bars.hold("sessions cut", sum(row["sockets_cut"] for row in judged), 0)
    return [visitors_row(part, reports[part], seconds[part]) for part in parts]


# ---------------------------------------------------------------- bad releases


def tear(site: Site, record: dict[str, Any]) -> None:
    """Have the bucket hold something else than the release says: the app's archive is torn."""
    store = site.engine().store
    for fleet in record["fleets"].values():
        found = store.read(fleet["key"])
        for bundle in found[0]["bundles"] if found else ():
            if bundle["app"] == site.options.app:
                site.environment.client("s3").put_object(
                    Bucket=store.bucket, Key=bundle["archive"]["key"], Body=b"torn"
                )


def highest_weight(outcome: Outcome) -> int:
    """Return the largest share of visitors, in per cent, that a deploy had given to the new colour when it was taken back."""
    if found := re.search(r"at weight (\d+)", outcome.reason):
        return int(found[1])
    return 0


def bad(site: Site, repeat: int, bars: Bars) -> list[list[object]]:
    """Deploy every kind of bad release; return the rows of their table."""
    rows = []
    for kind in (kind for kind in bad_releases.KINDS if kind.name in site.options.kinds):
        safe, failed, sent, weights, kept, reasons = list[float](), 0, 0, list[int](), 0, set[str]()
        record: dict[str, Any] | None = None
        for run in range(repeat):
            say(f"bad: {kind.name}, {run + 1} of {repeat}")
            settled(site)
            calm(site)
            if record is None:  # the same release may be tried as often as one likes
                record, _ = site.release(kind.name, kind.change)
                if kind.torn:
                    tear(site, record)
            before = site.standing()
            with site.visitors() as seen:
                done = command("deploy", site.describe_record(record))
            kept += done.code == 1 and site.standing() == before and done.reason.startswith("taken back")
            back = done.at(r" back ")
            safe.append(done.seconds - (back if back is not None else 0))
            weights.append(highest_weight(done))
            failed, sent = failed + seen["failed"], sent + seen["sent"]
            say(f"  {done.seconds:.0f} s, {seen['failed']} of {seen['sent']} failed, code {done.code}: {done.reason}")
            reasons.add(re.sub(r"\b(i-[0-9a-f]+|\d+(\.\d+)?)\b", "…", done.reason)[:70])
        share = max(weights) / 100
        bars.hold(f"{kind.name}: taken back by itself", kept, repeat, least=True)
        bars.hold(f"{kind.name}: requests failed within the canary's share", failed, int(share * sent))
        rows.append(
            [
                kind.name,
                f"{kept} of {repeat}",
                max(weights),
                f"{failed} of {sent}",
                summary(safe),
                "; ".join(sorted(reasons)),
            ]
        )
    return rows


# ---------------------------------------------------------------- killed with -9


@dataclass(frozen=True)
class Point:
    """A moment of a deploy: so long after the first line that matches; ``bakes`` is in times for which a weight is watched."""

    name: str
    pattern: str
    seconds: float = 0
    bakes: float = 0


POINTS = (
    Point("launch, at once", r" launch "),
    Point("launch, hosts are asked for", r" launch ", seconds=0.3),
    Point("ready, first look", r" ready .*hosts healthy"),
    Point("ready, hosts start", r" ready .*hosts healthy", seconds=0.2),
    Point("ready, all are", r" ready +after "),
    Point("weight 10, watched", r" ready +after ", bakes=0.6),
    Point("weight 10, over", r" weight 10 .*watched"),
    Point("weight 50, watched", r" weight 10 .*watched", bakes=0.6),
    Point("weight 50, over", r" weight 50 .*watched"),
    Point("weight 100, watched", r" weight 50 .*watched", bakes=0.6),
    Point("weight 100, over", r" weight 100 .*watched"),
    Point("live, before it is closed", r" live .*serves"),
)


def killer(point: Point, bake_seconds: float) -> Callable[[subprocess.Popen[str], str], None]:
    """Return what kills the controller, and the prober that it started, at a point."""
    begun = threading.Event()

    def on_line(process: subprocess.Popen[str], line: str) -> None:
        if begun.is_set() or not re.search(point.pattern, line):
            return
        begun.set()
        delay = point.seconds + point.bakes * bake_seconds
        threading.Timer(delay, lambda: process.poll() is None and process.send_signal(signal.SIGKILL)).start()

    return on_line


def unclean(engine: Engine, description: dict[str, Any]) -> str:
    """Return what is not as after a good deploy; empty when all is."""
    if engine.store.read(CURRENT):
        return "a deploy is still under way"
    if engine.store.read(LEASE):
        return "the lease is still held"
    wanted = {row["name"]: row["release"]["sha256"] for row in description["fleets"]}
    for fleet in engine.spec.fleets:
        weights, live = engine.cloud.weights(fleet), engine.live(fleet)
        release = engine.cloud.release_of(fleet.groups[live])
        states = list(engine.cloud.hosts(fleet, live).values())
        if sorted(weights.values()) != [0, 100]:
            return f"weights {weights}"
        if not release or release.sha256 != wanted[fleet.name]:
            return f"{live} has another release"
        if not states or set(states) != {"healthy"}:
            return f"hosts of {live}: {states}"
    return ""


def killed(ground: Ground, repeat: int, bars: Bars) -> list[list[object]]:
    """Kill the controller at each point, then deploy again; return the rows of the table."""
    rows, number = [], 1  # release 0 may be live already
    for point in POINTS:
        seconds, clean, hit, problems = list[float](), 0, 0, set[str]()
        for run in range(repeat):
            say(f"killed: {point.name}, {run + 1} of {repeat}")
            description = ground.describe(number)
            number += 1
            first = command("deploy", description, killer(point, description["bake_seconds"]))
            hit += first.code == -signal.SIGKILL
            began = time.monotonic()
            again = command("deploy", description)
            while again.code and "one at a time" in again.reason and time.monotonic() - began < SECOND_RUN_SECONDS:
                time.sleep(0.5)  # the lease of the dead one
                again = command("deploy", description)
            problem = again.reason if again.code else unclean(ground.engine(), description)
            clean += not problem
            problems |= {problem} - {""}
            seconds.append(time.monotonic() - began)
        bars.hold(f"killed at {point.name!r}: clean after a second run", clean, repeat, least=True)
        rows.append(
            [
                point.name,
                f"{hit} of {repeat}",
                f"{clean} of {repeat}",
                summary(seconds),
                "; ".join(sorted(problems))[:80],
            ]
        )
    bars.hold(
        "runs that were dead before their end",
        sum(int(str(row[1]).split()[0]) for row in rows),
        len(POINTS) * repeat,
        least=True,
    )
    return rows


# ---------------------------------------------------------------- times


def motion(account: Account, hosts: int, repeat: int) -> tuple[list[float], list[float]]:
    """Deploy to so many hosts without bodies, and back while they are warm; return the seconds of both, without the watching."""
    ground, forward, back = Bodiless(account, hosts), list[float](), list[float]()
    for run in range(repeat):
        say(f"times: {hosts} hosts, {run + 1} of {repeat}")
        description = ground.describe(0)
        there = command("deploy", description)
        here = command(
            "rollback",
            {
                **description,
                "fleets": [{**row, "release": {"key": "", "sha256": "0" * 64}} for row in description["fleets"]],
            },
        )
        for done in (there, here):
            if done.code or not done.result.get("changed"):
                raise SystemExit(f"bench: {hosts} hosts: {done.reason or 'nothing was changed'}")
        forward.append(there.seconds - len(description["weights"]) * description["bake_seconds"])
        back.append(here.seconds)
        engine = ground.engine()
        group = engine.spec.fleets[0].groups["green"]
        ground.environment.until(lambda engine=engine: not engine.cloud.hosts(engine.spec.fleets[0], "green"))
        engine.cloud.stay(group)
    return forward, back


def times(account: Account, repeat: int, bars: Bars) -> list[list[object]]:
    """Measure the motion itself, without hosts that take their time to boot."""
    few, back = motion(account, 2, repeat)
    many, back_many = motion(account, 10, repeat)
    bars.hold("ten hosts against two, times", round(statistics.median(many) / statistics.median(few), 2), NEAR_FLAT)
    bars.hold("rollback while warm, median seconds", round(statistics.median([*back, *back_many]), 1), WARM_SECONDS)
    return [
        ["deploy of 2 hosts that boot at once, without watching", repeat, summary(few)],
        ["deploy of 10 hosts that boot at once, without watching", repeat, summary(many)],
        ["rollback while warm, 2 hosts", repeat, summary(back)],
        ["rollback while warm, 10 hosts", repeat, summary(back_many)],
    ]


def with_bodies(site: Site, repeat: int, bars: Bars) -> list[list[object]]:
    """Measure what needs real hosts: building a release, a deploy of two hosts, the way back by command and by playbook."""
    built, forward, back, played = list[float](), list[float](), list[float](), list[float]()
    for run in range(repeat):
        say(f"times with hosts, {run + 1} of {repeat}")
        settled(site)
        record, seconds = site.release(f"times {run}")
        built.append(seconds)
        for how in ("command", "playbook"):
            done = command("deploy", site.describe_record(record))
            if done.code:
                raise SystemExit(f"bench: times: {done.reason}")
            if how == "command":
                forward.append(done.seconds)
                back.append(command("rollback", site.describe_record({})).seconds)
                settled(site)
            else:
                began = time.monotonic()
                site.play("rollback")
                played.append(time.monotonic() - began)
    bars.hold("rollback while warm, with hosts, median seconds", round(statistics.median(back), 1), WARM_SECONDS)
    return [
        ["release.yml after a change of one app", repeat, summary(built)],
        ["deploy of 2 hosts, watching included", repeat, summary(forward)],
        ["rollback while warm", repeat, summary(back)],
        ["the same by rollback.yml", repeat, summary(played)],
    ]


def baked(site: Site, repeat: int, bars: Bars) -> list[list[object]]:
    """Launch hosts of the baked image that swap one app's release in."""
    record, _ = site.release("baked")
    settled(site)
    if (done := command("deploy", site.describe_record(record))).code:
        raise SystemExit(f"bench: baked: {done.reason}")
    launches = []
    for run in range(repeat):
        say(f"baked: one more host, {run + 1} of {repeat}")
        colour, hosts = site.live()
        group = site.engine().spec.fleets[0].groups[colour]
        site.environment.resize(group, len(hosts) + 1)
        launches.append(site.environment.until(lambda hosts=hosts: set(site.serving()) - set(hosts), "one more host"))
        site.environment.resize(group, len(hosts))
        site.environment.until(lambda hosts=hosts: len(site.live()[1]) == len(hosts), "the end of the extra host")
    bars.hold(
        "launch to healthy from the baked image, median seconds", round(statistics.median(launches), 1), BAKED_SECONDS
    )
    return [
        ["bake.yml", 1, f"{site.bake_seconds:.1f}"],
        ["launch to healthy, baked image, release swapped", repeat, summary(launches)],
    ]


# ---------------------------------------------------------------- the whole


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="", help="comma-separated (default: all that can be done)")
    parser.add_argument("--repeat", type=int, default=5, help="times that each is done (default %(default)s)")
    parser.add_argument("--no-bodies", action="store_true", help=f"without containers: {', '.join(BODILESS)} only")
    parser.add_argument("--apps", default="portal,wine", help="comma-separated (default %(default)s)")
    parser.add_argument("--app", default="wine", help="the one that is changed (default %(default)s)")
    parser.add_argument("--speed", type=float, default=10, help="cloud seconds in one of ours (default %(default)s)")
    parser.add_argument("--rate", type=float, default=20, help="requests a second (default %(default)s)")
    parser.add_argument("--sessions", type=int, default=3, help="live sessions (default %(default)s)")
    parser.add_argument(
        "--around", type=float, default=10, help="seconds of visitors before and after (default %(default)s)"
    )
    parser.add_argument(
        "--bake", type=float, default=15, help="seconds for which a weight is watched (default %(default)s)"
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave the environment; use the one that an earlier run left"
    )
    names = ", ".join(kind.name for kind in bad_releases.KINDS)
    parser.add_argument(
        "--kinds", default="", help=f"of bad release, comma-separated (all of {names})".replace("%", "%%")
    )
    parser.add_argument("--bare", action="store_true", help="hosts boot Debian's image, not a baked one: minutes each")
    parser.add_argument("--ready", type=float, help="seconds for hosts to be ready (default: 180, with --bare 600)")
    options = parser.parse_args(given)
    options.ready = options.ready or (600 if options.bare else 180)
    possible = BODILESS if options.no_bodies else [part for part in PARTS if part != "baked" or not options.bare]
    options.parts = options.parts.split(",") if options.parts else list(possible)
    if unknown := set(options.parts) - set(possible):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(possible)}")
    options.kinds = options.kinds.split(",") if options.kinds else [kind.name for kind in bad_releases.KINDS]
    if unknown := set(options.kinds) - {kind.name for kind in bad_releases.KINDS}:
        parser.error(f"no such kind: {', '.join(sorted(unknown))}; there are {names}")
    if options.repeat < 1:
        parser.error("--repeat: at least 1")
    return options


def show(title: str, headings: list[str], rows: list[list[object]]) -> None:
    """Print a table, when it has rows."""
    if rows:
        print(f"\n## {title}\n\n{table(headings, rows)}", flush=True)


KILLED = ["killed at", "dead", "clean", "second run s, median / worst", "what was wrong"]
TIMES = ["what", "runs", "s, median / worst"]


def measure(options: argparse.Namespace, scratch: Path, bars: Bars) -> None:
    """Measure what was asked for and print the tables."""
    parts = options.parts
    if not options.no_bodies:
        site = Site(options, scratch)
        try:
            if not (options.keep and site.stands()):
                site.up()
                if not options.bare:
                    site.bake()
            chosen = [part for part in (*VISITED, "restart") if part in parts]
            headings = [
                "what",
                "runs",
                "sent",
                "failed",
                "sessions cut",
                "longest gap s, median / worst",
                "seconds, median / worst",
            ]
            show("What visitors notice", headings, visits(site, chosen, options.repeat, bars))
            if "bad" in parts:
                headings = [
                    "bad release",
                    "taken back",
                    "highest weight",
                    "failed",
                    "to safe s, median / worst",
                    "reason",
                ]
                show("Bad releases", headings, bad(site, options.repeat, bars))
            if "killed" in parts:
                settled(site)
                show("Controller killed with -9", KILLED, killed(site, options.repeat, bars))
            if "times" in parts:
                show("Times with hosts", TIMES, with_bodies(site, options.repeat, bars))
            if "baked" in parts:
                show("From a baked image", TIMES, baked(site, options.repeat, bars))
        finally:
            if not options.keep:
                site.environment.run("scripts/rehearse", "down")
    if "times" in parts or options.no_bodies:
        with Account(scratch / "account") as account:
            if "killed" in parts and options.no_bodies:
                show(
                    "Controller killed with -9 (hosts without bodies)",
                    KILLED,
                    killed(Bodiless(account), options.repeat, bars),
                )
            if "times" in parts:
                show("Times of the motion (hosts without bodies)", TIMES, times(account, options.repeat, bars))


def main() -> int:
    """Measure and print; 1 when a bar is missed."""
    options, bars = arguments(), Bars()
    with tempfile.TemporaryDirectory(prefix="pergola-bench-") as scratch:
        measure(options, Path(scratch), bars)
    show("Bars", ["what", "found", "bar", ""], bars.rows)
    held = len(bars.rows) - bars.missed
    print(
        f"\n{options.repeat} runs of each; clock of the cloud x{options.speed:g}; {held} of {len(bars.rows)} bars held"
    )
    return 1 if bars.missed else 0


if __name__ == "__main__":
    sys.exit(main())
