"""Analyses: what one would cost, start it, how far it is; and what came out of all of them."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from sqlalchemy import func, select

from app.core import database
from app.judge import hackathons, jobs, results
from app.judge.keys import Asking, Watching
from app.judge.routes.common import NOT_FOUND, OVER_BUDGET, REFUSED, HackId
from app.judge.schemas import (
    ULID_PATTERN,
    AnalyzeIn,
    Estimate,
    HackathonCosts,
    Intelligence,
    JobOut,
    JobState,
    Leaderboard,
    moment,
)
from app.judge.settings import JudgeSettings
from app.judge.tables import Job, Submission, Task


def router(settings: JudgeSettings) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/hackathons/{hack_id}", tags=["analysis"], responses={**REFUSED, **NOT_FOUND})

    @routes.post("/analyze/estimate", summary="What an analysis would cost, and whether the budgets allow it")
    def estimate(asking: Asking, hack_id: HackId, given: AnalyzeIn | None = None) -> Estimate:
        given = given or AnalyzeIn()
        with database.session(read_only=True) as db:
            hackathon = hackathons.owned(db, asking.org_id, hack_id)
            rows = jobs.chosen(db, hackathon, given.submission_ids, force=given.force_reanalyze)
            return jobs.estimate(db, hackathon, rows, settings)

    @routes.post(
        "/analyze",
        status_code=202,
        summary="Judge what is pending",
        responses={
            **OVER_BUDGET,
            400: {"description": "There is nothing to judge"},
            409: {"description": "An analysis is running"},
        },
    )
    def analyze(asking: Asking, hack_id: HackId, given: AnalyzeIn | None = None) -> JobOut:
        given = given or AnalyzeIn()
        with database.session() as db:
            hackathon = hackathons.owned(db, asking.org_id, hack_id, lock=True)
            job, total = jobs.queue(db, hackathon, given.submission_ids, force=given.force_reanalyze, settings=settings)
            return JobOut(
                job_id=job.id,
                hack_id=hack_id,
                status="queued",
                total_submissions=total,
                estimated_cost_usd=round(job.estimated_cost_usd, 6),
                created_at=moment(job.created_at),
            )

    @routes.get("/analyze/status", summary="How far the newest analysis is; never billed")
    def status(
        watching: Watching, hack_id: HackId, job_id: Annotated[str | None, Query(pattern=ULID_PATTERN)] = None
    ) -> JobState:
        with database.session(read_only=True) as db:
            hackathons.owned(db, watching.org_id, hack_id)
            asked = select(Job).where(Job.hack_id == hack_id, Job.id == job_id)
            job = db.scalar(asked) if job_id else jobs.latest(db, hack_id)
            if job is None:
                raise HTTPException(404, "This hackathon has not been analysed yet.")
            return jobs.state_of(db, job)

    @routes.get("/leaderboard", summary="The judged submissions, best first")
    def leaderboard(asking: Asking, hack_id: HackId) -> Leaderboard:
        with database.session(read_only=True) as db:
            hackathon = hackathons.owned(db, asking.org_id, hack_id)
            return results.leaderboard(db, hackathon, hackathons.count(db, hack_id))

    @routes.get("/intelligence", summary="What the hackathon says as a whole")
    def intelligence(asking: Asking, hack_id: HackId) -> Intelligence:
        with database.session(read_only=True) as db:
            return results.intelligence(db, hackathons.owned(db, asking.org_id, hack_id))

    @routes.get("/costs", summary="What judging it has cost")
    def costs(asking: Asking, hack_id: HackId) -> HackathonCosts:
        with database.session(read_only=True) as db:
            hackathon = hackathons.owned(db, asking.org_id, hack_id)
            total = jobs.hackathon_cost(db, hack_id)
            analysed = db.scalar(
                select(func.count(func.distinct(Task.submission_id)))
                .join(Submission, Submission.id == Task.submission_id)
                .where(Submission.hack_id == hack_id, Task.state == "done")
            )
            by_agent: dict[str, float] = {}
            for one in results.judged(db, hack_id):
                for name, agent in one.card["agents"].items():
                    by_agent[name] = round(by_agent.get(name, 0.0) + agent["cost_usd"], 6)
        limit, count = hackathon.budget_limit_usd, int(analysed or 0)
        return HackathonCosts(
            hack_id=hack_id,
            total_cost_usd=round(total, 6),
            submissions_analyzed=count,
            average_cost_per_submission_usd=round(total / count, 6) if count else 0.0,
            cost_by_agent=by_agent,
            budget_limit_usd=limit,
            budget_remaining_usd=None if limit is None else round(max(0.0, limit - total), 6),
        )

    return routes
