"""Uploads: in parts that go on after a break, to a folder and to a bucket; nothing half, nothing in memory."""

import asyncio
import io
import os
import random
import tracemalloc
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from app.ava.settings import AvaSettings
from app.ava.tables import Upload
from app.core import database
from app.core.settings import get_settings
from app.core.storage import FolderStorage, S3Storage
from tests.unit.core.test_storage import s3_environment, s3_server  # noqa: F401 - fixtures

from .conftest import do_work, frame_zip, logged_in

PART = 5 * 1024 * 1024


def archive(tmp_path: Path, *names: str, filler: int = 0) -> bytes:
    """An archive of clips; `filler` makes its pictures long, as real ones are."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as whole:
        for name in names:
            data = frame_zip(tmp_path / f"{name}.zip", name, 3).read_bytes()
            if filler:
                from .conftest import _picture

                data = frame_zip(
                    tmp_path / f"{name}.zip", name, 3, _picture + name.encode() * (filler // len(name))
                ).read_bytes()
            whole.writestr(f"{name}.zip", data)
    return out.getvalue()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVA_PART_BYTES", str(PART))


def test_parts_in_any_order_go_on_after_a_break(
    small_parts: None, api: TestClient, storage: FolderStorage, state: Path, tmp_path: Path
) -> None:
    data = archive(tmp_path, "a_clip_000", "a_clip_001", filler=2_000_000)
    begun = api.post("/uploads", json={"filename": "C:\\films\\all of it.zip", "size_bytes": len(data)}).json()
    assert begun["filename"] == "all_of_it.zip"
    assert [part["size"] for part in begun["parts"]] == [PART, PART, len(data) - 2 * PART]
    where = f"/uploads/{begun['id']}"

    def send(part: dict[str, Any], content: bytes | None = None) -> int:
        body = content if content is not None else data[part["offset"] : part["offset"] + part["size"]]
        return int(api.put(f"{where}/parts/{part['number']}", content=body).status_code)

    first, second, third = begun["parts"]
    assert send(third) == 204
    assert send(first, data[:1000]) == 400  # cut off: it does not count
    assert send(first, bytes(PART + 1)) == 413
    assert "2 parts are missing, the first is part 1" in api.post(f"{where}/complete").json()["detail"]
    again = api.get(where).json()  # after the break
    assert [part["received"] for part in again["parts"]] == [False, False, True]
    assert send(second, bytes(PART)) == 204
    assert send(second) == 204  # sending it again replaces it
    assert send(first) == 204
    assert api.put(f"{where}/parts/4", content=b"x").status_code == 400
    done = api.post(f"{where}/complete").json()
    assert done["state"] == "received"
    assert api.post(f"{where}/complete").json()["state"] == "received"  # the first answer was lost
    assert send(first) == 400
    assert not (state / "uploads" / begun["id"]).exists()
    do_work(api)
    told = api.get(where).json()
    assert (told["state"], told["clips"], told["known"]) == ("ready", ["a_clip_000", "a_clip_001"], [])
    assert [info.key for info in storage.list()] == [
        "clips/a_clip_000.zip",
        "clips/a_clip_001.zip",
    ]  # the archive itself is gone
    assert not any((state / "work").iterdir())


def test_one_request_is_streamed_and_the_same_clip_again_is_known(api: TestClient, tmp_path: Path, state: Path) -> None:
    data = frame_zip(tmp_path / "a_clip_000.zip", "a_clip_000").read_bytes()
    for expected in (["a_clip_000"], []):
        told = api.post("/uploads/file", params={"filename": "a_clip_000.zip"}, content=data)
        assert told.status_code == 201, told.text
        do_work(api)
        row = api.get(f"/uploads/{told.json()['id']}").json()
        assert (row["state"], row["clips"]) == ("ready", expected)
    assert row["known"] == ["a_clip_000"]
    other = frame_zip(tmp_path / "b.zip", "a_clip_000", 2).read_bytes()
    told = api.post("/uploads/file", params={"filename": "a_clip_000.zip"}, content=other).json()
    do_work(api)
    row = api.get(f"/uploads/{told['id']}").json()
    assert (row["state"], "another clip 'a_clip_000'" in row["error"]) == ("failed", True)
    assert api.get("/clips").json()["clips"][0]["frames"] == 15
    assert len(api.get("/uploads").json()["uploads"]) == 3
    assert not any((state / "uploads").iterdir())


@pytest.mark.parametrize(
    ("filename", "content", "status", "said"),
    [
        ("x.exe", b"x", 400, "expected"),
        ("x.zip", b"", 400, "empty"),
        ("..", b"x", 400, "expected"),
        ("a\x00b", b"x", 400, "expected"),
    ],
)
def test_what_is_refused_at_once(api: TestClient, filename: str, content: bytes, status: int, said: str) -> None:
    answer = api.post("/uploads/file", params={"filename": filename}, content=content)
    assert (answer.status_code, said in answer.json()["detail"]) == (status, True), answer.text


def test_a_bad_archive_is_said_and_forgotten(api: TestClient, storage: FolderStorage) -> None:
    for content, said in ((b"not a zip", "not a zip"), (b"PK\x05\x06" + bytes(18), "no frames")):
        told = api.post("/uploads/file", params={"filename": "x_clip_000.zip"}, content=content).json()
        do_work(api)
        row = api.get(f"/uploads/{told['id']}").json()
        assert (row["state"], said in row["error"]) == ("failed", True), row
    assert list(storage.list()) == []


def test_an_upload_that_is_too_large(
    monkeypatch: pytest.MonkeyPatch, make_api: Any, state: Path, storage: FolderStorage
) -> None:
    monkeypatch.setenv("AVA_UPLOAD_BYTES", "1000")
    api = logged_in(make_api())
    assert api.post("/uploads", json={"filename": "x.zip", "size_bytes": 1001}).status_code == 413

    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield bytes(100)

    answer = api.post("/uploads/file", params={"filename": "x.zip"}, content=endless())  # without a Content-Length
    assert answer.status_code == 413
    assert api.get("/uploads").json() == {"uploads": []}
    assert list(storage.list()) == []


def test_giving_up_and_being_forgotten(small_parts: None, api: TestClient, state: Path) -> None:
    ids = [api.post("/uploads", json={"filename": "x.zip", "size_bytes": 100}).json()["id"] for _ in range(2)]
    for one in ids:
        assert api.put(f"/uploads/{one}/parts/1", content=bytes(100)).status_code == 204
    assert api.delete(f"/uploads/{ids[0]}").status_code == 204
    assert api.get(f"/uploads/{ids[0]}").status_code == 404
    uploads = api.app.state.context.uploads  # type: ignore[attr-defined]
    assert uploads.sweep() == 0
    with database.session() as db:
        db.execute(update(Upload).values(created_at=0.0))
    assert uploads.sweep() == 1
    assert not any((state / "uploads").iterdir())


def test_a_disk_without_room_is_said_before_it_is_full(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    one = api.post("/uploads", json={"filename": "x.zip", "size_bytes": 100}).json()["id"]
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))  # type: ignore[attr-defined]
    answer = api.put(f"/uploads/{one}/parts/1", content=bytes(100))
    assert (answer.status_code, "no room" in answer.json()["detail"]) == (400, True)


def test_memory_stays_flat(small_parts: None, api: TestClient) -> None:
    """64 MB come through in pieces as a socket gives them; at no time are more than some of them held."""
    uploads = api.app.state.context.uploads  # type: ignore[attr-defined]
    size = 64 * 1024 * 1024
    row = uploads.begin("x.zip", size)
    row.part_bytes = size
    piece = os.urandom(64 * 1024)

    async def stream() -> AsyncIterator[bytes]:
        for _ in range(size // len(piece)):
            yield piece

    async def write() -> int:
        tracemalloc.start()
        await uploads.write(row, 1, stream())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert asyncio.run(write()) < 6 * 1024 * 1024


@pytest.fixture
def bucket(s3_environment: None, monkeypatch: pytest.MonkeyPatch) -> S3Storage:  # noqa: F811 - the fixture
    name = f"ava-{os.getpid()}-{random.randrange(10**9)}"  # noqa: S311 - a name
    made = S3Storage(name, "ava")
    made._client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    monkeypatch.setenv("PERGOLA_STORAGE", f"s3://{name}/ava")
    return made


def test_to_a_bucket_parts_go_past_the_api(bucket: S3Storage, small_parts: None, make_api: Any, tmp_path: Path) -> None:
    api = logged_in(make_api())
    assert get_settings(AvaSettings).storage.startswith("s3://")
    data = archive(tmp_path, "a_clip_000", "a_clip_001", filler=2_000_000)
    begun = api.post("/uploads", json={"filename": "all.zip", "size_bytes": len(data)}).json()
    first, *others = begun["parts"]
    assert api.put(f"/uploads/{begun['id']}/parts/1", content=b"x").status_code == 400  # too short
    for part in others:
        content = data[part["offset"] : part["offset"] + part["size"]]
        assert httpx.put(part["url"], content=content, timeout=30).status_code == 200
    again = api.get(f"/uploads/{begun['id']}").json()
    assert [part["received"] for part in again["parts"]] == [False, True, True]
    assert [part["url"] is None for part in again["parts"]] == [False, True, True]
    assert api.post(f"/uploads/{begun['id']}/complete").status_code == 400
    # a browser that may not speak to the bucket sends it here
    assert api.put(f"/uploads/{begun['id']}/parts/1", content=data[: first["size"]]).status_code == 204
    assert api.post(f"/uploads/{begun['id']}/complete").json()["state"] == "received"
    do_work(api)
    assert api.get(f"/uploads/{begun['id']}").json()["clips"] == ["a_clip_000", "a_clip_001"]
    assert [info.key for info in bucket.list()] == ["clips/a_clip_000.zip", "clips/a_clip_001.zip"]
    assert api.get("/clips/a_clip_001/frames/2").status_code == 200
    whole = api.post(
        "/uploads/file",
        params={"filename": "b_clip_000.zip"},
        content=frame_zip(tmp_path / "b.zip", "b_clip_000", 2).read_bytes(),
    )
    assert whole.status_code == 201
    do_work(api)
    assert api.get("/clips").json()["total"] == 3
