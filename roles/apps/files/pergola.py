#!/usr/bin/python3
"""pergola: put releases of apps into service on this host, without a failed request.

Each app has two slots, a and b. A release is started in the idle slot, asked whether it is really ready, and only then made live by
renaming a symlink that nginx connects through; nginx itself is never touched. The old slot finishes its requests and keeps its
Streamlit sessions until the last one ends or the drain ceiling is reached.

The state file of an app is the truth; routes and units are made to agree with it. So every command may be killed and run again.
When the file is lost, the routes say what is live.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import fcntl
import gzip
import hashlib
import http.client
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SITE = Path("/etc/pergola/site.json")
OPT = Path("/opt/pergola")
STATE = Path("/var/lib/pergola/.host")
ROUTES = Path("/run/pergola/route")
LOCKS = Path("/run/pergola/lock")
SECRETS = Path("/etc/pergola/secrets")
UNITS = Path("/etc/systemd/system")
CONTROL = Path("/run/systemd/system.control")  # where `systemctl set-property --runtime` keeps what it was told
APP_ENV = Path("/etc/pergola/apps")
PYTHON = Path("/usr/bin/python3")
PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
PACKAGES = "site-packages"  # within a layer: some programs (Streamlit) take a package elsewhere for one that is being developed
HISTORY = 50
CANDIDATE_WEIGHT = 20  # of 100: the share of a processor of a slot that starts beside a live one
HOPELESS_SECONDS = 20.0  # a screen that raises the same error for so long beside a ready API will go on
REVIVE_SECONDS = 10  # in which a slot that still drains must say that it is ready, to be live again
DEATHS = 3  # a new release whose service was started again so often does not come up
QUIET = False


class Failure(Exception):
    """Something went wrong and the message says what to do; nothing that served before has changed."""


def say(text: str) -> None:
    """Print a line of progress to standard error."""
    if not QUIET:
        print(f"pergola: {text}", file=sys.stderr, flush=True)


# ---------------------------------------------------------------- plan and state


def site() -> dict[str, Any]:
    """Return the derived plan of this host."""
    try:
        plan: dict[str, Any] = json.loads(SITE.read_text(encoding="utf-8"))
        return {**plan, "apps": list(plan["apps"]), "ladder": dict(plan["ladder"])}
    except FileNotFoundError:
        raise Failure(f"{SITE} is missing; run site.yml on this host first") from None
    except (ValueError, TypeError, KeyError) as error:
        raise Failure(f"{SITE} is damaged ({error}); run site.yml on this host again") from error


def known_apps() -> list[dict[str, Any]]:
    """Return the apps of the plan; none on a host that was never configured."""
    apps: list[dict[str, Any]] = site()["apps"] if SITE.exists() else []
    return apps


def app_plan(name: str) -> dict[str, Any]:
    """Return one app's part of the plan."""
    apps = {app["name"]: app for app in site()["apps"]}
    if name not in apps:
        raise Failure(f"there is no app {name!r} on this host; it has: {', '.join(sorted(apps)) or 'none'}")
    found: dict[str, Any] = apps[name]
    return found


def read_state(name: str) -> dict[str, Any]:
    """Return the app's state; an app that was never deployed has no live slot."""
    fresh: dict[str, Any] = {"live": None, "previous": None, "slots": {"a": None, "b": None}, "history": []}
    path = STATE / f"{name}.json"
    try:
        state = {**fresh, **json.loads(path.read_text(encoding="utf-8"))}
        check_state(state)
    except FileNotFoundError:
        return {**fresh, **routed_state(name)}
    except (ValueError, TypeError, KeyError) as error:
        raise Failure(
            f"{path} is damaged ({error!r}); remove it and deploy again (what serves now is found again from its routes)"
        ) from error
    return state


def check_state(state: dict[str, Any]) -> None:
    """Raise when a state lacks what every command relies on."""
    if state["live"] is not None and state["live"]["slot"] not in ("a", "b"):
        raise ValueError("no such slot")
    for entry in (state["live"], *(state["slots"][slot] for slot in ("a", "b"))):
        if entry is not None:
            str.strip(entry["release"])
            str.strip(entry["config"])
    for entry in state["slots"].values():
        if entry is not None and entry["state"] == "draining":
            float(entry["until"])
    if not isinstance(state["history"], list):
        raise TypeError("the history is no list")


def routed_state(name: str) -> dict[str, Any]:
    """Return what the routes say is live; nothing when they lead nowhere."""
    for kind in ("api", "ui"):
        link = ROUTES / name / kind
        found = re.fullmatch(rf"{name}-([ab])\.{kind}\.sock", link.readlink().name) if link.is_symlink() else None
        if found and (OPT / "slots" / f"{name}-{found[1]}").is_symlink():
            release = (OPT / "slots" / f"{name}-{found[1]}").readlink().name
            entry = {"release": release, "config": "unknown", "since": now()}
            slots = {"a": None, "b": None, found[1]: {**entry, "state": "live"}}
            return {"live": {**entry, "slot": found[1]}, "slots": slots}
    return {}


def write_state(name: str, state: dict[str, Any]) -> None:
    """Replace the app's state file atomically and make it durable."""
    STATE.mkdir(mode=0o755, parents=True, exist_ok=True)
    state["history"] = state["history"][-HISTORY:]
    part = STATE / f".{name}.json.new"
    with part.open("w", encoding="utf-8") as stream:
        json.dump(state, stream, indent=1, sort_keys=True)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(STATE / f"{name}.json")
    sync_folder(STATE)


def sync_folder(path: Path) -> None:
    """Make a rename in a folder durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def now() -> str:
    """Return the present time, UTC, ISO 8601."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextlib.contextmanager
