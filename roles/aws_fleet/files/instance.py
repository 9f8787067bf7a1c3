#!/usr/bin/python3
"""A host configures itself, and leaves in good order: what user_data.py hands over to, from the host plane of a release.

instance.py configure   become what the release says, then tell the scaling group that this host serves
instance.py apply       run host.yml again; instance.py check only says what that would change
instance.py watch       (service pergola-instance) when the group ends this host: wait for its sessions, then let it go
instance.py release     (started by that service, on the one host without a balancer) become what the control node asks for, in place
instance.py leave       (when that service stops) before a reboot: have the group replace this host, and wait for its sessions
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from user_data import (  # type: ignore[import-not-found,unused-ignore]  # beside this file on a host
    AHEAD,
    HOME,
    LOST,
    asked,
    call,
    fetch,
    metadata,
    patiently,
    say,
    unpacked,
)

SECRETS = Path("/etc/pergola/secrets")
APPLIED = HOME / "applied.json"
LISTS = Path("/var/lib/apt/lists")
FRESH = Path("/var/lib/apt/periodic/update-success-stamp")
TROUBLE = (subprocess.CalledProcessError, OSError, RuntimeError, KeyError, ValueError)  # what an attempt may end with
ATTEMPTS, REFUSED = 3, 2  # how often it is tried: after errors of all kinds; when a release does not serve
LOOK = 5  # seconds between two looks at what the group wants
COUNTED, STANDS, RESOLUTION = (
    15,
    240,
    5,
)  # seconds: between two counts; for which a number that was told stands; of the metric
BACKUPS = 120  # seconds between two tellings of how old they are
SESSIONS, BOOTED = "LiveSessions", "BootSucceeded"  # metrics
UNITS = {"BackupAgeHours": "None", "BackupBytes": "Bytes", "ClockOffset": "Seconds"}
# seconds: between two looks at AWS's clock; within which it has to answer; that a clock may be wrong
CLOCK, PRECISE, WRONG = 60, 5, 30
SPEED = float(os.environ.get("REHEARSAL_SPEED", "1"))  # seconds of a rehearsal's clock in one of ours
FEED = Path("/etc/pergola/feed.json")
DATA = Path("/var/lib/pergola")
KEPT = DATA / ".backup"
TELLERS = ("pergola-feed.service", "pergola-agent.service", "amazon-cloudwatch-agent.service")
OWN = (  # what belongs to one machine, and to no image
    SECRETS, KEPT, DATA / ".host", Path("/opt/pergola/slots"), Path("/run/pergola/route"), Path("/var/log/pergola"),
    Path("/var/lib/pergola-feed"), Path("/var/lib/pergola-agent"), Path("/opt/aws/amazon-cloudwatch-agent/logs/state"),
)  # fmt: skip
MACHINE_ID = Path("/etc/machine-id")
STAND_IN = "stand-in.db"  # an app's database while an image is made
JOBS = DATA / ".jobs"
SITE = Path("/etc/pergola/site.json")
BEAT, LONGEST = 15, 3600  # seconds between two signs of life while it configures itself, and for how long it gives them
CALENDAR = 600  # seconds between two looks at what the control node's maintenance left
WISH, SERVES = 15, "ReleaseServes"  # seconds between two looks at which release is wished here; the metric that answers
HEARD = HOME / "heard"  # the last wish that was taken up
# seconds: that a reboot waits for sessions (EC2 takes the power away after four minutes, and the apps need time to end);
# for which a balancer may go on sending requests to a host that was taken out
REBOOT, LINGER = 180, 30
REBOOTS = ("reboot.target", "kexec.target", "soft-reboot.target")
UNIT = """[Unit]
Description=Leave the scaling group in good order
After=network.target nginx.service pergola-boot.service pergola-feed.service
[Service]
ExecStart=/usr/bin/python3 {folder}/instance.py watch
ExecStop=/usr/bin/python3 {folder}/instance.py leave
TimeoutStopSec=240
Restart=always
RestartSec=10
[Install]
WantedBy=multi-user.target
"""


class RefusedError(RuntimeError):
    """A release of an app does not serve on this host; it does not get better by trying."""


def configure() -> int:
    """Become what the release says; end 0 when this host serves."""
    settings, began = json.loads((HOME / "settings.json").read_text()), time.monotonic()
    if not became(settings):
        answer(settings, "launch_hook", "ABANDON")
        tell_how_it_booted(settings, well=False)
        say("gave up; the group takes this host away and tries another")
        return 1
    if settings.get("bake"):
        seal()
        return 0
    answer(settings, "launch_hook", "CONTINUE")
    tell_how_it_booted(settings, well=True)
    say(f"serves after {time.monotonic() - began:.1f} s")
    return 0


def became(settings: dict[str, Any]) -> bool:
    """Try to bring this host to the state that the release describes; return whether it is there."""
    began = time.monotonic()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with alive(settings, "launch_hook"):
                become(settings)
                take_address(settings)
        except TROUBLE as error:
            most = REFUSED if isinstance(error, RefusedError) else ATTEMPTS
            say(f"attempt {attempt} of {most} failed after {time.monotonic() - began:.0f} s: {error}")
            if attempt >= most:
                break
            FRESH.unlink(missing_ok=True)  # perhaps a package is missing: ask the mirror
            time.sleep(5)
        else:
            return True
    return False


def become(settings: dict[str, Any]) -> None:
    """Bring this host to the state that the release describes."""
    index = json.loads(fetch(settings, settings["release"], settings["sha256"]).read_bytes())
    wish = {"host": index["host"]["sha256"], "vars": digest(index["vars"])}
    bundles = [local(settings, bundle) for bundle in index["bundles"]]
    if settings.get("bake"):
        stand_in_databases(index)
    else:
        give_secrets(settings, index.get("secrets", {}))
        give_databases(settings, index)
    same = APPLIED.exists() and json.loads(APPLIED.read_text()) == wish
    if same:
        with ThreadPoolExecutor(len(bundles) or 1) as pool:
            list(pool.map(swap, bundles))
    else:
        APPLIED.unlink(missing_ok=True)  # until it is through, nobody can say what is applied
        converge(settings, index, bundles)
    healthy(index["vars"]["pergola_health"])
    write(APPLIED, json.dumps(wish))
    if not settings.get("bake"):
        watcher()
    shutil.rmtree(HOME / "files", ignore_errors=True)


def take_address(settings: dict[str, Any]) -> None:
    """Have the environment's address lead to this host, where visitors come without a balancer."""
    if settings.get("bake") or not settings.get("address"):
        return
    version, name = {"Version": "2016-11-15"}, settings["address"]
    ask = {"Action": "DescribeAddresses", "Filter.1.Name": "tag:Name", "Filter.1.Value.1": name, **version}
    instance = metadata("meta-data/instance-id") or ""

    def take() -> None:
        found = re.search(r"<allocationId>([^<]+)<", post("ec2", settings, ask).decode())
        if not found:
            raise RuntimeError(f"there is no address with the name {name}; run ansible-playbook site.yml")
        post("ec2", settings, {"Action": "AssociateAddress", "AllocationId": found[1], "InstanceId": instance,
                               "AllowReassociation": "true", **version})  # fmt: skip

    patiently(f"taking the address {name}", take)
    say(f"has the address {name}")


