"""Versioned artefacts: the newest good one is served, whatever happened to the others."""

import json
import logging
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.core import artefacts
from app.core.artefacts import ArtefactError, load, load_latest, prune, save, versions
from app.core.storage import FolderStorage, NotFound, StorageError


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path / "storage")


def age(storage: FolderStorage, version: artefacts.Version, days: int) -> artefacts.Version:
    """Make a version as old as it would be if it had been saved `days` ago."""
    then = datetime.now(UTC) - timedelta(days=days)
    identity = f"{then:%Y%m%dT%H%M%S}.000Z-{version.sha256[:8]}"
    folder = storage.root / version.name
    told = json.loads((folder / f"{version.id}.json").read_text())
    told |= {"id": identity, "created": then.isoformat()}
    (folder / f"{version.id}.json").unlink()
    (folder / version.id).rename(folder / identity)
    (folder / f"{identity}.json").write_text(json.dumps(told))
    for path in (folder / identity, folder / f"{identity}.json"):
        os.utime(path, (then.timestamp(), then.timestamp()))
    return artefacts.Version(version.name, identity, version.sha256, version.size, then, version.meta)


def test_the_newest_is_loaded_with_what_it_says_of_itself(storage: FolderStorage) -> None:
    first = save(storage, "wine", b"one", {"accuracy": 0.8})
    second = save(storage, "wine", b"two", {"accuracy": 0.9})
    data, meta = load_latest(storage, "wine")
    assert data == b"two"
    assert meta == {"accuracy": 0.9, "version": second.id, "sha256": second.sha256}
    assert [version.id for version in versions(storage, "wine")] == [second.id, first.id]
    assert load(storage, first) == b"one"
    assert first.key == f"wine/{first.id}"
    assert first.id.endswith(first.sha256[:8])


def test_saving_the_same_twice_gives_two_versions(storage: FolderStorage) -> None:
    assert save(storage, "wine", b"same", {}).id != save(storage, "wine", b"same", {}).id


def test_a_clock_that_was_set_back_does_not_hide_the_new_version(
    storage: FolderStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(storage, "wine", b"old", {})

    class Earlier(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime(2020, 1, 1, tzinfo=UTC)

    monkeypatch.setattr(artefacts, "datetime", Earlier)
    save(storage, "wine", b"new", {})
    assert load_latest(storage, "wine")[0] == b"new"


@pytest.mark.parametrize(
    "damage", ["cut", "flipped", "missing", "sidecar-cut", "sidecar-foreign", "sidecar-other-id", "longer"]
)
def test_a_damaged_version_is_refused_and_the_last_good_one_served(
    storage: FolderStorage, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(storage, "wine", b"good model", {})
    bad = save(storage, "wine", b"newer model", {})
    data, sidecar = storage.root / bad.key, storage.root / f"{bad.key}.json"
    if damage == "cut":
        data.write_bytes(b"newer")
    elif damage == "flipped":
        data.write_bytes(b"newer mOdel")
    elif damage == "longer":
        data.write_bytes(b"newer model and more")
    elif damage == "missing":
        data.unlink()
    elif damage == "sidecar-cut":
        sidecar.write_text(sidecar.read_text()[:40])
    elif damage == "sidecar-foreign":
        sidecar.write_text('{"model": "somebody else\'s"}')
    else:
        other = json.loads(sidecar.read_text()) | {"sha256": "0" * 64}
        sidecar.write_text(json.dumps(other))
    with caplog.at_level(logging.ERROR):
        assert load_latest(storage, "wine")[0] == b"good model"
    assert bad.id in caplog.text


def test_a_version_of_another_artefact_is_foreign(storage: FolderStorage) -> None:
    save(storage, "wine", b"ours", {})
    theirs = save(storage, "beer", b"theirs", {})
    for suffix in ("", ".json"):
        (storage.root / f"wine/{theirs.id}{suffix}").write_bytes((storage.root / f"{theirs.key}{suffix}").read_bytes())
    assert load_latest(storage, "wine")[0] == b"ours"


def test_an_upload_that_stopped_before_its_sidecar_does_not_exist(storage: FolderStorage) -> None:
    save(storage, "wine", b"good", {})
    storage.put("wine/20990101T000000.000Z-00000000", b"torn")
    assert load_latest(storage, "wine")[0] == b"good"
    assert len(versions(storage, "wine")) == 1


def test_nothing_good_is_not_found(storage: FolderStorage) -> None:
    with pytest.raises(NotFound, match="train or restore"):
        load_latest(storage, "wine")
    storage.put(save(storage, "wine", b"x", {}).key, b"torn")
    with pytest.raises(NotFound, match="1 refused"):
        load_latest(storage, "wine")


def test_meta_must_be_json_and_names_must_be_keys(storage: FolderStorage) -> None:
    with pytest.raises(ArtefactError, match="not JSON"):
        save(storage, "wine", b"x", {"model": object()})
    with pytest.raises(ArtefactError, match="not JSON"):
        save(storage, "wine", b"x", {"loss": float("nan")})
    for name in ("../wine", "/wine", ""):
        with pytest.raises(StorageError):
            save(storage, name, b"x", {})
    assert versions(storage, "wine") == []


def test_old_versions_go_and_the_newest_stay(storage: FolderStorage) -> None:
    kept = [age(storage, save(storage, "wine", b"%d" % n, {}), days) for n, days in enumerate((100, 90))]
    assert prune(storage, "wine", keep_days=30, keep_min=2) == []
    fresh = save(storage, "wine", b"fresh", {})
    gone = prune(storage, "wine", keep_days=30, keep_min=2)
    assert [version.id for version in gone] == [kept[0].id]
    assert [version.id for version in versions(storage, "wine")] == [fresh.id, kept[1].id]
    assert len(list(storage.list("wine/"))) == 4
    with pytest.raises(ArtefactError, match="at least one"):
        prune(storage, "wine", keep_min=0)


def test_what_a_torn_upload_left_goes_after_a_day(storage: FolderStorage) -> None:
    save(storage, "wine", b"good", {})
    orphan, recent = "wine/20990101T000000.000Z-00000000", "wine/20990101T000000.000Z-11111111"
    for key in (orphan, recent, "wine/notes.txt"):
        storage.put(key, b"x")
    long_ago = time.time() - 2 * 86400
    os.utime(storage.root / orphan, (long_ago, long_ago))
    os.utime(storage.root / "wine/notes.txt", (long_ago, long_ago))
    prune(storage, "wine")
    assert not storage.exists(orphan)
    assert storage.exists(recent)
    assert storage.exists("wine/notes.txt")
