"""Tables of the judge.

Ids are ULIDs: 26 characters that sort by the time they were made. Times are seconds since 1970; what has a shape of its own is JSON.
"""

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column
from ulid import ULID

from app.core.database import Base
from app.core.leases import Leased


def new_id() -> str:
    """A new ULID."""
    return str(ULID())


class Organizer(Base):
    """Who runs hackathons. `email` is in lower case; `password_hash` is argon2's."""

    __tablename__ = "organizer"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    email: Mapped[str] = mapped_column(String(320), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    organization: Mapped[str | None] = mapped_column(String(200))
    password_hash: Mapped[str] = mapped_column(String(200))
    tier: Mapped[str] = mapped_column(String(12))
    created_at: Mapped[float]


class ApiKey(Base):
    """A key of an organizer, of which only the SHA-256 is kept. `source` is created, login, registration or rotation."""

    __tablename__ = "api_key"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    org_id: Mapped[str] = mapped_column(ForeignKey("organizer.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    source: Mapped[str] = mapped_column(String(12))
    prefix: Mapped[str] = mapped_column(String(16))
    key_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    active: Mapped[bool]
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    last_used_at: Mapped[float | None]


class Hackathon(Base):
    """A hackathon. `rubric`, `agents` and `ai_policy_config` are JSON; an archived one is hidden."""

    __tablename__ = "hackathon"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    org_id: Mapped[str] = mapped_column(ForeignKey("organizer.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(200))
    description: Mapped[str] = mapped_column(Text)
    start_date: Mapped[float | None]
    end_date: Mapped[float | None]
    rubric: Mapped[str] = mapped_column(Text)
    agents: Mapped[str] = mapped_column(Text)
    ai_policy_mode: Mapped[str] = mapped_column(String(20))
    ai_policy_config: Mapped[str] = mapped_column(Text)
    budget_limit_usd: Mapped[float | None]
    status: Mapped[str] = mapped_column(String(12), index=True)
    created_at: Mapped[float]
    updated_at: Mapped[float]


class Submission(Base):
    """A team's repository. A hackathon has each team and each repository once, whatever their case (`team_key`, `repo_key`)."""

    __tablename__ = "submission"
    __table_args__ = (
        UniqueConstraint("hack_id", "team_key", name="uq_submission_hack_id_team_key"),
        UniqueConstraint("hack_id", "repo_key", name="uq_submission_hack_id_repo_key"),
        Index("ix_submission_hack_id_status", "hack_id", "status"),
    )

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    hack_id: Mapped[str] = mapped_column(ForeignKey("hackathon.id", ondelete="CASCADE"))
    team_name: Mapped[str] = mapped_column(String(50))
    team_key: Mapped[str] = mapped_column(String(50))
    repo_url: Mapped[str] = mapped_column(String(300))
    repo_key: Mapped[str] = mapped_column(String(300))
    team_members: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(12))
    overall_score: Mapped[float | None]
    total_cost_usd: Mapped[float]
    error_message: Mapped[str | None] = mapped_column(String(500))
    disqualification_reason: Mapped[str | None] = mapped_column(String(500))
    created_at: Mapped[float]
    analyzed_at: Mapped[float | None]


class Scorecard(Base):
    """What the judges found in a submission; `data` is the JSON that the API gives."""

    __tablename__ = "scorecard"

    submission_id: Mapped[str] = mapped_column(ForeignKey("submission.id", ondelete="CASCADE"), primary_key=True)
    data: Mapped[str] = mapped_column(Text)
    created_at: Mapped[float]


class Job(Base):
    """One request to judge. Times are None until they come."""

    __tablename__ = "judging_job"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    hack_id: Mapped[str] = mapped_column(ForeignKey("hackathon.id", ondelete="CASCADE"), index=True)
    status: Mapped[str] = mapped_column(String(10))
    estimated_cost_usd: Mapped[float]
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]


class Task(Leased, Base):
    """One submission of a job, in the queue. `phase` says what its worker is at."""

    __tablename__ = "judging_task"
    __table_args__ = (Index("ix_judging_task_work", "state", "lease_until"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("judging_job.id", ondelete="CASCADE"), index=True)
    submission_id: Mapped[str] = mapped_column(ForeignKey("submission.id", ondelete="CASCADE"), index=True)
    phase: Mapped[str] = mapped_column(String(12))
    cost_usd: Mapped[float]
    error: Mapped[str | None] = mapped_column(String(500))
    created_at: Mapped[float]
    finished_at: Mapped[float | None]


class UsageDay(Base):
    """An organizer's requests on a day (YYYY-MM-DD, UTC) and what the analyses of that day cost."""

    __tablename__ = "usage_day"

    org_id: Mapped[str] = mapped_column(ForeignKey("organizer.id", ondelete="CASCADE"), primary_key=True)
    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    requests: Mapped[int]
    failed: Mapped[int]
    cost_usd: Mapped[float]
