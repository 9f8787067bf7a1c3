"""An app of its own for every test; a stand-in CVAT, and clips with real JPEG frames."""

import importlib
import os
import socket
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient

from app.ava import attributes, clips, service
from app.ava.attributes import Profile
from app.ava.boxes import Box, frame_file
from app.core import migrate
from app.core.settings import get_settings
from app.core.storage import FolderStorage
from tests.unit.processes import forget

from .cvat_stand_in import PASSWORD as CVAT_PASSWORD
from .cvat_stand_in import WHO, Cvat

PASSWORD = "correct horse battery"
WEBHOOK_SECRET = "signed with this"
SIZE = (1280, 720)


def environment(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Nothing of this machine's, and the state in a folder."""
    for name in list(os.environ):
        if name.startswith(("PERGOLA_", "AVA_", "CVAT_", "DB_", "AWS_")) and name != "PERGOLA_SHARED_DATA":
            monkeypatch.delenv(name)
    for name, value in {
        "PERGOLA_APP": "ava",
        "PERGOLA_STATE_DIR": str(folder),
        "PERGOLA_BASE_PATH": "/",
        "PERGOLA_SECRET_ADMIN_PASSWORD": PASSWORD,
        "PERGOLA_SECRET_CVAT_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "AVA_RATE_DEFAULT": "1000000",
        "AVA_RATE_AUTH": "1000000",
        "AVA_WORK_HERE": "false",  # a test does the worker's steps when it wants them done
        "AVA_CVAT_POLL_SECONDS": "0.01",
    }.items():
        monkeypatch.setenv(name, value)
    forget()


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    environment(monkeypatch, tmp_path / "state")
    return tmp_path / "state"


@pytest.fixture(scope="session")
def running_cvat() -> Iterator[Cvat]:
    """One server for all; each test finds it empty."""
    server = Cvat().start()
    yield server
    server.stop()


@pytest.fixture
def cvat(running_cvat: Cvat, monkeypatch: pytest.MonkeyPatch) -> Cvat:
    fresh = Cvat()
    for name, value in vars(fresh).items():
        if name not in {"url", "_server", "_thread"}:
            setattr(running_cvat, name, value)
    monkeypatch.setenv("CVAT_HOST", running_cvat.url)
    monkeypatch.setenv("CVAT_USERNAME", WHO)
    monkeypatch.setenv("CVAT_PASSWORD", CVAT_PASSWORD)
    forget()
    return running_cvat


@pytest.fixture
def storage(state: Path) -> FolderStorage:
    return FolderStorage(state / "storage")


@pytest.fixture(scope="session")
def profile() -> Profile:
    return attributes.load()


@pytest.fixture
def make_api() -> Iterator[Callable[[], TestClient]]:
    """Make the API as a new process would."""
    opened: list[TestClient] = []

    def made() -> TestClient:
        forget()
        sys.modules.pop("app.ava.api", None)
        module = importlib.import_module("app.ava.api")
        client = TestClient(module.app, base_url="https://ava.example", follow_redirects=False)
        client.__enter__()
        opened.append(client)
        return client

    yield made
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def api(make_api: Callable[[], TestClient]) -> TestClient:
    """The API for somebody who has logged in."""
    return logged_in(make_api())


def logged_in(api: TestClient) -> TestClient:
    token = api.post("/auth/api/login", json={"password": PASSWORD}).json()["session_token"]
    api.headers["Authorization"] = f"Bearer {token}"
    return api


_picture = cv2.imencode(".jpg", np.full((SIZE[1], SIZE[0], 3), 120, np.uint8))[1].tobytes()


def frame_zip(path: Path, name: str, frames: int = 15, picture: bytes = _picture) -> Path:
    """A clip's archive with real JPEG pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number in range(frames):
            archive.writestr(frame_file(name, number), picture)
    return path


def give_clips(storage: FolderStorage, folder: Path, *names: str, frames: int = 15) -> None:
    """Put clips into the storage, as the worker does with an upload."""
    migrate.ensure(get_settings())
    for name in names:
        seen = clips.inspect(frame_zip(folder / f"{name}.zip", name, frames), name)
        service.keep_clip(storage, seen)


def do_work(api: TestClient, most: int = 10_000) -> int:
    """Do the worker's steps until there is nothing left; returns how many."""
    work = api.app.state.context.work  # type: ignore[attr-defined]
    count = 0
    while work.step():
        count += 1
        assert count < most, "the worker never ends"
    return count


def box(
    track: int,
    frame: int,
    left: float = 100.0,
    top: float = 100.0,
    width: float = 100.0,
    height: float = 200.0,
    **said: str,
) -> Box:
    return Box(track, frame, left, top, left + width, top + height, said)


def wait(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Wait until something is true; its value."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
    return found


@pytest.fixture
def reachable(api: TestClient) -> Iterator[str]:
    """The same API on a port, for CVAT's webhook."""
    listening = socket.socket(
        socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )  # asyncio sets no TCP_NODELAY otherwise
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(api.app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def images_form(boxes: list[Box], names: list[str]) -> bytes:
    """Boxes as CVAT exports them "for images": an `<image>` for each frame, no tracks."""
    root = ET.Element("annotations")
    for number, name in enumerate(names):
        image = ET.SubElement(root, "image", id=str(number), name=name, width=str(SIZE[0]), height=str(SIZE[1]))
        for one in boxes:
            if one.frame == number:
                sides = {
                    side: f"{value:.2f}" for side, value in zip(("xtl", "ytl", "xbr", "ybr"), one.corners, strict=True)
                }
                element = ET.SubElement(
                    image, "box", label="person", source="manual", occluded="0", **sides, z_order="0"
                )
                for key, value in one.attributes.items():
                    ET.SubElement(element, "attribute", name=key).text = value
    return ET.tostring(root, encoding="utf-8", xml_declaration=True)
