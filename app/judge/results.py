"""Leaderboard and intelligence: what the scorecards of a hackathon say as a whole."""

import json
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.judge.hackathons import ranks
from app.judge.schemas import (
    Candidate,
    Counted,
    Hiring,
    Intelligence,
    Issue,
    Leaderboard,
    LeaderboardHackathon,
    Prize,
    Ranked,
    SponsorUse,
    Statistics,
    TopPerformer,
    Trends,
    moment,
)
from app.judge.tables import Hackathon, Scorecard, Submission

BANDS: Final = (("90-100", 90), ("80-89", 80), ("70-79", 70), ("60-69", 60), ("0-59", 0))
MUST_SCORE: Final = 60.0
_PRIZES: Final = (
    ("Best code", "bug_hunter", "code_quality"),
    ("Best tests", "bug_hunter", "test_coverage"),
    ("Most secure", "bug_hunter", "security"),
    ("Best architecture", "performance", "architecture"),
    ("Most novel", "innovation", "technical_novelty"),
    ("Best README", "innovation", "readme_quality"),
    ("Best demo", "innovation", "demo_potential"),
)


@dataclass(frozen=True)
class Judged:
    """A judged submission with its scorecard and rank."""

    submission: Submission
    card: dict[str, Any]
    rank: int


def judged(db: Session, hack_id: str) -> list[Judged]:
    """The judged submissions, best first."""
    rows = db.execute(
        select(Submission, Scorecard.data)
        .join(Scorecard, Scorecard.submission_id == Submission.id)
        .where(Submission.hack_id == hack_id, Submission.status == "completed")
        .order_by(Submission.overall_score.desc(), Submission.id)
    ).all()
    known = ranks(db, hack_id)
    return [Judged(row, json.loads(data), known[row.id]) for row, data in rows if row.id in known]


def statistics_of(scores: Sequence[float]) -> Statistics:
    """Mean, median, population deviation, extremes, and how many are in each band. 89.99 is in 80-89."""
    counts = dict.fromkeys((name for name, _ in BANDS), 0)
    for score in scores:
        counts[next(name for name, least in BANDS if score >= least)] += 1
    return Statistics(
        mean_score=round(statistics.fmean(scores), 2) if scores else None,
        median_score=round(statistics.median(scores), 2) if scores else None,
        std_dev=round(statistics.pstdev(scores), 2) if scores else None,
        highest_score=max(scores, default=None),
        lowest_score=min(scores, default=None),
        score_distribution=counts,
    )


def leaderboard(db: Session, hackathon: Hackathon, submission_count: int) -> Leaderboard:
    """The leaderboard; empty lists when nothing is judged."""
    rows = judged(db, hackathon.id)
    return Leaderboard(
        hackathon=LeaderboardHackathon(
            hack_id=hackathon.id,
            name=hackathon.name,
            status=hackathon.status,  # type: ignore[arg-type]  # only such are stored
            submission_count=submission_count,
            analyzed_count=len(rows),
        ),
        leaderboard=[
            Ranked(
                rank=one.rank,
                sub_id=one.submission.id,
                team_name=one.submission.team_name,
                overall_score=one.card["overall_score"],
                dimension_scores={name: part["weighted"] for name, part in one.card["dimension_scores"].items()},
                recommendation=one.card["recommendation"],
                confidence=one.card["confidence"],
                created_at=moment(one.submission.created_at),
            )
            for one in rows
        ],
        statistics=statistics_of([float(one.card["overall_score"]) for one in rows]),
    )


def intelligence(db: Session, hackathon: Hackathon) -> Intelligence:
    """What the hackathon says as a whole."""
    rows = judged(db, hackathon.id)
    people = _candidates(rows)
    must = [one for one in people if one.hiring_score >= MUST_SCORE][:10]

    def of(*roles: str) -> list[Candidate]:
        return [one for one in people if one.role in roles][:20]

    return Intelligence(
        hack_id=hackathon.id,
        hackathon_name=hackathon.name,
        analyzed_count=len(rows),
        top_performers=[
            TopPerformer(
                rank=one.rank,
                sub_id=one.submission.id,
                team_name=one.submission.team_name,
                overall_score=one.card["overall_score"],
                strengths=[text for agent in one.card["agents"].values() for text in agent["strengths"]][:4],
            )
            for one in rows[:10]
        ],
        hiring_intelligence=Hiring(
            backend_candidates=of("backend", "data"),
            frontend_candidates=of("frontend"),
            devops_candidates=of("devops"),
            full_stack_candidates=of("full_stack"),
            must_interview=must,
        ),
        technology_trends=_trends(rows),
        common_issues=_issues(rows),
        prize_recommendations=_prizes(rows),
        must_interview=must,
        sponsor_api_usage=_sponsors(rows),
        team_grades=dict(sorted(Counter(str(one.card["team"]["grade"]) for one in rows).items())),
        testing_strategies=dict(Counter(str(one.card["strategy"]["test_strategy"]) for one in rows).most_common()),
        generated_at=moment(time.time()),
    )


