"""A training job: one at a time for an app on a host, its progress readable by every process, also after a crash.

The job holds a file lock while it runs and writes its progress beside it. A progress file that says "running" while nobody
holds the lock was left by a job that was killed.
"""

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

_LOCK: Final = "training.lock"
_PROGRESS: Final = "training.json"
_LOG: Final = "training.log"
_START_SECONDS: Final = 20.0
_TRIES: Final = 4
_TRY_SECONDS: Final = 0.02

State = Literal["idle", "running", "done", "failed", "interrupted"]


class Busy(Exception):
    """A training is running already."""


@dataclass(frozen=True)
class Progress:
    """How far a training is. `share` is 0 to 1; times are seconds since 1970."""

    state: State = "idle"
    share: float = 0.0
    sentence: str = "No training has run yet."
    started_at: float | None = None
    finished_at: float | None = None
    version: str | None = None
    error: str | None = None


@contextmanager
def exclusive(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Be the only training on this host. Raises Busy when there is one and `wait` is false."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        _take(descriptor, wait=wait)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, *, wait: bool) -> None:
    if wait:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    for attempt in range(_TRIES):  # somebody may only be looking whether it is taken
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if attempt == _TRIES - 1:
                raise Busy("A training is running already.") from error
            time.sleep(_TRY_SECONDS)
        else:
            return


def write_progress(folder: Path, progress: Progress) -> None:
    """Publish the progress; readers see the old or the new, never a part."""
    temporary = folder / f"{_PROGRESS}.{os.getpid()}"
    temporary.write_text(json.dumps(asdict(progress)), encoding="utf-8")
    temporary.replace(folder / _PROGRESS)


def read_progress(folder: Path) -> Progress:
    """How far the last training is or came."""
    try:
        progress = Progress(**json.loads((folder / _PROGRESS).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Progress()
    except (OSError, ValueError, TypeError):
        return Progress(state="failed", sentence="The progress of the last training cannot be read.")
    if progress.state == "running" and not _locked(folder):
        # it may have ended between the two looks
        again = Progress(**json.loads((folder / _PROGRESS).read_text(encoding="utf-8")))
        if again.state == "running":
            return Progress(
                **{**asdict(again), "state": "interrupted", "sentence": "The training was interrupted. Start it again."}
            )
        return again
    return progress


def start(folder: Path, module: str, *arguments: str) -> Progress:
    """Start `python -m <module> --background` in a process of its own. Raises Busy."""
    folder.mkdir(parents=True, exist_ok=True)
    if _locked(folder):
        raise Busy("A training is running already.")
    with (folder / _LOG).open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, "--background", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a worker that is replaced does not take the training with it
        )
    threading.Thread(target=process.wait, name="training", daemon=True).start()  # no zombie is left
    before = time.monotonic()
    while time.monotonic() - before < _START_SECONDS and process.poll() is None:
        progress = read_progress(folder)
        if progress.state == "running":
            return progress
        time.sleep(0.1)
    if process.poll() == os.EX_TEMPFAIL:
        raise Busy("A training is running already.")
    return read_progress(folder)


def _locked(folder: Path) -> bool:
    try:
        with exclusive(folder):
            return False
    except Busy:
        return True
