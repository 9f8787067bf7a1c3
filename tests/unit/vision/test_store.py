"""The models in service: the newest good one of each type, whatever else lies in the storage."""

import json
from dataclasses import replace

import pytest

from app.core import artefacts
from app.core.storage import FolderStorage
from app.vision import prepare, store
from app.vision.model import MODEL_TYPES, Head, from_bytes
from app.vision.store import ModelStore, NoModel, artefact, encoder_sha256, install_starter, newest_good, read_starter


def another(head: Head) -> Head:
    """A head with other answers, and with test answers that fit."""
    moved = replace(head, offset=head.offset + 0.25)
    return replace(moved, expected=moved.dirty(moved.probes).astype("float32"))


def fast() -> Head:
    return from_bytes(read_starter("fast")[0], "fast", encoder_sha256("fast"))


def serving(storage: FolderStorage) -> ModelStore:
    found = ModelStore(storage)
    found.refresh()
    return found


def test_an_empty_storage_has_no_model(storage: FolderStorage) -> None:
    found = serving(storage)
    assert found.available() == dict.fromkeys(MODEL_TYPES, False)
    with pytest.raises(NoModel, match=r"python -m app\.vision\.train"):
        found.current("balanced")


def test_the_starter_is_all_three(storage: FolderStorage) -> None:
    assert install_starter(storage) == list(MODEL_TYPES)
    found = serving(storage)
    assert all(found.available().values())
    assert found.current("balanced").report["origin"] == "starter"


def test_the_starter_is_stored_once(storage: FolderStorage, starter: list[str]) -> None:
    assert install_starter(storage) == []
    assert prepare.main() == 0
    assert len(artefacts.versions(storage, artefact("fast"))) == 1


def test_an_older_starter_gives_way_and_a_trained_model_does_not(storage: FolderStorage) -> None:
    data, report = read_starter("fast")
    artefacts.save(storage, artefact("fast"), data, {**report, "origin": "starter", "made": "0" * 64})
    store.save(storage, another(fast()), report, keep_days=30)
    artefacts.save(storage, artefact("balanced"), *_with(read_starter("balanced"), origin="starter", made="0" * 64))
    assert install_starter(storage) == ["balanced", "accurate"]
    assert serving(storage).current("fast").report["origin"] == "trained"


def _with(found: tuple[bytes, dict[str, object]], **more: object) -> tuple[bytes, dict[str, object]]:
    return found[0], {**found[1], **more}


def test_a_newer_model_goes_into_service_without_a_restart(storage: FolderStorage, starter: list[str]) -> None:
    found = serving(storage)
    before = found.current("fast").version
    assert found.refresh() == 0
    version = store.save(storage, another(fast()), read_starter("fast")[1], keep_days=30)
    assert found.refresh() == 1
    assert found.current("fast").version == version.id != before


def test_the_name_says_when_and_what(storage: FolderStorage, starter: list[str]) -> None:
    version = artefacts.versions(storage, artefact("fast"))[0]
    assert version.key.startswith("vision/fast/20")
    assert version.key.endswith(version.sha256[:8])


@pytest.mark.parametrize("how", ["torn", "missing", "foreign", "other type", "wrong answers", "no head"])
def test_the_last_good_one_stays(storage: FolderStorage, starter: list[str], how: str) -> None:
    found = serving(storage)
    good = found.current("fast").version
    data, report = read_starter("fast")
    if how in {"torn", "missing"}:
        version = artefacts.save(storage, artefact("fast"), another(fast()).to_bytes(), report)
        if how == "torn":
            storage.put(version.key, storage.get(version.key)[:-7])
        else:
            storage.delete(version.key)
    elif how == "foreign":
        artefacts.save(storage, artefact("fast"), data, {**report, "kind": "wine-model"})
    elif how == "other type":
        artefacts.save(storage, artefact("fast"), read_starter("accurate")[0], report)
    elif how == "wrong answers":
        artefacts.save(storage, artefact("fast"), replace(fast(), offset=9.0).to_bytes(), report)
    else:
        artefacts.save(storage, artefact("fast"), b"something", report)
    assert found.refresh() == 0
    assert found.current("fast").version == good
    assert len(found.refused) == 1
    # whoever starts now takes the good one too
    assert serving(storage).current("fast").version == good
    assert newest_good(storage, "fast").version == good  # type: ignore[union-attr]


def test_a_sidecar_that_is_no_description_changes_nothing(storage: FolderStorage, starter: list[str]) -> None:
    found = serving(storage)
    storage.put("vision/fast/29990101T000000.000Z-00000000.json", json.dumps({"format": "other"}).encode())
    assert found.refresh() == 0
    assert found.available()["fast"]


def test_preparing_an_unwritable_storage_fails_with_a_sentence(
    storage: FolderStorage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.root.parent.mkdir(parents=True, exist_ok=True)
    storage.root.rmdir() if storage.root.exists() else None
    storage.root.write_text("a file, not a folder")
    assert prepare.main() == 1
    assert "the starter models cannot be stored" in capsys.readouterr().err
