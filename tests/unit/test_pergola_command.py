"""The command ``pergola``: what it installs, what it refuses, and what is left when it is killed.

systemd is a stand-in here that remembers which units are active; tests/host has the real one.
"""

import argparse
import ast
import contextlib
import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
import time
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from app.core import bundle, manifest, plan

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "roles" / "apps" / "files" / "pergola.py"
CODE = compile(PROGRAM.read_text(encoding="utf-8"), str(PROGRAM), "exec")
LAYER = "e" * 12
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
ONE, TWO, THREE = "1" * 12, "2" * 12, "3" * 12
FOLDERS = {
    "SITE": "etc/site.json",
    "OPT": "opt",
    "STATE": "state",
    "ROUTES": "run/route",
    "LOCKS": "run/lock",
    "SECRETS": "etc/secrets",
    "UNITS": "units",
    "APP_ENV": "etc/apps",
    "CONTROL": "run/system.control",
}


class Killed(BaseException):
    """What kill -9 does to a program: it goes no further, and nobody tidies up."""


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Systemd:
    """Stands in for systemctl: a unit is active from its start to its stop."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.active: set[str] = set()
        self.broken: set[str] = set()
        self.restarts: dict[str, int] = {}
        self.calls: list[str] = []
        self.kill_at: int | None = None

    def __call__(self, *arguments: str, check: bool = True) -> str:
        self.calls.append(" ".join(arguments))
        if self.kill_at is not None and len(self.calls) >= self.kill_at:
            raise Killed
        verb, *units = [argument for argument in arguments if not argument.startswith("-")]
        if verb == "set-property":
            kept = self.module.CONTROL / f"{units[0]}.d" / "50-CPUWeight.conf"
            kept.parent.mkdir(parents=True, exist_ok=True)
            if units[1] == "CPUWeight=":
                kept.unlink(missing_ok=True)
            else:
                kept.write_text(f"[Service]\n{units[1]}\n")
            return ""
        if verb == "show":
            return str(self.restarts.get(units[-1], 0))
        if verb == "is-active":
            return "\n".join("active" if unit in self.active else "inactive" for unit in units)
        if verb == "start":
            if failing := self.broken.intersection(units):
                raise self.module.Failure(f"systemctl start {failing.pop()} failed")
            self.active.update(units)
        elif verb == "stop":
            self.active.difference_update(units)
        return ""


class Host:
    """The program with its folders below a test's own one, and a stand-in for systemd."""

    module: Any

    def __init__(self, folder: Path, apps: list[manifest.Manifest]) -> None:
        self.module = types.ModuleType("pergola_command")
        exec(CODE, self.module.__dict__)  # noqa: S102 - a module of its own for each test, compiled once
        self.folder = folder
        for name, path in FOLDERS.items():
            setattr(self.module, name, folder / path)
        self.module.QUIET = True
        self.systemd = Systemd(self.module)
        self.clock = Clock()
        self.module.systemctl = self.systemd
        self.logged = "the journal's last line"
        self.module.journal = lambda *_, **__: self.logged
        self.module.fetch = self.fetch
        self.module.time = self.clock
        self.answers: dict[str, tuple[int, str]] = {}
        self.screens: dict[str, tuple[int, str]] = {}  # where the screen answers otherwise than the API
        self.patience: set[float] = set()  # seconds that an answer may take
        self.sessions: dict[str, int] = {}
        self.write_site(apps)
        self.module.PYTHON = Path(sys.executable)
        (self.module.OPT / "layers" / LAYER / "site-packages").mkdir(parents=True)

    def write_site(self, apps: list[manifest.Manifest], drain_seconds: int = 900) -> None:
        text = json.dumps(plan.build(apps, drain_seconds=drain_seconds))
        self.module.SITE.parent.mkdir(parents=True, exist_ok=True)
        self.module.SITE.write_text(text.replace("/run/pergola", str(self.folder / "run")))

    def fetch(self, path: str, target: str, timeout: float) -> tuple[int, str]:
        """Answer as the service behind a socket does."""
        self.patience.add(timeout)
        instance, kind, _ = Path(path).name.split(".")
        if f"pergola-{kind}@{instance}.service" not in self.systemd.active:
            raise ConnectionRefusedError(path)
        if "_stcore/metrics" in target:
            return 200, f"# TYPE active_sessions gauge\nactive_sessions {self.sessions.get(instance[-1], 0)}\n# EOF\n"
        release = (self.module.OPT / "slots" / instance).readlink().name
        if kind == "ui" and release in self.screens:
            return self.screens[release]
        return self.answers.get(release, (200, "{}"))

    def run(self, *arguments: str) -> dict[str, Any]:
        options = self.options(*arguments)
        return options.function(options)  # type: ignore[no-any-return]

    def options(self, *arguments: str) -> argparse.Namespace:
        return self.module.parser().parse_args([*arguments, "--wait=0", "--json"])  # type: ignore[no-any-return]

    def refused(self, *arguments: str) -> str:
        with pytest.raises(self.module.Failure) as caught:
            self.run(*arguments)
        return str(caught.value)

    def state(self, name: str = "wine") -> dict[str, Any]:
        return self.module.read_state(name)  # type: ignore[no-any-return]

    def app(self, name: str = "wine") -> dict[str, Any]:
        return self.module.app_plan(name)  # type: ignore[no-any-return]

    def installed(self, *releases: str, name: str = "wine") -> None:
        """Put empty releases where ``install`` puts real ones."""
        for number, release in enumerate(releases):
            folder = self.module.OPT / name / "releases" / release
            folder.mkdir(parents=True)
            (folder / "release.json").write_text("{}")
            self.module.make_venv(folder / "venv", [LAYER])
            os.utime(folder, (number + 1, number + 1))

    def routes(self, name: str = "wine") -> dict[str, str]:
        folder = self.module.ROUTES / name
        return {link.name: link.readlink().name for link in folder.iterdir()} if folder.is_dir() else {}

    def answering(self, name: str = "wine") -> set[str]:
        """Return the releases that requests meet now; fail when one would meet nobody."""
        routes, found = self.routes(name), set()
        for kind in {"api", "ui"} & set(routes):
            instance = routes[kind].split(".")[0]
            assert f"pergola-{kind}@{instance}.service" in self.systemd.active, f"{kind} leads to a stopped service"
            found.add((self.module.OPT / "slots" / instance).readlink().name)
        return found

    def held_back(self) -> set[str]:
        """Return the units that have less than their full share of the processors."""
        return {file.parent.name.removesuffix(".d") for file in self.module.CONTROL.glob("*/50-CPUWeight.conf")}

    def serving(self, name: str = "wine") -> str:
        """Return the one release that API and screen are of."""
        (release,) = self.answering(name)
        return release


def made(name: str = "wine", **extra: Any) -> manifest.Manifest:
    raw = {"name": name, "title": name, "summary": "x", "api": {"app": f"app.{name}.api:app"}, **extra}
    return manifest.check(raw, folder=Path("/apps") / name)


WINE = made(ui={"script": "app/wine/ui.py"}, secrets=["admin_password", "api_key"])
PORTAL = made("portal", path="/")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path, [WINE, PORTAL])


def deployed(host: Host, *releases: str) -> None:
    """Make releases live, one after the other, each old one drained."""
    for release in releases:
        host.run("deploy", "wine", release)
        for slot, held in host.state()["slots"].items():
            if held and held["state"] == "draining":
                host.run("drain", "wine", slot)


# ---------------------------------------------------------------- archives