def locked(name: str, wait: float) -> Iterator[None]:
    """Hold the app's lock; the kernel lets go of it when the holder dies."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    with (LOCKS / name).open("a+", encoding="utf-8") as stream:
        deadline, told = time.monotonic() + wait, False
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                stream.seek(0)
                holder = stream.read().strip() or "another process"
                if time.monotonic() >= deadline:
                    raise Failure(
                        f"{name} is being changed by {holder}; wait for it to end, then run this again"
                    ) from None
                if not told:
                    say(f"{name}: waiting for {holder} to end (at most {wait:.0f} s)")
                    told = True
                time.sleep(0.2)
        stream.seek(0)
        stream.truncate()
        stream.write(f"pid {os.getpid()} ({' '.join(sys.argv[1:3])}) since {now()}")
        stream.flush()
        yield


# ---------------------------------------------------------------- systemd, sockets


def systemctl(*arguments: str, check: bool = True) -> str:
    """Run systemctl; a failure shows what systemd said."""
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise Failure(f"systemctl {' '.join(arguments)} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def journal(units: list[str], since: float, lines: int = 25) -> str:
    """Return the last lines that some units logged since a moment (epoch seconds)."""
    flags = [flag for unit in units for flag in ("--unit", unit)]
    done = subprocess.run(
        ["journalctl", "--no-pager", "--output=cat", f"--lines={lines}", f"--since=@{int(since)}", *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def cause_of_death(text: str) -> str:
    """Return the last exception that a journal shows, in one line, or nothing.

    A service that cannot start logs its exception and then what its server made of that ("Worker failed to boot"),
    each time with a traceback; restarted a few times, the end of the journal may hold only the second kind.
    """
    found, inside = "", False
    for logged in text.splitlines():
        lines = [logged]
        if logged.startswith("{"):
            with contextlib.suppress(ValueError):
                lines = str(json.loads(logged).get("exception") or "").splitlines()
        for line in lines:
            if line.startswith("Traceback (most recent call last)"):
                inside = True
            elif inside and line and not line[0].isspace():
                inside = False
                if "HaltServer" not in line:
                    found = line[:300]
    return found


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def fetch(path: str, target: str, timeout: float) -> tuple[int, str]:
    """GET a target over a unix socket; return status and body."""
    connection = UnixConnection(path, timeout)
    try:
        connection.request(
            "GET",
            target,
            headers={"Host": "localhost", "X-Request-ID": f"pergola-{secrets.token_hex(8)}", "Connection": "close"},
        )
        response = connection.getresponse()
        return response.status, response.read(65536).decode("utf-8", "replace")
    finally:
        connection.close()


def slot_units(app: dict[str, Any], slot: str, kinds: list[str] | None = None) -> list[str]:
    """Return the service units of a slot, in the order they start."""
    return [app["slots"][slot][f"{kind}_unit"] for kind in kinds or app["kinds"]]


def start_slot(app: dict[str, Any], slot: str, kinds: list[str]) -> None:
    """Start a slot's sockets and services from a clean record of failures."""
    entry = app["slots"][slot]
    for kind in kinds:
        systemctl("reset-failed", entry[f"{kind}_unit"], check=False)
        if kind != "worker":
            sock = entry[f"{kind}_socket_unit"]
            systemctl("reset-failed", sock, check=False)
            if systemctl("is-active", sock, check=False) != "active":
                systemctl("stop", entry[f"{kind}_unit"])  # systemd refuses a socket whose service runs already
                systemctl("start", sock)
        systemctl("start", "--no-block", entry[f"{kind}_unit"])


def hold_back(app: dict[str, Any], slot: str) -> None:
    """Let a slot that is not live yet have a processor only where the live one leaves it: starting costs seconds of it."""
    for unit in slot_units(app, slot):
        systemctl("set-property", "--runtime", unit, f"CPUWeight={CANDIDATE_WEIGHT}")


def let_go(app: dict[str, Any], slot: str) -> None:
    """Give a slot its full share of the processors again; does nothing when it has it."""
    for unit in slot_units(app, slot):
        if (CONTROL / f"{unit}.d" / "50-CPUWeight.conf").exists():
            systemctl("set-property", "--runtime", unit, "CPUWeight=")


def stop_slot(app: dict[str, Any], slot: str, kinds: list[str] | None = None) -> None:
    """Stop a slot: no new connections first, then the services finish what they have."""
    entry = app["slots"][slot]
    chosen = kinds or list(reversed(app["kinds"]))
    sockets = [entry[f"{kind}_socket_unit"] for kind in chosen if kind != "worker"]
    services = [entry[f"{kind}_unit"] for kind in chosen]
    if sockets:
        # one call: systemd would otherwise start the service again for a connection still in the backlog
        systemctl("stop", *sockets, *services)
    else:
        systemctl("stop", *services)


# ---------------------------------------------------------------- routes


def point(link: Path, target: str) -> None:
    """Make a symlink point somewhere, atomically."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink() and link.readlink() == Path(target):
        return
    part = link.with_name(f".{link.name}.new")
    with contextlib.suppress(FileNotFoundError):
        part.unlink()
    part.symlink_to(target)
    part.replace(link)


def reconcile(app: dict[str, Any], state: dict[str, Any]) -> None:
    """Make the routes, and the live slot's share of the processors, agree with the state."""
    live = state["live"]
    wanted: dict[Path, str] = {}
    if live:
        let_go(app, live["slot"])
        entry = app["slots"][live["slot"]]
        if "api" in app["kinds"]:
            wanted[Path(app["routes"]["api"])] = entry["api_socket"]
        if "ui" in app["kinds"]:
            wanted[Path(app["routes"]["ui"])] = entry["ui_socket"]
            for slot in ("a", "b"):
                held = state["slots"][slot]
                if held and held["state"] in ("live", "draining"):
                    wanted[Path(app["routes"][f"ui_{slot}"])] = app["slots"][slot]["ui_socket"]
    for link, target in wanted.items():
        point(link, target)
    for key in ("api", "ui", "ui_a", "ui_b"):
        link = Path(app["routes"][key])
        if link not in wanted and link.is_symlink():
            link.unlink()


# ---------------------------------------------------------------- install


def checked_archive(path: Path, sha256: str | None) -> None:
    """Refuse an archive whose checksum is not the expected one."""
    if not path.is_file():
        raise Failure(f"{path} does not exist; copy the bundle to this host first")
    if sha256:
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        if digest.hexdigest() != sha256:
            raise Failure(
                f"{path} is damaged: its sha256 is {digest.hexdigest()[:12]}…, expected {sha256[:12]}…; copy it again"
            )


