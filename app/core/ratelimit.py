"""Rate limits that all workers of a host share, and both slots of an app.

    app.add_middleware(RateLimitMiddleware, limit=100, seconds=60)           # every route but health and metrics
    @app.post("/upload", dependencies=[Depends(RateLimit(5, 60, "upload"))]) # one route

The counters live in a small file of fixed size in the app's state folder, mapped into the memory of each process and guarded
by a file lock: no server, nothing to clean up, some microseconds a request. A counter belongs to one visitor and one window
of time; when the table is full the least used counter of its neighbourhood makes room.
"""

import fcntl
import hashlib
import math
import mmap
import os
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import HTTPException, Request, Response
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core import problems
from app.core.asgi import client_address
from app.core.settings import get_settings

EXEMPT: Final = ("/health", "/metrics", "/auth/check")

_ROWS: Final = 16384
_PROBES: Final = 8
_ROW: Final = struct.Struct("<QII")  # who, end of the window (s since 1970), count


@dataclass(frozen=True)
class Verdict:
    """What the counter says about one request. `reset` is in seconds from now."""

    allowed: bool
    limit: int
    remaining: int
    reset: int

    def headers(self) -> dict[str, str]:
        """The headers of the answer."""
        told = {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset),
        }
        return told if self.allowed else {**told, "Retry-After": str(self.reset)}

    def refusal(self) -> str:
        """The sentence of a refusal."""
        return f"Too many requests: {self.limit} are allowed. Try again in {self.reset} seconds."


class Counters:
    """A table of counters in a file, shared by processes and threads."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        size = _ROWS * _ROW.size
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # every process grows the file to the same size: whoever comes second changes nothing
        os.ftruncate(descriptor, size)
        self._descriptor = descriptor
        self._table = mmap.mmap(descriptor, size)
        self._threads = threading.Lock()

    def count(self, who: bytes, limit: int, seconds: int, now: float | None = None) -> Verdict:
        """Count one request of `who` in the current window of `seconds`."""
        now = time.time() if now is None else now
        end = (int(now // seconds) + 1) * seconds
        key = int.from_bytes(hashlib.blake2b(who, digest_size=8).digest(), "little") or 1
        with self._threads:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            try:
                offset, count = self._find(key, now)
                count += 1
                if count <= limit:  # a refused request is not counted: the number never overflows
                    _ROW.pack_into(self._table, offset, key, end, count)
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return Verdict(count <= limit, limit, max(0, limit - count), max(1, math.ceil(end - now)))

    def _find(self, key: int, now: float) -> tuple[int, int]:
        """Where this visitor's row is (or shall be), and its count so far."""
        free, least, least_count = -1, -1, 1 << 32
        for probe in range(_PROBES):
            offset = (key + probe) % _ROWS * _ROW.size
            who, end, count = _ROW.unpack_from(self._table, offset)
            if who == key:
                return offset, count if end > now else 0
            if free < 0 and end <= now:
                free = offset
            if count < least_count:
                least, least_count = offset, count
        return (free if free >= 0 else least), 0


class RateLimit:
    """A dependency: at most `limit` requests in `seconds` for each visitor, counted under `name`."""

    def __init__(self, limit: int, seconds: int, name: str = "requests") -> None:
        if limit < 1 or seconds < 1:
            raise ValueError("a rate limit has at least 1 request in at least 1 second")
        self.limit = limit
        self.seconds = seconds
        self.name = name

    def check(self, client: str) -> Verdict:
        """Count one request of `client`."""
        who = f"{self.name}|{self.seconds}|{client}".encode()
        return _counters().count(who, self.limit, self.seconds)

    def __call__(self, request: Request, response: Response) -> None:
        """Refuse with 429, or let the request pass and tell the headers."""
        verdict = self.check(client_address(request.scope))
        if not verdict.allowed:
            raise HTTPException(429, verdict.refusal(), verdict.headers())
        response.headers.update(verdict.headers())


class RateLimitMiddleware:
    """The same limit for every route of an API. Health and metrics are never limited."""

    def __init__(self, app: ASGIApp, limit: int, seconds: int, name: str = "requests") -> None:
        self._app = app
        self._limit = RateLimit(limit, seconds, name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http" or scope["path"].startswith(EXEMPT):
            await self._app(scope, receive, send)
            return
        verdict = self._limit.check(client_address(scope))
        if not verdict.allowed:
            answer = problems.problem(429, verdict.refusal(), instance=scope["path"], headers=verdict.headers())
            await answer(scope, receive, send)
            return

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in verdict.headers().items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, tell)


_opened: dict[tuple[int, Path], Counters] = {}


def _counters() -> Counters:
    """This process's view of the table; a forked worker opens its own, since a file lock is shared with the parent's."""
    key = (os.getpid(), get_settings().state_dir / "ratelimit.v1")
    if key not in _opened:
        _opened[key] = Counters(key[1])
    return _opened[key]
