"""The command that trains, and what comes with the app."""

import fcntl
import json
import os
from pathlib import Path

import pytest

from app.core import artefacts
from app.core.storage import FolderStorage
from app.vision import train as command
from app.vision.model import MODEL_TYPES
from app.vision.store import STARTER, artefact, newest_good, read_starter
from app.vision.training import Options

QUICK = ["--types", "fast", "--dishes", "40", "--seed", "9"]


def test_it_trains_and_stores_and_reports(
    storage: FolderStorage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    assert command.main([*QUICK, "--report", str(report)]) == 0
    printed = capsys.readouterr().out
    assert "of 80 pictures drawn and looked at" in printed
    assert "s left" in printed
    assert "balanced accuracy" in printed
    assert "called clean" in printed
    found = newest_good(storage, "fast")
    assert found is not None
    assert found.report["origin"] == "trained"
    assert json.loads(report.read_text())["fast"]["metrics"] == found.report["metrics"]
    assert artefacts.versions(storage, artefact("balanced")) == []


def test_only_one_at_a_time(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state.mkdir(parents=True)
    with (state / "training.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert command.main(QUICK) == os.EX_TEMPFAIL
    assert "running already" in capsys.readouterr().err


def test_what_cannot_be_trained_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--dishes", "5"]) == 1
    assert "5 dishes are too few" in capsys.readouterr().err


def test_the_starter_meets_the_bar_and_says_where_it_is_from() -> None:
    for model_type in MODEL_TYPES:
        data, report = read_starter(model_type)
        assert report["metrics"]["balanced_accuracy"] >= 0.90
        assert report["metrics"]["ece"] <= 0.05
        assert report["metrics"]["not_a_dish_false"] <= 0.03
        assert (report["data"]["dishes"], report["data"]["seed"]) == (Options.dishes, Options.seed)
        assert report["metrics"]["pictures"] == report["data"]["split"]["measure"] == 600
        assert len(data) < 100_000
    assert {path.suffix for path in STARTER.iterdir()} == {".npz", ".json"}