def release() -> int:
    """Serve the release that the control node wishes, from the idle slots; when that fails, what was live is live again."""
    settings = json.loads((HOME / "settings.json").read_text())
    wish = json.loads(patiently("reading what is wished", lambda: stored(settings, wished(settings))) or b"{}")
    if not wish:
        say("no release is wished of this host")
        return 1
    new = {**settings, "release": wish["release"], "sha256": wish["sha256"]}
    began, good = time.monotonic(), True
    try:
        become(new)
        write(HOME / "settings.json", json.dumps(new))
        say(f"serves {wish['release']} after {time.monotonic() - began:.1f} s")
    except TROUBLE as error:
        good = False
        say(f"{wish['release']} does not serve here: {error}")
        try:
            become(settings)
            say(f"serves {settings['release']} as before")
        except TROUBLE as worse:
            say(f"and what was live could not be put back whole: {worse}")
    told = {**settings, "namespace": wish["namespace"]}
    patiently("telling how it went", lambda: measured(told, SERVES, int(good), ("Wish", wish["token"])))
    if good and new != settings:  # the watcher is of the release before
        subprocess.run(["systemctl", "--no-block", "restart", "pergola-instance.service"], check=True)
    return 0 if good else 1


def wished(settings: dict[str, Any]) -> str:
    """Return the key of what the control node wishes of this group's host."""
    return f"releases/wanted/{settings['group']}.json"