@contextlib.contextmanager
def readable(archive: Path) -> Iterator[None]:
    """Say that an archive is damaged, however its reader says so."""
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Failure(f"{archive} is damaged ({error}); copy it again") from error


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive of regular files into a new folder; anything else in it is refused, so nothing lands outside."""
    with readable(archive), tarfile.open(archive) as tar:  # Debian 12's tarfile has no extraction filters yet
        for member in tar:
            parts = Path(member.name).parts
            if not member.isreg() or member.name.startswith("/") or ".." in parts or not parts:
                raise Failure(
                    f"{archive.name} holds {member.name!r}, which is not a plain file inside it; build it again"
                )
            target = folder / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(member)
            if source is None:
                raise Failure(f"{archive.name}: {member.name!r} cannot be read; copy it again")
            with target.open("xb") as stream:
                shutil.copyfileobj(source, stream, 1 << 20)
            target.chmod(0o755 if member.mode & 0o100 else 0o644)


def remove_tree(path: Path) -> None:
    """Remove a folder that a killed run may have left."""
    if path.exists():
        shutil.rmtree(path)


def discard(path: Path) -> None:
    """Remove a folder that is in its place; killed half-way, what is left does not look whole."""
    gone = path.with_name(f".{path.name.lstrip('.')}.gone")
    remove_tree(gone)
    path.replace(gone)
    shutil.rmtree(gone)


def layer_dir(layer: str) -> Path:
    """Return the folder of a layer of installed packages."""
    if not re.fullmatch(r"[0-9a-f]{12}", layer):
        raise Failure(f"{layer!r} is not a layer id (12 hex digits); take it from what the build printed")
    return OPT / "layers" / layer


def layer(options: argparse.Namespace) -> dict[str, Any]:
    """Put a layer of installed packages on this host; releases that name it share it."""
    target, started = layer_dir(options.layer), time.monotonic()
    with locked("install", options.wait), usual_permissions():
        if target.exists():
            return {"changed": False, "layer": options.layer}
        checked_archive(options.archive, options.sha256)
        scratch = target.with_name(f".{options.layer}.new")
        say(f"layer {options.layer}: unpacking its packages")
        remove_tree(scratch)
        try:
            packages = scratch / PACKAGES
            packages.mkdir(parents=True)
            unpack(options.archive, packages)
            if not is_compiled(packages, options.layer):
                compile_code(packages, r"[/\\]tests?[/\\]")
            scratch.replace(target)
            sync_folder(target.parent)
        except OSError as error:
            raise Failure(f"layer {options.layer} could not be installed: {error}{disk_hint(error)}") from error
        finally:
            remove_tree(scratch)
    say(f"layer {options.layer}: ready after {time.monotonic() - started:.1f} s")
    return {"changed": True, "layer": options.layer}


def is_compiled(folder: Path, layer: str) -> bool:
    """Return whether an unpacked layer needs no compiling here.

    Raises:
        Failure: It is another layer, or one for another Python.
    """
    try:
        about = json.loads((folder / "layer.json").read_text(encoding="utf-8"))
        name, python, compiled = str(about["layer"]), str(about["python"]), bool(about["compiled"])
    except FileNotFoundError:
        raise Failure("the archive is not a layer: it has no layer.json; build it again") from None
    except (ValueError, TypeError, KeyError) as error:
        raise Failure(f"the archive is not a layer: its layer.json is damaged ({error}); build it again") from error
    if name != layer:
        raise Failure(f"the archive holds the layer {name}, expected {layer}; copy the right one")
    if python != PYTHON_VERSION:
        raise Failure(
            f"the layer {layer} is for Python {python}, this host has {PYTHON_VERSION}; build it for this host"
        )
    return compiled


def make_venv(folder: Path, layers: list[str]) -> None:
    """Give a release its environment: this host's Python with the packages of its layers."""
    packages = folder / "lib" / f"python{PYTHON_VERSION}" / "site-packages"
    packages.mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(PYTHON)
    (folder / "pyvenv.cfg").write_text(
        f"home = {PYTHON.parent}\ninclude-system-site-packages = false\n", encoding="utf-8"
    )
    lines = "".join(f"{layer_dir(one) / PACKAGES}\n" for one in layers)
    (packages / "layers.pth").write_text(lines, encoding="utf-8")


def disk_hint(error: BaseException) -> str:
    """Name the fix when the disk is full."""
    full = getattr(error, "errno", None) == 28 or "No space left" in str(error)
    return (
        "; the disk is full: free some space (`pergola prune` removes old releases) and run this again. The live release was not touched."
        if full
        else ""
    )


def release_dir(name: str, release: str) -> Path:
    """Return the folder of a release."""
    if not re.fullmatch(r"[0-9a-f]{12}", release):
        raise Failure(f"{release!r} is not a release id (12 hex digits); `pergola releases {name}` lists them")
    return OPT / name / "releases" / release


def install(options: argparse.Namespace) -> dict[str, Any]:
    """Put a release on this host; nothing is started."""
    app, changed = app_plan(options.app), False
    target = release_dir(options.app, options.release)
    with locked("install", options.wait), usual_permissions():
        if not (target / "release.json").exists():
            checked_archive(options.archive, options.sha256)
            scratch = target.with_name(f".{options.release}.new")
            remove_tree(scratch)
            try:
                scratch.mkdir(parents=True)
                unpack(options.archive, scratch)
                layers = verify(scratch, app["name"], options.release)
                for one in layers:
                    if not layer_dir(one).exists():
                        raise Failure(
                            f"layer {one} is not on this host; `pergola layer {one} --archive=...` installs it"
                        )
                compile_code(scratch / "app")
                make_venv(scratch / "venv", layers)
                scratch.replace(target)
                sync_folder(target.parent)
            except OSError as error:
                raise Failure(
                    f"{options.app} {options.release} could not be installed: {error}{disk_hint(error)}"
                ) from error
            finally:
                remove_tree(scratch)
            changed = True
            say(f"{options.app} {options.release}: installed")
    return {"changed": changed, "release": options.release}


