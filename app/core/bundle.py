"""Build release bundles on the control node.

A release is one app's code (``app/core`` and ``app/<name>``), its manifest and its locked requirements in one archive, named by a
hash of what is inside: the same content has the same id on any machine. The packages it needs are layers (``app.core.layers``), which
releases with the same lock share. The assets that a manifest names (``app.core.assets``) are among them, made here and not fetched.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import gzip
import hashlib
import io
import json
import re
import shutil
import sys
import tarfile
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from app.core import assets, layers
from app.core import manifest as manifests
from app.core.files import sha256_of, write_atomically
from app.core.tools import BundleError, uv

ID_LENGTH = 12
_SKIPPED_NAMES = frozenset({"__pycache__", "node_modules"})
_SHIPPED_HIDDEN_NAMES = frozenset({".streamlit"})
_ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Bundle:
    """One built release.

    Attributes:
        app: Name of the app.
        release: Id of the release, 12 hex digits.
        archive: The code archive (tar.gz).
        archive_sha256: Its checksum.
        layers: Its layers of installed packages: ``id``, ``archive``, ``archive_sha256`` each.
        changed: Whether anything was written.
    """

    app: str
    release: str
    archive: str
    archive_sha256: str
    layers: list[dict[str, str]]
    changed: bool


def build(
    root: Path, manifest: manifests.Manifest, *, out: Path, python: str, machine: str, check: bool = False
) -> Bundle:
    """Build the bundle of one app.

    Args:
        root: Project folder (holds ``pyproject.toml`` and ``uv.lock``).
        manifest: The app.
        out: Folder for the archives; what is there already is used again.
        python: Python of the host as ``major.minor``.
        machine: Architecture of the host (``x86_64`` or ``aarch64``).
        check: Only say what would be built; the archives may be missing.

    Raises:
        BundleError: uv or a wheel is missing, or a file of the app cannot be read.
    """
    arch = architecture(machine)
    parts = locked_layers(root, manifest, python=python, machine=arch)
    ids = [layer.id for layer in parts]
    try:
        files = dict(_files(root, manifest))
    except OSError as error:
        msg = f"apps/{manifest.name}: {error.filename} cannot be read: {error.strerror}"
        raise BundleError(msg) from error
    script = manifest.data.get("ui", {}).get("script")
    if script is not None and script not in files:
        held = f"app/core, app/{manifest.name} and files/{manifest.name}"
        msg = f"apps/{manifest.name}/ui/script: there is no {script} in the release; it holds {held}"
        raise BundleError(msg)
    requirements = sorted(line for layer in parts for line in layer.requirements.splitlines(keepends=True))
    files["requirements.txt"] = ("".join(requirements).encode(), False)
    files["manifest.json"] = (json.dumps(manifest.data, sort_keys=True, ensure_ascii=False, indent=1).encode(), False)
    checksums = {name: hashlib.sha256(content).hexdigest() for name, (content, _) in sorted(files.items())}
    executable = sorted(name for name, (_, is_executable) in files.items() if is_executable)
    content = json.dumps([manifest.name, ids, checksums, executable], sort_keys=True)
    release = hashlib.sha256(content.encode()).hexdigest()[:ID_LENGTH]
    files["release.env"] = (f"PERGOLA_RELEASE={release}\n".encode(), False)
    files["release.json"] = (
        json.dumps(
            {"app": manifest.name, "release": release, "layers": ids, "files": checksums}, sort_keys=True, indent=1
        ).encode(),
        False,
    )
    archive = out / f"{manifest.name}-{release}.tar.gz"
    missing = [path for path in (archive, *(out / layer.file for layer in parts)) if not path.is_file()]
    if missing and not check:
        out.mkdir(parents=True, exist_ok=True)
        with _alone(out):
            if not archive.is_file():
                write_atomically(archive, packed(files))
            for layer in parts:
                if not (out / layer.file).is_file():
                    layers.build(layer, out / layer.file, out / "wheels")
    return Bundle(
        app=manifest.name,
        release=release,
        archive=str(archive),
        archive_sha256=sha256_of(archive),
        layers=[
            {"id": layer.id, "archive": str(out / layer.file), "archive_sha256": sha256_of(out / layer.file)}
            for layer in parts
        ],
        changed=bool(missing),
    )


def architecture(machine: str) -> str:
    """Return the name that wheels have for an architecture.

    Raises:
        BundleError: There is none.
    """
    arch = _ARCHITECTURES.get(machine)
    if arch is None:
        raise BundleError(f"no wheels are known for the architecture {machine!r}; use an x86_64 or aarch64 host")
    return arch


def locked_layers(root: Path, manifest: manifests.Manifest, *, python: str, machine: str) -> list[layers.Layer]:
    """Return the layers of the app's locked requirements for one Python and architecture.

    What ``app.core`` needs and what a screen needs are layers of their own, the same for every app. An app of this project has an extra of
    its own name in ``pyproject.toml``; an app from elsewhere brings a ``requirements.txt`` with pins and hashes beside its manifest.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    known = project["project"].get("optional-dependencies", {})
    own = [manifest.name] if manifest.name in known else []
    own += ["postgresql"] if manifest.data["database"] != "none" else []  # on a fleet every database is on a server
    own += ["s3"] if manifest.data["buckets"] else []
    screen = ["ui"] if "ui" in manifest.data else []
    extras: list[list[str]] = [[], screen, [*screen, *own]] if screen else [[], own]
    lock = (root / "uv.lock").read_bytes()
    state = hashlib.sha256(lock + (root / "pyproject.toml").read_bytes()).hexdigest()
    exported = [_exported(root, state, tuple(wanted)) for wanted in extras]
    path = manifest.folder / "requirements.txt"
    try:
        exported[-1] += path.read_text(encoding="utf-8") if path.is_file() else ""
    except UnicodeDecodeError as error:
        msg = f"apps/{manifest.name}: {path} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        raise BundleError(msg) from error
    made = {assets.recipe(name).pin.partition("==")[0] for name in manifest.data["assets"]}
    groups = []
    for text in exported:
        lines = pinned_lines(text, python=python, machine=machine, where=f"apps/{manifest.name}: {path}").splitlines()
        groups.append("".join(f"{line}\n" for line in lines if line.partition("==")[0] not in made))
    return layers.split(groups, manifest.data["assets"], python=python, machine=machine)