class Archive:
    """Builds release archives, right ones and wrong ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self, app: str = "wine", release: str = ONE, layers: Sequence[str] = (LAYER,)) -> dict[str, bytes]:
        files = {
            "app/__init__.py": b"",
            f"app/{app}/api.py": b"app = None\n",
            "requirements.txt": b"",
            "manifest.json": b"{}",
        }
        listed = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        about = {"app": app, "release": release, "layers": list(layers), "files": listed}
        files["release.env"] = f"PERGOLA_RELEASE={release}\n".encode()
        files["release.json"] = json.dumps(about).encode()
        return files

    def write(self, files: dict[str, bytes], *members: tarfile.TarInfo, name: str = "wine.tar.gz") -> Path:
        path = self.folder / name
        with tarfile.open(path, "w:gz") as tar:
            for entry, content in files.items():
                info = tarfile.TarInfo(entry)
                info.size, info.mode = len(content), 0o755 if entry.endswith(".sh") else 0o644
                tar.addfile(info, io.BytesIO(content))
            for member in members:
                tar.addfile(member)
        return path


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.devmajor, info.devminor = kind, target, 1, 3
    return info


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def install(path: Path, release: str = ONE, app: str = "wine") -> list[str]:
    return ["install", app, release, f"--archive={path}", f"--sha256={sha256(path)}"]


def left_over(host: Host) -> list[str]:
    folder = host.module.OPT / "wine" / "releases"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_a_good_archive_is_installed_complete_and_compiled(host: Host, archive: Archive) -> None:
    path = archive.write(archive.files())
    assert host.run(*install(path)) == {"changed": True, "release": ONE}
    folder = host.module.OPT / "wine" / "releases" / ONE
    assert left_over(host) == [ONE]
    assert (folder / "release.env").read_text() == f"PERGOLA_RELEASE={ONE}\n"
    assert (folder / "app/wine/api.py").read_bytes() == b"app = None\n"
    assert list((folder / "app/wine/__pycache__").glob("api.*.pyc")), "the sandbox cannot write it later"
    found = subprocess.run(
        [folder / "venv/bin/python", "-I", "-c", "import sys; print(sys.prefix, *sys.path, sep='\\n')"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert found[0] == str(folder / "venv")
    assert str(host.module.OPT / "layers" / LAYER / "site-packages") in found
    assert not host.systemd.calls, "nothing is started"


def test_a_second_time_nothing_changes(host: Host, archive: Archive) -> None:
    path = archive.write(archive.files())
    command = install(path)
    host.run(*command)
    path.unlink()  # it is not even read
    assert host.run(*command) == {"changed": False, "release": ONE}


def test_a_bundle_of_this_project_can_be_installed(host: Host, tmp_path: Path) -> None:
    """What bundle.py makes is what pergola.py wants: the same names, lists and checksums."""
    folder = tmp_path / "src" / "wine"
    folder.mkdir(parents=True)
    (folder / "app.yml").write_text("name: wine\ntitle: W\nsummary: W\napi: {app: 'app.wine.api:app'}\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    built = bundle.build(ROOT, manifest.load(folder), out=tmp_path / "out", python="3.13", machine="x86_64", check=True)
    (tmp_path / "out").mkdir()
    for layer in built.layers:
        Path(layer["archive"]).write_bytes(b"")
    built = bundle.build(ROOT, manifest.load(folder), out=tmp_path / "out", python="3.13", machine="x86_64")
    for layer in built.layers:
        (host.module.OPT / "layers" / layer["id"]).mkdir()
    assert host.run(*install(Path(built.archive), built.release))["changed"]
    installed = host.module.OPT / "wine" / "releases" / built.release
    assert (installed / "app/wine/run.sh").stat().st_mode & 0o777 == 0o755
    assert (installed / "app/wine/app.yml").stat().st_mode & 0o777 == 0o644
    assert (installed / "app/core/manifest.py").is_file()


def test_unusual_permissions_of_the_caller_do_not_matter(host: Host, archive: Archive) -> None:
    old = os.umask(0o077)
    try:
        host.run(*install(archive.write({**archive.files()})))
    finally:
        os.umask(old)
    folder = host.module.OPT / "wine" / "releases" / ONE
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            wanted = 0o755 if path.is_dir() else 0o644
            assert path.stat().st_mode & 0o777 == wanted, f"{path}: an app's own user must be able to read it"


def test_a_wrong_checksum_is_refused(host: Host, archive: Archive) -> None:
    path = archive.write(archive.files())
    command = install(path)
    path.write_bytes(path.read_bytes() + b"x")
    message = host.refused(*command)
    assert "is damaged: its sha256 is" in message
    assert "copy it again" in message
    assert left_over(host) == []


def test_a_missing_archive_is_named(host: Host, tmp_path: Path) -> None:
    message = host.refused("install", "wine", ONE, f"--archive={tmp_path}/no.tar.gz")
    assert "no.tar.gz does not exist; copy the bundle to this host first" in message


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_a_truncated_archive_is_refused(host: Host, archive: Archive, share: float) -> None:
    path = archive.write({**archive.files(), "app/wine/data.bin": os.urandom(50_000)})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    message = host.refused(*install(path))
    assert f"{path} is damaged" in message
    assert left_over(host) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"\0" * 10_000, gzip.compress(b"hello"), gzip.compress(b"\0" * 10_240)],
    ids=["empty", "text", "zeros", "gzip of text", "empty tar"],
)
def test_what_is_no_archive_is_refused(host: Host, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "wine.tar.gz"
    path.write_bytes(content)
    message = host.refused(*install(path))
    assert f"{path} is damaged" in message or "the archive is not a release" in message
    assert left_over(host) == []


def test_a_flipped_bit_anywhere_is_refused(host: Host, archive: Archive) -> None:
    path = archive.write({**archive.files(), "app/wine/data.bin": os.urandom(2000)})
    content = path.read_bytes()
    for position in range(12, len(content) - 8, max(1, len(content) // 25)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        assert host.refused(*install(path)), position
        assert left_over(host) == []


@pytest.mark.parametrize(
    "wrong",
    [
        member("../outside", tarfile.REGTYPE),
        member("app/../../outside", tarfile.REGTYPE),
        member("/tmp/outside", tarfile.REGTYPE),
        member("", tarfile.REGTYPE),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("link", tarfile.SYMTYPE, "../../../outside"),
        member("link", tarfile.SYMTYPE, "app"),
        member("link", tarfile.LNKTYPE, "/etc/passwd"),
        member("link", tarfile.LNKTYPE, "app/__init__.py"),
        member("null", tarfile.CHRTYPE),
        member("disk", tarfile.BLKTYPE),
        member("pipe", tarfile.FIFOTYPE),
        member("app/__init__.py", tarfile.REGTYPE),
        member("app/wine/api.py/x", tarfile.REGTYPE),
        member("../outside", tarfile.DIRTYPE),
    ],
    ids=lambda info: f"{info.name} {info.type.decode()} {info.linkname}",
)
def test_a_hostile_archive_is_refused(host: Host, archive: Archive, tmp_path: Path, wrong: tarfile.TarInfo) -> None:
    path = archive.write(archive.files(), wrong)
    before = {found for found in tmp_path.rglob("*") if "run" not in found.parts}
    assert host.refused(*install(path))
    assert left_over(host) == []
    releases = host.module.OPT / "wine"
    assert {found for found in tmp_path.rglob("*") if "run" not in found.parts} - {
        releases,
        releases / "releases",
    } == before
    assert not (host.module.OPT / "wine" / "outside").exists()
    assert not Path("/tmp/outside").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"app/wine/api.py": b"app = 1\n"}, "app/wine/api.py in the release 111111111111 is damaged"),
        ({"app/wine/api.py": None}, "app/wine/api.py in the release 111111111111 is missing"),
        ({"app/wine/extra.py": b""}, "app/wine/extra.py in the release 111111111111 is not in its list"),
        ({"venv": b""}, "venv in the release 111111111111 is not in its list"),
        ({"release.env": b"LD_PRELOAD=/tmp/x.so\n"}, "release.env in the release 111111111111 is damaged"),
        ({"release.json": None}, "the archive is not a release: it has no release.json"),
        ({"release.json": b"{"}, "the archive is not a release"),
        ({"release.json": b"[]"}, "the archive is not a release"),
        ({"release.json": b"{}"}, "the archive is not a release"),
        ({"release.json": b'{"app": "wine", "release": "111111111111", "layers": [], "files": 5}'}, "the archive is not a release"),
        ({"release.json": b"\xff"}, "the archive is not a release"),
    ],
    ids=lambda value: next(iter(value.items())).__repr__()[:50] if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_is_not_as_listed_is_refused(
    host: Host, archive: Archive, change: dict[str, bytes | None], expected: str
) -> None:
    files = {**archive.files(), **change}
    message = host.refused(*install(archive.write({k: v for k, v in files.items() if v is not None})))
    assert expected in message
    assert "build" in message
    assert left_over(host) == []


@pytest.mark.parametrize("about", [{"app": "portal"}, {"release": TWO}], ids=lambda value: next(iter(value)))
def test_the_archive_of_another_release_is_refused(host: Host, archive: Archive, about: dict[str, str]) -> None:
    message = host.refused(*install(archive.write(archive.files(**about))))
    assert "the archive holds" in message
    assert f"expected wine {ONE}; copy the right one" in message
    assert left_over(host) == []


def test_an_app_that_the_host_does_not_know_is_named(host: Host, archive: Archive) -> None:
    message = host.refused(*install(archive.write(archive.files()), app="vine"))
    assert message == "there is no app 'vine' on this host; it has: portal, wine"


@pytest.mark.parametrize("release", ["", "..", "../../etc", "1" * 11, "1" * 13, "G" * 12, "1" * 12 + "\n"], ids=ascii)
def test_what_is_no_release_id_is_refused(host: Host, archive: Archive, release: str) -> None:
    assert "is not a release id" in host.refused(*install(archive.write(archive.files()), release))
    assert "is not a release id" in host.refused("deploy", "wine", release)


@pytest.mark.parametrize("layer", ["..", "../x", "e" * 11], ids=ascii)
def test_what_is_no_layer_id_is_refused(host: Host, archive: Archive, layer: str) -> None:
    path = archive.write(archive.files(layers=[layer]))
    assert "is not a layer id" in host.refused(*install(path))
    assert "is not a layer id" in host.refused("layer", layer, f"--archive={path}")
    assert left_over(host) == []


def test_a_layer_that_is_missing_is_named(host: Host, archive: Archive) -> None:
    message = host.refused(*install(archive.write(archive.files(layers=[LAYER, "f" * 12]))))
    assert message == "layer ffffffffffff is not on this host; `pergola layer ffffffffffff --archive=...` installs it"
    assert left_over(host) == []


def test_what_a_killed_install_left_is_swept_away(host: Host, archive: Archive) -> None:
    left = host.module.OPT / "wine" / "releases" / f".{ONE}.new"
    left.mkdir(parents=True)
    (left / "app").write_text("half of it")
    assert host.run(*install(archive.write(archive.files())))["changed"]
    assert left_over(host) == [ONE]


def test_a_file_that_cannot_be_compiled_is_named(host: Host, archive: Archive) -> None:
    files = archive.files()
    files["app/wine/api.py"] = b"def broken(:\n"
    about = json.loads(files["release.json"])
    about["files"]["app/wine/api.py"] = hashlib.sha256(files["app/wine/api.py"]).hexdigest()
    files["release.json"] = json.dumps(about).encode()
    message = host.refused(*install(archive.write(files)))
    assert "SyntaxError" in message
    assert "api.py" in message
    assert left_over(host) == []


@pytest.mark.parametrize("where", ["unpack", "compile_code", "verify"])
def test_a_full_disk_leaves_nothing_and_names_the_fix(
    host: Host, archive: Archive, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(host.module, where, full)
    message = host.refused(*install(archive.write(archive.files())))
    assert "the disk is full: free some space (`pergola prune` removes old releases)" in message
    assert "The live release was not touched." in message
    assert left_over(host) == []


# ---------------------------------------------------------------- layers

NEW = "f" * 12


def packed(archive: Archive, files: dict[str, bytes] | None = None, **about: Any) -> Path:
    """A layer's archive: one package, and what is said of it."""
    named = {"layer": NEW, "python": HERE, "machine": "x86_64", "compiled": True, **about}
    content = {"layer.json": json.dumps(named).encode(), "x/__init__.py": b"one = 1\n", "x/tests/y.py": b"z = 1\n"}
    return archive.write({**content, **(files or {})}, name="layer.tar.gz")


