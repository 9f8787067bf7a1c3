"""Jobs: what an analysis would cost, queueing it, how far it is, and how its end is known."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import HTTPException
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.core.leases import WAITING, WORKING
from app.judge.hackathons import missing
from app.judge.keys import TIERS, spent
from app.judge.schemas import (
    BudgetCheck,
    Estimate,
    EstimateBody,
    JobError,
    JobState,
    Progress,
    Range,
    moment,
    moment_or_none,
)
from app.judge.settings import JudgeSettings
from app.judge.tables import Hackathon, Job, Organizer, Submission, Task, new_id

SECONDS_EACH: Final = 6.0
"""Seconds a submission takes, clone included, when nothing is known yet."""
SPREAD: Final = 0.2
"""How far low and high are from what is expected: an agent that fails costs nothing, a retry costs again."""
RUNNING: Final = ("queued", "running")
AGAIN: Final = ("pending", "failed", "timeout")


@dataclass(frozen=True)
class Budget:
    """US dollars of a hackathon and of its organizer's tier."""

    limit: float | None
    spent: float
    tier: str
    tier_spent: float

    def check(self, cost: float) -> BudgetCheck:
        """Whether both allow this cost."""
        limit, tier = self.limit, TIERS[self.tier].usd
        return BudgetCheck(
            within_budget=(limit is None or self.spent + cost <= limit + 1e-9)
            and self.tier_spent + cost <= tier + 1e-9,
            budget_limit_usd=limit,
            spent_usd=round(self.spent, 6),
            remaining_usd=None if limit is None else round(max(0.0, limit - self.spent), 6),
            tier_limit_usd=tier,
            tier_spent_usd=round(self.tier_spent, 6),
        )

    def enforce(self, cost: float) -> None:
        """Raise HTTPException 402 when one of them does not allow this cost."""
        check = self.check(cost)
        if check.within_budget:
            return
        own = self.limit is not None and self.spent + cost > self.limit + 1e-9
        limit, used = (self.limit, self.spent) if own else (TIERS[self.tier].usd, self.tier_spent)
        whose = "hackathon's budget" if own else f"tier {self.tier}"
        message = f"This would cost ${cost:.3f}, but of the ${limit:.2f} of the {whose} ${used:.3f} are spent."
        raise HTTPException(
            402,
            {
                "error": "Budget exceeded",
                "level": "hackathon" if own else "tier",
                "message": message,
                "details": {"estimated_cost_usd": round(cost, 6), "limit_usd": limit, "spent_usd": round(used, 6)},
                "detail": message,
            },
        )


def budget(db: Session, hackathon: Hackathon) -> Budget:
    """What a hackathon may still spend."""
    tier = db.scalar(select(Organizer.tier).where(Organizer.id == hackathon.org_id)) or "free"
    return Budget(hackathon.budget_limit_usd, hackathon_cost(db, hackathon.id), tier, spent(db, hackathon.org_id))


def hackathon_cost(db: Session, hack_id: str) -> float:
    """US dollars that judging a hackathon has cost, repeated analyses included."""
    asked = select(func.sum(Task.cost_usd)).join(Job, Job.id == Task.job_id).where(Job.hack_id == hack_id)
    return float(db.scalar(asked) or 0.0)


def chosen(db: Session, hackathon: Hackathon, ids: Sequence[str] | None, *, force: bool) -> list[Submission]:
    """The submissions that an analysis would judge, oldest first. Raises HTTPException 404 when one of the ids is not there."""
    asked = select(Submission).where(Submission.hack_id == hackathon.id).order_by(Submission.id)
    rows = list(db.scalars(asked))
    if ids is not None:
        known = {row.id for row in rows}
        for identity in ids:
            if identity not in known:
                raise missing("submission", identity)
        rows = [row for row in rows if row.id in set(ids)]
    return [row for row in rows if force or row.status in AGAIN]


def estimate(db: Session, hackathon: Hackathon, rows: Sequence[Submission], settings: JudgeSettings) -> Estimate:
    """What judging these submissions would cost (US dollars) and take (minutes)."""
    prices = {agent: settings.price.get(agent, 0.0) for agent in json.loads(hackathon.agents)}
    each = sum(prices.values())
    cost = each * len(rows)
    seconds = _seconds_each(db) * len(rows) / settings.workers
    return Estimate(
        estimate=EstimateBody(
            total_submissions=len(rows),
            total_cost_usd=Range(
                low=round(cost * (1 - SPREAD), 6), expected=round(cost, 6), high=round(cost * (1 + SPREAD), 6)
            ),
            per_submission_cost_usd=round(each, 6),
            cost_by_agent={agent: round(price * len(rows), 6) for agent, price in prices.items()},
            estimated_duration_minutes=round(seconds / 60, 2),
        ),
        budget_check=budget(db, hackathon).check(cost),
    )


def _seconds_each(db: Session) -> float:
    """Seconds a submission took in the last finished jobs, over all workers of then."""
    asked = (
        select((Job.finished_at - Job.started_at) / func.count(Task.id))
        .join(Task, Task.job_id == Job.id)
        .where(Job.status == "completed", Job.started_at.is_not(None))
        .group_by(Job.id)
        .order_by(Job.id.desc())
        .limit(5)
    )
    took = [float(seconds) for seconds in db.scalars(asked) if seconds]
    return sum(took) / len(took) if took else SECONDS_EACH


