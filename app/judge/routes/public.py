"""What everybody may: see which hackathons take submissions, and submit."""

from fastapi import APIRouter, Depends, HTTPException
from sqlalchemy import select

from app.core import database
from app.core.ratelimit import RateLimit
from app.judge import hackathons
from app.judge.hackathons import OPEN, missing
from app.judge.routes.common import LIMITED, NOT_FOUND, HackId
from app.judge.schemas import PublicHackathon, PublicHackathons, PublicReceipt, SubmissionIn, moment, moment_or_none
from app.judge.settings import JudgeSettings
from app.judge.tables import Hackathon


def router(settings: JudgeSettings) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/public/hackathons", tags=["public"])

    @routes.get("", summary="The hackathons that take submissions")
    def listed() -> PublicHackathons:
        return PublicHackathons(
            hackathons=[
                PublicHackathon(
                    hack_id=row.id,
                    name=row.name,
                    description=row.description,
                    status=row.status,  # type: ignore[arg-type]  # only such are stored
                    start_date=moment_or_none(row.start_date),
                    end_date=moment_or_none(row.end_date),
                )
                for row in hackathons.open_to_public()
            ]
        )

    @routes.post(
        "/{hack_id}/submissions",
        status_code=201,
        summary="Submit a repository",
        dependencies=[Depends(RateLimit(settings.public_per_minute, 60, "public-submit"))],
        responses={**NOT_FOUND, 409: {"description": "Submitted already, or closed"}, **LIMITED},
    )
    def submit(hack_id: HackId, given: SubmissionIn) -> PublicReceipt:
        with database.session() as db:
            row = db.scalar(
                select(Hackathon).where(Hackathon.id == hack_id, Hackathon.status.in_(OPEN)).with_for_update()
            ) if hack_id.isalnum() and hack_id.isascii() else None  # fmt: skip
            if row is None:
                raise missing("open hackathon", hack_id)
            if hack_id not in {one.id for one in hackathons.open_to_public()}:
                raise HTTPException(409, "This hackathon has ended: it takes no submissions any more.")
            added = hackathons.add(db, row, [given], settings)[0]
            return PublicReceipt(
                sub_id=added.id,
                team_name=added.team_name,
                repo_url=added.repo_url,
                status="pending",
                created_at=moment(added.created_at),
            )

    return routes
