"""The prepare modules of a release run in order, and the first that fails ends the run."""

import json
from pathlib import Path

import pytest

from app.core import prepare

MODULE = "from pathlib import Path\nwith Path('ran').open('a') as file:\n    file.write({name!r})\nraise SystemExit({code})\n"


def write(folder: Path, **codes: int) -> None:
    for name, code in codes.items():
        (folder / f"{name}.py").write_text(MODULE.format(name=name, code=code))
    (folder / "manifest.json").write_text(json.dumps({"prepare": list(codes)}))


def test_all_run_in_order(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, one=0, two=0)
    assert prepare.main() == 0
    assert (tmp_path / "ran").read_text() == "onetwo"
    assert "prepare: two done in" in capfd.readouterr().out


def test_the_first_that_fails_ends_the_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, one=0, two=3, three=0)
    assert prepare.main() == 3
    assert (tmp_path / "ran").read_text() == "onetwo"
    assert "prepare: two failed with exit code 3" in capfd.readouterr().out


def test_on_a_laptop_the_manifest_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "app" / "demo"
    folder.mkdir(parents=True)
    (folder / "app.yml").write_text(
        "name: demo\ntitle: Demo\nsummary: Shows.\napi: {app: 'app.demo.api:app'}\nprepare: [app.core.migrate]\n"
    )
    assert prepare.modules(tmp_path, "demo") == ["app.core.migrate"]
