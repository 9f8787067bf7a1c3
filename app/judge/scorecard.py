"""Puts a scorecard together: facts, tools, team, strategy, four agents, the rubric."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from app.judge import tools
from app.judge.agents import ai_detection, bug_hunter, innovation, performance
from app.judge.agents.subject import Judge, Subject, Verdict, bounded, real
from app.judge.clone import Clone
from app.judge.confine import Watch
from app.judge.facts import facts
from app.judge.llm import LlmAgent, reviewed
from app.judge.repository import Repository, read
from app.judge.schemas import Recommendation, Rubric
from app.judge.strategy import judge_strategy, strategy_out
from app.judge.team import judge_team, team_out

JUDGES: Final[dict[str, Judge]] = {
    "bug_hunter": bug_hunter.judge,
    "performance": performance.judge,
    "innovation": innovation.judge,
    "ai_detection": ai_detection.judge,
}
_BARS: Final[tuple[tuple[float, Recommendation], ...]] = (
    (8.0, "strong_contender"),
    (6.5, "solid_submission"),
    (4.5, "needs_improvement"),
)


class Disqualified(Exception):
    """There is nothing to judge; the text is the reason."""


@dataclass(frozen=True)
class Rules:
    """How a hackathon judges."""

    rubric: Rubric
    agents: Sequence[str]
    policy: str
    config: Mapping[str, Any]
    start: float | None = None
    end: float | None = None
    prices: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Bounds:
    """How much is looked at: files of a repository, seconds of each tool."""

    most_files: int = 20_000
    tool_seconds: float = 30.0


def recommendation(overall: float) -> Recommendation:
    """What an overall score of 0 to 100 means."""
    return next((name for least, name in _BARS if overall / 10 >= least - 1e-9), "concerns_flagged")


def weigh(rubric: Rubric, scores: Mapping[str, float]) -> tuple[dict[str, dict[str, Any]], float]:
    """Each dimension's weighted score (agent score x weight x 10), and their sum, 0 to 100, two decimals."""
    dimensions: dict[str, dict[str, Any]] = {}
    total = 0.0
    for one in rubric.dimensions:
        weighted = scores[one.agent] * one.weight * 10
        total += weighted
        dimensions[one.name] = {
            "agent": one.agent,
            "agent_score": round(scores[one.agent], 2),
            "weight": one.weight,
            "weighted": round(weighted, 2),
        }
    return dimensions, round(min(100.0, max(0.0, total)), 2)


def judge(
    cloned: Clone,
    folder: Path,
    rules: Rules,
    *,
    members: Sequence[str] = (),
    bounds: Bounds | None = None,
    llm: LlmAgent | None = None,
    watch: Watch | None = None,
    phase: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Judge a clone; the scorecard as the API gives it, without the names of the submission.

    Raises:
        Disqualified: It has no commits or no files.
        RepositoryError: It cannot be judged. Confine's TooLong and Stopped come through.
    """
    bounds, began = bounds or Bounds(), time.monotonic()
    if not cloned.commit:
        raise Disqualified("The repository is empty.")
    phase("reading")
    repository = read(cloned, most_files=bounds.most_files, watch=watch)
    if not repository.files:
        raise Disqualified("The repository has no files.")
    if not repository.commits:
        raise Disqualified("The repository has no commit of a person.")
    phase("tools")
    report = tools.analyse(repository, folder, seconds=bounds.tool_seconds, watch=watch)
    phase("judging")
    team = judge_team(repository, members)
    strategy = judge_strategy(repository)
    subject = Subject(repository, report, team, strategy, rules.policy, rules.config)
    verdicts = {name: reviewed(llm, subject, JUDGES[name](subject)) for name in JUDGES if name in rules.agents}
    dimensions, overall = weigh(rules.rubric, {name: verdict.score for name, verdict in verdicts.items()})
    agents = {name: _agent(verdict, repository, rules.prices.get(name, 0.0)) for name, verdict in verdicts.items()}
    return {
        "overall_score": overall,
        "recommendation": recommendation(overall),
        "confidence": round(min(verdict.confidence for verdict in verdicts.values()), 2),
        "dimension_scores": dimensions,
        "agents": agents,
        "repository": {
            "commit": cloned.commit,
            **facts(repository, team.contributors, clone_seconds=cloned.seconds),
            "commits_outside_period": _outside(repository, rules),
        },
        "static_analysis": _static(report),
        "team": team_out(team),
        "strategy": strategy_out(strategy),
        "judging_seconds": round(time.monotonic() - began, 2),
        "total_cost_usd": round(sum(one["cost_usd"] for one in agents.values()), 6),
    }


def _outside(repository: Repository, rules: Rules) -> int:
    """Commits before the hackathon began or after it ended."""
    times = [one.at.timestamp() for one in repository.commits]
    return sum(
        (rules.start is not None and at < rules.start) or (rules.end is not None and at > rules.end) for at in times
    )


def _agent(verdict: Verdict, repository: Repository, price: float) -> dict[str, Any]:
    scores = {name: bounded(value) for name, value in verdict.scores.items()}
    best, worst = max(scores, key=lambda name: scores[name]), min(scores, key=lambda name: scores[name])
    strong, weak = (f"{name.replace('_', ' ')} ({scores[name]:g})" for name in (best, worst))
    summary = f"{verdict.score:.1f} of 10: best in {strong}, weakest in {weak}."
    return {
        "agent": verdict.agent,
        "overall_score": round(verdict.score, 2),
        "confidence": round(min(1.0, max(0.0, verdict.confidence)), 2),
        "scores": scores,
        "summary": summary,
        "strengths": verdict.strengths,
        "improvements": verdict.improvements,
        "evidence": [asdict(one) for one in real(verdict.evidence, repository)],
        "cost_usd": price,
    }


def _static(report: tools.Report) -> dict[str, Any]:
    counts = {
        level: sum(one.severity == level for one in report.findings)
        for level in ("critical", "high", "medium", "low", "info")
    }
    return {
        "tools_run": report.ran,
        "tools_failed": [{"tool": name, "reason": reason} for name, reason in sorted(report.failed.items())],
        "findings_by_severity": counts,
        "findings": [asdict(one) for one in report.findings[:200]],
        "complex_functions": [asdict(one) for one in report.functions if one.complexity > tools.COMPLEX][:50],
        "dependencies": {
            "count": len(report.dependencies),
            "pinned": sum(one.pinned for one in report.dependencies),
            "unbounded": sorted({one.name for one in report.dependencies if not one.bounded})[:50],
            "locked": report.locked,
        },
    }
