"""An app of its own for every test, with the models that come with it."""

import importlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.core.storage import FolderStorage
from app.vision.dishes import Level, draw
from app.vision.store import install_starter
from tests.unit.processes import forget

Picture = Callable[..., bytes]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("PERGOLA_", "VISION_")) and name != "PERGOLA_SHARED_DATA":
            monkeypatch.delenv(name)
    folder = tmp_path / "state"
    monkeypatch.setenv("PERGOLA_APP", "vision")
    monkeypatch.setenv("PERGOLA_STATE_DIR", str(folder))
    monkeypatch.setenv("PERGOLA_BASE_PATH", "/")
    monkeypatch.setenv("VISION_RATE_LIMIT", "1000")
    forget()
    return folder


@pytest.fixture
def storage(state: Path) -> FolderStorage:
    return FolderStorage(state / "storage")


@pytest.fixture
def starter(storage: FolderStorage) -> list[str]:
    """The models that come with the app, in the storage of this test's app."""
    return install_starter(storage)


@pytest.fixture
def api(starter: list[str]) -> Iterator[TestClient]:
    """The API with these models in service."""
    sys.modules.pop("app.vision.api", None)
    module = importlib.import_module("app.vision.api")
    with TestClient(module.app, base_url="https://vision.example") as asking:
        yield asking


@pytest.fixture(scope="session")
def picture() -> Picture:
    """The bytes of a drawn dish."""

    def make(seed: int = 5_000_000_039, level: Level | None = None, form: str = "JPEG") -> bytes:
        stream = io.BytesIO()
        draw(seed, level=level).image.save(stream, form)
        return stream.getvalue()

    return make


@pytest.fixture(scope="session")
def clean(picture: Picture) -> bytes:
    return picture()


@pytest.fixture(scope="session")
def dirty(picture: Picture) -> bytes:
    return picture(5_000_000_024, "heavy")


@pytest.fixture(scope="session")
def scenery() -> bytes:
    """A photograph without a dish: scikit-learn's temple in China."""
    from sklearn.datasets import load_sample_image

    stream = io.BytesIO()
    Image.fromarray(load_sample_image("china.jpg")).save(stream, "JPEG")
    return stream.getvalue()
