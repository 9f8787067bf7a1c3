"""Stores and analyses drawings."""

import contextlib
import hashlib
import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any, Final
from uuid import uuid4

import numpy as np
from PIL import Image
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import database, metrics
from app.core.encoder import Encoder
from app.core.images import DRAWINGS, Picture, read_image
from app.core.storage import NotFound, Storage, StorageError
from app.drawings import config, explain, pictures, usage
from app.drawings.model import Doubles, Result, confidence_of
from app.drawings.store import ModelStore, Served
from app.drawings.subjects import NAMES, index_of, slots_of
from app.drawings.tables import AgeGroup, Analysis, Drawing, Embedding

SMALLEST: Final = 32
VISION_MODEL: Final = "EfficientNet-Lite0 (ImageNet)"
GRID: Final = 7
_SUFFIX: Final = {"JPEG": "jpg", "PNG": "png", "BMP": "bmp", "WEBP": "webp"}

analyses = metrics.counter("AnalysisCount", "Drawings analysed", ("AgeGroup", "AnomalyDetected"))
processing = metrics.histogram(
    "ProcessingTime",
    "Seconds to analyse a drawing",
    buckets=(0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0),
)


class Unknown(LookupError):
    """There is no such drawing or analysis."""


@dataclass(frozen=True)
class About:
    """What is said about a drawing when it is stored."""

    filename: str
    age_years: float
    subject: str | None = None
    expert_label: str | None = None
    drawing_tool: str | None = None
    prompt: str | None = None
    source: str = "upload"


@dataclass
class Drawings:
    """Everything that handles drawings needs. Safe to use from several threads."""

    storage: Storage
    store: ModelStore
    encoder: Encoder

    def add(self, data: bytes, about: About) -> Drawing:
        """Let a picture in and store it. Raises app.core.images.ImageError."""
        picture = read_image(data, formats=DRAWINGS, smallest=SMALLEST)
        return self.keep(data, picture, about)

    def keep(self, data: bytes, picture: Picture, about: About) -> Drawing:
        """Store a picture that was let in: its file first, so that no row is ever without one."""
        identity = uuid4().hex
        row = Drawing(
            id=identity,
            filename=clean_name(about.filename),
            storage_key=f"drawings/{identity[:2]}/{identity}.{_SUFFIX[picture.format]}",
            sha256=hashlib.sha256(data).hexdigest(),
            format=picture.format,
            size_bytes=len(data),
            width=picture.size[0],
            height=picture.size[1],
            ink=pictures.ink(picture.image),
            age_years=about.age_years,
            subject_index=index_of(about.subject),
            expert_label=about.expert_label,
            drawing_tool=about.drawing_tool,
            prompt=about.prompt,
            source=about.source,
            created_at=time.time(),
        )
        self.storage.put(row.storage_key, data)
        try:
            with database.session() as db:
                db.add(row)
        except BaseException:
            with contextlib.suppress(StorageError):
                self.storage.delete(row.storage_key)
            raise
        return row

    def embed(self, row: Drawing, image: Image.Image) -> None:
        """Store the embedding of a drawing without analysing it."""
        seen = self.encoder.encode([image])
        with database.session() as db:
            db.merge(embedding_row(row, seen.embeddings[0], self.encoder.sha256))

    def image(self, row: Drawing) -> Image.Image:
        """The picture, as it was let in. Raises Unknown when its file is gone."""
        return read_image(self.file(row), formats=DRAWINGS).image

    def file(self, row: Drawing) -> bytes:
        """The file that was uploaded. Raises Unknown when it is gone."""
        try:
            return self.storage.get(row.storage_key)
        except NotFound as error:
            raise Unknown(f"the file of drawing {row.id} is gone") from error

    def delete(self, identity: str) -> None:
        """Forget a drawing, its analyses and its file. Raises Unknown."""
        with database.session() as db:
            row = db.get(Drawing, identity)
            if row is None:
                raise Unknown(f"there is no drawing {identity}")
            key = row.storage_key
            db.delete(row)
        self.storage.delete(key)

    def analyse(self, identity: str, *, force: bool = False, country: str = "") -> tuple[Drawing, Analysis]:
        """Analyse a drawing with the model in service; an analysis by the same model is given again unless `force`.

        Raises:
            Unknown: There is no such drawing.
            NoModel, NoGroup: Nothing can judge it.
        """
        began = time.perf_counter()
        served = self.store.current
        with database.session(read_only=True) as db:
            row = db.get(Drawing, identity)
            if row is None:
                raise Unknown(f"there is no drawing {identity}")
            active = active_groups(db, served.version)
            done = None if force else latest(db, identity, served.version)
        if done is not None:
            return row, done
        seen = self.encoder.encode([self.image(row)])
        result = served.model.judge(
            seen.embeddings[0], seen.features[0], row.subject_index, row.age_years, row.ink, active
        )
        regions = pictures.regions(result.cells, (row.width, row.height))
        with database.session() as db:
            limit = result.group.threshold(config.read(db, lock="share").of(result.group.name))
            made = analysis_row(row, result, served, limit, regions, time.perf_counter() - began)
            db.add(made)
            db.merge(embedding_row(row, seen.embeddings[0], self.encoder.sha256))
            usage.count(db, "analysis", result.group.name, country)
        analyses.labels(result.group.name, str(made.is_anomaly).lower()).inc()
        processing.observe(time.perf_counter() - began)
        return row, made