def install_layer(path: Path) -> list[str]:
    return ["layer", NEW, f"--archive={path}", f"--sha256={sha256(path)}"]


def layers_of(host: Host) -> list[str]:
    return sorted(path.name for path in (host.module.OPT / "layers").iterdir())


def test_a_layer_is_unpacked_once_and_releases_import_from_it(host: Host, archive: Archive) -> None:
    path = packed(archive)
    command = install_layer(path)
    assert host.run(*command) == {"changed": True, "layer": NEW}
    assert layers_of(host) == [LAYER, NEW]
    assert not list((host.module.OPT / "layers" / NEW).rglob("*.pyc")), "it says that it is compiled"
    path.unlink()
    assert host.run(*command)["changed"] is False, "what is here is not read again"
    host.run(*install(archive.write(archive.files(layers=[LAYER, NEW]))))
    python = host.module.OPT / "wine/releases" / ONE / "venv/bin/python"
    done = subprocess.run([python, "-I", "-c", "import x; print(x.one)"], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_what_was_not_compiled_is_compiled_here(host: Host, archive: Archive) -> None:
    """A file that is not for this Python does not matter; the packages' own tests are nobody's business."""
    host.run(*install_layer(packed(archive, {"x/old.py": b"print 'two'\n"}, compiled=False)))
    folder = host.module.OPT / "layers" / NEW
    assert [path.name.split(".")[0] for path in folder.rglob("*.pyc")] == ["__init__"]


def test_what_a_killed_layer_left_is_made_anew(host: Host, archive: Archive) -> None:
    left = host.module.OPT / "layers" / f".{NEW}.new"
    (left / "x").mkdir(parents=True)
    (left / "x" / "half.py").write_text("half")
    host.run(*install_layer(packed(archive)))
    assert layers_of(host) == [LAYER, NEW]
    assert not list((host.module.OPT / "layers" / NEW).rglob("half.py"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"layer": "a" * 12}, "the archive holds the layer aaaaaaaaaaaa, expected ffffffffffff"),
        ({"python": "2.7"}, f"is for Python 2.7, this host has {HERE}; build it for this host"),
    ],
    ids=str,
)
def test_another_layer_is_refused(host: Host, archive: Archive, change: dict[str, str], expected: str) -> None:
    assert expected in host.refused(*install_layer(packed(archive, **change)))
    assert layers_of(host) == [LAYER]


@pytest.mark.parametrize("said", [b"{", b"[]", b"{}", b"\xff"], ids=repr)
def test_what_is_no_layer_is_refused(host: Host, archive: Archive, said: bytes) -> None:
    assert "the archive is not a layer" in host.refused(*install_layer(packed(archive, {"layer.json": said})))
    assert "it has no layer.json" in host.refused(*install_layer(archive.write({"x.py": b""}, name="layer.tar.gz")))
    assert layers_of(host) == [LAYER]


