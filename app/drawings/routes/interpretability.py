"""Why: maps, words, numbers, files. An analysis is found by its random id, so whoever was told it may look."""

import json
import time
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, HTTPException, Response
from PIL import Image
from sqlalchemy import select

from app.core import auth, database
from app.core.storage import NotFound
from app.drawings import explain, exports, pictures, service
from app.drawings.context import Context, as_http
from app.drawings.model import confidence_of
from app.drawings.routes.analysis import Admin, answer
from app.drawings.routes.drawings import NOT_FOUND, Id, Parts
from app.drawings.schemas import (
    AnnotationOut,
    AnnotationRequest,
    Attribution,
    Confidence,
    ExportOut,
    ExportRequest,
    Interactive,
    Simplified,
)
from app.drawings.service import Unknown
from app.drawings.tables import Analysis, Annotation, Drawing, Export

PNG: Final[dict[int | str, Any]] = {200: {"description": "A picture", "content": {"image/png": {}}}, **NOT_FOUND}
routes = APIRouter(prefix="/interpretability", tags=["interpretability"])


def found(analysis_id: Id) -> tuple[Drawing, Analysis]:
    """A dependency: the analysis with its drawing, or 404."""
    try:
        with database.session(read_only=True) as db:
            return service.find(db, analysis_id)
    except Unknown as error:
        raise as_http(error) from error


Found = Annotated[tuple[Drawing, Analysis], Depends(found)]


@routes.get("/{analysis_id}/interactive", summary="What each cell adds", responses=NOT_FOUND)
def interactive(parts: Parts, both: Found) -> Interactive:
    """For a picture one can point at."""
    drawing, row = both
    base = f"{parts.base}/interpretability/{row.id}"
    return Interactive.model_validate(
        {
            "analysis_id": row.id,
            "width": drawing.width,
            "height": drawing.height,
            "grid": service.GRID,
            "cells": [[round(float(value), 7) for value in line] for line in service.cells_of(row)],
            "regions": json.loads(row.regions),
            "image_url": f"{base}/image.png",
            "saliency_map_url": f"{base}/saliency.png",
            "overlay_image_url": f"{base}/overlay.png",
        }
    )


@routes.get("/{analysis_id}/simplified", summary="In plain words", responses=NOT_FOUND)
def simplified(both: Found) -> Simplified:
    """For whoever wants no numbers."""
    drawing, row = both
    places = [str(region["spatial_location"]) for region in json.loads(row.regions)]
    points = [
        f"Compared with drawings of children of {explain.age_words(row.age_group)}.",
        explain.sureness(row, confidence_of(row.anomaly_score, row.threshold)),
    ]
    if row.is_anomaly:
        points.append(explain.reason(drawing, row))
    if places:
        points.append(f"Look first at the {places[0]} of the drawing.")
    return Simplified(
        analysis_id=row.id,
        headline=explain.headline(row),
        summary=explain.explanation(drawing, row, places),
        key_points=points,
    )


@routes.get("/{analysis_id}/confidence", summary="How sure, and why", responses=NOT_FOUND)
def confidence(both: Found) -> Confidence:
    """From the distance between score and threshold."""
    _, row = both
    sure = confidence_of(row.anomaly_score, row.threshold)
    return Confidence.model_validate(
        {
            "analysis_id": row.id,
            "confidence": round(sure, 4),
            "band": explain.band(sure),
            "anomaly_score": row.anomaly_score,
            "threshold": row.threshold,
            "relative_distance": round(abs(row.anomaly_score - row.threshold) / row.threshold, 6),
            "explanation": explain.sureness(row, sure),
        }
    )


@routes.get("/{analysis_id}/attribution", summary="Which part of the score speaks loudest", responses=NOT_FOUND)
def attribution(both: Found) -> Attribution:
    """The picture, the subject, or the age."""
    drawing, row = both
    return Attribution.model_validate(
        {"analysis_id": row.id, "attribution": row.anomaly_attribution, "parts": explain.parts(drawing, row)}
    )


@routes.get(
    "/{analysis_id}/image.png", summary="The drawing, at most 640 pixels", response_class=Response, responses=PNG
)
def image(parts: Parts, both: Found) -> Response:
    """Without its file's metadata."""
    return _picture(pictures.png(pictures.thumbnail(_image(parts, both[0]), 640)))


@routes.get("/{analysis_id}/saliency.png", summary="The heat map alone", response_class=Response, responses=PNG)
def saliency(both: Found) -> Response:
    """Transparent where nothing matters."""
    drawing, row = both
    scale = min(1.0, 640 / max(drawing.width, drawing.height))
    size = max(1, round(drawing.width * scale)), max(1, round(drawing.height * scale))
    return _picture(pictures.png(pictures.heat(service.cells_of(row), size)))