def apply(*extra: str) -> int:
    """Run host.yml once more, on a host that serves already (``--check``: only say what it would change)."""
    settings = json.loads((HOME / "settings.json").read_text())
    index = json.loads(fetch(settings, settings["release"], settings["sha256"]).read_bytes())
    converge(settings, index, [local(settings, bundle) for bundle in index["bundles"]], *extra)
    return 0


def digest(data: Any) -> str:
    """Return a checksum of plain data."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def write(path: Path, text: str, mode: int = 0o644) -> bool:
    """Write a file in one step; return whether that changed it."""
    if path.is_file() and path.read_text() == text:
        return False
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as stream:
        stream.write(text)
    part.replace(path)
    return True


def run(what: str, command: list[str], error: type[RuntimeError] = RuntimeError) -> str:
    """Run a program; its first and last words are the reason when it fails."""
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HOME)
    if done.returncode:
        words = (done.stdout + done.stderr).strip()
        raise error(f"{what}: {words if len(words) <= 3000 else f'{words[:1000]} ... {words[-2000:]}'}")
    say(f"{what}: {time.monotonic() - began:.1f} s")
    return done.stdout


# ---------------------------------------------------------------- what the release says


def local(settings: dict[str, Any], bundle: dict[str, Any]) -> dict[str, Any]:
    """Return an app's bundle as the role apps takes it; its archives are here unless they are installed already."""
    mark = Path("/opt/pergola", bundle["app"], "releases", bundle["release"], "release.json")
    layers = [
        {"id": layer["id"], **archived(settings, layer, Path("/opt/pergola/layers", layer["id"]))}
        for layer in bundle["layers"]
    ]
    return {
        "app": bundle["app"],
        "release": bundle["release"],
        **archived(settings, bundle["archive"], mark),
        "layers": layers,
    }


def archived(settings: dict[str, Any], entry: dict[str, Any], mark: Path) -> dict[str, str]:
    """Return where an archive of the release lies, fetched unless what it becomes is here, and its checksum."""
    where = HOME / "files" / entry["key"].rpartition("/")[2]
    path = where if mark.exists() else fetch(settings, entry["key"], entry["sha256"])
    return {"archive": str(path), "archive_sha256": entry["sha256"]}


def give_secrets(settings: dict[str, Any], names: dict[str, dict[str, str]]) -> None:
    """Put the apps' secrets where systemd takes credentials from."""
    for app, secrets in names.items():
        SECRETS.mkdir(mode=0o700, parents=True, exist_ok=True)
        (SECRETS / app).mkdir(mode=0o700, exist_ok=True)
        for name, identifier in secrets.items():
            write(SECRETS / app / name, secret(settings["region"], identifier), 0o600)


def give_databases(settings: dict[str, Any], index: dict[str, Any]) -> None:
    """See to it that each app has its database on the environment's server, and tell the app where it is."""
    wanted = index.get("database")
    if not wanted:
        return
    began, region = time.monotonic(), settings["region"]
    sys.path.insert(
        0, str(unpacked(settings, index["self"]))
    )  # what speaks with PostgreSQL comes with what runs host.yml
    import databases  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - beside this file on a host

    where = json.loads(secret(region, wanted["endpoint"]))
    master = secret(region, wanted["master"])

    def connect() -> Any:
        return databases.connect(where, wanted["user"], master, wanted["database"])

    server = patiently("connecting to the database server", connect)
    for app, identifier in wanted["apps"].items():
        password = secret(region, identifier)
        databases.ensure(server, app, password)
        (SECRETS / app).mkdir(mode=0o700, parents=True, exist_ok=True)
        write(SECRETS / app / "database_url", databases.url(where, app, password), 0o600)
    server.close()
    say(f"databases: {time.monotonic() - began:.1f} s")


def stand_in_databases(index: dict[str, Any]) -> None:
    """Give the apps on the way to an image databases of their own on this host: the server's are for hosts with secrets."""
    for app in (index.get("database") or {}).get("apps", {}):
        (SECRETS / app).mkdir(mode=0o700, parents=True, exist_ok=True)
        write(SECRETS / app / "database_url", f"sqlite:///{DATA / app / STAND_IN}", 0o600)


