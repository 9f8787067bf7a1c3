"""Tables of the drawings app.

Ids of drawings and analyses are random (128 bits): who knows one was told it. Times are seconds since 1970.
"""

from sqlalchemy import ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Base


class Drawing(Base):
    """A picture with the child's age and subject. `source` is upload, batch, import or demo."""

    __tablename__ = "drawing"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    filename: Mapped[str] = mapped_column(String(255))
    storage_key: Mapped[str] = mapped_column(String(200))
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    format: Mapped[str] = mapped_column(String(10))
    size_bytes: Mapped[int]
    width: Mapped[int]
    height: Mapped[int]
    ink: Mapped[float]
    age_years: Mapped[float] = mapped_column(index=True)
    subject_index: Mapped[int] = mapped_column(index=True)
    expert_label: Mapped[str | None] = mapped_column(String(10))
    drawing_tool: Mapped[str | None] = mapped_column(String(100))
    prompt: Mapped[str | None] = mapped_column(Text)
    source: Mapped[str] = mapped_column(String(10), index=True)
    created_at: Mapped[float] = mapped_column(index=True)


class Embedding(Base):
    """What the encoder makes of a drawing: 1280 float32 of the picture, 64 float32 of the subject, as bytes."""

    __tablename__ = "embedding"

    drawing_id: Mapped[str] = mapped_column(ForeignKey("drawing.id", ondelete="CASCADE"), primary_key=True)
    encoder: Mapped[str] = mapped_column(String(64))
    visual: Mapped[bytes] = mapped_column(LargeBinary)
    subject: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[float]


class AgeGroup(Base):
    """One age group of a model version: which ages, how many drawings, and the scores that its percentiles come from."""

    __tablename__ = "age_group"
    __table_args__ = (UniqueConstraint("model_version", "name", name="uq_age_group_model_version_name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    model_version: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(20))
    age_min: Mapped[float]
    age_max: Mapped[float]
    samples: Mapped[int]
    active: Mapped[bool]
    scores: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[float]


class Analysis(Base):
    """A drawing's analysis. `cells` are the 49 parts of the score as float32; `is_anomaly` follows the threshold in use."""

    __tablename__ = "analysis"
    __table_args__ = (Index("ix_analysis_group", "model_version", "age_group"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    drawing_id: Mapped[str] = mapped_column(ForeignKey("drawing.id", ondelete="CASCADE"), index=True)
    model_version: Mapped[str] = mapped_column(String(64))
    age_group: Mapped[str] = mapped_column(String(20))
    anomaly_score: Mapped[float]
    normalized_score: Mapped[float]
    visual_anomaly_score: Mapped[float]
    subject_anomaly_score: Mapped[float]
    age_anomaly_score: Mapped[float]
    visual_percentile: Mapped[float]
    subject_percentile: Mapped[float]
    age_percentile: Mapped[float]
    anomaly_attribution: Mapped[str] = mapped_column(String(10))
    threshold: Mapped[float]
    is_anomaly: Mapped[bool] = mapped_column(index=True)
    method_used: Mapped[str] = mapped_column(String(40))
    vision_model: Mapped[str] = mapped_column(String(80))
    cells: Mapped[bytes] = mapped_column(LargeBinary)
    regions: Mapped[str] = mapped_column(Text)
    seconds: Mapped[float]
    created_at: Mapped[float] = mapped_column(index=True)


class Annotation(Base):
    """An expert's remark on an analysis, perhaps about one of its regions."""

    __tablename__ = "annotation"

    id: Mapped[int] = mapped_column(primary_key=True)
    analysis_id: Mapped[str] = mapped_column(ForeignKey("analysis.id", ondelete="CASCADE"), index=True)
    region_id: Mapped[str | None] = mapped_column(String(20))
    text: Mapped[str] = mapped_column(Text)
    created_at: Mapped[float]


class Export(Base):
    """A file made of an analysis; gone after a day."""

    __tablename__ = "export"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    analysis_id: Mapped[str] = mapped_column(ForeignKey("analysis.id", ondelete="CASCADE"), index=True)
    format: Mapped[str] = mapped_column(String(4))
    storage_key: Mapped[str] = mapped_column(String(200))
    size_bytes: Mapped[int]
    created_at: Mapped[float]
    expires_at: Mapped[float] = mapped_column(index=True)


class Batch(Base):
    """Many drawings to analyse."""

    __tablename__ = "batch"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    created_at: Mapped[float] = mapped_column(index=True)


class BatchItem(Base):
    """One of them. `state` is waiting, working, done or failed; `taken_at` lets a crashed worker's item be taken again."""

    __tablename__ = "batch_item"
    __table_args__ = (Index("ix_batch_item_work", "state", "taken_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    batch_id: Mapped[str] = mapped_column(ForeignKey("batch.id", ondelete="CASCADE"), index=True)
    drawing_id: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(10))
    taken_at: Mapped[float]
    analysis_id: Mapped[str | None] = mapped_column(String(32))
    error: Mapped[str | None] = mapped_column(String(300))


class Setting(Base):
    """One thing an admin can change, as JSON or a word."""

    __tablename__ = "setting"

    name: Mapped[str] = mapped_column(String(60), primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class Usage(Base):
    """How often something happened on a day (YYYY-MM-DD, UTC): page views and analyses, by country."""

    __tablename__ = "usage_count"

    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    name: Mapped[str] = mapped_column(String(60), primary_key=True)
    country: Mapped[str] = mapped_column(String(2), primary_key=True)
    count: Mapped[int]


class Visit(Base):
    """A visitor's session on a day, as a hash with a key that is thrown away when the day ends: nobody can be found again."""

    __tablename__ = "visit"

    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    session_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    country: Mapped[str] = mapped_column(String(2))
