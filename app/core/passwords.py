"""Passwords as argon2 hashes, at most two being worked on at a time: each takes 19 MiB for some hundredths of a second."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from fastapi import HTTPException

_hasher: Final = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)  # OWASP's figures; 19 MiB each
_turns: Final = threading.BoundedSemaphore(2)  # so that a storm of logins cannot take the memory of the service
_WAIT_SECONDS: Final = 5


def hashed(password: str) -> str:
    """The argon2 hash of a password. Raises HTTPException 503 when too many wait for a turn."""
    with _turn():
        return _hasher.hash(password)


def right(password: str, expected: str) -> bool:
    """Whether the password is the one of this hash. Raises HTTPException 503 when too many wait for a turn."""
    with _turn():
        try:
            return _hasher.verify(expected, password)
        except VerificationError:
            return False


@contextmanager
def _turn() -> Iterator[None]:
    if not _turns.acquire(timeout=_WAIT_SECONDS):
        raise HTTPException(503, "Too many logins at once. Try again in a moment.", {"Retry-After": str(_WAIT_SECONDS)})
    try:
        yield
    finally:
        _turns.release()