def secret(region: str, identifier: str) -> str:
    """Return a secret's value from Secrets Manager."""
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "secretsmanager.GetSecretValue"}
    body = json.dumps({"SecretId": identifier}).encode()
    found = json.loads(patiently(f"reading secret {identifier}", lambda: call("secretsmanager", region, body, headers)))
    return str(found["SecretString"])


def converge(settings: dict[str, Any], index: dict[str, Any], bundles: list[dict[str, Any]], *extra: str) -> None:
    """Run host.yml on this host."""
    tool, host = unpacked(settings, index["self"]), Path(__file__).resolve().parent
    variables = HOME / "vars.json"
    write(variables, json.dumps({**index["vars"], "pergola_bundles": bundles}))
    if any(LISTS.glob("*_Packages*")):  # an image with packages: they are what is used, a mirror may be out of reach
        FRESH.parent.mkdir(parents=True, exist_ok=True)
        FRESH.touch()
    environment = {
        "PYTHONPATH": str(tool),
        "ANSIBLE_CONFIG": str(host / "ansible.cfg"),
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
    }
    command = ["/usr/bin/python3", "-m", "ansible", "playbook", str(host / "playbooks/host.yml")]
    command += ["--inventory", str(host / "inventory.yml"), "--extra-vars", f"@{variables}", *extra]
    began = time.monotonic()
    subprocess.run(command, check=True, cwd=HOME, env={**os.environ, **environment})  # its progress goes into the log
    say(f"host.yml: {time.monotonic() - began:.1f} s")


def swap(bundle: dict[str, Any]) -> None:
    """Put one app's release into service; everything else is as the image has it."""
    app, release = bundle["app"], bundle["release"]
    wanted = f"{app}:{release}:{','.join(layer['id'] for layer in bundle['layers'])}"
    asked = json.loads(run(f"{app}: pending", ["pergola", "pending", wanted, "--json"]))
    lacks = asked["pending"].get(app, [])

    def flags(archived: dict[str, Any]) -> list[str]:
        return [f"--archive={archived['archive']}", f"--sha256={archived['archive_sha256']}", "--json"]

    for layer in bundle["layers"]:
        if layer["id"] in asked["layers"]:
            run(f"layer {layer['id']}: installed", ["pergola", "layer", layer["id"], *flags(layer)])
    if "release" in lacks:
        run(f"{app}: installed", ["pergola", "install", app, release, *flags(bundle)])
    if lacks:
        run(f"{app}: live", ["pergola", "deploy", app, release, "--json"], RefusedError)


