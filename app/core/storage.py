"""Files through one interface: a folder on a laptop or a single host, an S3 bucket in the cloud.

Keys look like `models/wine/2026.bin`: segments of letters, digits and `. _ - = + @ , ~`, joined by slashes. Whatever a
client sends, a key never leaves the storage: `..`, absolute paths and hidden names are refused before anything is touched.
"""

import errno
import io
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, Protocol, cast
from urllib.parse import unquote, urlsplit

from typing_extensions import override  # typing has it from 3.12 on

from app.core.files import sync

_SEGMENT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=+@,~-]*")
_MAX_KEY: Final = 512
_MAX_SEGMENT: Final = 200
_SPOOL_BYTES: Final = 8 * 1024 * 1024
_WORK: Final = ".incoming"  # not a valid segment, so no key can name it


class StorageError(Exception):
    """The storage could not do it; the message says what and why."""


class NotFound(StorageError):
    """There is no object with this key."""


@dataclass(frozen=True)
class ObjectInfo:
    """One stored object: its key, its size in bytes, and when it was last written (UTC)."""

    key: str
    size: int
    modified: datetime


class Storage(Protocol):
    """What every storage can do. All methods raise StorageError; reading a missing key raises NotFound."""

    def put(self, key: str, data: bytes | BinaryIO) -> None:
        """Store `data` as `key`, replacing what was there: readers see the old or the new, never a part."""

    def get(self, key: str) -> bytes:
        """The whole object."""

    def open(self, key: str) -> BinaryIO:
        """A readable, seekable file; the caller closes it."""

    def exists(self, key: str) -> bool:
        """Whether the key is there."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key begins with `prefix`, in the order of their keys."""

    def delete(self, key: str) -> None:
        """Remove the object; a missing one is no error."""

    def adopt(self, key: str, path: Path) -> None:
        """Store the file at `path` as `key` and take it away from there: moved where that is possible, whatever its length."""

    def local(self, key: str) -> AbstractContextManager[Path]:
        """A path to read the object from, good within the block: the file itself, or a copy on this disk."""


def check_key(key: str) -> str:
    """`key` itself when it is a valid one, else StorageError."""
    if not key:
        raise StorageError("a storage key must not be empty")
    if len(key) > _MAX_KEY:
        raise StorageError(f"a storage key has at most {_MAX_KEY} characters, this one has {len(key)}")
    for segment in key.split("/"):
        if not _SEGMENT.fullmatch(segment) or len(segment) > _MAX_SEGMENT:
            raise StorageError(
                f"storage key {key[:80]!r}: {segment[:40]!r} is not allowed; use letters, digits and . _ - = + @ , ~ "
                "between slashes, not beginning with a dot"
            )
    return key


def _check_prefix(prefix: str) -> str:
    """A prefix is the beginning of a key: it may end with a slash or within a segment."""
    if prefix:
        check_key(prefix.removesuffix("/"))
    return prefix


def open_storage(url: str) -> Storage:
    """The storage that `url` names: `file:///folder` or `s3://bucket/prefix`."""
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return FolderStorage(Path(unquote(parts.path)))
    if parts.scheme == "s3" and parts.netloc:
        return S3Storage(parts.netloc, unquote(parts.path).strip("/"))
    raise StorageError(f"storage {url!r}: expected file:///absolute/folder or s3://bucket/prefix")


