"""Build layers of installed packages on the control node.

A layer is a folder of installed packages, compiled for the hosts' Python, that every app with the same lock shares: what ``app.core``
needs, what a Streamlit screen needs, and what only one app needs. A host only unpacks it, so nothing is resolved, downloaded or
compiled there. A layer is named by a hash of its locked requirements, the Python, the architecture and the compiler; the same name has
the same bytes on any machine.

Where the control node has no Python of the hosts' version the layer is built uncompiled, and each host compiles it once.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from app.core import assets
from app.core.files import sync
from app.core.tools import BundleError, run, uv

ABOUT = "layer.json"  # says in a layer's folder what the layer is
NOT_COMPILED = r"[/\\]tests?[/\\]"  # packages' own tests: nobody imports them on a host
_GLIBC = "manylinux_2_36"  # Debian 12's; Debian 13 and Ubuntu 24.04 have later ones
_COMPRESSION = 4  # twice as fast as 6, and 3 % larger
# what installing leaves that differs from machine to machine and that no program reads
_LEFT_OUT = frozenset({".lock", "uv_cache.json", "direct_url.json", "REQUESTED"})


@dataclass(frozen=True)
class Layer:
    """What one layer holds.

    Attributes:
        requirements: Locked requirements with hashes, one a line, sorted.
        assets: Names of the assets among them, which are made here.
        python: Python of the hosts, ``major.minor``.
        machine: Their architecture, as wheels call it.
        compiler: Version of the Python that compiles it; empty when there is none.
    """

    requirements: str
    assets: tuple[str, ...]
    python: str
    machine: str
    compiler: str

    @property
    def id(self) -> str:
        """Its name, 12 hex digits."""
        named = json.dumps([self.python, self.machine, self.compiler, self.requirements])
        return hashlib.sha256(named.encode()).hexdigest()[:12]

    @property
    def file(self) -> str:
        """Name of its archive."""
        return f"layer-{self.id}.tar.gz"


def split(groups: Sequence[str], assets_of: Sequence[str], *, python: str, machine: str) -> list[Layer]:
    """Return the layers of locked requirements; each group is what its layer adds to those before, and none is empty.

    Args:
        groups: Requirements with hashes, one a line: each group may repeat lines of the groups before it.
        assets_of: Names of the assets; they belong to the last layer.
        python: Python of the hosts, ``major.minor``.
        machine: Their architecture, as wheels call it.
    """
    found, seen = [], set[str]()
    found_compiler = compiler(python)
    for number, group in enumerate(groups):
        own = [line for line in group.splitlines() if line not in seen]
        seen.update(own)
        made = tuple(assets_of) if number == len(groups) - 1 else ()
        own += [assets.recipe(name).pin for name in made]
        if own:
            text = "".join(f"{line}\n" for line in sorted(own, key=lambda line: line.partition("==")[0]))
            version = found_compiler[1] if found_compiler else ""
            found.append(Layer(text, made, python, machine, version))
    return found


@cache
def compiler(python: str) -> tuple[str, str] | None:
    """Return path and version of a Python of this machine that compiles for such hosts; nothing when there is none."""
    if python == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable, "{}.{}.{}".format(*sys.version_info[:3])
    try:
        path = uv(["python", "find", "--quiet", "--no-project", "--no-python-downloads", python]).strip()
        version = run([path, "-I", "-c", "print('{}.{}.{}'.format(*__import__('sys').version_info[:3]))"]).strip()
    except (BundleError, OSError):
        return None
    return (path, version) if version.startswith(f"{python}.") else None


def build(layer: Layer, target: Path, cache: Path) -> None:
    """Build a layer's archive.

    Args:
        layer: What it holds.
        target: The archive; it appears whole or not at all.
        cache: Folder for the wheels of assets.

    Raises:
        BundleError: A wheel cannot be had or is not what the lock says, or an asset cannot be made.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".layer-") as scratch:
        tree = Path(scratch, "packages")
        install(layer.requirements, tree, python=layer.python, machine=layer.machine, made=layer.assets, cache=cache)
        if layer.compiler:
            compile_tree(tree, layer.python)
        about = {"layer": layer.id, "python": layer.python, "machine": layer.machine, "compiled": bool(layer.compiler)}
        (tree / "requirements.txt").write_text(layer.requirements, encoding="utf-8")
        (tree / ABOUT).write_text(json.dumps(about, sort_keys=True), encoding="utf-8")
        store(tree, target)


def store(tree: Path, target: Path) -> None:
    """Pack a folder that lies in a scratch folder beside its archive's place; the archive appears whole or not at all."""
    part = tree.with_name(target.name)
    with part.open("wb") as stream:
        pack(tree, stream)
    sync(part)
    part.replace(target)


def install(
    requirements: str, tree: Path, *, python: str, machine: str, made: Sequence[str] = (), cache: Path | None = None
) -> None:
    """Install locked requirements into a folder for another machine; scripts that name this machine's Python are left out.

    Raises:
        BundleError: A wheel cannot be had or is not what the lock says, or an asset cannot be made.
    """
    tree.mkdir(parents=True, exist_ok=True)
    found: list[str] = []
    try:
        for name in made:
            assets.pack(name, cache or assets.folder())
            found = [f"--find-links={cache or assets.folder()}"]
    except assets.AssetError as error:
        raise BundleError(str(error)) from error
    locked = tree.with_name("locked.txt")
    locked.write_text(requirements, encoding="utf-8")
    flags = ["--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:", "--link-mode=copy", *found]
    flags += [f"--python={sys.executable}", f"--python-version={python}", f"--python-platform={machine}-{_GLIBC}"]
    uv(["pip", "install", f"--target={tree}", *flags, f"--requirement={locked}"])
    gone = set()
    for path in (tree / "bin").glob("*"):
        with path.open("rb") as stream:
            if stream.read(2) == b"#!":
                gone.add(f"bin/{path.name}")
    for name in gone:
        (tree / name).unlink()
    for record in tree.glob("*.dist-info/RECORD"):
        lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
        record.write_text("".join(line for line in lines if not _is_left_out(line, gone)), encoding="utf-8")


def _is_left_out(line: str, gone: set[str]) -> bool:
    """Return whether a line of a RECORD names a file that is not in the layer."""
    name = line.partition(",")[0].strip('"')
    return name.removeprefix("../../") in gone or name.rpartition("/")[2] in _LEFT_OUT


def compile_tree(tree: Path, python: str) -> None:
    """Compile the packages of a folder; the same sources give the same bytes, wherever they lie.

    Raises:
        BundleError: There is no such Python.
    """
    found = compiler(python)
    if found is None:
        raise BundleError(f"there is no Python {python} on this machine to compile with")
    command = [found[0], "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    # a package may carry sources for other Pythons, or templates: what cannot be compiled is shipped as it is
    subprocess.run(
        [*command, "-s", str(tree), "-x", NOT_COMPILED, str(tree)],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        check=False,
    )


def pack(tree: Path, stream: IO[bytes]) -> None:
    """Write a tar.gz of the files below a folder; the same files give the same bytes."""
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=_COMPRESSION, fileobj=stream, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in _files(tree):
            info = tarfile.TarInfo(path.relative_to(tree).as_posix())
            status = path.stat()
            info.size, info.mode, info.mtime = status.st_size, 0o755 if status.st_mode & 0o100 else 0o644, 0
            with path.open("rb") as content:
                tar.addfile(info, content)


def _files(tree: Path) -> Iterator[Path]:
    for path in sorted(tree.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.name not in _LEFT_OUT:
            yield path
