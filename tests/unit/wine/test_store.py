"""The model in service: replaced while serving, never by a bad one."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.core import artefacts
from app.core.storage import FolderStorage, ObjectInfo, StorageError
from app.wine.model import to_bytes
from app.wine.store import ARTEFACT, ModelStore, NoModel, load_or_none
from app.wine.training import Trained


def save(storage: FolderStorage, trained: Trained) -> artefacts.Version:
    return artefacts.save(storage, ARTEFACT, to_bytes(trained.model), trained.report)


def test_without_a_model_there_is_none(storage: FolderStorage) -> None:
    store = ModelStore(storage)
    assert not store.refresh()
    with pytest.raises(NoModel, match=r"python -m app\.wine\.train"):
        _ = store.current
    assert load_or_none(storage) is None


def test_a_newer_model_goes_into_service(storage: FolderStorage, trained: Trained) -> None:
    store = ModelStore(storage)
    first = save(storage, trained)
    assert store.refresh()
    assert store.current.version == first.id
    assert not store.refresh()
    second = save(storage, trained)
    assert store.refresh()
    assert store.current.version == second.id
    assert [row["serving"] for row in store.versions()] == [True, False]


def _flip(storage: FolderStorage, version: artefacts.Version) -> None:
    path = storage.root / version.key
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def _wrong_model(storage: FolderStorage, trained: Trained) -> artefacts.Version:
    broken = replace(trained.model, bias=trained.model.bias + np.array([5, 0, 0, 0], dtype=np.float32))
    return artefacts.save(storage, ARTEFACT, to_bytes(broken), trained.report)


@pytest.mark.parametrize("damage", ["flipped bit", "torn", "foreign", "wrong answers", "other kind"])
def test_the_last_good_one_stays(storage: FolderStorage, trained: Trained, damage: str) -> None:
    good = save(storage, trained)
    store = ModelStore(storage)
    store.refresh()
    if damage == "wrong answers":
        bad = _wrong_model(storage, trained)
    elif damage == "foreign":
        bad = artefacts.save(storage, ARTEFACT, b"not a model at all", trained.report)
    elif damage == "other kind":
        bad = artefacts.save(storage, ARTEFACT, to_bytes(trained.model), {"kind": "vision-model"})
    else:
        bad = save(storage, trained)
        if damage == "torn":
            (storage.root / bad.key).write_bytes(b"")
        else:
            _flip(storage, bad)
    assert not store.refresh()
    assert store.current.version == good.id
    assert set(store.refused) == {bad.id}
    # a process that starts now takes the last good one, too
    assert (served := load_or_none(storage)) is not None
    assert served.version == good.id
    # and the next good one is taken
    after = save(storage, trained)
    assert store.refresh()
    assert store.current.version == after.id


def test_a_refused_version_is_listed_with_the_reason(storage: FolderStorage, trained: Trained) -> None:
    save(storage, trained)
    bad = _wrong_model(storage, trained)
    store = ModelStore(storage)
    store.refresh()
    rows = {row["version"]: row for row in store.versions()}
    assert "test prediction is wrong" in rows[bad.id]["refused"]
    assert not rows[bad.id]["serving"]


def test_looking_costs_one_listing(storage: FolderStorage, trained: Trained) -> None:
    class Counting:
        """A storage that counts what is asked of it."""

        def __init__(self) -> None:
            self.calls: list[str] = []

        def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
            self.calls.append("list")
            return storage.list(prefix)

        def get(self, key: str) -> bytes:
            self.calls.append("get")
            return storage.get(key)

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"{name} was not expected")

    save(storage, trained)
    counting = Counting()
    store = ModelStore(counting)  # type: ignore[arg-type]  # it has the methods that are used
    store.refresh()
    counting.calls.clear()
    for _ in range(3):
        store.refresh()
    assert counting.calls == ["list"] * 3


def test_a_storage_that_fails_is_asked_again(
    storage: FolderStorage, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = save(storage, trained)
    store = ModelStore(storage)
    with monkeypatch.context() as patch:

        def broken(*_: object) -> bytes:
            raise StorageError("the bucket is away")

        patch.setattr(artefacts, "versions", broken)
        with pytest.raises(StorageError):
            store.refresh()
    assert store.refresh()
    assert store.current.version == version.id


def test_the_name_says_when_and_what(saved: artefacts.Version) -> None:
    assert saved.key.startswith("wine/20")
    assert saved.id.endswith(saved.sha256[:8])