class FolderStorage(Storage):
    """Objects as files below one folder. Writes go to a temporary file that is synced and then renamed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __repr__(self) -> str:
        return f"FolderStorage({str(self.root)!r})"

    @override
    def put(self, key: str, data: bytes | BinaryIO) -> None:
        path = self._path(key)
        work = self.root / _WORK
        with _folder_errors(key, "write"):
            work.mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise StorageError(f"storage key {key!r} is the folder of other keys")
            temporary = work / secrets.token_hex(12)
            try:
                with temporary.open("xb") as file:
                    shutil.copyfileobj(io.BytesIO(data) if isinstance(data, bytes) else data, file, 1024 * 1024)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
            _sync_folder(path.parent)

    @override
    def get(self, key: str) -> bytes:
        with self.open(key) as file, _folder_errors(key, "read"):
            return file.read()

    @override
    def open(self, key: str) -> BinaryIO:
        path = self._path(key)
        with _folder_errors(key, "read"):
            if not path.is_file():
                raise NotFound(f"storage has no {key!r}")
            return path.open("rb")

    @override
    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        _check_prefix(prefix)
        top = self.root / prefix.rpartition("/")[0]
        found: list[ObjectInfo] = []
        for folder, folders, files in os.walk(top):
            folders[:] = [name for name in folders if _SEGMENT.fullmatch(name)]
            for name in files:
                path = Path(folder) / name
                key = path.relative_to(self.root).as_posix()
                if not key.startswith(prefix) or not _SEGMENT.fullmatch(name) or path.is_symlink():
                    continue
                try:
                    stat = path.stat()
                except FileNotFoundError:  # deleted while we were walking
                    continue
                found.append(ObjectInfo(key, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC)))
        yield from sorted(found, key=lambda info: info.key)

    @override
    def delete(self, key: str) -> None:
        path = self._path(key)
        with _folder_errors(key, "delete"):
            if path.is_dir():
                return
            path.unlink(missing_ok=True)

    @override
    def adopt(self, key: str, path: Path) -> None:
        target = self._path(key)
        with _folder_errors(key, "write"):
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                raise StorageError(f"storage key {key!r} is the folder of other keys")
            sync(path)
            try:
                path.replace(target)
            except OSError as error:
                if error.errno != errno.EXDEV:  # another disk: there is no way but to copy
                    raise
                with path.open("rb") as file:
                    self.put(key, file)
                path.unlink()
            _sync_folder(target.parent)

    @override
    @contextmanager
    def local(self, key: str) -> Iterator[Path]:
        path = self._path(key)
        if not path.is_file():
            raise NotFound(f"storage has no {key!r}")
        yield path

    def _path(self, key: str) -> Path:
        path = self.root / check_key(key)
        # a symbolic link inside the folder must not lead out of it either
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise StorageError(f"storage key {key!r} leads out of the storage")
        return path


@contextmanager
def _folder_errors(key: str, doing: str) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        hint = {
            errno.ENOSPC: "the disk is full: free some space",
            errno.EDQUOT: "the disk quota is used up",
            errno.EROFS: "the folder is read-only: is it the app's state folder?",
            errno.EACCES: "this user may not: check the owner of the folder",
            errno.ENOTDIR: "a part of the key is a file, not a folder",
        }.get(error.errno or 0, error.strerror or str(error))
        raise StorageError(f"cannot {doing} {key!r}: {hint}") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class S3Storage(Storage):
    """Objects in a bucket below a prefix. Credentials, region and endpoint are boto3's usual ones.

    `S3_BROWSER_ENDPOINT` names another endpoint for the addresses that browsers get: an emulated S3 may have one inside and one outside.
    """

    def __init__(self, bucket: str, prefix: str = "") -> None:
        if prefix:
            check_key(prefix)
        self.bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._client = _s3_client()
        outside = os.environ.get("S3_BROWSER_ENDPOINT")
        self._signer = _s3_client(outside) if outside else self._client

    def __repr__(self) -> str:
        return f"S3Storage({self.bucket!r}, {self._prefix!r})"

    @override
    def put(self, key: str, data: bytes | BinaryIO) -> None:
        target = self._key(key)
        with self._errors(key, "write"):
            if isinstance(data, bytes):
                self._client.put_object(Bucket=self.bucket, Key=target, Body=data)
            else:
                # a multipart upload becomes visible only when it is complete
                self._client.upload_fileobj(_KeepOpen(data), self.bucket, target)

    @override
    def get(self, key: str) -> bytes:
        with self._errors(key, "read"):
            return cast(bytes, self._client.get_object(Bucket=self.bucket, Key=self._key(key))["Body"].read())

    @override
    def open(self, key: str) -> BinaryIO:
        # closed by the caller; small objects stay in memory
        file = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 - handed to the caller
        try:
            with self._errors(key, "read"):
                self._client.download_fileobj(self.bucket, self._key(key), file)
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return cast(BinaryIO, file)

    @override
    def exists(self, key: str) -> bool:
        try:
            with self._errors(key, "look for"):
                self._client.head_object(Bucket=self.bucket, Key=self._key(key))
        except NotFound:
            return False
        return True

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        _check_prefix(prefix)
        with self._errors(prefix, "list"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self._prefix + prefix
            )
            for page in pages:
                for item in page.get("Contents", []):
                    yield ObjectInfo(item["Key"].removeprefix(self._prefix), item["Size"], item["LastModified"])

    @override
    def delete(self, key: str) -> None:
        with self._errors(key, "delete"):
            self._client.delete_object(Bucket=self.bucket, Key=self._key(key))

    @override
    def adopt(self, key: str, path: Path) -> None:
        target = self._key(key)
        with self._errors(key, "write"), _folder_errors(key, "read"):
            self._client.upload_file(str(path), self.bucket, target)
            path.unlink()

    @override
    @contextmanager
    def local(self, key: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="object-") as folder:
            path = Path(folder) / key.rpartition("/")[2]
            with self._errors(key, "read"):
                self._client.download_file(self.bucket, self._key(key), str(path))
            yield path

    def begin_parts(self, key: str) -> str:
        """Begin an upload in parts, which a client sends to the bucket by itself; returns its id."""
        with self._errors(key, "write"):
            made = self._client.create_multipart_upload(Bucket=self.bucket, Key=self._key(key))
        return str(made["UploadId"])

    def part_url(self, key: str, upload: str, number: int, seconds: int = 3600) -> str:
        """An address to PUT a part to (numbers from 1 on), good for some seconds; every part but the last has 5 MiB or more."""
        with self._errors(key, "write"):
            return str(
                self._signer.generate_presigned_url(
                    "upload_part",
                    Params={"Bucket": self.bucket, "Key": self._key(key), "UploadId": upload, "PartNumber": number},
                    ExpiresIn=seconds,
                )
            )

    def put_part(self, key: str, upload: str, number: int, file: IO[bytes]) -> None:
        """Send a part (numbers from 1 on) from an open file, for a client that cannot reach the bucket by itself."""
        with self._errors(key, "write"):
            self._client.upload_part(
                Bucket=self.bucket, Key=self._key(key), UploadId=upload, PartNumber=number, Body=file
            )

    def parts(self, key: str, upload: str) -> dict[int, int]:
        """The parts that are there: their numbers and sizes in bytes."""
        return {number: size for number, (size, _) in self._parts(key, upload).items()}

    def finish_parts(self, key: str, upload: str) -> None:
        """Make the object of its parts: it is there with all of them, or not at all."""
        parts = [{"PartNumber": number, "ETag": tag} for number, (_, tag) in sorted(self._parts(key, upload).items())]
        with self._errors(key, "write"):
            self._client.complete_multipart_upload(
                Bucket=self.bucket, Key=self._key(key), UploadId=upload, MultipartUpload={"Parts": parts}
            )

    def drop_parts(self, key: str, upload: str) -> None:
        """Give up an upload in parts; one that is gone already is no error."""
        with suppress(NotFound), self._errors(key, "delete"):
            self._client.abort_multipart_upload(Bucket=self.bucket, Key=self._key(key), UploadId=upload)

    def _parts(self, key: str, upload: str) -> dict[int, tuple[int, str]]:
        with self._errors(key, "list"):
            pages = self._client.get_paginator("list_parts").paginate(
                Bucket=self.bucket, Key=self._key(key), UploadId=upload
            )
            return {
                int(part["PartNumber"]): (int(part["Size"]), str(part["ETag"]))
                for page in pages
                for part in page.get("Parts", [])
            }

    def _key(self, key: str) -> str:
        return self._prefix + check_key(key)

    @contextmanager
    def _errors(self, key: str, doing: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - boto3 is an extra

        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code == "NoSuchBucket":
                raise StorageError(f"cannot {doing} {key!r}: there is no bucket {self.bucket}") from error
            if code in {"NoSuchKey", "NoSuchUpload", "404", "NotFound"}:
                raise NotFound(f"storage has no {key!r}") from error
            if code in {"AccessDenied", "403"}:
                raise StorageError(
                    f"cannot {doing} {key!r}: access to bucket {self.bucket} is denied; does the manifest name it in `buckets`?"
                ) from error
            raise StorageError(f"cannot {doing} {key!r} in bucket {self.bucket}: {code or error}") from error
        except BotoCoreError as error:
            raise StorageError(f"cannot {doing} {key!r} in bucket {self.bucket}: {error}") from error


class _KeepOpen:
    """boto3 closes what it has uploaded; the file belongs to our caller."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)


def _s3_client(endpoint: str | None = None) -> Any:  # boto3 makes its clients at run time: there is no type to name
    try:
        # an extra: a host without buckets does not install it
        import boto3  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise StorageError("storage in S3 needs boto3: install the extra `s3` (pergola[s3])") from error
    config = Config(connect_timeout=5, read_timeout=30, retries={"mode": "standard", "max_attempts": 4})
    return boto3.client("s3", config=config, endpoint_url=endpoint)
