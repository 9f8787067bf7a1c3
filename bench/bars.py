"""What a bench has to hold, and what it found."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Bars:
    """What must hold, and what was found."""

    rows: list[list[object]] = field(default_factory=list)
    missed: int = 0

    def hold(self, what: str, found: float, limit: float, *, least: bool = False) -> None:
        """Compare a number with its bar, the most that is allowed (or the least)."""
        well = found >= limit if least else found <= limit
        self.missed += not well
        self.rows.append([what, f"{found:g}", f"{'>=' if least else '<='} {limit:g}", "held" if well else "MISSED"])
