"""An app of its own for every test, with the starter model in service; the encoder is loaded once a process."""

import importlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.core import artefacts, metrics
from app.core.encoder import Encoder, open_encoder
from app.core.storage import FolderStorage
from app.drawings import generate, prepare
from tests.unit.processes import forget

PASSWORD = "correct horse battery"
V1 = "/api/v1"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("PERGOLA_", "DRAWINGS_", "AWS_")) and name != "PERGOLA_SHARED_DATA":
            monkeypatch.delenv(name)
    folder = tmp_path / "state"
    monkeypatch.setenv("APP_ENVIRONMENT", "local")
    monkeypatch.setenv("PERGOLA_APP", "drawings")
    monkeypatch.setenv("PERGOLA_STATE_DIR", str(folder))
    monkeypatch.setenv("PERGOLA_BASE_PATH", "/")
    monkeypatch.setenv("PERGOLA_SECRET_ADMIN_PASSWORD", PASSWORD)
    for name in ("DEFAULT", "UPLOAD", "ANALYSIS", "AUTH"):
        monkeypatch.setenv(f"DRAWINGS_RATE_{name}", "100000")
    monkeypatch.setenv("DRAWINGS_WORK_SECONDS", "0.05")
    forget()
    return folder


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    return open_encoder("lite0")


@pytest.fixture
def storage(state: Path) -> FolderStorage:
    return FolderStorage(state / "storage")


@pytest.fixture
def starter(storage: FolderStorage, encoder: Encoder) -> str:
    """The starter model in this test's storage; its version."""
    return prepare.unpack(storage, encoder.sha256)


@pytest.fixture
def make_api(state: Path) -> Iterator[Callable[[], TestClient]]:
    """Make the API as a new process would."""
    opened: list[TestClient] = []

    def made() -> TestClient:
        forget()
        for name in [name for name in sys.modules if name == "app.drawings.api"]:
            sys.modules.pop(name)
        module = importlib.import_module("app.drawings.api")
        client = TestClient(module.app, base_url="https://demo.example", follow_redirects=False)
        client.__enter__()
        opened.append(client)
        return client

    yield made
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def api(make_api: Callable[[], TestClient]) -> TestClient:
    return make_api()


@pytest.fixture
def admin(api: TestClient) -> TestClient:
    """The same API for somebody who has logged in."""
    token = api.post("/auth/api/login", json={"password": PASSWORD}).json()["session_token"]
    api.headers["Authorization"] = f"Bearer {token}"
    return api


@pytest.fixture
def png() -> Callable[..., bytes]:
    return picture


def picture(seed: int = 1, age: float = 5.5, subject: str = "cat", form: str = "PNG", **options: object) -> bytes:
    return encoded(generate.drawing(seed, age, subject), form, **options)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def upload(api: TestClient, data: bytes | None = None, age: float = 5.5, subject: str = "cat", **more: str) -> str:
    answer = api.post(
        f"{V1}/drawings/upload",
        files={"file": ("cat.png", data if data is not None else picture(age=age, subject=subject), "image/png")},
        data={"age_years": str(age), "subject": subject, **more},
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def counted(name: str, **labels: str) -> float:
    return metrics.total(name, lambda found: labels.items() <= dict(found).items())


__all__ = ["V1", "artefacts", "counted", "encoded", "picture", "upload"]
