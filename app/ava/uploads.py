"""Files on their way in: multi-gigabyte archives, in parts that can be sent again, never in memory.

An upload has parts of one size. Where the storage is a bucket the parts go there directly, to addresses that are signed for an hour;
where it is a folder they go to this API, which writes each at its place in one file. A client that cannot reach the bucket sends them
to this API too, which hands them on. Either way a client that was cut off asks which parts are there and sends the others. When all are
there the worker looks into the file and keeps its clips.
"""

import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final
from uuid import uuid4

from sqlalchemy import select, update
from starlette.concurrency import run_in_threadpool

from app.ava import clips, service
from app.ava.service import Refused, Unknown
from app.ava.settings import AvaSettings
from app.ava.tables import Upload
from app.core import database
from app.core.storage import S3Storage, Storage, StorageError

log = logging.getLogger(__name__)

SUFFIXES: Final = (".zip", *clips.VIDEOS)
MOST_PARTS: Final = 10_000  # S3's own limit
MOST_ATTEMPTS: Final = 5
_BUFFER: Final = 1024 * 1024
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")


class TooLarge(Refused):
    """The upload is larger than allowed."""


@dataclass(frozen=True)
class Part:
    """A part of an upload: numbers count from 1, `offset` and `size` are bytes; `url` is where to PUT it, None for this API."""

    number: int
    offset: int
    size: int
    received: bool
    url: str | None


