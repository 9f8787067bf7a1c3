"""Files that are there with their whole content, or not at all."""

import hashlib
import os
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Return a file's sha256; nothing when it is not there."""
    if not path.is_file():
        return ""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is there with its whole content, or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    sync(part)
    part.replace(path)


def sync(path: Path) -> None:
    """See to it that a file's content is on the disk before its name is: what has its name is never read again."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
