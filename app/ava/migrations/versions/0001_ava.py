"""Projects, clips, tasks, annotations, quality, events, datasets, uploads."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _project(*, nullable: bool = False, index: bool = True) -> sa.Column[int]:
    key = sa.ForeignKey("projects.id", ondelete="CASCADE")
    return sa.Column("project_id", sa.Integer, key, nullable=nullable, index=index)


def _task(name: str = "task_id", *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, sa.ForeignKey("tasks.id", ondelete="CASCADE"), nullable=nullable, index=True)


def upgrade() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("org_slug", sa.String(60), nullable=False),
        sa.Column("annotators", sa.Text, nullable=False),
        sa.Column("overlap_percentage", sa.Integer, nullable=False),
        sa.Column("annotators_per_clip", sa.Integer, nullable=False),
        sa.Column("seed", sa.Integer, nullable=False),
        sa.Column("attributes", sa.Text, nullable=False),
        sa.Column("plan_sha256", sa.String(64), nullable=False),
        sa.Column("cvat_project_id", sa.Integer, nullable=True),
        sa.Column("cvat_webhook_id", sa.Integer, nullable=True),
        sa.Column("error", sa.String(500), nullable=True),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", sa.Double, nullable=False),
        sa.Column("taken_at", sa.Double, nullable=False),
        sa.Column("reconciled_at", sa.Double, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False, index=True),
        sa.UniqueConstraint("name", "org_slug", name="uq_projects_name_org_slug"),
    )
    op.create_table(
        "clips",
        sa.Column("name", sa.String(120), primary_key=True),
        sa.Column("storage_key", sa.String(300), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("frames", sa.Integer, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("boxes", sa.Integer, nullable=False),
        sa.Column("proposals", sa.LargeBinary, nullable=True),
        sa.Column("created_at", sa.Double, nullable=False, index=True),
    )
    op.create_table(
        "tasks",
        sa.Column("id", sa.Integer, primary_key=True),
        _project(),
        sa.Column("clip", sa.String(120), nullable=False, index=True),
        sa.Column("annotator", sa.String(150), nullable=False, index=True),
        sa.Column("role", sa.String(10), nullable=False),
        sa.Column("overlap_group", sa.Integer, nullable=True),
        sa.Column("status", sa.String(12), nullable=False),
        sa.Column("qc_status", sa.String(10), nullable=False, index=True),
        sa.Column("cvat_task_id", sa.Integer, nullable=True),
        sa.Column("job_id", sa.Integer, nullable=True, index=True),
        sa.Column("retrieved_at", sa.Double, nullable=True),
        sa.Column("source_updated_at", sa.Double, nullable=True),
        sa.Column("stale", sa.Boolean, nullable=False),
        sa.Column("boxes", sa.Integer, nullable=False),
        sa.Column("xml_sha256", sa.String(64), nullable=True),
        sa.Column("xml", sa.LargeBinary, nullable=True),
        sa.Column("error", sa.String(500), nullable=True),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", sa.Double, nullable=False),
        sa.Column("taken_at", sa.Double, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.UniqueConstraint("project_id", "clip", "annotator", name="uq_tasks_project_id_clip_annotator"),
    )
    op.create_index("ix_tasks_work", "tasks", ["status", "next_at"])
    op.create_table(
        "annotations",
        sa.Column("id", sa.Integer, primary_key=True),
        _task(),
        sa.Column("track", sa.Integer, nullable=False),
        sa.Column("frame", sa.Integer, nullable=False),
        sa.Column("xtl", sa.Double, nullable=False),
        sa.Column("ytl", sa.Double, nullable=False),
        sa.Column("xbr", sa.Double, nullable=False),
        sa.Column("ybr", sa.Double, nullable=False),
        sa.Column("outside", sa.Boolean, nullable=False),
        sa.Column("occluded", sa.Boolean, nullable=False),
        sa.Column("attributes", sa.Text, nullable=False),
    )
    op.create_table(
        "quality_metrics",
        sa.Column("id", sa.Integer, primary_key=True),
        _project(),
        _task("task_a"),
        _task("task_b"),
        sa.Column("xml_a", sa.String(64), nullable=False),
        sa.Column("xml_b", sa.String(64), nullable=False),
        sa.Column("average_iou", sa.Double, nullable=True),
        sa.Column("percent_iou_gte_05", sa.Double, nullable=True),
        sa.Column("macro_avg_kappa", sa.Double, nullable=True),
        sa.Column("report", sa.Text, nullable=False),
        sa.Column("computed_at", sa.Double, nullable=False),
        sa.UniqueConstraint("task_a", "task_b", name="uq_quality_metrics_task_a_task_b"),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kind", sa.String(20), nullable=False),
        _project(nullable=True, index=False),
        _task(nullable=True),
        sa.Column("clip", sa.String(120), nullable=True, index=True),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_index("ix_events_project_kind", "events", ["project_id", "kind"])
    op.create_table(
        "datasets",
        sa.Column("id", sa.String(32), primary_key=True),
        _project(),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False, index=True),
    )
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("filename", sa.String(200), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("part_bytes", sa.BigInteger, nullable=False),
        sa.Column("storage_key", sa.String(300), nullable=False),
        sa.Column("multipart_id", sa.Text, nullable=True),
        sa.Column("state", sa.String(10), nullable=False, index=True),
        sa.Column("error", sa.String(500), nullable=True),
        sa.Column("report", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("taken_at", sa.Double, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False, index=True),
    )


def downgrade() -> None:
    for table in ("uploads", "datasets", "events", "quality_metrics", "annotations", "tasks", "clips", "projects"):
        op.drop_table(table)