@functools.cache
def _exported(root: Path, state: str, extras: tuple[str, ...]) -> str:  # noqa: ARG001 - the state is part of the key
    """Return the locked requirements of some extras: asked once a run, since apps share most."""
    command = ["export", "--frozen", "--no-dev", "--no-emit-project", "--no-header", "--no-annotate"]
    command += ["--format", "requirements-txt", *(flag for extra in extras for flag in ("--extra", extra))]
    return uv(command, cwd=root)


def pinned_lines(text: str, *, python: str, machine: str, where: str) -> str:
    """Return what of exported requirements such a host needs, one pin with its hashes a line.

    Raises:
        BundleError: A line is not one version with a hash, or two lines differ; the message begins with ``where``.
    """
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": machine,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    lines: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        try:
            name, pinned = _pinned(line, environment)
        except ValueError as error:
            msg = f"{where}: {error}; make the file with: uv pip compile --generate-hashes"
            raise BundleError(msg) from error
        if pinned and lines.setdefault(name, pinned).split()[0] != pinned.split()[0]:
            msg = f"{where} pins {pinned.split()[0]}, but app.core needs {lines[name].split()[0]}; use that version"
            raise BundleError(msg)
    return "".join(f"{line}\n" for _, line in sorted(lines.items()))


def _pinned(line: str, environment: dict[str, str]) -> tuple[str, str]:
    """Return a line's project and its pin with hashes; both empty when the line asks for nothing on such a host.

    Raises:
        ValueError: The line is not one version with a hash.
    """
    specification, *hashes = re.sub(r"(^|\s)#.*", "", line).split("--hash=")
    if not specification.strip():
        return "", ""
    try:
        requirement = Requirement(specification)
    except InvalidRequirement:
        raise ValueError(f"{specification.strip()!r} is not a pinned requirement") from None
    if requirement.marker is not None and not requirement.marker.evaluate(environment):
        return "", ""
    version = str(requirement.specifier)
    if not hashes or not re.fullmatch(r"==[^=*,][^*,]*", version):
        raise ValueError(f"{requirement.name} is not pinned with a hash")
    name = canonicalize_name(requirement.name)
    return name, f"{name}{version} " + " ".join(f"--hash={value.strip()}" for value in hashes)


