"""The eyes of a deploy: the prober in its own process, the alarms, the hosts' health."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deploys.spec import DeployError, Probe

ROOT = Path(__file__).resolve().parents[1]
ENOUGH = 20  # fewer requests have no percentile worth the name


@dataclass(frozen=True)
class Seen:
    """What the prober saw in one phase."""

    phase: str = ""
    sent: int = 0
    failed: int = 0
    p95_ms: float = 0.0
    sessions: int = 0
    cut: int = 0
    why: str = ""

    def __str__(self) -> str:
        """Return it as part of a line of progress."""
        return f"{self.sent:5d} requests, {self.failed} failed, p95 {self.p95_ms:.0f} ms, {self.sessions} sessions, {self.cut} cut"


class Prober:
    """``python -m prober --follow`` as a context manager: one phase for each weight, what it saw at any time, the report at the end."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._process: subprocess.Popen[str] | None = None
        self._last: dict[str, Seen] = {}
        self._phase = "before"
        self.report: dict[str, Any] = {}

    def __enter__(self) -> Self:
        """Begin to probe."""
        flags = [f"--rate={self._probe.rate}", f"--sessions={self._probe.sessions}", *self._probe.flags, "--follow"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "prober", self._probe.url, *flags], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        threading.Thread(target=self._read, name="prober", daemon=True).start()
        return self

    def _read(self) -> None:
        if self._process is None or self._process.stdout is None:
            return
        for line in self._process.stdout:
            told = json.loads(line)
            if "phases" in told:
                self.report = told
            else:
                self._last[told["phase"]] = Seen(**told)

    def mark(self, phase: str) -> None:
        """Begin a phase."""
        self._phase = phase
        self._say(f"mark {phase}")

    def _say(self, line: str) -> None:
        if self._process is None or self._process.stdin is None or self._process.poll() is not None:
            raise DeployError("the prober ended; nobody watches what visitors get")
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def seen(self, phase: str = "") -> Seen:
        """Return what was seen in a phase; the current one without a name."""
        return self._last.get(phase or self._phase, Seen(phase or self._phase))

    def trouble(self, before: Seen) -> str:
        """Return why the current phase is too bad, compared with the one before; empty when it is not."""
        if self._process is None or self._process.poll() is not None:
            return "the prober ended; nobody watches what visitors get"
        now, probe = self.seen(), self._probe
        if now.failed + now.cut > probe.failures:
            return f"{now.failed} of {now.sent} requests failed and {now.cut} sessions were cut ({now.why})"
        limit = max(before.p95_ms * probe.slower, before.p95_ms + probe.slower_ms)
        if now.sent >= ENOUGH and now.p95_ms > limit:
            return f"slow: 95 % of the requests took up to {now.p95_ms:.0f} ms, before {before.p95_ms:.0f} ms (limit {limit:.0f} ms)"
        return ""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the prober and keep its report."""
        process = self._process
        if process is None:
            return
        if process.poll() is None and process.stdin is not None:
            process.stdin.write("stop\n")
            process.stdin.close()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