def healthy(path: str, seconds: float = 60) -> None:
    """Wait until this host says of itself that it serves."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # its own certificate
    deadline, last = time.monotonic() + seconds, ""
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"https://127.0.0.1{path}", timeout=10, context=context):
                return
        except LOST as error:
            last = str(error)
        time.sleep(0.3)
    raise RuntimeError(f"https://127.0.0.1{path} does not answer 200 after {seconds:.0f} s: {last}")


def watcher() -> None:
    """See to it that the service runs that lets this host leave in good order."""
    if write(Path("/etc/systemd/system/pergola-instance.service"), UNIT.format(folder=Path(__file__).resolve().parent)):
        subprocess.run(["systemctl", "daemon-reload"], check=True)
    subprocess.run(["systemctl", "enable", "--quiet", "--now", "pergola-instance.service"], check=True)


def seal() -> None:
    """Make this host an image: forget what belongs to one machine, then power off."""
    subprocess.run(["systemctl", "disable", "--quiet", "--now", "pergola-instance.service"], check=False)
    subprocess.run(
        ["systemctl", "stop", "pergola-api@*", "pergola-ui@*", "pergola-worker@*", "nginx.service", *TELLERS],
        check=False,
    )
    for path in OWN:
        for inner in path.glob("*"):
            shutil.rmtree(inner) if inner.is_dir() and not inner.is_symlink() else inner.unlink()
    for path in DATA.glob(f"*/{STAND_IN}*"):
        path.unlink()
    (HOME / "settings.json").unlink()
    MACHINE_ID.write_text("")
    say("sealed: powers off to become an image")
    subprocess.run(["systemctl", "--no-block", "poweroff"], check=True)


# ---------------------------------------------------------------- the scaling group


def answer(settings: dict[str, Any], hook: str, result: str) -> None:
    """Complete a lifecycle action of this instance; an instance outside a group has none."""
    if not settings.get(hook):
        return

    def tell() -> None:
        try:
            post(
                "autoscaling", settings, hooked(settings, hook, "CompleteLifecycleAction", LifecycleActionResult=result)
            )
        except urllib.error.HTTPError as error:
            text = error.read(600).decode(errors="replace")
            if "No active Lifecycle Action" not in text and "not found" not in text:
                raise OSError(text) from error
            say(f"{settings['group']} holds no {hook.replace('_', ' ')} of this instance")

    patiently(f"completing {settings[hook]}", tell)


@contextlib.contextmanager
def alive(settings: dict[str, Any], hook: str) -> Iterator[None]:
    """Tell the group meanwhile that this instance is at work, so that a slow host is not taken for a dead one; for an hour at most."""
    over, until = threading.Event(), time.monotonic() + LONGEST

    def beat() -> None:
        while settings.get(hook) and not over.wait(BEAT) and time.monotonic() < until:
            # the next one may do; without any the hook's own time counts
            with contextlib.suppress(*LOST, RuntimeError, ValueError):
                post("autoscaling", settings, hooked(settings, hook, "RecordLifecycleActionHeartbeat"))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def hooked(settings: dict[str, Any], hook: str, action: str, **more: str) -> dict[str, str]:
    """Return a call about a lifecycle action of this instance."""
    return {"Action": action, "Version": "2011-01-01", "AutoScalingGroupName": settings["group"], "LifecycleHookName": settings[hook],
            "InstanceId": metadata("meta-data/instance-id") or "", **more}  # fmt: skip


def post(service: str, settings: dict[str, Any], form: dict[str, str]) -> bytes:
    """Call a service that takes forms; return its answer."""
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    answered: bytes = call(service, settings["region"], urllib.parse.urlencode(form).encode(), headers)
    return answered


# ---------------------------------------------------------------- metrics


def measured(settings: dict[str, Any], name: str, value: float, *dimensions: tuple[str, str]) -> None:
    """Put one value of a metric into the environment's namespace; templates made before there was one name none."""
    if not settings.get("namespace"):
        return
    row = {"MetricName": name, "Value": str(value), "Unit": UNITS.get(name, "Count"), "StorageResolution": "1"}
    for number, (key, cell) in enumerate(dimensions, 1):
        row |= {f"Dimensions.member.{number}.Name": key, f"Dimensions.member.{number}.Value": cell}
    form = {"Action": "PutMetricData", "Version": "2010-08-01", "Namespace": settings["namespace"],
            **{f"MetricData.member.1.{key}": cell for key, cell in row.items()}}  # fmt: skip
    post("monitoring", settings, form)


def tell_how_it_booted(settings: dict[str, Any], *, well: bool) -> None:
    """Tell whoever makes an image how a host of it came up: nobody can reach such a host, and no group knows it."""
    if settings.get("report"):
        instance = metadata("meta-data/instance-id") or ""
        patiently("telling how it booted", lambda: measured(settings, BOOTED, int(well), ("InstanceId", instance)))