def _files(root: Path, manifest: manifests.Manifest) -> Iterable[tuple[str, tuple[bytes, bool]]]:
    name = manifest.name
    sources = [
        (root / "app" / "core", "app/core"),
        (manifest.folder, f"app/{name}"),
        (root / "files" / name, f"files/{name}"),
    ]
    yield "app/__init__.py", (b"", False)
    for base, target in sources:
        for path in sorted(base.rglob("*")):
            inside = path.relative_to(base)
            if any(_is_skipped(part) for part in inside.parts) or path.suffix == ".pyc":
                continue
            if path.is_symlink():
                _check_link(path, base, f"apps/{name}")
            if path.is_file():
                yield f"{target}/{inside.as_posix()}", (path.read_bytes(), bool(path.stat().st_mode & 0o100))


def _is_skipped(name: str) -> bool:
    """Return whether a file or folder is never shipped: caches, and hidden ones (.git, .env, .venv)."""
    return name in _SKIPPED_NAMES or (name.startswith(".") and name not in _SHIPPED_HIDDEN_NAMES)


def _check_link(path: Path, base: Path, where: str) -> None:
    problem = ""
    if not path.exists():
        problem = "is a link that leads nowhere; remove it"
    elif not path.resolve().is_relative_to(base.resolve()):
        problem = "is a link out of the app's folder; put the file itself there"
    elif path.is_dir():
        problem = "is a link to a folder; put the files themselves there"
    if problem:
        raise BundleError(f"{where}: {path} {problem}")


def packed(files: dict[str, tuple[bytes, bool]]) -> bytes:
    """Return a tar.gz of files (content, executable); the same files give the same bytes."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, (content, executable) in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(content), 0o755 if executable else 0o644, 0
            tar.addfile(info, io.BytesIO(content))
    return gzip.compress(raw.getvalue(), compresslevel=6, mtime=0)


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Write to the folder of bundles while nobody else does, and sweep away what killed builds left there."""
    with (out / ".lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in (*out.glob(".layer-*"), *out.glob(".*.part"), *out.glob("wheels/.*.part")):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Build bundles from the command line; prints one JSON object an app."""
    parser = argparse.ArgumentParser(prog="python -m app.core.bundle", description="Build release bundles.")
    parser.add_argument("apps", nargs="+", help="names of apps, or folders with an app.yml")
    parser.add_argument("--out", type=Path, default=Path("build/bundles"))
    parser.add_argument("--python", default="3.13", help="Python of the host (default %(default)s)")
    parser.add_argument("--machine", default="x86_64", help="architecture of the host (default %(default)s)")
    options = parser.parse_args(arguments)
    root = Path(__file__).resolve().parents[2]
    names: list[Any] = [{"path": str(Path(name).absolute())} if "/" in name else name for name in options.apps]
    try:
        for manifest in manifests.load_all(root, names):
            print(
                json.dumps(
                    asdict(build(root, manifest, out=options.out, python=options.python, machine=options.machine))
                )
            )
    except (manifests.ManifestError, BundleError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
