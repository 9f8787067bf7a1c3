"""Runs a program within limits: processor seconds, memory, size of files, number of open files, and dead when its parent is.

    confined(["git", "--version"], cwd=folder, seconds=30, limits=Limits())

The program is started by a small script (`app/judge/confined.py`), which sets the limits and becomes the program: nothing runs between fork
and exec in a process that has threads. It gets an environment of its own: no secrets, no proxies but the system's.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.judge import confined as confined_program

_POLL_SECONDS: Final = 0.02
_KEPT: Final = 64 * 1024  # bytes of what a program says on stderr
_PASSED_ON: Final = (
    "PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
)


@dataclass(frozen=True)
class Limits:
    """What a program may use: bytes of address space, bytes of one file, processor seconds, open files."""

    memory: int = 2 * 1024**3
    file: int = 512 * 1024**2
    cpu: int = 120
    files: int = 512


class TooLong(Exception):
    """The program did not end in time and was killed."""


class Stopped(Exception):
    """The worker is asked to end; the program was killed."""


class TooBig(Exception):
    """The program wrote more than it may and was killed."""


@dataclass(frozen=True)
class Done:
    """How a program ended. `out` is what it wrote to stdout, at most as much as was asked for."""

    code: int
    out: bytes
    said: str
    cut: bool = False


@dataclass
class Watch:
    """Asked many times a second while a program runs; may raise to have it killed."""

    stopped: Callable[[], bool] = field(default=lambda: False)
    look: Callable[[], None] = field(default=lambda: None)


def environment(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a confined program."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        **kept,
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        **(more or {}),
    }


def confined(
    command: Sequence[str],
    *,
    cwd: Path,
    seconds: float,
    limits: Limits | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    most: int = 64 * 1024**2,
    watch: Watch | None = None,
) -> Done:
    """Run a program to its end.

    Raises:
        TooLong: It took longer than `seconds`.
        Stopped: `watch.stopped` said so. What `watch.look` raises comes through. Every time the program and its children are killed.
        FileNotFoundError: There is no such program.
    """
    limits, watch = limits or Limits(), watch or Watch()
    told = (os.getpid(), limits.memory, limits.file, limits.cpu, limits.files)
    starter = [sys.executable, "-I", "-S", "-E", confined_program.__file__, *(str(one) for one in told), *command]
    with (
        tempfile.TemporaryFile(dir=cwd) as out,
        tempfile.TemporaryFile(dir=cwd) as said,
        tempfile.TemporaryFile(dir=cwd) as given,
    ):
        given.write(stdin)
        given.seek(0)
        process = subprocess.Popen(
            starter,
            cwd=cwd,
            env=environment(cwd, env),
            stdin=given,
            stdout=out,
            stderr=said,
            start_new_session=True,
        )
        end = time.monotonic() + seconds
        try:
            while True:
                try:
                    process.wait(_POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    pass
                if watch.stopped():
                    raise Stopped
                if time.monotonic() > end:
                    raise TooLong
                watch.look()
        finally:
            _kill(process)
        size = out.seek(0, os.SEEK_END)
        out.seek(0)
        said.seek(0)
        text = said.read(_KEPT).decode("utf-8", "replace")
        if process.returncode == confined_program.NOT_FOUND and text.startswith(confined_program.NO_PROGRAM):
            raise FileNotFoundError(command[0])
        return Done(process.returncode, out.read(most), text, size > most)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End the program's whole group: it is the leader of a session of its own."""
    with suppress(ProcessLookupError, PermissionError):  # all of it has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