def _candidates(rows: Sequence[Judged]) -> list[Candidate]:
    found = [
        Candidate(
            name=person["name"],
            team_name=one.submission.team_name,
            sub_id=one.submission.id,
            role=person["role"],
            seniority=person["seniority"],
            skills=person["skills"],
            hiring_score=person["hiring_score"],
            commits=person["commits"],
        )
        for one in rows
        for person in one.card["team"]["individuals"]
    ]
    return sorted(found, key=lambda one: (-one.hiring_score, one.name, one.sub_id))


def _counted(counts: Counter[str], total: int, most: int) -> list[Counted]:
    rows = sorted(counts.items(), key=lambda row: (-row[1], row[0]))[:most]
    return [Counted(name=name, count=number, share=round(number / total, 4)) for name, number in rows]


def _trends(rows: Sequence[Judged]) -> Trends:
    total = len(rows)
    used: Counter[str] = Counter()
    good: Counter[str] = Counter()
    stacks: Counter[str] = Counter()
    mean = statistics.fmean(float(one.card["overall_score"]) for one in rows) if rows else 0.0
    for one in rows:
        facts = one.card["repository"]
        names = dict.fromkeys([*list(facts["languages"])[:3], *facts["technologies"]])
        used.update(names.keys())
        if one.card["overall_score"] >= mean:
            good.update(names.keys())
        if stack := " + ".join([*list(facts["languages"])[:1], *facts["technologies"][:2]]):
            stacks[stack] += 1
    emerging = Counter({name: number for name, number in used.items() if number <= 2 and good[name]})
    return Trends(
        most_used=_counted(used, total, 15),
        emerging=_counted(emerging, total, 10),
        popular_stacks=_counted(stacks, total, 10),
    )


def _issues(rows: Sequence[Judged]) -> list[Issue]:
    teams: dict[str, list[str]] = {}
    for one in rows:
        kinds = {
            "There are no tests": not one.card["repository"]["has_tests"],
            "There is no pipeline": not one.card["repository"]["has_ci"],
            "There is no README": not one.card["repository"]["has_readme"],
            "The security linter has a high finding": any(
                row["severity"] in {"high", "critical"} and row["tool"] == "bandit"
                for row in one.card["static_analysis"]["findings"]
            ),
            "Functions are too complex": bool(one.card["static_analysis"]["complex_functions"]),
            "Dependencies have no version": bool(one.card["static_analysis"]["dependencies"]["unbounded"]),
            "One person did nearly everything": any(
                flag["kind"] == "extreme_imbalance" for flag in one.card["team"]["red_flags"]
            ),
            "A member has no commit": bool(one.card["team"]["ghost_contributors"]),
            "Most was pushed in the last hour": bool(one.card["team"]["panic_push"]),
        }
        for issue, there in kinds.items():
            if there:
                teams.setdefault(issue, []).append(one.submission.team_name)
    found = sorted(teams.items(), key=lambda row: (-len(row[1]), row[0]))
    return [Issue(issue=name, count=len(of), share=round(len(of) / len(rows), 4), example=of[0]) for name, of in found]


def _prizes(rows: Sequence[Judged]) -> list[Prize]:
    found = []
    for prize, agent, name in _PRIZES:
        able = [one for one in rows if agent in one.card["agents"]]
        if not able:
            continue
        best = max(able, key=lambda one: (one.card["agents"][agent]["scores"][name], one.card["overall_score"]))
        score = best.card["agents"][agent]["scores"][name]
        found.append(
            Prize(
                prize=prize,
                team_name=best.submission.team_name,
                sub_id=best.submission.id,
                reason=f"{name.replace('_', ' ')} {score:g} of 10, the highest",
            )
        )
    return found


def _sponsors(rows: Sequence[Judged]) -> list[SponsorUse]:
    teams: dict[str, list[str]] = {}
    for one in rows:
        for name in one.card["repository"]["services"]:
            teams.setdefault(name, []).append(one.submission.team_name)
    found = sorted(teams.items(), key=lambda row: (-len(row[1]), row[0]))
    return [SponsorUse(sponsor=name, count=len(of), teams=of) for name, of in found]
