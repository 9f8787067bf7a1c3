"""What every long run has: lines of progress, and an end when nobody wants it any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from deploys.cloud import Cloud
from deploys.spec import DeployError, Spec
from deploys.store import Store


class AbortedError(DeployError):
    """Somebody wants the run to end: Ctrl-C, or the end of the terminal."""


class Run:
    """A run against one environment.

    Args:
        spec: What to do.
        say: Prints a line of progress.
        abort: Set when the run shall be taken back.
    """

    def __init__(self, spec: Spec, say: Callable[[str], None], abort: threading.Event) -> None:
        self.spec, self._print, self.abort = spec, say, abort
        self.cloud = Cloud(spec.region, spec.balancer)
        self.store = Store(self.cloud.client("s3"), spec.bucket)
        self._began = time.monotonic()

    def say(self, phase: str, text: str) -> None:
        """Print a line of progress: minutes, phase, what happened."""
        seconds = time.monotonic() - self._began
        self._print(f"{int(seconds // 60):3d}:{int(seconds % 60):02d}  {phase:<10} {text}")

    def _pause(self, at_most: float = float("inf")) -> None:
        """Wait between two looks.

        Raises:
            AbortedError: The operator wants no more of it.
        """
        if self.abort.wait(min(self.spec.poll_seconds, at_most)):
            raise AbortedError("the operator ended it")