class Sessions:
    """Counts the live Streamlit sessions of this host, and tells CloudWatch: what a deploy shows while visitors move."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings, self.instance = settings, metadata("meta-data/instance-id") or ""
        self.told, self.told_at, self.counted_at = -1, float(-STANDS), float(-COUNTED)

    def count(self, now: float) -> int | None:
        """Count, and tell the number when it has changed or is old; None when an app does not say how many it has."""
        self.counted_at = now
        asked = subprocess.run(["pergola", "status", "--json"], capture_output=True, check=False)
        counts: list[Any] = (
            [app["sessions"] for app in json.loads(asked.stdout)["apps"]] if asked.returncode == 0 else [None]
        )
        if None in counts:
            return None
        found = int(sum(counts))
        if now - self.told_at >= (RESOLUTION if found != self.told else STANDS):
            self.told_at = now
            try:
                measured(self.settings, SESSIONS, found, ("InstanceId", self.instance))
                self.told = found
            except LOST as error:
                self.told = -1  # what is not told is told the next time
                say(f"the number of sessions could not be told: {error}")
        return found


class Backups:
    """Tells CloudWatch how old this host's backups are. Not the backup itself does: then nobody would hear that it does not run."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings, self.told_at = settings, float(-BACKUPS)

    def tell(self, now: float) -> None:
        """Tell it, when it is time."""
        if now - self.told_at < BACKUPS:
            return
        self.told_at = now
        try:
            asked = subprocess.run(["pergola-backup", "age", "--json"], capture_output=True, text=True, check=False)
            rows = json.loads(asked.stdout)["backups"]
        except (FileNotFoundError, ValueError, KeyError):
            return  # an older release, or one whose hosts back up nothing
        try:
            for row in rows:
                where = (("App", row["app"]), ("What", row["what"]))
                measured(self.settings, "BackupAgeHours", row["since"], *where)
                measured(self.settings, "BackupShrunk", int(row["shrunk"]), *where)
                if row["bytes"] is not None:
                    measured(self.settings, "BackupBytes", row["bytes"], *where)
        except LOST as error:
            say(f"the age of the backups could not be told: {error}")


class Clock:
    """Compares this host's clock with AWS's, tells CloudWatch by how much it is wrong, and signs with AWS's time meanwhile."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings, self.looked_at, self.wrong = settings, float(-CLOCK), False
        self.fleet = json.loads(FEED.read_text())["fleet"] if FEED.is_file() else "main"

    def look(self, now: float) -> None:
        """Look at AWS's clock, when it is time; an answer that took long says little."""
        if now - self.looked_at < CLOCK / SPEED:
            return
        self.looked_at = now
        try:
            began = time.time()
            date = theirs(self.settings["region"])
            took = time.time() - began
            if 0 <= took <= PRECISE:
                self.told(began + took / 2 - date)
        except (*LOST, TypeError, ValueError) as error:
            say(f"AWS's clock could not be seen: {error}")

    def told(self, ahead: float) -> None:
        """Take in by how many seconds this host's clock is ahead, and tell it."""
        AHEAD[0] = ahead if abs(ahead) > 1 else 0.0  # AWS tells whole seconds
        if self.wrong != (abs(ahead) > WRONG):
            self.wrong = not self.wrong
            say(
                f"the clock is {abs(ahead):.0f} s {'fast' if ahead > 0 else 'slow'}"
                if self.wrong
                else "the clock is right again"
            )
        measured(self.settings, "ClockOffset", round(abs(ahead), 1), ("Fleet", self.fleet))


def theirs(region: str) -> float:
    """Return AWS's time, in seconds since 1970: any answer has it, also one to a question that nobody may ask."""
    url = os.environ.get("AWS_ENDPOINT_URL") or f"https://monitoring.{region}.amazonaws.com"
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/", method="HEAD"), timeout=PRECISE) as answer:
            date = answer.headers["Date"]
    except urllib.error.HTTPError as error:
        date = error.headers["Date"]
    return parsedate_to_datetime(date).timestamp() + 0.5


class Calendar:
    """Keeps, for the status page, how the control node's jobs of the maintenance calendar ended: they leave word beside the releases."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings, self.looked_at = settings, float(-CALENDAR)

    def look(self, now: float) -> None:
        """Look for news, when it is time."""
        if now - self.looked_at < CALENDAR:
            return
        self.looked_at = now
        try:
            rows = json.loads(SITE.read_text()).get("calendar", [])
            for name in (row["name"] for row in rows if row["where"] == "control"):
                if told := stored(self.settings, f"releases/maintenance/{name}.json"):
                    write(JOBS / f"{name}.json", json.dumps(json.loads(told)))
        except (*LOST, ValueError, KeyError) as error:
            say(f"how maintenance went could not be learnt: {error}")


class Wishes:
    """Looks, on the one host without a balancer, which release the control node wishes here: nobody logs in to tell."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings, self.looked_at = settings, float(-WISH)

    def look(self, now: float) -> None:
        """Look, when it is time; a new wish is taken up by the host plane of its own release, in a unit of its own."""
        if not self.settings.get("in_place") or now - self.looked_at < WISH:
            return
        self.looked_at = now
        try:
            wish = json.loads(stored(self.settings, wished(self.settings)) or b"{}")
            if not wish or (HEARD.is_file() and HEARD.read_text() == wish["token"]):
                return
            index = json.loads(fetch(self.settings, wish["release"], wish["sha256"]).read_bytes())
            program = unpacked(self.settings, index["host"]) / "instance.py"
            say(f"{wish['release']} is wished here")
            started = [
                "systemd-run",
                "--unit=pergola-release",
                "--collect",
                "/usr/bin/python3",
                str(program),
                "release",
            ]
            run("pergola-release: started", started)
            write(HEARD, wish["token"])  # while one is at work the unit is taken: this one's turn comes after it
        except (*LOST, RuntimeError, ValueError, KeyError) as error:
            say(f"what is wished here could not be taken up: {error}")


