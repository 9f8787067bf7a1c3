"""Hackathons: make, list, change, activate, archive, count."""

import json
import time

from fastapi import APIRouter, HTTPException
from sqlalchemy import func, select

from app.core import database
from app.judge import hackathons, jobs
from app.judge.hackathons import FAILED, PENDING
from app.judge.keys import Asking, Watching
from app.judge.routes.common import CONFLICT, NOT_FOUND, REFUSED, Cursor, HackId, Limit
from app.judge.schemas import HackathonChange, HackathonIn, HackathonOut, HackathonPage, HackathonRow, Stats, moment
from app.judge.tables import Hackathon, Submission

routes = APIRouter(prefix="/hackathons", tags=["hackathons"], responses=REFUSED)


@routes.post("", status_code=201, summary="Make a hackathon, a draft")
def create(asking: Asking, given: HackathonIn) -> HackathonOut:
    """Store it."""
    with database.session() as db:
        return hackathons.hackathon_out(db, hackathons.create(db, asking.org_id, given))


@routes.get("", summary="Your hackathons, newest first")
def listed(asking: Asking, limit: Limit = 20, cursor: Cursor = None) -> HackathonPage:
    """A page of them."""
    asked = select(Hackathon).where(Hackathon.org_id == asking.org_id, Hackathon.status != "archived")
    if cursor:
        asked = asked.where(Hackathon.id < cursor)
    with database.session(read_only=True) as db:
        rows = list(db.scalars(asked.order_by(Hackathon.id.desc()).limit(limit + 1)))
        ids = [row.id for row in rows]
        found = db.execute(
            select(Submission.hack_id, func.count()).where(Submission.hack_id.in_(ids)).group_by(Submission.hack_id)
        )
        counts = {str(hack_id): int(number) for hack_id, number in found}
    more, rows = len(rows) > limit, rows[:limit]
    return HackathonPage(
        hackathons=[
            HackathonRow(
                hack_id=row.id,
                name=row.name,
                status=row.status,  # type: ignore[arg-type]  # only such are stored
                submission_count=counts.get(row.id, 0),
                created_at=moment(row.created_at),
            )
            for row in rows
        ],
        next_cursor=rows[-1].id if more else None,
        has_more=more,
    )


@routes.get("/{hack_id}", summary="One hackathon", responses=NOT_FOUND)
def one(asking: Asking, hack_id: HackId) -> HackathonOut:
    """Give it."""
    with database.session(read_only=True) as db:
        return hackathons.hackathon_out(db, hackathons.owned(db, asking.org_id, hack_id))


@routes.put("/{hack_id}", summary="Change it; what is left out stays", responses={**NOT_FOUND, **CONFLICT})
def change(asking: Asking, hack_id: HackId, given: HackathonChange) -> HackathonOut:
    """Change it."""
    with database.session() as db:
        row = hackathons.owned(db, asking.org_id, hack_id, lock=True)
        hackathons.change(row, given)
        db.flush()
        return hackathons.hackathon_out(db, row)


@routes.delete("/{hack_id}", status_code=204, summary="Archive it: hidden from then on", responses=NOT_FOUND)
def archive(asking: Asking, hack_id: HackId) -> None:
    """Hide it, and end its running analysis."""
    with database.session() as db:
        row = hackathons.owned(db, asking.org_id, hack_id)
        jobs.cancel(db, hack_id)
        row.status, row.updated_at = "archived", time.time()


@routes.post("/{hack_id}/activate", summary="Open it: a draft becomes configured", responses={**NOT_FOUND, **CONFLICT})
def activate(asking: Asking, hack_id: HackId) -> HackathonOut:
    """Open it for submissions."""
    with database.session() as db:
        row = hackathons.owned(db, asking.org_id, hack_id, lock=True)
        if row.status != "draft":
            raise HTTPException(409, f"Only a draft can be activated; this hackathon is {row.status}.")
        row.status, row.updated_at = "configured", time.time()
        db.flush()
        return hackathons.hackathon_out(db, row)


@routes.get("/{hack_id}/stats", summary="Counts; never billed", responses=NOT_FOUND)
def stats(watching: Watching, hack_id: HackId) -> Stats:
    """Count its submissions."""
    with database.session(read_only=True) as db:
        row = hackathons.owned(db, watching.org_id, hack_id)
        rows = db.execute(select(Submission.status, Submission.team_members).where(Submission.hack_id == hack_id)).all()
    states = [status for status, _ in rows]
    return Stats(
        hack_id=row.id,
        submission_count=len(rows),
        verified_count=states.count("completed"),
        pending_count=sum(state in PENDING for state in states),
        failed_count=sum(state in FAILED for state in states),
        participant_count=sum(max(1, len(json.loads(members))) for _, members in rows),
        hackathon_status=row.status,  # type: ignore[arg-type]  # only such are stored
    )
