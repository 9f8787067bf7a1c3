"""Hackathons and submissions in the database: who may see them, how they come and go."""

import json
import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from fastapi import HTTPException
from sqlalchemy import func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core import database
from app.judge.schemas import (
    ULID_PATTERN,
    HackathonChange,
    HackathonIn,
    HackathonOut,
    Rubric,
    SubmissionIn,
    SubmissionOut,
    check_hackathon,
    moment,
    moment_or_none,
    split_repo,
)
from app.judge.settings import JudgeSettings
from app.judge.tables import Hackathon, Submission, new_id

OPEN: Final = ("configured", "analyzing", "completed")
PENDING: Final = ("pending", "cloning", "analyzing")
FAILED: Final = ("failed", "timeout", "disqualified")
MOST_SUBMISSIONS: Final = 10_000
_ID: Final = re.compile(ULID_PATTERN)


def missing(what: str, identity: str) -> HTTPException:
    """404: it is not there, or somebody else's, which is told to nobody."""
    shown = identity[:40].encode("ascii", "replace").decode()
    return HTTPException(404, f"There is no {what} {shown}.")


def owned(db: Session, org_id: str, hack_id: str, *, lock: bool = False) -> Hackathon:
    """A hackathon of this organizer, also locked against other writers. Raises HTTPException 404."""
    asked = select(Hackathon).where(Hackathon.id == hack_id, Hackathon.org_id == org_id, Hackathon.status != "archived")
    row = db.scalar(asked.with_for_update() if lock else asked) if _ID.match(hack_id) else None
    if row is None:
        raise missing("hackathon", hack_id)
    return row


def owned_submission(db: Session, org_id: str, sub_id: str, *, lock: bool = False) -> tuple[Submission, Hackathon]:
    """A submission of a hackathon of this organizer. Raises HTTPException 404."""
    asked = (
        select(Submission, Hackathon)
        .join(Hackathon, Hackathon.id == Submission.hack_id)
        .where(Submission.id == sub_id, Hackathon.org_id == org_id, Hackathon.status != "archived")
    )
    found = db.execute(asked.with_for_update() if lock else asked).one_or_none() if _ID.match(sub_id) else None
    if found is None:
        raise missing("submission", sub_id)
    return found[0], found[1]


def _at(when: datetime | None) -> float | None:
    return None if when is None else when.timestamp()


def create(db: Session, org_id: str, given: HackathonIn) -> Hackathon:
    """Store a new hackathon, a draft."""
    now = time.time()
    row = Hackathon(
        id=new_id(),
        org_id=org_id,
        name=given.name,
        description=given.description,
        start_date=_at(given.start_date),
        end_date=_at(given.end_date),
        rubric=given.rubric.model_dump_json(),
        agents=json.dumps(given.agents_enabled),
        ai_policy_mode=given.ai_policy_mode,
        ai_policy_config=_config(given.ai_policy_config),
        budget_limit_usd=given.budget_limit_usd,
        status="draft",
        created_at=now,
        updated_at=now,
    )
    db.add(row)
    db.flush()
    return row


def _config(given: Mapping[str, Any]) -> str:
    text = json.dumps(given)
    if len(text) > 20_000:
        raise HTTPException(422, "ai_policy_config: at most 20000 characters are kept.")
    if "\\u0000" in text:
        raise HTTPException(422, "ai_policy_config: the character NUL cannot be kept.")
    return text


def change(row: Hackathon, given: HackathonChange) -> None:
    """Change what was given. Raises HTTPException 409 while it is analysed, 422 when the parts do not fit."""
    told = given.model_fields_set
    if row.status == "analyzing" and told & {"rubric", "agents_enabled", "ai_policy_mode", "ai_policy_config"}:
        raise HTTPException(409, "Its submissions are being judged by these rules; change them when that has ended.")
    start = _at(given.start_date) if "start_date" in told else row.start_date
    end = _at(given.end_date) if "end_date" in told else row.end_date
    rubric = given.rubric or Rubric.model_validate_json(row.rubric)
    agents = given.agents_enabled or json.loads(row.agents)
    if start is not None and end is not None and start >= end:
        raise HTTPException(422, "start_date must be before end_date")
    try:
        check_hackathon(None, None, agents, rubric)
    except ValueError as error:
        raise HTTPException(422, str(error)) from error
    row.start_date, row.end_date = start, end
    row.rubric, row.agents = rubric.model_dump_json(), json.dumps(agents)
    for name in ("name", "description", "ai_policy_mode"):
        if (value := getattr(given, name)) is not None:
            setattr(row, name, value)
    if given.ai_policy_config is not None:
        row.ai_policy_config = _config(given.ai_policy_config)
    if "budget_limit_usd" in told:
        row.budget_limit_usd = given.budget_limit_usd
    row.updated_at = time.time()


def count(db: Session, hack_id: str) -> int:
    """Submissions of a hackathon."""
    return int(db.scalar(select(func.count()).where(Submission.hack_id == hack_id)) or 0)


