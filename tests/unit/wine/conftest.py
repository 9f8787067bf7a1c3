"""A small model, trained once a process, and an app of its own for every test."""

import importlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.core import artefacts, auth
from app.core.storage import FolderStorage
from app.wine.dataset import Dataset, read_starter
from app.wine.model import to_bytes
from app.wine.store import ARTEFACT
from app.wine.training import Options, Trained, train
from tests.unit.processes import forget

PASSWORD = "correct horse battery"
COUNTRIES = ("Argentina", "Austria", "Germany", "New Zealand")
EACH = 40


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("PERGOLA_") and name != "PERGOLA_SHARED_DATA":
            monkeypatch.delenv(name)
    folder = tmp_path / "state"
    monkeypatch.setenv("PERGOLA_APP", "wine")
    monkeypatch.setenv("PERGOLA_STATE_DIR", str(folder))
    monkeypatch.setenv("PERGOLA_BASE_PATH", "/")
    monkeypatch.setenv("PERGOLA_SLOT", "a")  # as on a host: no training starts by itself
    monkeypatch.setenv("PERGOLA_SECRET_ADMIN_PASSWORD", PASSWORD)
    forget()
    return folder


@pytest.fixture(scope="session")
def small() -> Dataset:
    """Some countries of the starter corpus, some notes of each."""
    starter = read_starter()
    chosen = [
        review
        for country in COUNTRIES
        for review in [review for review in starter.reviews if review.country == country][:EACH]
    ]
    return replace(starter, reviews=chosen, sha256="0" * 64)


@pytest.fixture(scope="session")
def trained(small: Dataset) -> Trained:
    return train(small, Options(prior=False))


@pytest.fixture
def storage(state: Path) -> FolderStorage:
    return FolderStorage(state / "storage")


@pytest.fixture
def saved(storage: FolderStorage, trained: Trained) -> artefacts.Version:
    """The small model in the storage of this test's app."""
    return artefacts.save(storage, ARTEFACT, to_bytes(trained.model), trained.report)


@pytest.fixture
def api(saved: artefacts.Version) -> Iterator[TestClient]:
    """The API with the small model in service."""
    sys.modules.pop("app.wine.api", None)
    module = importlib.import_module("app.wine.api")
    auth._prepared.cache_clear()
    from app.core import migrate

    migrate.ensure(module.settings)
    with TestClient(module.app, base_url="https://demo.example") as asking:
        yield asking


@pytest.fixture
def admin(api: TestClient) -> dict[str, str]:
    """The header of a logged-in admin."""
    token = api.post("/auth/api/login", json={"password": PASSWORD}).json()["session_token"]
    return {"Authorization": f"Bearer {token}"}
