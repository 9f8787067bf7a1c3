"""A prober in a process of its own, steered from a test, a bench or a deploy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]


class ProberError(RuntimeError):
    """The prober itself failed; the message has what it said."""


class ProbeProcess:
    """Runs ``python -m prober`` until ``stop``; a context manager that never leaves the process behind.

    Args:
        base: Where the service runs.
        flags: Further flags of ``python -m prober``.
        quiet: Keep its progress to itself.
    """

    def __init__(self, base: str, *flags: str, quiet: bool = True) -> None:
        self._command = [sys.executable, "-m", "prober", base, *flags]
        self._quiet = quiet
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Start probing."""
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if self._quiet else None,
        )
        return self

    def _say(self, line: str) -> None:
        process = self._process
        if process is None or process.stdin is None or process.poll() is not None:
            raise ProberError(f"the prober is not running: {' '.join(self._command)}")
        process.stdin.write(f"{line}\n")
        process.stdin.flush()

    def mark(self, name: str) -> None:
        """Begin a phase of the report."""
        self._say(f"mark {name}")

    def stop(self) -> dict[str, Any]:
        """End the run and return everything it saw (``Report.as_dict``)."""
        self._say("stop")
        process = self._process
        if process is None:
            raise ProberError("the prober was never started")
        output, _ = process.communicate(timeout=120)
        if not output.strip():
            raise ProberError(f"the prober ended with {process.returncode} and said nothing")
        report: dict[str, Any] = json.loads(output.splitlines()[-1])
        return report

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
