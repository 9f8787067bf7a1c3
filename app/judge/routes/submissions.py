"""Submissions: add, list, give, delete, and what was found in them."""

import json
from typing import Any

from fastapi import APIRouter, HTTPException
from sqlalchemy import select

from app.core import database
from app.core.leases import WAITING, WORKING
from app.judge import hackathons
from app.judge.keys import Asking
from app.judge.routes.common import CONFLICT, NOT_FOUND, REFUSED, Cursor, HackId, Limit, SubId
from app.judge.schemas import (
    Created,
    Individuals,
    ScorecardOut,
    SubmissionCosts,
    SubmissionOut,
    SubmissionPage,
    SubmissionsIn,
    SubmissionStatus,
    moment,
)
from app.judge.settings import JudgeSettings
from app.judge.tables import Scorecard, Submission, Task


def router(settings: JudgeSettings) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["submissions"], responses=REFUSED)

    @routes.post(
        "/hackathons/{hack_id}/submissions",
        status_code=201,
        summary="Add submissions: all of them or none",
        responses={**NOT_FOUND, 409: {"description": "A team or a repository is there already"}},
    )
    def add(asking: Asking, hack_id: HackId, given: SubmissionsIn) -> Created:
        with database.session() as db:
            hackathon = hackathons.owned(db, asking.org_id, hack_id, lock=True)
            rows = hackathons.add(db, hackathon, given.submissions, settings)
            return Created(
                created=len(rows),
                submissions=[hackathons.submission_out(row) for row in rows],
                hackathon_submission_count=hackathons.count(db, hack_id),
            )

    @routes.get("/hackathons/{hack_id}/submissions", summary="Its submissions, oldest first", responses=NOT_FOUND)
    def listed(
        asking: Asking,
        hack_id: HackId,
        limit: Limit = 20,
        cursor: Cursor = None,
        status: SubmissionStatus | None = None,
    ) -> SubmissionPage:
        with database.session(read_only=True) as db:
            hackathons.owned(db, asking.org_id, hack_id)
            asked = select(Submission).where(Submission.hack_id == hack_id)
            if cursor:
                asked = asked.where(Submission.id > cursor)
            if status:
                asked = asked.where(Submission.status == status)
            rows = list(db.scalars(asked.order_by(Submission.id).limit(limit + 1)))
            more, rows = len(rows) > limit, rows[:limit]
            ranks = hackathons.ranks(db, hack_id, [row.id for row in rows])
        return SubmissionPage(
            submissions=[hackathons.submission_out(row, ranks.get(row.id)) for row in rows],
            next_cursor=rows[-1].id if more else None,
            has_more=more,
        )

    @routes.get("/submissions/{sub_id}", summary="One submission", responses=NOT_FOUND)
    def one(asking: Asking, sub_id: SubId) -> SubmissionOut:
        with database.session(read_only=True) as db:
            row, _ = hackathons.owned_submission(db, asking.org_id, sub_id)
            return hackathons.submission_out(row, hackathons.ranks(db, row.hack_id, [row.id]).get(row.id))

    @routes.delete("/submissions/{sub_id}", status_code=204, summary="Delete it", responses={**NOT_FOUND, **CONFLICT})
    def delete(asking: Asking, sub_id: SubId) -> None:
        with database.session() as db:
            row, _ = hackathons.owned_submission(db, asking.org_id, sub_id)
            busy = select(Task.id).where(Task.submission_id == sub_id, Task.state.in_((WAITING, WORKING))).limit(1)
            if db.scalar(busy) is not None:
                raise HTTPException(409, "It is being judged; delete it when that has ended.")
            db.delete(row)

    @routes.get("/submissions/{sub_id}/scorecard", summary="Everything that was found", responses=NOT_FOUND)
    def scorecard(asking: Asking, sub_id: SubId) -> ScorecardOut:
        row, card, rank = _card(asking.org_id, sub_id)
        return ScorecardOut(
            **card,
            sub_id=row.id,
            hack_id=row.hack_id,
            team_name=row.team_name,
            repo_url=row.repo_url,
            rank=rank,
            analyzed_at=moment(row.analyzed_at or 0.0),
        )

    @routes.get("/submissions/{sub_id}/individual-scorecards", summary="Its contributors", responses=NOT_FOUND)
    def individuals(asking: Asking, sub_id: SubId) -> Individuals:
        row, card, _ = _card(asking.org_id, sub_id)
        return Individuals(
            sub_id=row.id,
            team_name=row.team_name,
            team_grade=card["team"]["grade"],
            individuals=card["team"]["individuals"],
        )

    @routes.get("/submissions/{sub_id}/costs", summary="What judging it has cost", responses=NOT_FOUND)
    def costs(asking: Asking, sub_id: SubId) -> SubmissionCosts:
        with database.session(read_only=True) as db:
            row, _ = hackathons.owned_submission(db, asking.org_id, sub_id)
            data = db.scalar(select(Scorecard.data).where(Scorecard.submission_id == sub_id))
        agents = json.loads(data)["agents"] if data else {}
        return SubmissionCosts(
            sub_id=row.id,
            total_cost_usd=round(row.total_cost_usd, 6),
            cost_by_agent={name: agent["cost_usd"] for name, agent in agents.items()},
        )

    return routes


def _card(org_id: str, sub_id: str) -> tuple[Submission, dict[str, Any], int | None]:
    """A judged submission, its scorecard and rank. Raises HTTPException 404."""
    with database.session(read_only=True) as db:
        row, _ = hackathons.owned_submission(db, org_id, sub_id)
        data = db.scalar(select(Scorecard.data).where(Scorecard.submission_id == sub_id))
        if data is None:
            raise HTTPException(404, f"There is no scorecard yet: this submission is {row.status}.")
        return row, json.loads(data), hackathons.ranks(db, row.hack_id, [row.id]).get(row.id)