def test_a_full_disk_leaves_no_half_layer(host: Host, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    command = install_layer(packed(archive))
    with monkeypatch.context() as patch:
        patch.setattr(host.module.shutil, "copyfileobj", full)
        assert "the disk is full: free some space" in host.refused(*command)
    assert layers_of(host) == [LAYER]
    assert host.run(*command)["changed"]


def test_a_damaged_layer_is_refused(host: Host, archive: Archive) -> None:
    path = packed(archive, {"x/data.bin": os.urandom(4096)})
    command = install_layer(path)
    path.write_bytes(path.read_bytes()[:1800])
    assert "is damaged" in host.refused(*command)
    assert "is damaged" in host.refused(*(part for part in command if "--sha256" not in part))
    assert layers_of(host) == [LAYER]


# ---------------------------------------------------------------- state


def test_an_app_that_was_never_deployed_has_no_live_slot(host: Host) -> None:
    assert host.state() == {"live": None, "previous": None, "slots": {"a": None, "b": None}, "history": []}


def test_state_is_written_durably_before_it_counts(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content reaches the disk before the name does, and the name before anybody goes on."""
    steps: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(handle: int) -> None:
        steps.append(f"fsync {Path(f'/proc/self/fd/{handle}').readlink().name}")
        real_fsync(handle)

    def replace(self: Path, target: Path) -> Path:
        steps.append(f"rename {self.name} {Path(target).name}")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    host.module.write_state("wine", host.state())
    assert steps == ["fsync .wine.json.new", "rename .wine.json.new wine.json", "fsync state"]


def test_a_state_half_written_by_a_killed_run_does_not_count(host: Host) -> None:
    state = {**host.state(), "previous": ONE}
    host.module.write_state("wine", state)
    (host.module.STATE / ".wine.json.new").write_text('{"live": {"sl')
    assert host.state() == state
    host.module.write_state("wine", {**state, "previous": TWO})
    assert host.state()["previous"] == TWO
    assert [path.name for path in host.module.STATE.iterdir()] == ["wine.json"]


def test_the_history_stays_short(host: Host) -> None:
    host.module.write_state("wine", {**host.state(), "history": [{"at": str(n)} for n in range(80)]})
    assert [event["at"] for event in host.state()["history"]] == [str(n) for n in range(30, 80)]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"5", b'"x"', b"\xff\xfe", b'{"slots": 5}', b'{"live": "a"}', b'{"live": {"slot": "c"}}', b'{"slots": {"a": {}}}', b'{"history": {}}'],
    ids=ascii,
)  # fmt: skip
def test_a_damaged_state_is_named_with_the_fix(host: Host, content: bytes) -> None:
    host.module.STATE.mkdir()
    (host.module.STATE / "wine.json").write_bytes(content)
    with pytest.raises(host.module.Failure) as caught:
        host.state()
    assert str(host.module.STATE / "wine.json") in str(caught.value)
    assert "is damaged" in str(caught.value)
    assert "remove it and deploy again" in str(caught.value)


@pytest.mark.parametrize("content", [None, "", "{", "[]", "5"])
def test_a_plan_that_is_missing_or_damaged_is_named_with_the_fix(host: Host, content: str | None) -> None:
    host.module.SITE.unlink()
    if content is not None:
        host.module.SITE.write_text(content)
    for command in (["status"], ["deploy", "wine", ONE], ["boot"]):
        message = host.refused(*command)
        assert str(host.module.SITE) in message
        assert "run site.yml on this host" in message


# ---------------------------------------------------------------- locks

HOLDER = """
import sys, time
from pathlib import Path
import importlib.util
spec = importlib.util.spec_from_file_location("pergola_command", {program!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.LOCKS = Path({locks!r})
sys.argv = ["pergola", "deploy", "wine"]
with module.locked("wine", 0):
    print("held", flush=True)
    time.sleep({seconds})
"""


@pytest.fixture
def hold(host: Host) -> Iterator[Callable[[float], subprocess.Popen[str]]]:
    """Hold the lock of wine in another process."""
    running: list[subprocess.Popen[str]] = []
    host.module.time = time

    def start(seconds: float) -> subprocess.Popen[str]:
        code = HOLDER.format(program=str(PROGRAM), locks=str(host.module.LOCKS), seconds=seconds)
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()


def test_one_app_is_changed_by_one_run_at_a_time(host: Host, hold: Callable[[float], Any]) -> None:
    holder = hold(60)
    began = time.monotonic()
    message = host.refused("deploy", "wine", ONE)
    assert time.monotonic() - began < 5
    assert message.startswith(f"wine is being changed by pid {holder.pid} (deploy wine) since 2")
    assert message.endswith("; wait for it to end, then run this again")
    with host.module.locked("portal", 0):
        pass  # other apps do not wait


def test_whoever_waits_goes_on_when_the_other_ends(host: Host, hold: Callable[[float], Any]) -> None:
    hold(0.5)
    with host.module.locked("wine", 20):
        assert f"pid {os.getpid()}" in (host.module.LOCKS / "wine").read_text()


def test_the_lock_of_a_killed_run_is_free(host: Host, hold: Callable[[float], Any]) -> None:
    holder = hold(60)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert f"pid {holder.pid}" in (host.module.LOCKS / "wine").read_text(), "its name is still there"
    with host.module.locked("wine", 0):
        assert f"pid {os.getpid()}" in (host.module.LOCKS / "wine").read_text()


def test_a_lock_is_free_again_after_an_error(host: Host) -> None:
    with contextlib.suppress(RuntimeError), host.module.locked("wine", 0):
        raise RuntimeError
    with host.module.locked("wine", 0):
        pass


def test_the_same_process_does_not_pass_its_own_lock(host: Host) -> None:
    with host.module.locked("wine", 0), pytest.raises(host.module.Failure), host.module.locked("wine", 0):
        pytest.fail("went through")


# ---------------------------------------------------------------- routes


def slots(**held: tuple[str, str] | None) -> dict[str, Any]:
    return {
        slot: {"release": entry[0], "config": "c", "state": entry[1], "until": 0.0} if entry else None
        for slot, entry in {"a": None, "b": None, **held}.items()
    }


STATES = {
    "never deployed": ({"live": None, "slots": slots()}, {}),
    "first start": ({"live": None, "slots": slots(a=(ONE, "starting"))}, {}),
    "one live": (
        {"live": {"slot": "a", "release": ONE}, "slots": slots(a=(ONE, "live"))},
        {"api": "a.api", "ui": "a.ui", "ui-a": "a.ui"},
    ),
    "next starting": (
        {"live": {"slot": "a", "release": ONE}, "slots": slots(a=(ONE, "live"), b=(TWO, "starting"))},
        {"api": "a.api", "ui": "a.ui", "ui-a": "a.ui"},
    ),
    "old draining": (
        {"live": {"slot": "b", "release": TWO}, "slots": slots(a=(ONE, "draining"), b=(TWO, "live"))},
        {"api": "b.api", "ui": "b.ui", "ui-a": "a.ui", "ui-b": "b.ui"},
    ),
    "drained": (
        {"live": {"slot": "b", "release": TWO}, "slots": slots(b=(TWO, "live"))},
        {"api": "b.api", "ui": "b.ui", "ui-b": "b.ui"},
    ),
    "retired": ({"live": None, "slots": slots()}, {}),
}


@pytest.mark.parametrize("new", STATES)
@pytest.mark.parametrize("old", STATES)
def test_routes_follow_the_state_from_any_old_one(host: Host, old: str, new: str) -> None:
    host.module.reconcile(host.app(), STATES[old][0])
    state, expected = STATES[new]
    wanted = {name: f"wine-{target}.sock" for name, target in expected.items()}
    host.module.reconcile(host.app(), state)
    assert host.routes() == wanted
    before = {path.name: path.lstat().st_ino for path in (host.module.ROUTES / "wine").glob("*")}
    host.module.reconcile(host.app(), state)
    assert {path.name: path.lstat().st_ino for path in (host.module.ROUTES / "wine").glob("*")} == before, "idempotent"


def test_a_route_is_never_missing_while_it_moves(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nginx may connect at any moment: a symlink is renamed over, never removed and made again."""
    host.module.reconcile(host.app(), STATES["one live"][0])
    seen: list[bool] = []
    real_symlink, real_replace = Path.symlink_to, Path.replace

    def look(real: Callable[..., Any]) -> Callable[..., Any]:
        def looked(*arguments: Any) -> Any:
            seen.append((host.module.ROUTES / "wine" / "api").is_symlink())
            done = real(*arguments)
            seen.append((host.module.ROUTES / "wine" / "api").is_symlink())
            return done

        return looked

    monkeypatch.setattr(Path, "symlink_to", look(real_symlink))
    monkeypatch.setattr(Path, "replace", look(real_replace))
    host.module.reconcile(host.app(), STATES["old draining"][0])
    assert len(seen) >= 12
    assert all(seen)


def test_what_a_killed_move_left_is_in_nobodys_way(host: Host) -> None:
    folder = host.module.ROUTES / "wine"
    folder.mkdir(parents=True)
    (folder / ".api.new").symlink_to("nowhere")
    (folder / "api").symlink_to("nowhere")
    (folder / "ui-b").symlink_to("nowhere")
    host.module.reconcile(host.app(), STATES["one live"][0])
    assert {name for name in host.routes() if not name.startswith(".")} == {"api", "ui", "ui-a"}
    assert host.routes()["api"] == "wine-a.api.sock"


def test_an_app_without_a_screen_has_one_route(host: Host) -> None:
    host.module.reconcile(host.app("portal"), STATES["old draining"][0])
    assert host.routes("portal") == {"api": "portal-b.api.sock"}


# ---------------------------------------------------------------- deploy


def test_the_first_deploy(host: Host) -> None:
    host.installed(ONE)
    done = host.run("deploy", "wine", ONE)
    assert (done["changed"], done["release"], done["slot"]) == (True, ONE, "a")
    assert host.serving() == ONE
    state = host.state()
    assert state["live"]["slot"] == "a"
    assert state["previous"] is None
    assert [(event["what"], event["ended"]) for event in state["history"]] == [("deploy", "live")]


def test_the_next_deploy_goes_to_the_other_slot_and_the_old_one_drains(host: Host) -> None:
    host.installed(ONE, TWO)
    host.run("deploy", "wine", ONE)
    host.sessions = {"a": 2}
    assert host.run("deploy", "wine", TWO)["slot"] == "b"
    state = host.state()
    assert (state["previous"], state["slots"]["a"]["state"]) == (ONE, "draining")
    assert state["slots"]["a"]["until"] == host.clock.now + 900
    assert host.serving() == TWO
    assert host.routes()["ui-a"] == "wine-a.ui.sock", "the old sessions find their slot"
    assert "pergola-ui@wine-a.service" in host.systemd.active
    assert "pergola-drain@wine-a.service" in host.systemd.active


def test_a_slot_that_starts_leaves_the_processors_to_the_live_one(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.installed(ONE, TWO)
    seen: list[set[str]] = []
    wait = host.module.wait_ready
    monkeypatch.setattr(host.module, "wait_ready", lambda *given: seen.append(host.held_back()) or wait(*given))
    host.run("deploy", "wine", ONE)
    host.run("deploy", "wine", TWO)
    starting = {"pergola-api@wine-b.service", "pergola-ui@wine-b.service"}
    assert seen == [set(), starting]  # the first one starts beside nothing
    assert not host.held_back()


def test_a_second_time_a_deploy_does_nothing(host: Host) -> None:
    host.installed(ONE)
    host.run("deploy", "wine", ONE)
    state = host.state()
    assert host.run("deploy", "wine", ONE)["changed"] is False
    assert host.state() == state
    assert host.run("deploy", "wine", ONE, "--again")["slot"] == "b"


def test_changed_settings_start_the_same_release_again(host: Host) -> None:
    host.installed(ONE)
    host.run("deploy", "wine", ONE)
    host.module.APP_ENV.mkdir()
    (host.module.APP_ENV / "wine.env").write_text('X="1"\n')
    done = host.run("deploy", "wine", ONE)
    assert (done["changed"], done["slot"]) == (True, "b")
    assert host.state()["previous"] is None, "a release is not its own previous one"


def test_a_service_may_need_another_start_or_two(host: Host) -> None:
    host.installed(ONE, TWO)
    host.run("deploy", "wine", ONE)
    host.systemd.restarts["pergola-api@wine-b.service"] = 2
    host.run("deploy", "wine", TWO)
    assert host.serving() == TWO


@pytest.mark.parametrize("how", ["not ready", "does not start", "keeps dying"])
def test_a_release_that_does_not_work_is_refused_and_the_old_one_serves(host: Host, how: str) -> None:
    host.installed(ONE, TWO)
    host.run("deploy", "wine", ONE)
    if how == "not ready":
        host.answers[TWO] = (503, '{"detail": "the model is missing"}')
    elif how == "keeps dying":
        host.answers[TWO] = (503, "")
        host.systemd.restarts["pergola-api@wine-b.service"] = 3
        server = "Traceback (most recent call last):\n  File ...\ngunicorn.errors.HaltServer: <HaltServer>\n"
        host.logged = (
            "Traceback (most recent call last):\n  File ...\n\nModuleNotFoundError: No module 'x'\n" + 20 * server
        )
    else:
        host.systemd.broken.add("pergola-api@wine-b.socket")
    message = host.refused("deploy", "wine", TWO)
    assert f"wine: {TWO} was not made live; {ONE} in slot a still serves." in message
    if how == "not ready":
        assert "it was not ready after 90 s" in message
        assert "503" in message
        assert "the model is missing" in message
        assert "the journal's last line" in message
    if how == "keeps dying":
        assert "pergola-api@wine-b.service keeps dying: ModuleNotFoundError: No module 'x'\n" in message
        assert message.count("HaltServer") == 2 * 9, "no more than the last 25 lines"
        assert host.clock.now < 1_000_010, "it did not wait for the end"
    assert host.serving() == ONE
    state = host.state()
    assert state["slots"]["b"] is None
    assert (state["history"][-1]["ended"], state["history"][-1]["release"]) == ("refused", TWO)
    assert not [unit for unit in host.systemd.active if "-b." in unit]


@pytest.mark.parametrize(
    ("screen", "api", "why", "seconds"),
    [
        ({"raised": True, "reason": "E: x"}, (200, ""), "its screen raised the same error for 20 s", 20),
        (
            {"raised": False, "reason": "the script did not end within 30 s"},
            (200, ""),
            "it was not ready after 90 s",
            90,
        ),
        ({"raised": True, "reason": "E: no API"}, (503, ""), "it was not ready after 90 s", 90),
    ],
    ids=["raises", "slow", "with the API"],
)
def test_a_screen_that_raises_beside_a_ready_api_is_not_waited_for(
    host: Host, screen: dict[str, Any], api: tuple[int, str], why: str, seconds: int
) -> None:
    host.installed(ONE, TWO)
    host.run("deploy", "wine", ONE)
    host.answers[TWO], host.screens[TWO] = api, (503, json.dumps(screen))
    began = host.clock.now
    assert why in (message := host.refused("deploy", "wine", TWO))
    assert screen["reason"] in message
    assert seconds <= host.clock.now - began < seconds + 5
    assert host.serving() == ONE


@pytest.mark.parametrize(
    ("logged", "cause"),
    [
        ("", ""),
        ("one\ntwo: Error: three", ""),
        ('Traceback (most recent call last):\n  File "a"\nValueError: no\nstopped', "ValueError: no"),
        ('{"message": "x", "exception": "Traceback (most recent call last):\\n  File\\nKeyError: 1"}', "KeyError: 1"),
        ('{"message": "x", "exception": null}', ""),
        ("{not json", ""),
        ("Traceback (most recent call last):\n    cut", ""),
    ],
)
def test_the_cause_of_death_is_the_last_exception_of_the_app(host: Host, logged: str, cause: str) -> None:
    assert host.module.cause_of_death(logged) == cause


def test_the_first_release_that_does_not_work(host: Host) -> None:
    host.installed(ONE)
    host.answers[ONE] = (503, "")
    assert "nothing was serving before" in host.refused("deploy", "wine", ONE)
    assert host.routes() == {}


def test_a_release_that_is_not_there_is_named(host: Host) -> None:
    assert (
        host.refused("deploy", "wine", TWO) == f"wine {TWO} is not on this host; `pergola releases wine` lists what is"
    )


def test_an_api_without_deep_readiness_is_asked_for_its_own_health(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.installed(ONE, name="portal")
    asked: list[str] = []

    def fetch(path: str, target: str, timeout: float) -> tuple[int, str]:
        asked.append(target)
        return (404, "") if target == "/health/ready" else (200, "")

    monkeypatch.setattr(host.module, "fetch", fetch)
    host.run("deploy", "portal", ONE)
    assert asked == ["/health/ready", "/health"]


def test_a_prepare_step_that_fails_is_shown(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.write_site([made(prepare=["app.core.migrate"])])
    host.installed(ONE)

    def failed(command: list[str], **_: Any) -> types.SimpleNamespace:
        assert command == ["systemctl", "start", "pergola-prepare@wine-a.service"]
        return types.SimpleNamespace(returncode=1)

    monkeypatch.setattr(
        host.module, "subprocess", types.SimpleNamespace(run=failed, TimeoutExpired=subprocess.TimeoutExpired)
    )
    message = host.refused("deploy", "wine", ONE)
    assert "a prepare step failed; the last lines it logged:\nthe journal's last line" in message
    assert not host.systemd.active


def test_a_worker_moves_last_and_never_runs_twice(host: Host) -> None:
    host.write_site([made(worker={"module": "app.wine.worker"})])
    host.installed(ONE, TWO)
    host.run("deploy", "wine", ONE)
    assert "pergola-worker@wine-a.service" in host.systemd.active
    host.systemd.calls.clear()
    host.run("deploy", "wine", TWO)
    calls = host.systemd.calls
    stopped = calls.index("stop pergola-worker@wine-a.service")
    started = calls.index("start --no-block pergola-worker@wine-b.service")
    assert stopped < started
    assert "pergola-worker@wine-a.service" not in host.systemd.active


def test_a_live_release_that_died_is_started_again(host: Host) -> None:
    host.installed(ONE)
    host.run("deploy", "wine", ONE)
    host.systemd.active.clear()
    done = host.run("deploy", "wine", ONE)
    assert (done["changed"], done["slot"]) == (True, "a")
    assert host.serving() == ONE


def test_nothing_from_systemctl_is_not_taken_for_serving(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.installed(ONE)
    host.run("deploy", "wine", ONE)
    monkeypatch.setattr(host.module, "systemctl", lambda *_, **__: "")
    assert host.module.is_serving(host.app(), host.state()) is False


def killed_at(host: Host, step: int, *command: str) -> bool:
    """Run a command that is killed at its nth call of systemd; return whether it was."""
    host.systemd.calls.clear()
    host.systemd.kill_at = step
    try:
        host.run(*command)
    except Killed:
        return True
    finally:
        host.systemd.kill_at = None
    return False


def test_a_deploy_killed_anywhere_serves_on_and_is_finished_by_the_next(tmp_path: Path) -> None:
    step, kills = 1, 0
    while True:
        folder = tmp_path / str(step)
        folder.mkdir()
        host = Host(folder, [made(ui={"script": "app/wine/ui.py"}, worker={"module": "app.wine.worker"})])
        host.installed(ONE, TWO)
        host.run("deploy", "wine", ONE)
        killed = killed_at(host, step, "deploy", "wine", TWO)
        assert host.answering(), f"killed at call {step}: nobody serves"
        host.run("deploy", "wine", TWO)
        assert host.serving() == TWO
        state = host.state()
        assert (state["live"]["release"], state["previous"]) == (TWO, ONE)
        assert not host.held_back().intersection(host.module.slot_units(host.app(), state["live"]["slot"]))
        assert host.module.is_serving(host.app(), state)
        deployed(host)
        if not killed:
            break
        step, kills = step + 1, kills + 1
    assert kills > 10


@pytest.mark.parametrize("name", ["write_state", "point", "reconcile", "prune_app"])
def test_a_deploy_killed_before_a_write_serves_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for step in range(1, 10):
        folder = tmp_path / str(step)
        folder.mkdir()
        host = Host(folder, [WINE])
        host.installed(ONE, TWO)
        host.run("deploy", "wine", ONE)
        real, calls = getattr(host.module, name), [0]

        def counted(*arguments: Any, real: Any = real, calls: list[int] = calls, step: int = step) -> Any:
            calls[0] += 1
            if calls[0] == step:
                raise Killed
            return real(*arguments)

        monkeypatch.setattr(host.module, name, counted)
        try:
            host.run("deploy", "wine", TWO)
        except Killed:
            assert host.answering()
            host.run("deploy", "wine", TWO)
            assert host.serving() == TWO
        else:
            assert step > 1
            return


def test_a_lost_state_is_found_again_from_the_routes(host: Host) -> None:
    """What the fix of a damaged state says must not cost a request."""
    host.installed(ONE, TWO)
    deployed(host, ONE, TWO)
    assert host.state()["live"]["slot"] == "b"
    (host.module.STATE / "wine.json").unlink()
    state = host.state()
    assert (state["live"]["slot"], state["live"]["release"]) == ("b", TWO)
    host.systemd.calls.clear()
    assert host.run("deploy", "wine", ONE)["slot"] == "a"
    assert not [call for call in host.systemd.calls if call.startswith("stop") and "wine-b" in call]
    assert host.serving() == ONE
    assert host.state()["previous"] == TWO


def test_a_lost_state_of_an_app_that_never_served_is_empty(host: Host) -> None:
    host.module.reconcile(host.app(), STATES["one live"][0])  # routes without a slot: what a restored /run may hold
    assert host.state()["live"] is None


# ---------------------------------------------------------------- rollback


def test_a_rollback_goes_to_the_previous_release_and_back(host: Host) -> None:
    host.installed(ONE, TWO)
    deployed(host, ONE, TWO)
    assert host.run("rollback", "wine")["release"] == ONE
    assert host.serving() == ONE
    assert host.state()["previous"] == TWO
    assert host.state()["history"][-1]["what"] == "rollback"
    assert host.run("rollback", "wine")["release"] == TWO


def test_a_rollback_without_a_previous_release_says_so(host: Host) -> None:
    host.installed(ONE)
    expected = "wine has no previous release; name one of `pergola releases wine`"
    assert host.refused("rollback", "wine") == expected
    host.run("deploy", "wine", ONE)
    assert host.refused("rollback", "wine") == expected
    assert host.serving() == ONE


def test_a_rollback_to_a_named_release(host: Host) -> None:
    host.installed(ONE, TWO, THREE)
    deployed(host, ONE, TWO, THREE)
    assert host.run("rollback", "wine", ONE)["release"] == ONE
    assert "is not on this host" in host.refused("rollback", "wine", "9" * 12)


# ---------------------------------------------------------------- sessions and drain

METRICS = "# TYPE active_sessions gauge\n# HELP active_sessions Current number of active sessions.\n"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((200, f"{METRICS}active_sessions 3\n# EOF\n"), 3),
        ((200, f"{METRICS}active_sessions 0\n# EOF\n"), 0),
        ((200, f"{METRICS}active_sessions 2.0\n# EOF\n"), 2),
        ((200, "# EOF\n"), 0),
        ((200, "other_active_sessions 5\nactive_sessions_total 7\n"), 0),
        ((503, "active_sessions 3"), None),
        ((404, "not found"), None),
        ((200, "active_sessions ...\n"), None),
        (TimeoutError("timed out"), None),
        (ConnectionResetError(), None),
        (ConnectionRefusedError(), 0),
        (FileNotFoundError(), 0),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_sessions_are_counted_and_what_is_unknown_is_not_zero(
    host: Host, monkeypatch: pytest.MonkeyPatch, answer: Any, expected: int | None
) -> None:
    def fetch(path: str, target: str, timeout: float) -> tuple[int, str]:
        assert path.endswith("/wine-a.ui.sock")
        assert target == "/wine/_stcore/metrics?families=active_sessions"
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    monkeypatch.setattr(host.module, "fetch", fetch)
    host.systemd.active.add("pergola-ui@wine-a.service")
    assert host.module.sessions(host.app(), "a") == expected


def test_what_streamlit_really_says_is_understood(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    from streamlit.runtime.stats import ACTIVE_SESSIONS_FAMILY, GaugeStat
    from streamlit.web.server.starlette.starlette_routes import _stats_to_text

    stat = GaugeStat(family_name=ACTIVE_SESSIONS_FAMILY, help="Current number of active sessions.", value=4)
    monkeypatch.setattr(host.module, "fetch", lambda *_: (200, _stats_to_text({ACTIVE_SESSIONS_FAMILY: [stat]})))
    assert host.module.sessions(host.app(), "a") == 4


def test_an_app_without_a_screen_has_no_sessions(host: Host) -> None:
    assert host.module.sessions(host.app("portal"), "a") == 0


def test_a_slot_without_sessions_is_drained_soon(host: Host) -> None:
    host.installed(ONE, TWO)
    host.run("deploy", "wine", ONE)
    host.run("deploy", "wine", TWO)
    began = host.clock.now
    assert host.run("drain", "wine", "a") == {"changed": True, "reason": "no session left"}
    assert 2 <= host.clock.now - began < 10
    assert host.state()["slots"]["a"] is None
    assert set(host.routes()) == {"api", "ui", "ui-b"}
    assert not [unit for unit in host.systemd.active if "wine-a." in unit and "drain" not in unit]
    assert host.run("drain", "wine", "a") == {"changed": False}, "a second drain does nothing"


def test_sessions_live_until_the_ceiling(host: Host) -> None:
    host.installed(ONE, TWO)
    host.run("deploy", "wine", ONE)
    host.sessions = {"a": 2}
    host.run("deploy", "wine", TWO)
    began = host.clock.now
    assert host.run("drain", "wine", "a")["reason"] == "the ceiling was reached with 2 sessions"
    assert host.clock.now - began == pytest.approx(900, abs=2)


def test_a_busy_screen_is_not_taken_for_an_empty_one(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that computes for ten seconds does not answer; its visitors are still there."""
    host.installed(ONE, TWO)
    host.run("deploy", "wine", ONE)
    host.run("deploy", "wine", TWO)
    real = host.module.fetch

    def busy(path: str, target: str, timeout: float) -> tuple[int, str]:
        if host.clock.now < 1_000_060:
            host.clock.sleep(timeout)
            raise TimeoutError("timed out")
        return real(path, target, timeout)  # type: ignore[no-any-return]

    monkeypatch.setattr(host.module, "fetch", busy)
    assert host.run("drain", "wine", "a")["reason"] == "no session left"
    assert host.clock.now > 1_000_060


def test_a_screen_that_is_gone_is_not_waited_for(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Systemd's socket still takes connections, but nobody answers and the unit is not running."""
    host.installed(ONE, TWO)
    host.run("deploy", "wine", ONE)
    host.run("deploy", "wine", TWO)
    host.systemd.active.discard("pergola-ui@wine-a.service")

    def nobody(*_: Any) -> tuple[int, str]:
        raise TimeoutError

    monkeypatch.setattr(host.module, "fetch", nobody)
    began = host.clock.now
    assert host.run("drain", "wine", "a")["reason"] == "no session left"
    assert host.clock.now - began < 10


def test_a_deploy_waits_for_the_slot_that_still_drains_or_cuts_it(host: Host) -> None:
    host.installed(ONE, TWO, THREE)
    host.run("deploy", "wine", ONE)
    host.sessions = {"a": 1}
    host.run("deploy", "wine", TWO)
    assert host.run("deploy", "wine", THREE, "--cut-sessions")["slot"] == "a"
    assert host.serving() == THREE


def test_a_release_that_still_drains_is_live_again_at_once_and_keeps_its_sessions(host: Host) -> None:
    host.installed(ONE, TWO)
    host.run("deploy", "wine", ONE)
    host.sessions = {"a": 2}
    host.run("deploy", "wine", TWO)
    began, before = host.clock.now, len(host.systemd.calls)
    done = host.run("rollback", "wine")
    assert (done["changed"], done["release"], done["slot"]) == (True, ONE, "a")
    assert host.clock.now - began < 1, "nobody waits for the sessions"
    assert not [call for call in host.systemd.calls[before:] if call.startswith("stop") and "wine-a" in call]
    state = host.state()
    assert host.serving() == ONE
    assert (state["previous"], state["slots"]["a"]["state"], state["slots"]["b"]["state"]) == (TWO, "live", "draining")
    assert host.run("drain", "wine", "a") == {"changed": False}, "the drain that went on ends"
    assert state["history"][-1]["ended"] == "live"


def test_a_release_that_drains_and_is_not_well_is_started_anew(host: Host) -> None:
    host.installed(ONE, TWO)
    host.run("deploy", "wine", ONE)
    host.sessions = {"a": 2}
    host.run("deploy", "wine", TWO)
    host.systemd.active.discard("pergola-api@wine-a.service")  # it died while it drained
    assert host.run("rollback", "wine", "--cut-sessions")["slot"] == "a"
    assert host.serving() == ONE
    assert "pergola-api@wine-a.service" in host.systemd.active


def test_a_drain_that_was_killed_is_taken_up_by_the_next_deploy(host: Host) -> None:
    host.installed(ONE, TWO)
    host.run("deploy", "wine", ONE)
    host.run("deploy", "wine", TWO)
    host.systemd.active.discard("pergola-drain@wine-a.service")
    assert host.run("deploy", "wine", TWO)["changed"] is False
    assert "pergola-drain@wine-a.service" in host.systemd.active


# ---------------------------------------------------------------- boot, retire, status


def test_after_a_boot_what_was_live_is_live(host: Host) -> None:
    host.installed(ONE, TWO)
    host.run("deploy", "wine", ONE)
    host.run("deploy", "wine", TWO)
    host.systemd.active.clear()
    for link in (host.module.ROUTES / "wine").iterdir():
        link.unlink()  # /run is empty after a boot
    assert host.run("boot") == {"changed": True, "started": ["wine"]}
    assert host.serving() == TWO
    assert host.state()["slots"]["a"] is None, "a drain does not survive a boot"
    assert not [unit for unit in host.systemd.active if "wine-a" in unit]


@pytest.mark.parametrize("damage", ["state", "unit"])
def test_one_app_that_does_not_start_does_not_keep_the_others_down(host: Host, damage: str) -> None:
    host.installed(ONE)
    host.installed(ONE, name="portal")
    host.run("deploy", "wine", ONE)
    host.run("deploy", "portal", ONE)
    host.systemd.active.clear()
    if damage == "state":
        (host.module.STATE / "portal.json").write_text("{")
    else:
        host.systemd.broken.add("pergola-api@portal-a.socket")
    message = host.refused("boot")
    assert "portal" in message
    assert host.serving() == ONE, "wine comes after portal in the plan"


def test_an_app_that_is_retired_is_out_of_service_and_its_data_stays(host: Host) -> None:
    host.installed(ONE)
    host.installed(ONE, name="portal")
    host.run("deploy", "wine", ONE)
    host.run("deploy", "portal", ONE)
    assert host.run("retire", "portal")["retired"] == ["wine"]
    assert host.routes() == {}
    assert host.serving("portal") == ONE
    assert left_over(host) == [ONE]
    assert host.run("retire", "portal") == {"changed": False, "retired": []}
    assert host.state()["live"] is None


def test_retiring_an_app_does_not_cross_the_end_of_its_drain(host: Host) -> None:
    """Whoever ends a drain reads the state and writes it back: in between nobody else may write."""
    host.installed(ONE)
    host.run("deploy", "wine", ONE)
    with host.module.locked("wine.drain", 0):
        assert "wine.drain is being changed by" in host.refused("retire", "portal")
    assert host.serving() == ONE
    assert host.run("retire", "portal")["retired"] == ["wine"]


def test_the_status_of_every_app(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.installed(ONE, TWO)
    host.run("deploy", "wine", ONE)
    host.sessions = {"a": 3}
    host.run("deploy", "wine", TWO)
    rows = {row["app"]: row for row in host.run("status")["apps"]}
    assert (rows["portal"]["state"], rows["portal"]["release"]) == ("never deployed", None)
    assert (rows["wine"]["state"], rows["wine"]["release"], rows["wine"]["slot"]) == ("serving", TWO, "b")
    assert (rows["wine"]["previous"], rows["wine"]["draining"]) == (ONE, ["a (3 sessions)"])
    host.systemd.active.discard("pergola-ui@wine-b.service")
    assert {row["app"]: row["state"] for row in host.run("status")["apps"]}["wine"] == "DOWN"
    options = host.options("status")
    options.json = False
    host.module.status(options)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["app", "state", "release", "slot", "since", "previous", "draining"]
    assert lines[1].split()[:4] == ["portal", "never", "deployed", "-"]
    assert lines[2].split()[:4] == ["wine", "DOWN", TWO, "b"]


def test_the_status_shows_a_damaged_state_beside_the_others(host: Host) -> None:
    host.installed(ONE)
    host.run("deploy", "wine", ONE)
    host.module.STATE.joinpath("portal.json").write_text("{")
    rows = {row["app"]: row["state"] for row in host.run("status")["apps"]}
    assert rows["wine"] == "serving"
    assert "is damaged" in rows["portal"]


# ---------------------------------------------------------------- pending, releases, prune


def lacks(host: Host, *triples: str) -> dict[str, list[str]]:
    return host.run("pending", *triples)["pending"]  # type: ignore[no-any-return]


def test_what_a_deploy_would_have_to_do(host: Host) -> None:
    asked = host.run("pending", f"wine:{ONE}:{LAYER},{NEW}", f"portal:{ONE}:")
    assert asked["layers"] == [NEW]
    assert asked["pending"] == {"wine": ["release", "secret", "live"], "portal": ["release", "live"]}
    host.run("secret", "wine")
    assert lacks(host, f"wine:{ONE}:{LAYER}") == {"wine": ["release", "live"]}
    host.installed(ONE, TWO)
    assert lacks(host, f"wine:{ONE}:{LAYER}") == {"wine": ["live"]}
    host.run("deploy", "wine", ONE)
    assert lacks(host, f"wine:{ONE}:{LAYER}") == {}
    assert lacks(host, f"wine:{ONE}:{LAYER}", f"portal:{ONE}:{LAYER}") == {"portal": ["release", "live"]}
    host.run("deploy", "wine", TWO)
    assert lacks(host, f"wine:{TWO}:{LAYER}") == {"wine": ["live"]}, "a drain is not over"
    host.run("drain", "wine", "a")
    assert lacks(host, f"wine:{TWO}:{LAYER}") == {}
    host.systemd.active.clear()
    assert lacks(host, f"wine:{TWO}:{LAYER}") == {"wine": ["live"]}


def test_a_secret_that_is_missing_is_told_whichever_it_is(host: Host) -> None:
    host.installed(ONE)
    host.run("secret", "wine")
    host.run("deploy", "wine", ONE)
    for name in ("admin_password", "api_key"):
        (host.module.SECRETS / "wine" / name).unlink()
        assert "secret" in lacks(host, f"wine:{ONE}:{LAYER}")["wine"]
        host.run("secret", "wine")
        assert "secret" not in lacks(host, f"wine:{ONE}:{LAYER}").get("wine", [])


def test_on_a_host_that_was_never_configured_everything_is_pending(host: Host) -> None:
    host.module.SITE.unlink()
    assert lacks(host, f"wine:{ONE}:{LAYER}") == {"wine": ["release", "live"]}


@pytest.mark.parametrize("triple", ["wine", "wine:x", f"wine:{ONE}", f"wine:{ONE}:{LAYER}:x", f"wine:..:{LAYER}", f"wine:{ONE}:.."])  # fmt: skip
def test_what_pending_cannot_read_is_named(host: Host, triple: str) -> None:
    message = host.refused("pending", triple)
    assert "app:release:layer,layer" in message or "is not a release id" in message or "is not a layer id" in message


def test_releases_are_listed_newest_first_with_what_they_are(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.installed(ONE, TWO, THREE)
    (host.module.OPT / "wine/releases/.444444444444.new").mkdir()
    (host.module.OPT / "wine/releases/notes").mkdir()
    deployed(host, ONE, TWO)
    assert host.run("releases", "wine")["releases"] == [THREE, TWO, ONE]
    options = host.options("releases", "wine")
    options.json = False
    host.module.releases(options)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == [THREE, TWO, ONE]
    assert [line.split()[-1] for line in lines[1:3]] == ["live", "previous"]
    assert f"deploy    {TWO} -> live by " in lines[4]
    assert host.run("releases", "portal")["releases"] == []
    assert "there is no app" in host.refused("releases", "vine")


def many(count: int) -> list[str]:
    return [f"{number:012x}" for number in range(1, count + 1)]


def test_pruning_never_removes_what_is_live_previous_or_held_by_a_slot(host: Host) -> None:
    names = many(9)
    host.installed(*names)
    host.run("deploy", "wine", names[0], "--keep=100")
    host.run("deploy", "wine", names[1], "--keep=100")
    assert host.state()["slots"]["a"]["state"] == "draining"
    removed = host.run("prune", "--keep=3")["removed"]
    assert sorted(removed) == sorted(names[2:6])
    assert set(left_over(host)) == {names[0], names[1], *names[6:]}
    host.run("prune", "--keep=0")
    assert set(left_over(host)) == {names[0], names[1]}
    assert host.run("prune", "--keep=0") == {"changed": False, "removed": []}


@pytest.mark.parametrize(("timeout", "patience"), [(20, 5.0), (90, 9.0), (900, 30.0)])
def test_a_host_that_may_take_long_may_answer_slowly(host: Host, timeout: int, patience: float) -> None:
    """An emulated processor takes longer than usual for one look at a model, not only for the start."""
    host.installed(ONE)
    host.run("deploy", "wine", ONE, f"--timeout={timeout}")
    assert max(host.patience) == patience


def test_a_deploy_prunes_what_is_old(host: Host) -> None:
    names = many(8)
    host.installed(*names)
    host.run("deploy", "wine", names[0], "--keep=2")
    assert set(left_over(host)) == {names[0], names[6], names[7]}


def test_layers_that_no_release_uses_are_removed(host: Host) -> None:
    host.installed(ONE)
    host.run("deploy", "wine", ONE)
    (host.module.OPT / "layers" / NEW).mkdir()
    (host.module.OPT / "layers" / f".{'a' * 12}.new").mkdir()
    assert sorted(host.run("prune")["removed"]) == [f"layer .{'a' * 12}.new", f"layer {NEW}"]
    assert layers_of(host) == [LAYER]


@pytest.mark.parametrize("what", ["release", "layer"])
def test_pruning_that_is_killed_leaves_nothing_that_looks_whole(
    host: Host, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A folder goes in no order: one that keeps its mark but lost its code would be deployed."""
    host.installed(*many(4))
    unused = host.module.OPT / "layers" / NEW
    unused.mkdir()
    (unused / ".complete").write_text("then")
    keep = "--keep=4" if what == "layer" else "--keep=1"

    def killed(path: Path) -> None:
        raise Killed

    monkeypatch.setattr(host.module.shutil, "rmtree", killed)
    with pytest.raises(Killed):
        host.run("prune", keep)
    monkeypatch.undo()
    if what == "layer":
        assert host.run("pending", f"wine:{many(1)[0]}:{NEW}")["layers"] == [NEW]
    else:
        gone = [name for name in many(4) if name not in {path.name for path in host.module.kept_releases("wine")}]
        assert len(gone) == 1
        assert "is not on this host" in host.refused("deploy", "wine", gone[0])
    host.run("prune", keep)
    assert not [path for path in host.module.OPT.rglob("*") if path.name.startswith(".") and path.name != ".complete"]
    assert not unused.exists()


def test_a_negative_number_of_releases_is_refused(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        host.options("prune", "--keep=-1")
    assert "--keep" in capsys.readouterr().err


# ---------------------------------------------------------------- secrets


def test_missing_secrets_are_made_once_and_not_printed(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.run("secret", "wine") == {"changed": True, "made": ["admin_password", "api_key"]}
    folder = host.module.SECRETS / "wine"
    first = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(first) == {"admin_password", "api_key"}
    assert len(set(first.values())) == 2
    assert all(len(value) >= 32 for value in first.values())
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert host.run("secret", "wine") == {"changed": False, "made": []}
    assert {path.name: path.read_text() for path in folder.iterdir()} == first
    assert capsys.readouterr().out == ""
    host.run("secret", "wine", "api_key")
    assert capsys.readouterr().out == first["api_key"]


def test_a_secret_that_is_given_is_kept(host: Host) -> None:
    folder = host.module.SECRETS / "wine"
    folder.mkdir(parents=True)
    (folder / "api_key").write_text("given")
    (folder / ".admin_password.new").write_text("half of a killed run")
    assert host.run("secret", "wine")["made"] == ["admin_password"]
    assert (folder / "api_key").read_text() == "given"


def test_secrets_that_are_not_there_are_named(host: Host) -> None:
    assert host.refused("secret", "wine", "nope") == (
        "wine has no secret 'nope'; its manifest names: admin_password, api_key"
    )
    message = host.refused("secret", "wine", "api_key")
    assert message == "the secret api_key of wine was not made yet; `pergola secret wine` makes what is missing"


# ---------------------------------------------------------------- the program as a whole

DRIVE = """
import importlib.util, json, os, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("pergola_command", {program!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
for name, path in {folders!r}.items():
    setattr(module, name, Path({folder!r}) / path)
os.geteuid = lambda: {uid}
{extra}
sys.argv = ["pergola", *sys.argv[1:]]
sys.exit(module.main())
"""


@pytest.fixture
def program(host: Host) -> Callable[..., list[str]]:
    """The command line of the program, its folders below the test's own one."""

    def command(*arguments: str, uid: int = 0, extra: str = "") -> list[str]:
        code = DRIVE.format(
            program=str(PROGRAM), folders=FOLDERS, folder=str(host.folder), uid=uid, extra=textwrap.dedent(extra)
        )
        return [sys.executable, "-c", code, *arguments]

    return command


def called(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_failure_is_a_sentence_and_an_exit_code(program: Callable[..., list[str]]) -> None:
    done = called(program("rollback", "wine"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "pergola: wine has no previous release; name one of `pergola releases wine`\n"
    done = called(program("rollback", "wine", "--json"))
    assert json.loads(done.stdout) == {
        "changed": False,
        "failed": True,
        "msg": done.stderr.removeprefix("pergola: ").strip(),
    }


def test_only_root_may(program: Callable[..., list[str]]) -> None:
    done = called(program("status", uid=1000))
    assert (done.returncode, done.stderr) == (1, "pergola: this needs root; run it with sudo\n")


def test_an_error_of_the_system_is_a_sentence_too(program: Callable[..., list[str]]) -> None:
    extra = """
        def full(options):
            raise OSError(28, "No space left on device", "/var/lib/pergola")
        module.prune = full
    """
    done = called(program("prune", extra=extra))
    assert done.returncode == 1
    assert done.stderr.startswith("pergola: [Errno 28] No space left on device: '/var/lib/pergola'; the disk is full")
    assert "Traceback" not in done.stderr


def test_a_stopped_run_says_how_to_go_on(program: Callable[..., list[str]]) -> None:
    extra = """
        def slow(options):
            print("begun", flush=True)
            import time
            time.sleep(60)
        module.prune = slow
    """
    process = subprocess.Popen(program("prune", extra=extra), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.terminate()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == "pergola: interrupted (stopped by SIGTERM); run the same command again to finish\n"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "SIGTERM"])
def test_an_install_killed_half_way_is_finished_by_the_next(
    host: Host, program: Callable[..., list[str]], archive: Archive, how: signal.Signals
) -> None:
    path = archive.write(archive.files())
    extra = """
        def slow(*_):
            print("half-way", flush=True)
            import time
            time.sleep(60)
        module.compile_code = slow
    """
    process = subprocess.Popen(
        program(*install(path), extra=extra), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "half-way\n"
    process.send_signal(how)
    process.communicate(timeout=20)
    assert left_over(host) == ([f".{ONE}.new"] if how == signal.SIGKILL else [])
    assert f"wine {ONE} is not on this host" in host.refused("deploy", "wine", ONE)
    done = called(program(*install(path), "--json", "--quiet"))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"changed": True, "release": ONE}
    assert left_over(host) == [ONE]


def test_the_documentation_names_every_command_and_place(host: Host) -> None:
    text = (ROOT / "docs" / "HOST.md").read_text(encoding="utf-8")
    actions = next(iter(host.module.parser()._subparsers._group_actions)).choices
    assert len(actions) > 8
    assert [name for name in actions if f"`pergola {name}" not in text] == []
    fresh = types.ModuleType("fresh")
    exec(CODE, fresh.__dict__)  # noqa: S102 - its own constants, not the test's folders
    for name in FOLDERS:
        if name != "UNITS":  # systemd's own folder
            assert str(getattr(fresh, name)) in text, name


def test_the_program_runs_on_the_oldest_python_of_a_host() -> None:
    """Debian 12 has Python 3.11.2: no extraction filters, no newer syntax."""
    ast.parse(PROGRAM.read_text(), feature_version=(3, 11))
    assert "filter=" not in PROGRAM.read_text().split("def unpack(")[1].split("\ndef ")[0]