def hackathon_out(db: Session, row: Hackathon) -> HackathonOut:
    """A hackathon as the API gives it."""
    return HackathonOut(
        hack_id=row.id,
        org_id=row.org_id,
        name=row.name,
        description=row.description,
        start_date=moment_or_none(row.start_date),
        end_date=moment_or_none(row.end_date),
        rubric=Rubric.model_validate_json(row.rubric),
        agents_enabled=json.loads(row.agents),
        ai_policy_mode=row.ai_policy_mode,  # type: ignore[arg-type]  # only such are stored
        ai_policy_config=json.loads(row.ai_policy_config),
        budget_limit_usd=row.budget_limit_usd,
        status=row.status,  # type: ignore[arg-type]  # only such are stored
        submission_count=count(db, row.id),
        created_at=moment(row.created_at),
        updated_at=moment(row.updated_at),
    )


def ranks(db: Session, hack_id: str, of: Sequence[str] | None = None) -> dict[str, int]:
    """Ranks by id of the judged submissions of a hackathon: equal scores have equal ranks."""
    order = func.rank().over(order_by=Submission.overall_score.desc())
    asked = (
        select(Submission.id.label("sub_id"), order.label("rank"))
        .where(Submission.hack_id == hack_id, Submission.status == "completed", Submission.overall_score.is_not(None))
        .subquery()
    )
    rows = select(asked.c.sub_id, asked.c.rank)
    if of is not None:
        rows = rows.where(asked.c.sub_id.in_(of))
    return {sub_id: int(rank) for sub_id, rank in db.execute(rows)}


def submission_out(row: Submission, rank: int | None = None) -> SubmissionOut:
    """A submission as the API gives it."""
    return SubmissionOut(
        sub_id=row.id,
        hack_id=row.hack_id,
        team_name=row.team_name,
        repo_url=row.repo_url,
        team_members=json.loads(row.team_members),
        status=row.status,  # type: ignore[arg-type]  # only such are stored
        overall_score=row.overall_score,
        rank=rank,
        total_cost_usd=round(row.total_cost_usd, 6),
        created_at=moment(row.created_at),
        analyzed_at=moment_or_none(row.analyzed_at),
        error_message=row.error_message,
        disqualification_reason=row.disqualification_reason,
    )


def add(db: Session, hackathon: Hackathon, given: Sequence[SubmissionIn], settings: JudgeSettings) -> list[Submission]:
    """Add submissions, all or none. Raises HTTPException 409 duplicate, 422 another host or too many."""
    now = time.time()
    rows: list[Submission] = []
    for number, one in enumerate(given):
        host, path = split_repo(one.repo_url)
        if host not in settings.hosts:
            allowed = ", ".join(sorted(settings.hosts))
            raise HTTPException(
                422, f"submissions.{number}.repo_url: repositories must be on {allowed}, not on {host}."
            )
        rows.append(
            Submission(
                id=new_id(),
                hack_id=hackathon.id,
                team_name=one.team_name,
                team_key=one.team_name.lower(),
                repo_url=f"https://{host}/{path}",
                repo_key=f"{host}/{path.lower().removesuffix('.git')}",
                team_members=json.dumps(one.team_members),
                status="pending",
                overall_score=None,
                total_cost_usd=0.0,
                error_message=None,
                disqualification_reason=None,
                created_at=now,
                analyzed_at=None,
            )
        )
    for number, row in enumerate(rows):  # ULIDs of one millisecond are in no order: keep the order they were given in
        row.created_at = now + number * 1e-6
    rows_by_order = sorted(row.id for row in rows)
    for row, identity in zip(rows, rows_by_order, strict=True):
        row.id = identity
    _refuse_duplicates(db, hackathon.id, rows)
    if count(db, hackathon.id) + len(rows) > MOST_SUBMISSIONS:
        raise HTTPException(422, f"A hackathon has at most {MOST_SUBMISSIONS} submissions.")
    db.add_all(rows)
    try:
        db.flush()
    except IntegrityError as error:  # somebody else added the same at this very moment
        raise HTTPException(409, "This team or repository has just been submitted by somebody else.") from error
    return rows


def _refuse_duplicates(db: Session, hack_id: str, rows: Sequence[Submission]) -> None:
    teams, repos = [row.team_key for row in rows], [row.repo_key for row in rows]
    known = db.execute(
        select(Submission.team_key, Submission.repo_key).where(
            Submission.hack_id == hack_id, or_(Submission.team_key.in_(teams), Submission.repo_key.in_(repos))
        )
    ).all()
    seen_teams, seen_repos = {team for team, _ in known}, {repo for _, repo in known}
    for row in rows:
        if row.team_key in seen_teams:
            raise HTTPException(409, f"The team {row.team_name} has a submission already; nothing was added.")
        if row.repo_key in seen_repos:
            raise HTTPException(409, f"The repository {row.repo_url} has been submitted already; nothing was added.")
        seen_teams.add(row.team_key)
        seen_repos.add(row.repo_key)


def open_to_public() -> list[Hackathon]:
    """The hackathons that take submissions: activated, not archived, not ended."""
    with database.session(read_only=True) as db:
        return list(
            db.scalars(
                select(Hackathon)
                .where(Hackathon.status.in_(OPEN), or_(Hackathon.end_date.is_(None), Hackathon.end_date > time.time()))
                .order_by(Hackathon.id.desc())
                .limit(500)
            )
        )
