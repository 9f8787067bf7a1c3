"""The demo's three samples: drawn by the generator, judged by the model in service, explained like any other drawing."""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from PIL import Image

from app.core.encoder import Encoder
from app.drawings import explain, generate, pictures
from app.drawings.model import confidence_of
from app.drawings.service import About, analysis_row
from app.drawings.store import Served
from app.drawings.subjects import index_of
from app.drawings.tables import Analysis, Drawing
from app.drawings.training import PERCENTILE


@dataclass(frozen=True)
class Idea:
    """What a sample shows; `kind` is empty for an ordinary drawing."""

    id: str
    title: str
    description: str
    kind: str
    seed: int
    age: float
    subject: str


IDEAS: Final = (
    Idea(
        "usual",
        "A cat at six",
        "A cat as a six-year-old draws it: body, head, whiskers, and a sun above.",
        "",
        60014,
        6.5,
        "cat",
    ),
    Idea(
        "younger",
        "Scribbles at eight",
        "Marks as a two-year-old makes them, handed in for a child of eight.",
        "age-shifted",
        60005,
        8.4,
        "unspecified",
    ),
    Idea(
        "photograph",
        "No drawing at all",
        "A picture with light and shade and no line anywhere, handed in as a drawing of a house.",
        "photograph",
        60003,
        5.5,
        "house",
    ),
)


def picture(idea: Idea) -> Image.Image:
    """The sample's picture."""
    if idea.kind:
        return generate.planted(idea.kind, idea.seed, idea.age, idea.subject)
    return generate.drawing(idea.seed, idea.age, idea.subject)


@dataclass(frozen=True)
class Judged:
    """A sample with its analysis; neither is stored."""

    idea: Idea
    drawing: Drawing
    analysis: Analysis
    image: Image.Image
    overlay: bytes

    def told(self, base: str) -> dict[str, Any]:
        """For the API; `base` is the address of the demo's routes."""
        regions = json.loads(self.analysis.regions)
        return {
            "id": self.idea.id,
            "title": self.idea.title,
            "description": self.idea.description,
            "age_years": self.idea.age,
            "subject": self.idea.subject,
            "normalized_score": self.analysis.normalized_score,
            "is_anomaly": self.analysis.is_anomaly,
            "confidence": round(confidence_of(self.analysis.anomaly_score, self.analysis.threshold), 4),
            "anomaly_attribution": self.analysis.anomaly_attribution,
            "explanation_text": explain.explanation(
                self.drawing, self.analysis, [str(region["spatial_location"]) for region in regions]
            ),
            "importance_regions": regions,
            "image_url": f"{base}/samples/{self.idea.id}/image.png",
            "overlay_image_url": f"{base}/samples/{self.idea.id}/overlay.png",
        }


@lru_cache(maxsize=2)
def _judged(served: "_ByVersion", encoder: Encoder) -> tuple[Judged, ...]:
    return tuple(_judge(idea, served.served, encoder) for idea in IDEAS)


@dataclass(frozen=True)
class _ByVersion:
    """A model in service, told from others by its version."""

    served: Served

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByVersion) and other.served.version == self.served.version

    def __hash__(self) -> int:
        return hash(self.served.version)


def samples(served: Served, encoder: Encoder) -> tuple[Judged, ...]:
    """The samples as the model in service judges them; remembered until there is another model."""
    return _judged(_ByVersion(served), encoder)


def _judge(idea: Idea, served: Served, encoder: Encoder) -> Judged:
    image = picture(idea)
    about = About(filename=f"{idea.id}.png", age_years=idea.age, subject=idea.subject, source="demo")
    drawing = Drawing(
        id=idea.id,
        filename=about.filename,
        age_years=idea.age,
        subject_index=index_of(idea.subject),
        width=image.width,
        height=image.height,
        ink=pictures.ink(image),
    )
    seen = encoder.encode([image])
    result = served.model.judge(seen.embeddings[0], seen.features[0], drawing.subject_index, idea.age, drawing.ink)
    regions = pictures.regions(result.cells, image.size)
    row = analysis_row(drawing, result, served, result.group.threshold(PERCENTILE), regions, 0.0)
    return Judged(idea, drawing, row, image, pictures.png(pictures.overlay(image, result.cells)))