@contextlib.contextmanager
def usual_permissions() -> Iterator[None]:
    """Make files that the apps' own users can read, whatever the caller's umask is."""
    old = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(old)


def compile_code(folder: Path, left_out: str = "") -> None:
    """Byte-compile code: the sandbox cannot write there, and each start would compile it again."""
    command = [str(PYTHON), "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    done = subprocess.run(
        [*command, *(["-x", left_out] if left_out else []), str(folder)],
        env={"PATH": os.environ.get("PATH", "/usr/bin:/bin")},
        capture_output=True,
        text=True,
        check=False,
    )
    full = disk_hint(OSError(done.stdout + done.stderr))
    if full or (done.returncode != 0 and not left_out):  # packages carry files that are not for this Python
        raise Failure(f"compiling {folder.name} failed: {' '.join((done.stdout + done.stderr).split())[-600:]}{full}")


def verify(folder: Path, app: str, release: str) -> list[str]:
    """Check an unpacked release against its list: every file of it, and nothing else. Return its layers."""
    try:
        listed = json.loads((folder / "release.json").read_text(encoding="utf-8"))
        about, files, layers = (listed["app"], listed["release"]), dict(listed["files"]), list(listed["layers"])
    except FileNotFoundError:
        raise Failure("the archive is not a release: it has no release.json; build it again") from None
    except (ValueError, TypeError, KeyError) as error:
        raise Failure(f"the archive is not a release: its release.json is damaged ({error}); build it again") from error
    if about != (app, release):
        raise Failure(f"the archive holds {about[0]} {about[1]}, expected {app} {release}; copy the right one")
    files["release.env"] = hashlib.sha256(f"PERGOLA_RELEASE={release}\n".encode()).hexdigest()
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()} - {"release.json"}
    for name in sorted(found | set(files)):
        if name not in files:
            problem = "not in its list"
        elif name not in found:
            problem = "missing"
        elif hashlib.sha256((folder / name).read_bytes()).hexdigest() != files[name]:
            problem = "damaged"
        else:
            continue
        raise Failure(f"{name} in the release {release} is {problem}; build and copy the release again")
    return [str(one) for one in layers]


# ---------------------------------------------------------------- deploy