class Uploads:
    """Lets files in."""

    def __init__(self, settings: AvaSettings, storage: Storage) -> None:
        self._settings = settings
        self._storage = storage
        self._folder = settings.state_dir / "uploads"

    @property
    def presigned(self) -> bool:
        """Whether parts go to a bucket and not through this API."""
        return isinstance(self._storage, S3Storage)

    def begin(self, filename: str, size: int) -> Upload:
        """Begin an upload. Raises Refused."""
        name = self._name(filename)
        if size < 1:
            raise Refused(f"{name}: the file is empty.")
        if size > self._settings.upload_bytes:
            raise TooLarge(
                f"{name}: {size} bytes are too many; at most {self._settings.upload_bytes // 1024**2} MiB are taken."
            )
        identity = uuid4().hex
        key = f"uploads/{identity}/{name}"
        part = max(self._settings.part_bytes, -(-size // MOST_PARTS))
        multipart = self._storage.begin_parts(key) if isinstance(self._storage, S3Storage) else None
        row = Upload(
            id=identity,
            filename=name,
            size_bytes=size,
            part_bytes=part,
            storage_key=key,
            multipart_id=multipart,
            state="open",
            report="{}",
            attempts=0,
            taken_at=0.0,
            created_at=time.time(),
        )
        with database.session() as db:
            db.add(row)
        return row

    def _name(self, filename: str) -> str:
        name = _UNSAFE.sub("_", PurePosixPath(filename.replace("\\", "/")).name).lstrip("._-")[-150:]
        if not name.lower().endswith(SUFFIXES):
            raise Refused(
                f"{filename[:80]!r}: expected {{video}}_clip_{{nnn}}.zip, an archive of clips, or a video ({', '.join(clips.VIDEOS)})."
            )
        return name

    def find(self, identity: str) -> Upload:
        """An upload. Raises Unknown."""
        with database.session(read_only=True) as db:
            row = db.get(Upload, identity)
        if row is None:
            raise Unknown("There is no such upload; it may have been forgotten.")
        return row

    def parts(self, row: Upload) -> list[Part]:
        """The parts of an upload, and which of them are there."""
        there: dict[int, int] = {}
        if row.state == "open":
            there = self._there(row)
        told = []
        for number in range(1, _count(row) + 1):
            offset, size = _place_of(row, number)
            received = row.state != "open" or there.get(number) == size
            url = None
            if isinstance(self._storage, S3Storage) and row.multipart_id and not received:
                url = self._storage.part_url(row.storage_key, row.multipart_id, number)
            told.append(Part(number, offset, size, received, url))
        return told

    def _there(self, row: Upload) -> dict[int, int]:
        if isinstance(self._storage, S3Storage):
            return self._storage.parts(row.storage_key, row.multipart_id or "")
        folder = self._folder / row.id
        return {int(path.name): int(path.read_text()) for path in folder.glob("[0-9]*")} if folder.is_dir() else {}

    async def write(self, row: Upload, number: int, stream: AsyncIterator[bytes]) -> None:
        """Write one part from a stream, at its place. Raises Refused when it is not as long as it should be."""
        if row.state != "open":
            raise Refused("This upload is complete.")
        if not 1 <= number <= _count(row):
            raise Refused(f"This upload has no part {number}.")
        offset, size = _place_of(row, number)
        if isinstance(self._storage, S3Storage):
            # through a file without a name: the part may come twice at once, and nothing is left of one that was cut off
            await run_in_threadpool(self._folder.mkdir, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder) as file:
                await _pour_part(stream, file, number, size)
                file.seek(0)
                key, upload = row.storage_key, row.multipart_id or ""
                await run_in_threadpool(self._storage.put_part, key, upload, number, file)
            return
        folder = self._folder / row.id
        await run_in_threadpool(self._place, row, folder)
        path = folder / "data"
        with path.open("r+b") as file:
            file.seek(offset)
            await _pour_part(stream, file, number, size)
            await run_in_threadpool(_flush, file)
        # only now it counts: a part that was cut off is not there
        (folder / str(number)).write_text(str(size))

    def _place(self, row: Upload, folder: Path) -> None:
        """Make room: a file with a hole of the right length."""
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        path = folder / "data"
        if path.exists():
            return
        if free < row.size_bytes + 256 * 1024**2:
            raise StorageError(f"there is no room for {row.size_bytes // 1024**2} MiB on this host: free some space")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(descriptor, row.size_bytes)
        finally:
            os.close(descriptor)

    def complete(self, row: Upload) -> Upload:
        """All parts are there: the file goes into the storage, and the worker looks into it. Raises Refused."""
        if row.state != "open":
            return row  # the answer to the first call was lost
        missing = [part.number for part in self.parts(row) if not part.received]
        if missing:
            raise Refused(
                f"{len(missing)} parts are missing, the first is part {missing[0]}; send them and complete again."
            )
        if isinstance(self._storage, S3Storage):
            self._storage.finish_parts(row.storage_key, row.multipart_id or "")
        else:
            self._storage.adopt(row.storage_key, self._folder / row.id / "data")
            shutil.rmtree(self._folder / row.id, ignore_errors=True)
        with database.session() as db:
            db.execute(update(Upload).where(Upload.id == row.id, Upload.state == "open").values(state="received"))
        return self.find(row.id)

    async def whole(self, filename: str, size: int | None, stream: AsyncIterator[bytes]) -> Upload:
        """An upload in one request, streamed to the disk."""
        limit = self._settings.upload_bytes
        row = await run_in_threadpool(self.begin, filename, size if size is not None else limit)
        folder = self._folder / row.id
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "data"
        try:
            with path.open("xb") as file:
                written = await _pour(stream, file, row.size_bytes)
            await run_in_threadpool(self._adopt_whole, row, path, written, size)
        except BaseException:
            await run_in_threadpool(self.drop, row)
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return self.find(row.id)

    def _adopt_whole(self, row: Upload, path: Path, written: int, promised: int | None) -> None:
        if not written or (promised is not None and written != promised):
            raise Refused(f"{row.filename}: {written} bytes came; send it again.")
        if isinstance(self._storage, S3Storage):
            self._storage.drop_parts(row.storage_key, row.multipart_id or "")
        self._storage.adopt(row.storage_key, path)
        with database.session() as db:
            db.execute(update(Upload).where(Upload.id == row.id).values(state="received", size_bytes=written))

    def drop(self, row: Upload) -> None:
        """Forget an upload and what came of it so far; clips that it gave stay."""
        if isinstance(self._storage, S3Storage) and row.multipart_id:
            self._storage.drop_parts(row.storage_key, row.multipart_id)
        self._storage.delete(row.storage_key)
        shutil.rmtree(self._folder / row.id, ignore_errors=True)
        with database.session() as db:
            if found := db.get(Upload, row.id):
                db.delete(found)

    def sweep(self) -> int:
        """Forget uploads that nobody goes on with; returns how many."""
        before = time.time() - self._settings.upload_hours * 3600
        with database.session(read_only=True) as db:
            old = list(db.scalars(select(Upload).where(Upload.state == "open", Upload.created_at < before)))
        for row in old:
            self.drop(row)
        return len(old)

    def unpack(self, identity: str, beat: Callable[[], None]) -> None:
        """Look into a file that was received and keep its clips; what was wrong with it stands in the row."""
        row = self.find(identity)
        kept: list[str] = []
        known: list[str] = []
        error: str | None = None
        state = "ready"
        try:
            with (
                self._storage.local(row.storage_key) as path,
                clips.workplace(self._settings.state_dir / "work") as work,
            ):
                for clip in clips.unpack(path, row.filename, work):
                    (kept if service.keep_clip(self._storage, clip) else known).append(clip.name)
                    beat()
        except (clips.ClipError, Refused) as problem:
            state, error = "failed", str(problem)
        except Exception as problem:  # the disk, the bucket, a database that restarts: try again, but not for ever
            log.exception("unpacking failed", extra={"event": "work_failed", "upload": identity})
            state = "received" if row.attempts + 1 < MOST_ATTEMPTS else "failed"
            error = (
                str(problem) if isinstance(problem, StorageError) else "something broke on our side; the log says what"
            )
        if state != "received":
            self._storage.delete(row.storage_key)
        taken_at = time.time() if state == "received" else 0.0  # held: the next try comes when the lease is over
        with database.session() as db:
            db.execute(
                update(Upload)
                .where(Upload.id == identity)
                .values(
                    state=state,
                    error=error[:500] if error else None,
                    report=json.dumps({"clips": kept, "known": known}),
                    attempts=row.attempts + 1,
                    taken_at=taken_at,
                )
            )


def told(row: Upload) -> dict[str, Any]:
    """An upload for the API."""
    report = json.loads(row.report)
    return {
        "id": row.id,
        "filename": row.filename,
        "size_bytes": row.size_bytes,
        "part_bytes": row.part_bytes,
        "state": row.state,
        "error": row.error,
        "clips": report.get("clips", []),
        "known": report.get("known", []),
        "created_at": row.created_at,
    }


def _count(row: Upload) -> int:
    """How many parts an upload has."""
    return -(-row.size_bytes // row.part_bytes)


def _place_of(row: Upload, number: int) -> tuple[int, int]:
    """Offset and size of a part, in bytes."""
    offset = (number - 1) * row.part_bytes
    return offset, min(row.part_bytes, row.size_bytes - offset)


async def _pour_part(stream: AsyncIterator[bytes], file: IO[bytes], number: int, size: int) -> None:
    """Write a part from a stream. Raises Refused when it is not as long as it should be."""
    written = await _pour(stream, file, size)
    if written != size:
        raise Refused(f"Part {number} has {written} bytes instead of {size}; send it again.")


async def _pour(stream: AsyncIterator[bytes], file: IO[bytes], most: int) -> int:
    """Write a stream in large pieces, off the event loop; stops at the first byte too many. Returns the bytes that came."""
    written, buffer = 0, bytearray()
    async for piece in stream:
        buffer += piece
        written += len(piece)
        if written > most:
            raise TooLarge(f"More than {most} bytes came.")
        if len(buffer) >= _BUFFER:
            await run_in_threadpool(file.write, bytes(buffer))
            buffer.clear()
    await run_in_threadpool(file.write, bytes(buffer))
    return written


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


__all__ = ["Part", "TooLarge", "Uploads", "told"]
