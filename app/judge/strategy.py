"""How a team tested and decided: its strategy and how mature that is."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final, Literal

from app.judge.languages import is_ci, is_test
from app.judge.repository import File, Repository

Name = Literal["no_tests", "demo_first", "critical_path", "e2e_focused", "integration_focused", "unit_focused"]
README_LEAST: Final = 500

_E2E: Final = re.compile(r"(^|/)(e2e|cypress|playwright|browser|selenium)(/|_|\.)|\.cy\.|e2e", re.IGNORECASE)
_INTEGRATION: Final = re.compile(r"integration|(^|/)(it|api|contract|functional)/|_it\.|IT\.java$", re.IGNORECASE)
_CRITICAL: Final = re.compile(
    r"auth|login|payment|checkout|order|billing|critical|smoke|core|main|happy", re.IGNORECASE
)
_DEMO: Final = re.compile(
    r"\b(live demo|demo|screenshots?|video|try it|deployed (at|on)|vercel\.app|netlify\.app|herokuapp|streamlit\.app)\b",
    re.IGNORECASE,
)
_TRADEOFF: Final = re.compile(
    r"\btrade-?offs?\b|\bdecided (to|against|not)\b|\bchose\b.{0,80}\b(over|because|instead)\b|\binstead of\b|\badr\b",
    re.IGNORECASE,
)
_POINTS: Final[dict[str, int]] = {"critical_path": 3, "e2e_focused": 2, "integration_focused": 2, "unit_focused": 1}


@dataclass(frozen=True)
class Strategy:
    """A team's strategy, its points, and what they are for."""

    name: Name
    tests: dict[str, int]
    tradeoffs: bool
    workflows: bool
    readme: bool
    points: int
    maturity: Literal["junior", "mid", "senior"]


def kind_of(file: File) -> str:
    """Whether a test is e2e, integration or unit, by its path."""
    return "e2e" if _E2E.search(file.path) else "integration" if _INTEGRATION.search(file.path) else "unit"


def judge_strategy(repository: Repository) -> Strategy:
    """Judge the strategy.

    Without tests it is demo_first when the README leads to a demo, else no_tests. With tests it is critical_path when at least half
    of them are about what a product cannot do without (login, payment, orders, main); else e2e, integration or unit, whichever are
    most, the larger kind first.
    """
    tests = [file for file in repository.files if is_test(file.path)]
    kinds = Counter(kind_of(file) for file in tests)
    readme = readme_of(repository)
    told = (readme.text or "") if readme else ""
    name: Name
    if not tests:
        name = "demo_first" if _DEMO.search(told) else "no_tests"
    elif 2 * sum(bool(_CRITICAL.search(file.name)) for file in tests) >= len(tests):
        name = "critical_path"
    else:
        most = max(("e2e", "integration", "unit"), key=lambda kind: kinds[kind])
        name = "e2e_focused" if most == "e2e" else "integration_focused" if most == "integration" else "unit_focused"
    said = "\n".join([told, *(f"{one.subject}\n{one.body}" for one in repository.commits)])
    tradeoffs = bool(_TRADEOFF.search(said))
    workflows = any(is_ci(file.path) for file in repository.files)
    long_readme = len(told) > README_LEAST
    points = _POINTS.get(name, 0) + 2 * tradeoffs + workflows + long_readme
    return Strategy(
        name,
        dict(kinds),
        tradeoffs,
        workflows,
        long_readme,
        points,
        "senior" if points >= 6 else "mid" if points >= 3 else "junior",
    )


def readme_of(repository: Repository) -> File | None:
    """The README at the root, or the one nearest to it."""
    found = [file for file in repository.files if file.name.lower().split(".")[0] == "readme"]
    return min(found, key=lambda file: (file.path.count("/"), file.path), default=None)


def strategy_out(strategy: Strategy) -> dict[str, Any]:
    """A strategy as the API gives it."""
    return {
        "test_strategy": strategy.name,
        "tests_by_kind": {kind: strategy.tests.get(kind, 0) for kind in ("unit", "integration", "e2e")},
        "maturity": strategy.maturity,
        "maturity_points": strategy.points,
        "tradeoffs_documented": strategy.tradeoffs,
        "has_workflows": strategy.workflows,
        "readme_long": strategy.readme,
    }