def queue(
    db: Session, hackathon: Hackathon, ids: Sequence[str] | None, *, force: bool, settings: JudgeSettings
) -> tuple[Job, int]:
    """Queue an analysis of a locked hackathon; the job and how many submissions it has.

    Raises HTTPException 400 nothing to judge, 402 over budget, 404 unknown id, 409 one is running.
    """
    if running := latest(db, hackathon.id, RUNNING):
        raise HTTPException(409, {"detail": "An analysis of this hackathon is running already.", "job_id": running.id})
    rows = chosen(db, hackathon, ids, force=force)
    if not rows:
        raise HTTPException(400, "There is nothing to judge: no submission is pending. force_reanalyze judges again.")
    told = estimate(db, hackathon, rows, settings)
    cost = told.estimate.total_cost_usd.expected
    budget(db, hackathon).enforce(cost)
    now = time.time()
    job = Job(
        id=new_id(),
        hack_id=hackathon.id,
        status="queued",
        estimated_cost_usd=cost,
        created_at=now,
        started_at=None,
        finished_at=None,
    )
    db.add(job)
    db.flush()
    for row in rows:
        row.status, row.error_message, row.disqualification_reason = "pending", None, None
        db.add(
            Task(
                job_id=job.id,
                submission_id=row.id,
                state=WAITING,
                owner="",
                lease_until=0.0,
                attempts=0,
                phase="waiting",
                cost_usd=0.0,
                error=None,
                created_at=now,
                finished_at=None,
            )
        )
    hackathon.status = "analyzing"
    db.flush()
    return job, len(rows)


def latest(db: Session, hack_id: str, states: Sequence[str] | None = None) -> Job | None:
    """The newest job of a hackathon, of these states when given."""
    asked = select(Job).where(Job.hack_id == hack_id).order_by(Job.id.desc()).limit(1)
    return db.scalar(asked.where(Job.status.in_(states)) if states else asked)


def close_if_done(db: Session, job_id: str) -> bool:
    """End a job none of whose submissions waits any more; True when this call ended it.

    The job's row is locked first, so that of two workers that finish together the second sees the first one's result.
    """
    job = db.scalar(select(Job).where(Job.id == job_id).with_for_update().execution_options(populate_existing=True))
    if job is None or job.status not in RUNNING:
        return False
    rows = db.execute(select(Task.state, func.count()).where(Task.job_id == job_id).group_by(Task.state))
    left = {str(state): int(number) for state, number in rows}
    if left.get(WAITING, 0) + left.get(WORKING, 0):
        return False
    job.status = "completed" if left.get("done") or not left else "failed"
    job.finished_at = time.time()
    db.execute(
        update(Hackathon).where(Hackathon.id == job.hack_id, Hackathon.status == "analyzing").values(status="completed")
    )
    return True


def cancel(db: Session, hack_id: str) -> None:
    """End the running job of a hackathon; a worker that has one of its submissions finds that it is nobody's any more."""
    job = latest(db, hack_id, RUNNING)
    if job is None:
        return
    db.execute(select(Job.id).where(Job.id == job.id).with_for_update()).all()  # before its tasks, as workers do
    db.execute(
        update(Task)
        .where(Task.job_id == job.id, Task.state.in_((WAITING, WORKING)))
        .values(state="cancelled", finished_at=time.time())
    )
    job.status, job.finished_at = "cancelled", time.time()


def state_of(db: Session, job: Job) -> JobState:
    """How far a job is."""
    told: dict[str, tuple[int, float]] = {
        state: (number, float(cost or 0.0))
        for state, number, cost in db.execute(
            select(Task.state, func.count(), func.sum(Task.cost_usd)).where(Task.job_id == job.id).group_by(Task.state)
        )
    }
    total = sum(number for number, _ in told.values())
    done, failed = told.get("done", (0, 0.0))[0], told.get("failed", (0, 0.0))[0]
    left = told.get(WAITING, (0, 0.0))[0] + told.get(WORKING, (0, 0.0))[0]
    current = db.scalar(
        select(Submission.team_name)
        .join(Task, Task.submission_id == Submission.id)
        .where(Task.job_id == job.id, Task.state == WORKING)
        .order_by(Task.id)
        .limit(1)
    )
    errors: list[Any] = list(
        db.execute(
            select(Submission.id, Submission.team_name, Task.error)
            .join(Task, Task.submission_id == Submission.id)
            .where(Task.job_id == job.id, Task.error.is_not(None))
            .order_by(Task.id)
            .limit(100)
        )
    )
    return JobState(
        job_id=job.id,
        hack_id=job.hack_id,
        status=job.status,  # type: ignore[arg-type]  # only such are stored
        progress=Progress(
            total_submissions=total,
            completed=done,
            failed=failed,
            remaining=left,
            percent_complete=round(100 * (total - left) / total, 1) if total else 100.0,
        ),
        current_submission=current,
        cost_so_far=round(sum(cost for _, cost in told.values()), 6),
        errors=[JobError(sub_id=sub_id, team_name=team, error=error) for sub_id, team, error in errors],
        created_at=moment(job.created_at),
        started_at=moment_or_none(job.started_at),
        finished_at=moment_or_none(job.finished_at),
    )