def stored(settings: dict[str, Any], key: str) -> bytes | None:
    """Return what the release's bucket has under a key; None when there is nothing."""
    try:
        with urllib.request.urlopen(asked(settings, key), timeout=30) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def watch() -> int:
    """Wait until the group ends this host; then until its sessions are over, or the ceiling is reached."""
    settings = json.loads((HOME / "settings.json").read_text())
    sessions, backups, calendar, clock = Sessions(settings), Backups(settings), Calendar(settings), Clock(settings)
    wishes = Wishes(settings)
    while metadata("meta-data/autoscaling/target-lifecycle-state") != "Terminated":
        if time.monotonic() - sessions.counted_at >= COUNTED:
            sessions.count(time.monotonic())
        clock.look(time.monotonic())
        backups.tell(time.monotonic())
        calendar.look(time.monotonic())
        wishes.look(time.monotonic())
        time.sleep(LOOK)
    say("the group ends this host: waiting for its sessions")
    until_quiet(sessions, float(settings["drain_seconds"]))
    answer(settings, "terminate_hook", "CONTINUE")
    while True:  # what is left of this host's life
        time.sleep(60)


def until_quiet(sessions: Sessions, most: float, least: float = 0) -> None:
    """Wait until this host has no sessions, for ``least`` to ``most`` seconds."""
    began, quiet = time.monotonic(), 0
    while (passed := time.monotonic() - began) < most and (quiet < 3 or passed < least):
        quiet = quiet + 1 if sessions.count(time.monotonic()) == 0 else 0
        time.sleep(1)


def reboots() -> bool:
    """Return whether this machine is about to start again, rather than to end."""
    jobs = subprocess.run(
        ["systemctl", "list-jobs", "--no-legend", *REBOOTS], capture_output=True, text=True, check=False
    )
    return " start " in jobs.stdout


def leave() -> int:
    """Before a reboot: have the group put another host in this one's place, and wait for the sessions.

    A balancer would go on sending requests to a host that reboots until its checks have failed, and would cut its sessions.
    """
    settings = json.loads((HOME / "settings.json").read_text())
    wish = "meta-data/autoscaling/target-lifecycle-state"
    if not settings.get("group") or not reboots() or metadata(wish) != "InService":
        return 0
    say("this host is to reboot: its group puts another one in its place first")
    began, most = time.monotonic(), REBOOT / SPEED
    form = {"Action": "SetInstanceHealth", "Version": "2011-01-01", "InstanceId": metadata("meta-data/instance-id") or "",
            "HealthStatus": "Unhealthy", "ShouldRespectGracePeriod": "false"}  # fmt: skip
    try:
        post("autoscaling", settings, form)
    except LOST as error:
        say(f"the group does not hear it; the host reboots: {error}")
        return 1
    while metadata(wish) != "Terminated":
        if time.monotonic() - began > most:
            say("the group does not replace this host; it reboots")
            return 1
        time.sleep(1)
    until_quiet(Sessions(settings), most - (time.monotonic() - began), LINGER / SPEED)
    answer(settings, "terminate_hook", "CONTINUE")
    say("leaves")
    return 0


def main() -> int:
    """Run one command."""
    commands = {
        "apply": apply,
        "check": lambda: apply("--check"),
        "configure": configure,
        "leave": leave,
        "release": release,
        "watch": watch,
    }
    parser = argparse.ArgumentParser(description="A host configures itself, and leaves in good order.")
    parser.add_argument("command", choices=sorted(commands))
    return commands[parser.parse_args().command]()


if __name__ == "__main__":
    sys.exit(main())
