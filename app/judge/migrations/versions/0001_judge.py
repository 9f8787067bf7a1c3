"""Organizers, keys, hackathons, submissions, scorecards, jobs and their queue, usage."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _refers(column: str, target: str, *, index: bool = False) -> sa.Column[str]:
    key = sa.ForeignKey(f"{target}.id", ondelete="CASCADE")
    return sa.Column(column, sa.String(26), key, nullable=False, index=index)


def upgrade() -> None:
    op.create_table(
        "organizer",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("email", sa.String(320), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("organization", sa.String(200), nullable=True),
        sa.Column("password_hash", sa.String(200), nullable=False),
        sa.Column("tier", sa.String(12), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.UniqueConstraint("email", name="uq_organizer_email"),
    )
    op.create_table(
        "api_key",
        sa.Column("id", sa.String(26), primary_key=True),
        _refers("org_id", "organizer", index=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("source", sa.String(12), nullable=False),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("key_sha256", sa.String(64), nullable=False),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=True),
        sa.Column("last_used_at", sa.Double, nullable=True),
        sa.UniqueConstraint("key_sha256", name="uq_api_key_key_sha256"),
    )
    op.create_table(
        "hackathon",
        sa.Column("id", sa.String(26), primary_key=True),
        _refers("org_id", "organizer", index=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("start_date", sa.Double, nullable=True),
        sa.Column("end_date", sa.Double, nullable=True),
        sa.Column("rubric", sa.Text, nullable=False),
        sa.Column("agents", sa.Text, nullable=False),
        sa.Column("ai_policy_mode", sa.String(20), nullable=False),
        sa.Column("ai_policy_config", sa.Text, nullable=False),
        sa.Column("budget_limit_usd", sa.Double, nullable=True),
        sa.Column("status", sa.String(12), nullable=False, index=True),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
    )
    op.create_table(
        "submission",
        sa.Column("id", sa.String(26), primary_key=True),
        _refers("hack_id", "hackathon"),
        sa.Column("team_name", sa.String(50), nullable=False),
        sa.Column("team_key", sa.String(50), nullable=False),
        sa.Column("repo_url", sa.String(300), nullable=False),
        sa.Column("repo_key", sa.String(300), nullable=False),
        sa.Column("team_members", sa.Text, nullable=False),
        sa.Column("status", sa.String(12), nullable=False),
        sa.Column("overall_score", sa.Double, nullable=True),
        sa.Column("total_cost_usd", sa.Double, nullable=False),
        sa.Column("error_message", sa.String(500), nullable=True),
        sa.Column("disqualification_reason", sa.String(500), nullable=True),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("analyzed_at", sa.Double, nullable=True),
        sa.UniqueConstraint("hack_id", "team_key", name="uq_submission_hack_id_team_key"),
        sa.UniqueConstraint("hack_id", "repo_key", name="uq_submission_hack_id_repo_key"),
    )
    op.create_index("ix_submission_hack_id_status", "submission", ["hack_id", "status"])
    op.create_table(
        "scorecard",
        sa.Column("submission_id", sa.String(26), sa.ForeignKey("submission.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "judging_job",
        sa.Column("id", sa.String(26), primary_key=True),
        _refers("hack_id", "hackathon", index=True),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("estimated_cost_usd", sa.Double, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double, nullable=True),
        sa.Column("finished_at", sa.Double, nullable=True),
    )
    op.create_table(
        "judging_task",
        sa.Column("id", sa.Integer, primary_key=True),
        _refers("job_id", "judging_job", index=True),
        _refers("submission_id", "submission", index=True),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("lease_until", sa.Double, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("phase", sa.String(12), nullable=False),
        sa.Column("cost_usd", sa.Double, nullable=False),
        sa.Column("error", sa.String(500), nullable=True),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("finished_at", sa.Double, nullable=True),
    )
    op.create_index("ix_judging_task_work", "judging_task", ["state", "lease_until"])
    op.create_table(
        "usage_day",
        sa.Column("org_id", sa.String(26), sa.ForeignKey("organizer.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("requests", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("cost_usd", sa.Double, nullable=False),
    )


def downgrade() -> None:
    for table in (
        "usage_day",
        "judging_task",
        "judging_job",
        "scorecard",
        "submission",
        "hackathon",
        "api_key",
        "organizer",
    ):
        op.drop_table(table)
