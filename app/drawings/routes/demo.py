"""For everybody: three samples, what this is, what it is not."""

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, HTTPException, Path, Response
from sqlalchemy import case, func, select

from app.core import database
from app.drawings import demo, generate, pictures
from app.drawings.context import served
from app.drawings.routes.drawings import NOT_FOUND, Parts
from app.drawings.routes.interpretability import PNG
from app.drawings.schemas import DISCLAIMER, Disclaimer, Info, Link, Sample, Samples, Statistics
from app.drawings.service import VISION_MODEL
from app.drawings.store import Served
from app.drawings.subjects import NAMES
from app.drawings.tables import Analysis

NAME: Final = "Children's Drawing Anomaly Detection"
SUMMARY: Final = "Tells whether a drawing is unusual for a child's age, how sure it is, and why."
HOW: Final = (
    "A network trained on photographs turns the picture into 1280 numbers.",
    "The age group's model rebuilds these numbers from what normal drawings of that age have in common.",
    "What cannot be rebuilt is unusual: the picture itself, the subject that was named, or the age.",
    "The score is compared with those of normal drawings that the model had not seen; above the 95th percentile it is unusual.",
    "The error is a sum over the parts of the picture, so the heat map shows exactly what adds to it.",
)
LIMITS: Final = (
    "It learns from drawings that a program made, until an operator imports real ones.",
    "About one in twenty normal drawings is called unusual: that is what the 95th percentile means.",
    "It does not know the child, the day, the pencil or the task.",
    "Scribbles of two-year-olds can be told from other pictures, but not by their subject.",
)
NOT: Final = (
    "It is no test, no diagnosis and no advice.",
    "Unusual is not worse: a gifted child's drawing is unusual too.",
    "One drawing says little; talk to a professional when you are worried.",
    "Drawings are kept until the operator deletes them; they are shown to nobody but the operator.",
)
LINKS: Final = (
    ("EfficientNet-Lite, the network that looks at the picture", "https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite"),
    ("Principal component analysis", "https://en.wikipedia.org/wiki/Principal_component_analysis"),
    ("How children's drawings develop", "https://en.wikipedia.org/wiki/Child_art"),
    ("ONNX Runtime", "https://onnxruntime.ai/docs/"),
)  # fmt: skip

routes = APIRouter(prefix="/demo", tags=["demo"])
InService = Annotated[Served, Depends(served)]
SampleId = Annotated[str, Path(pattern="^[a-z]{1,20}$")]


@routes.get("/samples", summary="Three samples with their analyses")
def samples(parts: Parts, model: InService) -> Samples:
    """Judged by the model in service."""
    base = f"{parts.base}/demo"
    return Samples(
        samples=[Sample.model_validate(one.told(base)) for one in demo.samples(model, parts.encoder)],
        model_version=model.version,
    )


@routes.get("/samples/{sample_id}/{picture}.png", summary="A sample's picture", response_class=Response, responses=PNG)
def picture(parts: Parts, model: InService, sample_id: SampleId, picture: Literal["image", "overlay"]) -> Response:
    """`image` is the drawing, `overlay` the drawing with its heat map."""
    found = next((one for one in demo.samples(model, parts.encoder) if one.idea.id == sample_id), None)
    if found is None:
        raise HTTPException(404, "There is no such picture; /demo/samples lists them.")
    data = pictures.png(found.image) if picture == "image" else found.overlay
    return Response(data, media_type="image/png", headers={"Cache-Control": "public, max-age=300"})


@routes.get(
    "/reference/{seed}.png", summary="A generated drawing to compare with", response_class=Response, responses=PNG
)
def reference(model: InService, seed: Annotated[int, Path(ge=0, le=2**53)]) -> Response:
    """One of those that the model in service compares with, drawn again."""
    about = next((one for one in model.model.references.about if one.get("seed") == seed), None)
    if about is None:
        raise HTTPException(404, "The model in service does not compare with this drawing.")
    image = generate.drawing(int(about["seed"]), float(about["age"]), str(about["subject"]))
    return Response(pictures.png(image), media_type="image/png", headers={"Cache-Control": "public, max-age=3600"})


@routes.get("/project-info", summary="What this is", responses=NOT_FOUND)
def info(model: InService) -> Info:
    """With the model in service."""
    return Info(
        name=NAME,
        summary=SUMMARY,
        how_it_works=list(HOW),
        limits=list(LIMITS),
        model_version=model.version,
        trained_at=str(model.report["trained_at"]),
        trained_on=str(model.report["data"]["source"]),
        vision_model=VISION_MODEL,
    )


@routes.get("/disclaimer", summary="What it is not")
def disclaimer() -> Disclaimer:
    """To be shown with every result."""
    return Disclaimer(disclaimer=DISCLAIMER, points=list(NOT))


@routes.get("/technical-links", summary="Where to read on")
def links() -> list[Link]:
    """Pages of others."""
    return [Link(title=title, url=url) for title, url in LINKS]


@routes.get("/statistics", summary="Numbers for visitors")
def statistics(model: InService) -> Statistics:
    """Nothing about any drawing."""
    with database.session(read_only=True) as db:
        total, above = db.execute(
            select(func.count(), func.sum(case((Analysis.is_anomaly, 1), else_=0))).select_from(Analysis)
        ).one()
    return Statistics(
        drawings_analyzed=int(total),
        anomaly_rate=round(int(above or 0) / total, 4) if total else 0.0,
        age_groups=len(model.model.groups),
        training_drawings=int(model.report["data"]["used"]),
        subjects=len(NAMES),
    )
