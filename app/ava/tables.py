"""Tables of AVA Dataset Management. Times are seconds since 1970; what is a list or a mapping is JSON."""

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, deferred, mapped_column

from app.core.database import Base


class Project(Base):
    """A project: its plan, its attributes, and where it is in CVAT."""

    __tablename__ = "projects"
    __table_args__ = (UniqueConstraint("name", "org_slug", name="uq_projects_name_org_slug"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(120))
    org_slug: Mapped[str] = mapped_column(String(60))
    annotators: Mapped[str] = mapped_column(Text)
    overlap_percentage: Mapped[int]
    annotators_per_clip: Mapped[int]
    seed: Mapped[int]
    attributes: Mapped[str] = mapped_column(Text)
    plan_sha256: Mapped[str] = mapped_column(String(64))
    cvat_project_id: Mapped[int | None]
    cvat_webhook_id: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(String(500))
    attempts: Mapped[int]
    next_at: Mapped[float]
    taken_at: Mapped[float]
    reconciled_at: Mapped[float]
    created_at: Mapped[float] = mapped_column(index=True)


class Clip(Base):
    """A clip that was uploaded: where its zip is, and what is in it. `proposals` are its boxes as CVAT XML."""

    __tablename__ = "clips"

    name: Mapped[str] = mapped_column(String(120), primary_key=True)
    storage_key: Mapped[str] = mapped_column(String(300))
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    frames: Mapped[int]
    width: Mapped[int]
    height: Mapped[int]
    boxes: Mapped[int]
    proposals: Mapped[bytes | None] = deferred(mapped_column(LargeBinary))
    created_at: Mapped[float] = mapped_column(index=True)


class Task(Base):
    """One clip for one annotator. `status` is how far it is, `qc_status` what quality control says.

    status: planned, created, uploaded, imported (on the way into CVAT), ready, in_progress, completed (the annotator has finished),
    retrieved (its annotations are here).
    """

    __tablename__ = "tasks"
    __table_args__ = (
        UniqueConstraint("project_id", "clip", "annotator", name="uq_tasks_project_id_clip_annotator"),
        Index("ix_tasks_work", "status", "next_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), index=True)
    clip: Mapped[str] = mapped_column(String(120), index=True)
    annotator: Mapped[str] = mapped_column(String(150), index=True)
    role: Mapped[str] = mapped_column(String(10))
    overlap_group: Mapped[int | None]
    status: Mapped[str] = mapped_column(String(12))
    qc_status: Mapped[str] = mapped_column(String(10), index=True)
    cvat_task_id: Mapped[int | None]
    job_id: Mapped[int | None] = mapped_column(index=True)
    retrieved_at: Mapped[float | None]
    source_updated_at: Mapped[float | None]
    stale: Mapped[bool]
    boxes: Mapped[int]
    xml_sha256: Mapped[str | None] = mapped_column(String(64))
    xml: Mapped[bytes | None] = deferred(mapped_column(LargeBinary))
    error: Mapped[str | None] = mapped_column(String(500))
    attempts: Mapped[int]
    next_at: Mapped[float]
    taken_at: Mapped[float]
    created_at: Mapped[float]


class Annotation(Base):
    """One box of a task, in pixels. `outside`: the person is not seen from this frame on."""

    __tablename__ = "annotations"

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"), index=True)
    track: Mapped[int]
    frame: Mapped[int]
    xtl: Mapped[float]
    ytl: Mapped[float]
    xbr: Mapped[float]
    ybr: Mapped[float]
    outside: Mapped[bool]
    occluded: Mapped[bool]
    attributes: Mapped[str] = mapped_column(Text)


class QualityMetric(Base):
    """What a comparison of two tasks said, for the XML that they had then."""

    __tablename__ = "quality_metrics"
    __table_args__ = (UniqueConstraint("task_a", "task_b", name="uq_quality_metrics_task_a_task_b"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), index=True)
    task_a: Mapped[int] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"), index=True)
    task_b: Mapped[int] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"), index=True)
    xml_a: Mapped[str] = mapped_column(String(64))
    xml_b: Mapped[str] = mapped_column(String(64))
    average_iou: Mapped[float | None]
    percent_iou_gte_05: Mapped[float | None]
    macro_avg_kappa: Mapped[float | None]
    report: Mapped[str] = mapped_column(Text)
    computed_at: Mapped[float]


class Event(Base):
    """What happened to a clip or a task, once each: ingest_time, task_ready, annotation_start, annotation_end, ..."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_project_kind", "project_id", "kind"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    project_id: Mapped[int | None] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    task_id: Mapped[int | None] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"), index=True)
    clip: Mapped[str | None] = mapped_column(String(120), index=True)
    at: Mapped[float]


class DatasetBuild(Base):
    """A dataset that was made: its files are in the storage."""

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), index=True)
    manifest: Mapped[str] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(index=True)


class Upload(Base):
    """A file on its way in. state: open, received, ready, failed. `report` says what became of it."""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    filename: Mapped[str] = mapped_column(String(200))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    part_bytes: Mapped[int] = mapped_column(BigInteger)
    storage_key: Mapped[str] = mapped_column(String(300))
    multipart_id: Mapped[str | None] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(10), index=True)
    error: Mapped[str | None] = mapped_column(String(500))
    report: Mapped[str] = mapped_column(Text)
    attempts: Mapped[int]
    taken_at: Mapped[float]
    created_at: Mapped[float] = mapped_column(index=True)