def config_hash(app: dict[str, Any]) -> str:
    """Hash what is not in the release but shapes the services: units, environment, secrets."""
    digest = hashlib.sha256()
    names = [UNITS / f"pergola-{kind}@{suffix}" for kind in app["kinds"] for suffix in (".service", ".socket")]
    keys = [f"{kind}_{what}" for kind in app["kinds"] for what in ("unit", "socket_unit")]
    names += [UNITS / f"{entry[key]}.d" / "app.conf" for entry in app["slots"].values() for key in keys if key in entry]
    names += [APP_ENV / f"{app['name']}.env", *sorted((SECRETS / app["name"]).glob("*"))]
    for path in names:
        if path.is_file():
            digest.update(f"{path}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def is_serving(app: dict[str, Any], state: dict[str, Any]) -> bool:
    """Return whether every unit of the live slot is active."""
    live = state["live"]
    if not live:
        return False
    units = slot_units(app, live["slot"]) + [
        app["slots"][live["slot"]][f"{kind}_socket_unit"] for kind in app["kinds"] if kind != "worker"
    ]
    return systemctl("is-active", *units, check=False).splitlines() == ["active"] * len(units)


def prepare(app: dict[str, Any], slot: str, timeout: float) -> None:
    """Run the manifest's prepare modules in the slot, as the app's user, in its sandbox."""
    if not app["manifest"]["prepare"]:
        return
    unit, began = f"pergola-prepare@{app['name']}-{slot}.service", time.time()
    say(f"{app['name']}: preparing ({', '.join(app['manifest']['prepare'])})")
    done = subprocess.run(
        ["systemctl", "start", unit], capture_output=True, text=True, check=False, timeout=timeout + 30
    )
    if done.returncode != 0:
        raise Failure(f"{app['name']}: a prepare step failed; the last lines it logged:\n{journal([unit], began)}")


def look(app: dict[str, Any], kind: str, path: str, target: str, patience: float) -> tuple[int, str]:
    """Ask a service for its deep readiness; return the status, 0 when nothing answered, and what it said."""
    try:
        status, body = fetch(path, target, patience)
    except (OSError, http.client.HTTPException) as error:
        return 0, f"{type(error).__name__}: {error}"
    if status == 404 and kind == "api":  # an ASGI app that is not made with app.core has its own shallow check only
        with contextlib.suppress(OSError, http.client.HTTPException):
            status, body = fetch(path, app["manifest"]["api"]["health"], patience)
    return status, f"{status} {' '.join(body.split())[:300]}"


class Raising:
    """Since when a screen raises the same error beside an API that is ready: waiting mends nothing there."""

    def __init__(self) -> None:
        self.text, self.since = "", 0.0

    def hopeless(self, text: str, *, alone: bool) -> bool:
        """Take the screen's last answer (alone: nothing else is waited for); return whether there is no hope."""
        if not alone or not re.search(r'"raised": ?true', text):
            self.text = ""
        elif self.text != text:
            self.text, self.since = text, time.monotonic()
        return bool(self.text) and time.monotonic() - self.since > HOPELESS_SECONDS


def dying(app: dict[str, Any], slot: str) -> str:
    """Return a service of a slot that systemd had to start again and again; empty when there is none."""
    for unit in slot_units(app, slot):
        if int(systemctl("show", "-p", "NRestarts", "--value", unit) or 0) >= DEATHS:
            return unit
    return ""


def wait_ready(app: dict[str, Any], slot: str, timeout: float) -> float:
    """Wait until every service of a slot is deeply ready; return the seconds it took.

    Raises:
        Failure: It never became ready; with the last answer and the end of the journal.
    """
    began, deadline = time.time(), time.monotonic() + timeout
    entry = app["slots"][slot]
    targets = {}
    if "api" in app["kinds"]:
        targets["api"] = (entry["api_socket"], "/health/ready")
    if "ui" in app["kinds"]:
        targets["ui"] = (entry["ui_socket"], f"{app['path']}health/ready")
    answers = dict.fromkeys(targets, "no answer yet")
    pending, raising = set(targets), Raising()
    # for one answer: a slow host that may take long may also answer slowly
    patience = max(5.0, min(30.0, timeout / 10))
    while True:
        for kind in [kind for kind in targets if kind in pending]:
            status, answers[kind] = look(app, kind, *targets[kind], patience)
            if status == 200:
                pending.discard(kind)
        if (
            "worker" in app["kinds"]
            and not pending
            and systemctl("is-active", entry["worker_unit"], check=False) != "active"
        ):
            answers["worker"] = "the worker is not running"
        elif not pending:
            return time.time() - began
        why = ""
        if time.monotonic() >= deadline:
            why = f"it was not ready after {timeout:.0f} s"
        if raising.hopeless(answers.get("ui", ""), alone=pending == {"ui"}):
            why = f"its screen raised the same error for {HOPELESS_SECONDS:.0f} s"
        if unit := dying(app, slot):
            why = f"{unit} keeps dying"
        if why:
            raise not_working(app, slot, why, answers, began)
        time.sleep(0.2)


def not_working(app: dict[str, Any], slot: str, why: str, answers: dict[str, str], began: float) -> Failure:
    """Return what to say of a release that is not ready: why, the last answers, the cause and the end of the journal."""
    logged = journal(slot_units(app, slot), began, lines=2000)
    if cause := cause_of_death(logged):
        why += f": {cause}"
    detail = "\n".join(f"  {kind}: {text}" for kind, text in answers.items())
    last = "\n".join(logged.splitlines()[-25:])
    return Failure(f"{app['name']}: the new release does not work: {why}\n{detail}\nlast lines it logged:\n{last}")


def wait_drained(app: dict[str, Any], state: dict[str, Any], slot: str, options: argparse.Namespace) -> None:
    """Wait until a slot that still drains is free; with --cut-sessions end its sessions now."""
    held = state["slots"][slot]
    if not held or held["state"] != "draining":
        return
    if options.cut_sessions:
        finish_drain(app, slot, "sessions were cut on request")
        return
    told = 0.0
    while True:
        held = read_state(app["name"])["slots"][slot]
        if not held or held["state"] != "draining":
            return
        left = held["until"] - time.time()
        if left <= 0:  # whatever keeps the drain's own unit from it
            finish_drain(app, slot, "the ceiling was reached")
            return
        if systemctl("is-active", drain_unit(app["name"], slot), check=False) not in ("active", "activating"):
            systemctl("start", "--no-block", drain_unit(app["name"], slot))
        if time.monotonic() - told > 10:
            told = time.monotonic()
            say(
                f"{app['name']}: slot {slot} still has {counted(sessions(app, slot))}; "
                f"waiting at most {left:.0f} s (--cut-sessions ends them now)"
            )
        time.sleep(0.3)


def deploy(options: argparse.Namespace) -> dict[str, Any]:
    """Make a release live. Run twice, it does nothing the second time; killed, it is run again."""
    app = app_plan(options.app)
    name = app["name"]
    began = time.monotonic()
    with locked(name, options.wait):
        state = read_state(name)
        if not (release_dir(name, options.release) / "release.json").exists():
            raise Failure(f"{name} {options.release} is not on this host; `pergola releases {name}` lists what is")
        config = config_hash(app)
        live = state["live"]
        reconcile(app, state)
        if live and (live["release"], live["config"]) == (options.release, config) and not options.again:
            return keep_serving(app, state, options)
        slot = "b" if live and live["slot"] == "a" else "a"
        wanted = {"release": options.release, "config": config}
        if drains(state, slot, wanted) and not options.again and (done := revived(app, slot, wanted, options)):
            return done
        wait_drained(app, state, slot, options)
        state = read_state(name)
        begin, event = {**wanted, "state": "starting"}, begun(options, slot)
        try:
            ready = start_release(app, state, slot, begin, options.timeout)
        except (Failure, subprocess.TimeoutExpired, KeyboardInterrupt) as error:
            stop_slot(app, slot)
            state["slots"][slot] = None
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            state["history"].append({**event, "ended": "refused", "reason": reason})
            write_state(name, state)
            kept = f"{live['release']} in slot {live['slot']} still serves" if live else "nothing was serving before"
            raise Failure(f"{error}\n{name}: {options.release} was not made live; {kept}.") from error
        say(f"{name}: ready after {ready:.1f} s; moving traffic to slot {slot}")
        state["history"].append({**event, "ended": "live", "seconds": round(time.monotonic() - began, 1)})
        move_traffic(app, state, slot, begin)
        prune_app(app, state, options.keep)
    seconds = time.monotonic() - began
    say(f"{name}: {options.release} is live in slot {slot} after {seconds:.1f} s")
    return {"changed": True, "release": options.release, "slot": slot, "seconds": round(seconds, 2)}


def drains(state: dict[str, Any], slot: str, wanted: dict[str, str]) -> bool:
    """Return whether a slot drains, with a certain release and configuration."""
    held = state["slots"][slot]
    return bool(held) and held["state"] == "draining" and {**held, **wanted} == held


def begun(options: argparse.Namespace, slot: str) -> dict[str, Any]:
    """Return the beginning of an entry of an app's history."""
    return {"at": now(), "what": options.what, "release": options.release, "slot": slot, "by": operator()}


def revived(
    app: dict[str, Any], slot: str, wanted: dict[str, str], options: argparse.Namespace
) -> dict[str, Any] | None:
    """Make a release live that still drains in the other slot: it runs, with visitors. None when it is gone meanwhile, or not well."""
    name, began = app["name"], time.monotonic()
    with locked(f"{name}.drain", 600):
        state = read_state(name)
        if not drains(state, slot, wanted):  # it was over in this moment
            return None
        try:
            wait_ready({**app, "kinds": [kind for kind in app["kinds"] if kind != "worker"]}, slot, REVIVE_SECONDS)
        except Failure as error:
            say(f"{str(error).splitlines()[0]}; starting it anew")
            return None
        seconds = round(time.monotonic() - began, 1)
        state["history"].append({**begun(options, slot), "ended": "live", "seconds": seconds})
        move_traffic(app, state, slot, wanted)
    say(f"{name}: {wanted['release']} is live again in slot {slot}, where it still ran")
    return {"changed": True, "release": wanted["release"], "slot": slot, "seconds": seconds}


def operator() -> str:
    """Return who runs this command."""
    return os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name


def keep_serving(app: dict[str, Any], state: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """See to it that the release that is live already really serves."""
    slot, done = state["live"]["slot"], {"release": options.release, "slot": state["live"]["slot"]}
    tidy_idle(app, state)
    if is_serving(app, state):
        return {"changed": False, **done}
    say(f"{app['name']}: slot {slot} is live but not running; starting it again")
    start_slot(app, slot, app["kinds"])
    wait_ready(app, slot, options.timeout)
    return {"changed": True, **done}


def start_release(
    app: dict[str, Any], state: dict[str, Any], slot: str, begin: dict[str, Any], timeout: float
) -> float:
    """Start a release in the idle slot and wait until it is deeply ready; return the seconds from start to ready."""
    name = app["name"]
    first = [kind for kind in app["kinds"] if kind != "worker"]
    stop_slot(app, slot)  # whatever a killed run left there
    point(OPT / "slots" / f"{name}-{slot}", str(release_dir(name, begin["release"])))
    state["slots"][slot] = begin
    write_state(name, state)
    if state["live"]:
        hold_back(app, slot)
    prepare(app, slot, timeout)
    say(f"{name}: starting {begin['release']} in slot {slot}")
    start_slot(app, slot, first)
    return wait_ready({**app, "kinds": first}, slot, timeout)


def move_traffic(app: dict[str, Any], state: dict[str, Any], slot: str, begin: dict[str, Any]) -> None:
    """Make a ready slot live and let the old one drain."""
    name, old, since = app["name"], state["live"], now()
    if old and "worker" in app["kinds"]:
        systemctl("stop", app["slots"][old["slot"]]["worker_unit"])
    state["slots"][slot] = {**begin, "state": "live", "since": since}
    state["live"] = {"slot": slot, "release": begin["release"], "config": begin["config"], "since": since}
    if old:
        until = time.time() + site()["ladder"]["drain_seconds"]
        state["slots"][old["slot"]] = {**live_entry(old), "state": "draining", "until": until}
        if old["release"] != begin["release"]:
            state["previous"] = old["release"]
    write_state(name, state)  # from here on a killed run has switched: whoever comes next moves the routes
    reconcile(app, state)
    if "worker" in app["kinds"]:
        start_slot(app, slot, ["worker"])
    if old:
        systemctl("start", "--no-block", drain_unit(name, old["slot"]))


def drain_unit(name: str, slot: str) -> str:
    """Return the unit that lets a slot finish."""
    return f"pergola-drain@{name}-{slot}.service"


def live_entry(live: dict[str, Any]) -> dict[str, Any]:
    """Return what a slot remembers of its release."""
    return {"release": live["release"], "config": live["config"]}


def tidy_idle(app: dict[str, Any], state: dict[str, Any]) -> None:
    """Stop what a killed run left starting in the idle slot, and go on with a drain that nobody does."""
    for slot, held in state["slots"].items():
        if held and held["state"] == "starting":
            stop_slot(app, slot)
            state["slots"][slot] = None
            write_state(app["name"], state)
        elif held and held["state"] == "draining":
            systemctl("start", "--no-block", drain_unit(app["name"], slot))


def rollback(options: argparse.Namespace) -> dict[str, Any]:
    """Make the previous release live again, or any release still on this host."""
    state = read_state(options.app)
    release = options.release or state["previous"]
    if not release:
        raise Failure(f"{options.app} has no previous release; name one of `pergola releases {options.app}`")
    options.release, options.what, options.again = release, "rollback", False
    return deploy(options)


def sessions(app: dict[str, Any], slot: str) -> int | None:
    """Count the live Streamlit sessions of a slot; nothing when it does not answer (a busy one still has its visitors)."""
    if "ui" not in app["kinds"]:
        return 0
    entry = app["slots"][slot]
    try:
        status, body = fetch(entry["ui_socket"], f"{app['path']}_stcore/metrics?families=active_sessions", 3.0)
    except (FileNotFoundError, ConnectionRefusedError):
        return 0
    except (OSError, http.client.HTTPException):
        running = systemctl("is-active", entry["ui_unit"], check=False) == "active"
        return None if running else 0
    found = re.search(r"^active_sessions\s+(\S+)", body, re.MULTILINE)
    if status != 200:
        return None
    try:
        return int(float(found[1])) if found else 0
    except ValueError:
        return None


def counted(count: int | None) -> str:
    """Say how many sessions there are."""
    return "sessions that do not answer" if count is None else f"{count} session{'' if count == 1 else 's'}"


def drain(options: argparse.Namespace) -> dict[str, Any]:
    """Let an old slot finish: until it has no live session, or the ceiling is reached."""
    app = app_plan(options.app)
    quiet = 0
    say(f"{options.app}: draining slot {options.slot}")
    time.sleep(options.settle)  # requests that nginx had just connected are accepted by now
    while True:
        held = read_state(options.app)["slots"][options.slot]
        if not held or held["state"] != "draining":
            return {"changed": False}
        count = sessions(app, options.slot)
        quiet = quiet + 1 if count == 0 else 0
        if quiet >= 3:
            return finish_drain(app, options.slot, "no session left")
        if time.time() >= held["until"]:
            return finish_drain(app, options.slot, f"the ceiling was reached with {counted(count)}")
        time.sleep(1)


def finish_drain(app: dict[str, Any], slot: str, why: str) -> dict[str, Any]:
    """Take the routes of a drained slot away, then stop it."""
    with locked(f"{app['name']}.drain", 600):
        state = read_state(app["name"])
        held = state["slots"][slot]
        if not held or held["state"] != "draining":
            return {"changed": False}
        state["slots"][slot] = {**held, "state": "stopping"}
        reconcile(app, state)
        stop_slot(app, slot)
        state = read_state(app["name"])
        state["slots"][slot] = None
        write_state(app["name"], state)
    say(f"{app['name']}: slot {slot} is drained ({why})")
    return {"changed": True, "reason": why}


# ---------------------------------------------------------------- boot, status, prune


def pending(options: argparse.Namespace) -> dict[str, Any]:
    """Say for each app what these releases lack to be live (release, secret, live), and which layers are not here."""
    lacking: dict[str, list[str]] = {}
    missing: set[str] = set()
    plans = {app["name"]: app for app in known_apps()}
    for wanted in options.releases:
        if wanted.count(":") != 2:
            raise Failure(f"{wanted!r} is not of the form app:release:layer,layer")
        name, release, layers = wanted.split(":")
        missing |= {one for one in filter(None, layers.split(",")) if not layer_dir(one).exists()}
        lacks = []
        if not (release_dir(name, release) / "release.json").exists():
            lacks.append("release")
        state = read_state(name)
        live = state["live"]
        settled = all(held is None or held["state"] == "live" for held in state["slots"].values())
        app = plans.get(name)
        if app and any(not (SECRETS / name / one).exists() for one in app["manifest"]["secrets"]):
            lacks.append("secret")
        if (
            app is None
            or not live
            or (live["release"], live["config"]) != (release, config_hash(app))
            or not settled
            or not is_serving(app, state)
        ):
            lacks.append("live")
        if lacks:
            lacking[name] = lacks
    return {"changed": False, "pending": lacking, "layers": sorted(missing)}


def retire(options: argparse.Namespace) -> dict[str, Any]:
    """Take apps out of service that are not in the list; their data, secrets and releases stay."""
    retired = []
    for app in known_apps():
        if app["name"] in options.keep_apps:
            continue
        with locked(app["name"], options.wait), locked(f"{app['name']}.drain", options.wait):
            state = read_state(app["name"])
            if not state["live"] and not any(state["slots"].values()):
                continue
            state["live"], state["slots"] = None, {"a": None, "b": None}
            state["history"].append(
                {"at": now(), "what": "retire", "release": "-", "slot": "-", "by": "root", "ended": "retired"}
            )
            write_state(app["name"], state)
            reconcile(app, state)
            for slot in ("a", "b"):
                systemctl("stop", drain_unit(app["name"], slot))
                stop_slot(app, slot)
            retired.append(app["name"])
            say(f"{app['name']}: out of service; its data stays in {app['state_dir']}")
    return {"changed": bool(retired), "retired": retired}


def boot(_: argparse.Namespace) -> dict[str, Any]:
    """Start what was live before the host went down; drains are over by then."""
    started, failed = [], []
    for app in site()["apps"]:
        try:
            state = read_state(app["name"])
            for slot, held in state["slots"].items():
                if held and held["state"] != "live":
                    state["slots"][slot] = None
            write_state(app["name"], state)
            reconcile(app, state)
            if state["live"]:
                start_slot(app, state["live"]["slot"], app["kinds"])
                started.append(app["name"])
        except Failure as error:
            failed.append(f"{app['name']}: {error}")  # the others start all the same
    if failed:
        raise Failure("\n".join(failed))
    return {"changed": bool(started), "started": started}


def status(options: argparse.Namespace) -> dict[str, Any]:
    """Say what is live, since when, whether it answers, and what else is on the host."""
    rows = [status_of(app) for app in site()["apps"]]
    if not options.json:
        columns = {"app": 12, "state": 15, "release": 13, "slot": 5, "since": 21, "previous": 13, "draining": 0}
        print(" ".join(f"{name:<{width}}" for name, width in columns.items()))
        for row in rows:
            cells = {**row, "draining": ", ".join(row["draining"])}
            print(" ".join(f"{cells[name] or '-':<{width}}" for name, width in columns.items()).rstrip())
    return {"apps": rows, "changed": False}


def status_of(app: dict[str, Any]) -> dict[str, Any]:
    """Say what one app is doing."""
    row: dict[str, Any] = {"app": app["name"], "path": app["path"], "draining": []}
    try:
        state = read_state(app["name"])
    except Failure as error:
        return {**row, **dict.fromkeys(("release", "slot", "since", "previous", "sessions")), "state": str(error)}
    live = state["live"] or {}
    held = [slot for slot, entry in state["slots"].items() if entry and entry["state"] == "draining"]
    return {
        **row,
        "state": "never deployed" if not live else "serving" if is_serving(app, state) else "DOWN",
        **{key: live.get(key) for key in ("release", "slot", "since")},
        "previous": state["previous"],
        "sessions": sessions(app, live["slot"]) if live else 0,
        "draining": [f"{slot} ({counted(sessions(app, slot))})" for slot in held],
    }


def releases(options: argparse.Namespace) -> dict[str, Any]:
    """List the releases on this host, newest first, and the app's history."""
    app_plan(options.app)
    state = read_state(options.app)
    found = kept_releases(options.app)
    live = (state["live"] or {}).get("release")
    if not options.json:
        for path in found:
            mark = "live" if path.name == live else "previous" if path.name == state["previous"] else ""
            installed = dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC)
            print(f"{path.name}  installed {installed:%Y-%m-%d %H:%M:%S}  {mark}".rstrip())
        for event in state["history"][-10:]:
            reason = f": {event['reason']}" if "reason" in event else ""
            print(f"{event['at']}  {event['what']:<9} {event['release']} -> {event['ended']} by {event['by']}{reason}")
    return {"releases": [path.name for path in found], "history": state["history"], "changed": False}


def kept_releases(name: str) -> list[Path]:
    """Return the release folders of an app, newest first."""
    folder = OPT / name / "releases"
    return (
        sorted(
            (path for path in folder.glob("*") if re.fullmatch(r"[0-9a-f]{12}", path.name)),
            key=lambda path: path.stat().st_mtime,
            reverse=True,
        )
        if folder.is_dir()
        else []
    )


def prune_app(app: dict[str, Any], state: dict[str, Any], keep: int) -> list[str]:
    """Remove old releases; never one that is live, previous, or held by a slot."""
    held = {state["previous"], *(entry["release"] for entry in state["slots"].values() if entry)}
    if state["live"]:
        held.add(state["live"]["release"])
    gone = []
    for path in kept_releases(app["name"])[keep:]:
        if path.name not in held:
            discard(path)
            gone.append(path.name)
    return gone


def prune(options: argparse.Namespace) -> dict[str, Any]:
    """Remove old releases of every app, then layers that no release uses."""
    gone: list[str] = []
    with locked("install", options.wait):
        for app in site()["apps"]:
            with locked(app["name"], options.wait):
                gone += prune_app(app, read_state(app["name"]), options.keep)
                for left in (OPT / app["name"] / "releases").glob(".*.gone"):
                    remove_tree(left)
        used = {
            Path(line).parent.name
            for paths in OPT.glob("*/releases/*/venv/lib/*/site-packages/layers.pth")
            for line in paths.read_text(encoding="utf-8").splitlines()
        }
        for path in (OPT / "layers").glob("*"):
            if path.name not in used:
                discard(path)
                gone.append(f"layer {path.name}")
    return {"changed": bool(gone), "removed": gone}


def secret(options: argparse.Namespace) -> dict[str, Any]:
    """Show a secret of an app, or make the ones that are missing (never printed then)."""
    app = app_plan(options.app)
    names = app["manifest"]["secrets"]
    if options.name:
        if options.name not in names:
            raise Failure(
                f"{options.app} has no secret {options.name!r}; its manifest names: {', '.join(names) or 'none'}"
            )
        try:
            text = (SECRETS / options.app / options.name).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise Failure(
                f"the secret {options.name} of {options.app} was not made yet; "
                f"`pergola secret {options.app}` makes what is missing"
            ) from None
        print(text, end="" if options.json else "\n")
        return {"changed": False}
    made = []
    folder = SECRETS / options.app
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in names:
        if not (folder / name).exists():
            handle = os.open(folder / f".{name}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(secrets.token_urlsafe(24))
                stream.flush()
                os.fsync(stream.fileno())
            (folder / f".{name}.new").replace(folder / name)
            made.append(name)
    return {"changed": bool(made), "made": made}


# ---------------------------------------------------------------- command line


def count(text: str) -> int:
    """Read a number that is not negative."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number such as 5, got {text!r}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(prog="pergola", description=(__doc__ or "").split("\n\n")[0])
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    common.add_argument("--quiet", action="store_true", help="no progress on standard error")
    common.add_argument(
        "--wait",
        type=float,
        default=120,
        metavar="S",
        help="seconds to wait for another run on the same app (default %(default)s)",
    )
    common.add_argument("--keep", type=count, default=5, metavar="N", help="releases to keep (default %(default)s)")
    move = argparse.ArgumentParser(add_help=False)
    move.add_argument(
        "--timeout",
        type=float,
        default=90,
        metavar="S",
        help="seconds until the release must be ready (default %(default)s)",
    )
    move.add_argument(
        "--cut-sessions", action="store_true", help="do not wait for sessions of the release before the last"
    )
    actions = top.add_subparsers(dest="action", required=True)

    def add(name: str, function: Any, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=text, description=text, parents=[common, *parents])
        added.set_defaults(function=function, what=name)
        return added

    one = add("install", install, "put a release on this host; nothing is started")
    one.add_argument("app")
    one.add_argument("release")
    one.add_argument("--archive", type=Path, required=True)
    one.add_argument("--sha256")
    one = add("layer", layer, "put a layer of installed packages on this host; releases share it")
    one.add_argument("layer")
    one.add_argument("--archive", type=Path, required=True)
    one.add_argument("--sha256")
    one = add("deploy", deploy, "make an installed release live, without a failed request", move)
    one.add_argument("app")
    one.add_argument("release")
    one.add_argument("--again", action="store_true", help="start the same release again in the other slot")
    one = add("rollback", rollback, "make the previous release live again", move)
    one.add_argument("app")
    one.add_argument("release", nargs="?")
    one = add("drain", drain, "let an old slot finish (run by its unit)")
    one.add_argument("app")
    one.add_argument("slot", choices=("a", "b"))
    one.add_argument("--settle", type=float, default=1.0, metavar="S")
    add("boot", boot, "start what was live before the host went down (run by its unit)")
    add("status", status, "what is live, since when, and whether it answers")
    one = add("releases", releases, "the releases on this host and the history of an app")
    one.add_argument("app")
    one = add("pending", pending, "what a deploy of these releases would have to do")
    one.add_argument("releases", nargs="+", metavar="app:release:layer,...")
    one = add("retire", retire, "take every app out of service that is not named; data stays")
    one.add_argument("keep_apps", nargs="+", metavar="app")
    add("prune", prune, "remove old releases and layers that nothing uses")
    one = add("secret", secret, "show a secret of an app; without a name: make the missing ones")
    one.add_argument("app")
    one.add_argument("name", nargs="?")
    return top


def main() -> int:
    """Run one command."""
    global QUIET  # noqa: PLW0603 - one switch of a command-line tool
    options = parser().parse_args()
    QUIET = options.quiet
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt("stopped by SIGTERM")))
    if os.geteuid() != 0:
        print("pergola: this needs root; run it with sudo", file=sys.stderr)
        return 1
    try:
        result = options.function(options)
    except (Failure, OSError) as error:
        text = str(error) if isinstance(error, Failure) else f"{error}{disk_hint(error)}"
        if options.json:
            print(json.dumps({"changed": False, "failed": True, "msg": text}))
        print(f"pergola: {text}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print(f"pergola: interrupted ({error or 'Ctrl-C'}); run the same command again to finish", file=sys.stderr)
        return 130
    if options.json and options.action != "secret":
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
