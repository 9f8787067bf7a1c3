"""What the judges look at, and what they say."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Protocol

from app.judge.languages import is_test
from app.judge.repository import File, Repository
from app.judge.strategy import Strategy, readme_of
from app.judge.team import Team
from app.judge.tools import Finding, Report, Severity

SUB_SCORES: Final[dict[str, tuple[str, ...]]] = {
    "bug_hunter": ("code_quality", "security", "test_coverage", "error_handling", "dependency_hygiene"),
    "performance": ("architecture", "database_design", "api_design", "scalability", "resource_efficiency"),
    "innovation": (
        "technical_novelty",
        "creative_problem_solving",
        "architecture_elegance",
        "readme_quality",
        "demo_potential",
    ),
    "ai_detection": (
        "commit_authenticity",
        "development_velocity",
        "authorship_consistency",
        "iteration_depth",
        "ai_generation_indicators",
    ),
}
MOST_EVIDENCE: Final = 12
MOST_SCANNED: Final = 3 * 1024**2
"""Characters of code and documents that patterns are looked for in; the files nearest to the root come first."""


@dataclass(frozen=True)
class Found:
    """A finding in a file. `line` is None for the file as a whole."""

    finding: str
    file: str
    line: int | None
    severity: Severity
    source: str


@dataclass
class Verdict:
    """What one agent says. Scores are 0 to 10, confidence 0 to 1."""

    agent: str
    scores: dict[str, float]
    confidence: float
    strengths: list[str] = field(default_factory=list)
    improvements: list[str] = field(default_factory=list)
    evidence: list[Found] = field(default_factory=list)

    @property
    def score(self) -> float:
        """The mean of the sub-scores."""
        return sum(self.scores.values()) / len(self.scores)


@dataclass(frozen=True)
class Place:
    """Where a pattern matched."""

    file: str
    line: int
    text: str


@dataclass(frozen=True)
class Subject:
    """A submission with everything that is known of it. `policy` is the hackathon's AI policy."""

    repository: Repository
    report: Report
    team: Team
    strategy: Strategy
    policy: str = "ai_assisted"
    config: Mapping[str, object] = field(default_factory=dict)

    @cached_property
    def code(self) -> tuple[File, ...]:
        """Source files that were read, tests left out."""
        return tuple(f for f in self.repository.texts if f.language and not is_test(f.path))

    @cached_property
    def tests(self) -> tuple[File, ...]:
        """Tests that were read."""
        return tuple(f for f in self.repository.texts if is_test(f.path))

    @cached_property
    def code_lines(self) -> int:
        """Lines of source, tests left out."""
        return sum(file.lines for file in self.code)

    @cached_property
    def test_lines(self) -> int:
        """Lines of tests."""
        return sum(file.lines for file in self.tests)

    @property
    def thousands(self) -> float:
        """Thousands of lines of source, at least half a one: three findings in ten lines are not three hundred in a thousand."""
        return max(0.5, (self.code_lines + self.test_lines) / 1000)

    @cached_property
    def readme(self) -> File | None:
        """The README."""
        return readme_of(self.repository)

    @property
    def readme_text(self) -> str:
        """Its text, empty without one."""
        return (self.readme.text or "") if self.readme else ""

    @cached_property
    def _scanned(self) -> tuple[File, ...]:
        chosen: list[File] = []
        total = 0
        for file in sorted(self.repository.texts, key=lambda f: (f.path.count("/"), f.path)):
            if file.language is None and part_is_data(file.path):
                continue
            total += len(file.text or "")
            if total > MOST_SCANNED:
                break
            chosen.append(file)
        return tuple(chosen)

    def scan(self, pattern: re.Pattern[str], *, most: int = 20, code_only: bool = False) -> list[Place]:
        """Where a pattern is, at most once a file beyond the first three, at most `most` places."""
        places: list[Place] = []
        for file in self._scanned:
            if code_only and (file.language is None or is_test(file.path)):
                continue
            text = file.text or ""
            for number, match in enumerate(pattern.finditer(text)):
                if number >= 3 or len(places) >= most:
                    break
                places.append(
                    Place(file.path, min(text.count("\n", 0, match.start()) + 1, max(1, file.lines)), match[0][:80])
                )
            if len(places) >= most:
                break
        return places

    def has_file(self, pattern: re.Pattern[str]) -> File | None:
        """The first file whose path matches."""
        return next((file for file in self.repository.files if pattern.search(file.path)), None)


_DATA: Final = re.compile(r"\.(csv|tsv|json|jsonl|xml|geojson|log)$", re.IGNORECASE)


def part_is_data(path: str) -> bool:
    """Whether a file is data, in which patterns of code mean nothing."""
    return bool(_DATA.search(path)) and not path.endswith("package.json")


class Judge(Protocol):
    """One agent."""

    def __call__(self, subject: Subject) -> Verdict:
        """Judge a submission."""


def bounded(value: float) -> float:
    """A sub-score: 0 to 10, two decimals."""
    return round(min(10.0, max(0.0, value)), 2)


def from_places(places: Iterable[Place], finding: str, severity: Severity, source: str) -> list[Found]:
    """Evidence of matches."""
    return [Found(finding, place.file, place.line, severity, source) for place in places]


def from_tools(findings: Sequence[Finding]) -> list[Found]:
    """Evidence of what tools found, the worst first."""
    order = ("critical", "high", "medium", "low", "info")
    rows = sorted(findings, key=lambda one: (order.index(one.severity), one.file, one.line))
    return [Found(f"{one.rule}: {one.message}", one.file, one.line, one.severity, one.tool) for one in rows]


def real(evidence: Iterable[Found], repository: Repository) -> list[Found]:
    """The evidence whose file exists and has that line; anything else is left out."""
    kept = []
    for one in evidence:
        file = repository.by_path.get(one.file)
        if file is not None and (one.line is None or (file.text is not None and 1 <= one.line <= file.lines)):
            kept.append(one)
    return kept[:MOST_EVIDENCE]