def clean_name(name: str) -> str:
    """The last part of a file's name, without control characters, at most 255 characters."""
    plain = "".join(character for character in PurePath(name.replace("\\", "/")).name if character.isprintable())
    return plain.encode("utf-8", "ignore").decode()[:255] or "drawing"


def embedding_row(row: Drawing, visual: Any, encoder: str) -> Embedding:
    """The embedding as bytes, both parts."""
    return Embedding(
        drawing_id=row.id,
        encoder=encoder,
        visual=np.asarray(visual, dtype=np.float32).tobytes(),
        subject=slots_of(row.subject_index).tobytes(),
        created_at=time.time(),
    )


def analysis_row(
    row: Drawing, result: Result, served: Served, limit: float, regions: Sequence[Any], seconds: float
) -> Analysis:
    """The result as a row."""
    method = (
        "ink coverage" if result.gated else "PCA(16)" if result.group.rebuilder.method == "pca" else "autoencoder(16)"
    )
    return Analysis(
        id=uuid4().hex,
        drawing_id=row.id,
        model_version=served.version,
        age_group=result.group.name,
        anomaly_score=result.score,
        normalized_score=result.percentile,
        visual_anomaly_score=result.parts[0],
        subject_anomaly_score=result.parts[1],
        age_anomaly_score=result.parts[2],
        visual_percentile=result.part_percentiles[0],
        subject_percentile=result.part_percentiles[1],
        age_percentile=result.part_percentiles[2],
        anomaly_attribution=result.attribution,
        threshold=limit,
        is_anomaly=result.score > limit,
        method_used=method,
        vision_model=VISION_MODEL,
        cells=result.cells.astype(np.float32).tobytes(),
        regions=json.dumps(regions),
        seconds=seconds,
        created_at=time.time(),
    )


def active_groups(db: Session, version: str) -> frozenset[str]:
    """Names of the age groups of a model version that judge drawings."""
    asked = select(AgeGroup.name).where(AgeGroup.model_version == version, AgeGroup.active.is_(True))
    return frozenset(db.scalars(asked))


def latest(db: Session, drawing: str, version: str = "") -> Analysis | None:
    """The newest analysis of a drawing, by one model version when it is given."""
    asked = select(Analysis).where(Analysis.drawing_id == drawing)
    if version:
        asked = asked.where(Analysis.model_version == version)
    return db.scalar(asked.order_by(Analysis.created_at.desc(), Analysis.id).limit(1))


def find(db: Session, identity: str) -> tuple[Drawing, Analysis]:
    """An analysis with its drawing. Raises Unknown."""
    row = db.get(Analysis, identity)
    drawing = db.get(Drawing, row.drawing_id) if row is not None else None
    if row is None or drawing is None:
        raise Unknown(f"there is no analysis {identity}")
    return drawing, row


def cells_of(row: Analysis) -> Doubles:
    """The visual part of the score, cell by cell."""
    return np.frombuffer(row.cells, dtype=np.float32).reshape(GRID, GRID).astype(np.float64)


def moment(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def drawing_out(row: Drawing) -> dict[str, Any]:
    """A drawing for the API."""
    return {
        "id": row.id,
        "filename": row.filename,
        "age_years": row.age_years,
        "subject": NAMES[row.subject_index],
        "subject_index": row.subject_index,
        "expert_label": row.expert_label,
        "drawing_tool": row.drawing_tool,
        "prompt": row.prompt,
        "source": row.source,
        "format": row.format,
        "width": row.width,
        "height": row.height,
        "size_bytes": row.size_bytes,
        "ink_coverage": round(row.ink, 6),
        "created_at": moment(row.created_at),
    }


def analysis_out(row: Analysis) -> dict[str, Any]:
    """An analysis for the API."""
    return {
        "id": row.id,
        "anomaly_score": row.anomaly_score,
        "normalized_score": row.normalized_score,
        "visual_anomaly_score": row.visual_anomaly_score,
        "subject_anomaly_score": row.subject_anomaly_score,
        "age_anomaly_score": row.age_anomaly_score,
        "anomaly_attribution": row.anomaly_attribution,
        "is_anomaly": row.is_anomaly,
        "threshold": row.threshold,
        "confidence": round(confidence_of(row.anomaly_score, row.threshold), 4),
        "age_group": row.age_group,
        "method_used": row.method_used,
        "vision_model": row.vision_model,
        "model_version": row.model_version,
        "analysis_timestamp": moment(row.created_at),
    }


def interpretability_out(drawing: Drawing, row: Analysis, base: str) -> dict[str, Any]:
    """Why, for the API; `base` is the address of the interpretability routes."""
    regions = json.loads(row.regions)
    return {
        "saliency_map_url": f"{base}/{row.id}/saliency.png",
        "overlay_image_url": f"{base}/{row.id}/overlay.png",
        "explanation_text": explain.explanation(drawing, row, [str(region["spatial_location"]) for region in regions]),
        "importance_regions": regions,
    }


def open_png(data: bytes) -> Image.Image:
    """A PNG that this app made itself."""
    return Image.open(io.BytesIO(data))
