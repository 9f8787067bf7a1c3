"""Drawings, embeddings, analyses, batches, settings, usage, backups."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "age_group",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model_version", sa.String(64), nullable=False),
        sa.Column("name", sa.String(20), nullable=False),
        sa.Column("age_min", sa.Double, nullable=False),
        sa.Column("age_max", sa.Double, nullable=False),
        sa.Column("samples", sa.Integer, nullable=False),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("scores", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.UniqueConstraint("model_version", "name", name="uq_age_group_model_version_name"),
    )
    op.create_table(
        "batch",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("created_at", sa.Double, nullable=False, index=True),
    )
    op.create_table(
        "drawing",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("filename", sa.String(255), nullable=False),
        sa.Column("storage_key", sa.String(200), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False, index=True),
        sa.Column("format", sa.String(10), nullable=False),
        sa.Column("size_bytes", sa.Integer, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("ink", sa.Double, nullable=False),
        sa.Column("age_years", sa.Double, nullable=False, index=True),
        sa.Column("subject_index", sa.Integer, nullable=False, index=True),
        sa.Column("expert_label", sa.String(10), nullable=True),
        sa.Column("drawing_tool", sa.String(100), nullable=True),
        sa.Column("prompt", sa.Text, nullable=True),
        sa.Column("source", sa.String(10), nullable=False, index=True),
        sa.Column("created_at", sa.Double, nullable=False, index=True),
    )
    op.create_table(
        "setting",
        sa.Column("name", sa.String(60), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table(
        "usage_count",
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("kind", sa.String(20), primary_key=True),
        sa.Column("name", sa.String(60), primary_key=True),
        sa.Column("country", sa.String(2), primary_key=True),
        sa.Column("count", sa.Integer, nullable=False),
    )
    op.create_table(
        "visit",
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("session_hash", sa.String(64), primary_key=True),
        sa.Column("country", sa.String(2), nullable=False),
    )
    op.create_table(
        "analysis",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column(
            "drawing_id", sa.String(32), sa.ForeignKey("drawing.id", ondelete="CASCADE"), nullable=False, index=True
        ),
        sa.Column("model_version", sa.String(64), nullable=False),
        sa.Column("age_group", sa.String(20), nullable=False),
        sa.Column("anomaly_score", sa.Double, nullable=False),
        sa.Column("normalized_score", sa.Double, nullable=False),
        sa.Column("visual_anomaly_score", sa.Double, nullable=False),
        sa.Column("subject_anomaly_score", sa.Double, nullable=False),
        sa.Column("age_anomaly_score", sa.Double, nullable=False),
        sa.Column("visual_percentile", sa.Double, nullable=False),
        sa.Column("subject_percentile", sa.Double, nullable=False),
        sa.Column("age_percentile", sa.Double, nullable=False),
        sa.Column("anomaly_attribution", sa.String(10), nullable=False),
        sa.Column("threshold", sa.Double, nullable=False),
        sa.Column("is_anomaly", sa.Boolean, nullable=False, index=True),
        sa.Column("method_used", sa.String(40), nullable=False),
        sa.Column("vision_model", sa.String(80), nullable=False),
        sa.Column("cells", sa.LargeBinary, nullable=False),
        sa.Column("regions", sa.Text, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False, index=True),
    )
    op.create_index("ix_analysis_group", "analysis", ["model_version", "age_group"])
    op.create_table(
        "batch_item",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("batch_id", sa.String(32), sa.ForeignKey("batch.id", ondelete="CASCADE"), nullable=False, index=True),
        sa.Column("drawing_id", sa.String(32), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("taken_at", sa.Double, nullable=False),
        sa.Column("analysis_id", sa.String(32), nullable=True),
        sa.Column("error", sa.String(300), nullable=True),
    )
    op.create_index("ix_batch_item_work", "batch_item", ["state", "taken_at"])
    op.create_table(
        "embedding",
        sa.Column("drawing_id", sa.String(32), sa.ForeignKey("drawing.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("encoder", sa.String(64), nullable=False),
        sa.Column("visual", sa.LargeBinary, nullable=False),
        sa.Column("subject", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "annotation",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "analysis_id", sa.String(32), sa.ForeignKey("analysis.id", ondelete="CASCADE"), nullable=False, index=True
        ),
        sa.Column("region_id", sa.String(20), nullable=True),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "export",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column(
            "analysis_id", sa.String(32), sa.ForeignKey("analysis.id", ondelete="CASCADE"), nullable=False, index=True
        ),
        sa.Column("format", sa.String(4), nullable=False),
        sa.Column("storage_key", sa.String(200), nullable=False),
        sa.Column("size_bytes", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False, index=True),
    )


def downgrade() -> None:
    op.drop_table("export")
    op.drop_table("annotation")
    op.drop_table("embedding")
    op.drop_table("batch_item")
    op.drop_table("analysis")
    op.drop_table("visit")
    op.drop_table("usage_count")
    op.drop_table("setting")
    op.drop_table("drawing")
    op.drop_table("batch")
    op.drop_table("age_group")
