"""The training command."""

import json
import os
from pathlib import Path

import pytest

from app.core import artefacts, job
from app.core.storage import FolderStorage
from app.wine import train
from app.wine.corpus.generate import NOTES
from app.wine.store import ARTEFACT, load_or_none


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """A small CSV: the first notes of the starter corpus."""
    path = tmp_path / "reviews.csv"
    path.write_text("".join(NOTES.read_text(encoding="utf-8").splitlines(keepends=True)[:160]), encoding="utf-8")
    return path


def test_training_stores_a_model_and_a_report(
    reviews: Path, state: Path, storage: FolderStorage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["--data", str(reviews), "--no-prior", "--report", str(tmp_path / "report.json")]) == 0
    out = capsys.readouterr().out
    assert "fold 5 of 5" in out
    assert "held-out" in out
    (version,) = artefacts.versions(storage, ARTEFACT)
    assert version.meta == json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert load_or_none(storage) is not None
    progress = job.read_progress(state)
    assert (progress.state, progress.version) == ("done", version.id)


def test_a_sandbox_that_forbids_nice_does_not_matter(
    reviews: Path, storage: FolderStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(_: int) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "nice", forbidden)
    assert train.main(["--data", str(reviews), "--no-prior", "--background"]) == 0
    assert load_or_none(storage) is not None


def test_if_missing_trains_once(reviews: Path, storage: FolderStorage, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert train.main(["--data", str(reviews), "--no-prior", "--if-missing"]) == 0
    assert len(artefacts.versions(storage, ARTEFACT)) == 1
    assert "nothing to train" in capsys.readouterr().out


def test_if_missing_trains_when_the_model_there_is_bad(
    reviews: Path, storage: FolderStorage, saved: artefacts.Version
) -> None:
    (storage.root / saved.key).write_bytes(b"torn")
    assert train.main(["--data", str(reviews), "--no-prior", "--if-missing"]) == 0
    assert (served := load_or_none(storage)) is not None
    assert served.version != saved.id


def test_what_fails_is_said_once_and_published(state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--data", str(tmp_path / "absent.csv")]) == 1
    assert "absent.csv: No such file" in capsys.readouterr().err
    assert job.read_progress(state).state == "failed"


def test_a_second_training_gives_way(state: Path, reviews: Path) -> None:
    with job.exclusive(state):
        assert train.main(["--data", str(reviews)]) == os.EX_TEMPFAIL


def test_old_models_go_but_never_the_last_two(
    reviews: Path, storage: FolderStorage, saved: artefacts.Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, int] = {}

    def prune(_: object, name: str, keep_days: int) -> list[artefacts.Version]:
        asked[name] = keep_days
        return []

    monkeypatch.setattr(artefacts, "prune", prune)
    assert train.main(["--data", str(reviews), "--no-prior"]) == 0
    assert asked == {"wine": 30}
