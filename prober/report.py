"""What a probe run saw, as numbers, JSON and a table."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sample:
    """One request.

    Attributes:
        at: Seconds since the start of the run at which it was sent.
        seconds: How long it took.
        kind: What was sent, for example ``GET keep-alive``.
        failure: What went wrong in a few words; None when all was well.
    """

    at: float
    seconds: float
    kind: str
    failure: str | None


@dataclass
class Phase:
    """A named stretch of the run (before, during, after)."""

    name: str
    began: float


@dataclass
class Report:
    """Everything a run saw."""

    phases: list[Phase] = field(default_factory=lambda: [Phase("all", 0.0)])
    samples: list[Sample] = field(default_factory=list)
    sockets_opened: int = 0
    sockets_cut: list[str] = field(default_factory=list)
    reruns: int = 0
    _cut_at: list[float] = field(default_factory=list)

    def cut(self, at: float, why: str) -> None:
        """Note that a session was cut."""
        self.sockets_cut.append(f"{at:.1f} s: {why}")
        self._cut_at.append(at)

    def current(self) -> dict[str, object]:
        """Return what the current phase saw until now, as one flat line: what a deploy watches."""
        began = self.phases[-1].began
        samples = [sample for sample in self.samples if sample.at >= began]
        failed = [sample for sample in samples if sample.failure is not None]
        cut = sum(at >= began for at in self._cut_at)
        why = Counter(f"{sample.kind}: {sample.failure}" for sample in failed).most_common(1)
        return {
            "phase": self.phases[-1].name,
            "sent": len(samples),
            "failed": len(failed),
            "p95_ms": round(percentile(sorted(s.seconds for s in samples if s.failure is None), 95) * 1000, 1),
            "sessions": self.sockets_opened - len(self.sockets_cut),
            "cut": cut,
            "why": why[0][0] if why else self.sockets_cut[-1] if cut else "",
        }

    def failures(self) -> list[Sample]:
        """Return the requests that went wrong."""
        return [sample for sample in self.samples if sample.failure is not None]

    def longest_gap(self) -> float:
        """Return the longest time without a good answer, in seconds."""
        ends = sorted(sample.at + sample.seconds for sample in self.samples if sample.failure is None)
        return max((later - earlier for earlier, later in itertools.pairwise(ends)), default=0.0)

    def as_dict(self) -> dict[str, object]:
        """Return the run as plain data."""
        failed = self.failures()
        return {
            "sent": len(self.samples),
            "failed": len(failed),
            "failures": dict(Counter(f"{sample.kind}: {sample.failure}" for sample in failed)),
            "longest_gap_seconds": round(self.longest_gap(), 3),
            "sockets_opened": self.sockets_opened,
            "sockets_cut": len(self.sockets_cut),
            "sockets_cut_why": self.sockets_cut[:20],
            "reruns": self.reruns,
            "phases": [self._phase(index) for index in range(len(self.phases))],
            "kinds": {
                kind: self._numbers([s for s in self.samples if s.kind == kind])
                for kind in sorted({s.kind for s in self.samples})
            },
        }

    def _phase(self, index: int) -> dict[str, object]:
        began = self.phases[index].began
        ended = self.phases[index + 1].began if index + 1 < len(self.phases) else math.inf
        return {"name": self.phases[index].name, **self._numbers([s for s in self.samples if began <= s.at < ended])}

    @staticmethod
    def _numbers(samples: Sequence[Sample]) -> dict[str, object]:
        good = sorted(sample.seconds for sample in samples if sample.failure is None)
        return {
            "sent": len(samples),
            "failed": len(samples) - len(good),
            "p50_ms": round(percentile(good, 50) * 1000, 1),
            "p99_ms": round(percentile(good, 99) * 1000, 1),
            "max_ms": round((good[-1] if good else 0.0) * 1000, 1),
        }


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile of an ordered sequence; 0 when it is empty."""
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(share / 100 * len(ordered)) - 1)]


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Lay out rows under headings, numbers to the right."""
    cells = [[str(heading) for heading in headings], *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]

    def line(row: Sequence[str]) -> str:
        return "  ".join(
            cell.rjust(width) if _is_number(cell) else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ).rstrip()

    return "\n".join([line(cells[0]), "  ".join("-" * width for width in widths), *(line(row) for row in cells[1:])])


def _is_number(cell: str) -> bool:
    return cell.replace(".", "", 1).replace("-", "", 1).isdigit()