@routes.get(
    "/{analysis_id}/overlay.png", summary="The drawing with the heat map on it", response_class=Response, responses=PNG
)
def overlay(parts: Parts, both: Found) -> Response:
    """At most 640 pixels."""
    drawing, row = both
    return _picture(pictures.png(pictures.overlay(_image(parts, drawing), service.cells_of(row))))


@routes.post("/{analysis_id}/export", status_code=201, summary="Make a file of it", responses=NOT_FOUND)
def export(parts: Parts, both: Found, asked: ExportRequest, admin: Admin) -> ExportOut:
    """The file is there for 24 hours, at a random address."""
    drawing, row = both
    picture = _image(parts, drawing)
    material = exports.Material(
        answer(parts, drawing, row, shared=admin).model_dump(),
        picture,
        pictures.overlay(picture, service.cells_of(row)),
    )
    made = exports.make(parts.storage, row.id, asked.format, material, parts.settings.export_hours)
    return ExportOut.model_validate(
        {
            "export_id": made.id,
            "format": made.format,
            "url": f"{parts.base}/interpretability/exports/{made.id}",
            "size_bytes": made.size_bytes,
            "created_at": service.moment(made.created_at),
            "expires_at": service.moment(made.expires_at),
        }
    )


@routes.get(
    "/exports/{export_id}",
    summary="The file",
    response_class=Response,
    responses={
        **NOT_FOUND,
        410: {"description": "Its 24 hours are over"},
        200: {"description": "The file", "content": {kind.partition(";")[0]: {} for kind in exports.MEDIA.values()}},
    },
)
def download(parts: Parts, export_id: Id) -> Response:
    """As an attachment."""
    with database.session(read_only=True) as db:
        row = db.get(Export, export_id)
    if row is None:
        raise HTTPException(
            404, f"There is no export {export_id}; exports are kept for {parts.settings.export_hours:g} hours."
        )
    if row.expires_at <= time.time():
        raise HTTPException(410, "This export is over; make another one.")
    try:
        data = parts.storage.get(row.storage_key)
    except NotFound as error:
        raise HTTPException(410, "This export is over; make another one.") from error
    headers = {
        "Content-Disposition": f'attachment; filename="analysis-{row.analysis_id[:8]}.{row.format}"',
        "Content-Security-Policy": "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'",
    }
    return Response(data, media_type=exports.MEDIA[row.format], headers=headers)


@routes.post(
    "/{analysis_id}/annotate",
    status_code=201,
    summary="Add an expert's remark",
    dependencies=[Depends(auth.require_admin)],
    responses={**NOT_FOUND, 400: {"description": "There is no such region"}},
)
def annotate(both: Found, asked: AnnotationRequest) -> AnnotationOut:
    """About the whole analysis or one of its regions. Needs a login."""
    _, row = both
    regions = {str(region["region_id"]) for region in json.loads(row.regions)}
    if asked.region_id is not None and asked.region_id not in regions:
        raise HTTPException(
            400, f"There is no region {asked.region_id!r}; this analysis has {', '.join(sorted(regions)) or 'none'}."
        )
    made = Annotation(
        analysis_id=row.id, region_id=asked.region_id, text=asked.text.replace("\0", ""), created_at=time.time()
    )
    with database.session() as db:
        db.add(made)
        db.flush()
    return _annotation(made)


@routes.get(
    "/{analysis_id}/annotations",
    summary="The experts' remarks",
    dependencies=[Depends(auth.require_admin)],
    responses=NOT_FOUND,
)
def annotations(both: Found) -> list[AnnotationOut]:
    """Oldest first. Needs a login."""
    with database.session(read_only=True) as db:
        rows = db.scalars(select(Annotation).where(Annotation.analysis_id == both[1].id).order_by(Annotation.id)).all()
    return [_annotation(row) for row in rows]


def _annotation(row: Annotation) -> AnnotationOut:
    return AnnotationOut(
        id=row.id,
        analysis_id=row.analysis_id,
        region_id=row.region_id,
        text=row.text,
        created_at=service.moment(row.created_at),
    )


def _image(parts: Context, drawing: Drawing) -> Image.Image:
    try:
        return parts.drawings.image(drawing)
    except Unknown as error:
        raise as_http(error) from error


def _picture(data: bytes) -> Response:
    return Response(data, media_type="image/png", headers={"Cache-Control": "private, max-age=300"})
