"""Analyses: of one drawing, of many, and what they say as a whole."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Request
from sqlalchemy import case, func, select

from app.core import auth, database
from app.core.ratelimit import RateLimit
from app.core.storage import NotFound
from app.drawings import service, usage
from app.drawings.context import Context, as_http
from app.drawings.model import NoGroup
from app.drawings.routes.drawings import NOT_FOUND, Id, Parts
from app.drawings.schemas import (
    AnalysisAnswer,
    AnalysisStats,
    AnalyzeRequest,
    BatchProgress,
    BatchRequest,
)
from app.drawings.service import Unknown
from app.drawings.settings import DrawingsSettings
from app.drawings.store import NoModel
from app.drawings.tables import Analysis, Batch, BatchItem, Drawing, Embedding
from app.drawings.work import begin_batch


def answer(parts: Context, drawing: Drawing, row: Analysis, *, shared: bool) -> AnalysisAnswer:
    """Everything about one analysis; drawings of other children only when `shared`."""
    return AnalysisAnswer.model_validate(
        {
            "drawing": service.drawing_out(drawing),
            "analysis": service.analysis_out(row),
            "interpretability": service.interpretability_out(drawing, row, f"{parts.base}/interpretability"),
            "comparison_examples": list(_similar(parts, drawing, row, shared=shared)),
        }
    )


def _similar(parts: Context, drawing: Drawing, row: Analysis, *, shared: bool) -> Iterable[dict[str, Any]]:
    with database.session(read_only=True) as db:
        kept = db.get(Embedding, drawing.id)
        there = set(db.scalars(select(Drawing.id))) if shared else set()
    if kept is None:
        return
    try:
        model = parts.store.current.model
    except NoModel:
        return
    vector = np.frombuffer(kept.visual, np.float32)
    for about, cosine in model.similar(vector, row.age_group, 4, shared=shared):
        if about.get("drawing") == drawing.id or ("drawing" in about and about["drawing"] not in there):
            continue
        generated = "seed" in about
        identity = f"generated-{about['seed']}" if generated else str(about["drawing"])
        yield {
            "drawing_id": identity,
            "similarity_score": round(cosine, 4),
            "age_years": float(about["age"]),
            "subject": str(about["subject"]),
            "image_url": f"{parts.base}/demo/reference/{about['seed']}.png"
            if generated
            else f"{parts.base}/drawings/{identity}/file",
            "generated": generated,
        }


async def is_admin(request: Request) -> bool:
    """A dependency: whether an admin asks. Never refuses."""
    try:
        return await auth.admitted(request)
    except auth.OtherSite:
        return False


Admin = Annotated[bool, Depends(is_admin)]


def router(settings: DrawingsSettings) -> APIRouter:
    """The routes; analyses have a limit of their own."""
    routes = APIRouter(prefix="/analysis", tags=["analysis"])
    limited = [Depends(RateLimit(settings.rate_analysis, 60, "analysis"))]

    @routes.post(
        "/analyze/{drawing_id}",
        summary="Is this drawing unusual, how sure, and why?",
        dependencies=limited,
        responses={**NOT_FOUND, 400: {"description": "No age group is active"}},
    )
    def analyze(
        request: Request, parts: Parts, drawing_id: Id, admin: Admin, asked: AnalyzeRequest | None = None
    ) -> AnalysisAnswer:
        force = asked is not None and asked.force_reanalysis
        try:
            drawing, row = parts.drawings.analyse(drawing_id, force=force, country=usage.country_of(request.headers))
        except (Unknown, NoGroup, NoModel, NotFound) as error:
            raise as_http(error) from error
        return _first(answer(parts, drawing, row, shared=admin))

    @routes.get("/stats", summary="What the analyses say as a whole")
    def stats() -> AnalysisStats:
        return AnalysisStats.model_validate(_stats())

    @routes.post(
        "/batch",
        status_code=202,
        summary="Analyse up to 100 drawings",
        dependencies=limited,
        responses={404: {"description": "One of the drawings is not there"}},
    )
    def batch(parts: Parts, asked: BatchRequest) -> BatchProgress:
        wanted = list(dict.fromkeys(asked.drawing_ids))
        with database.session(read_only=True) as db:
            known = set(db.scalars(select(Drawing.id).where(Drawing.id.in_(wanted))))
        if missing := [one for one in wanted if one not in known]:
            raise HTTPException(
                404, f"There is no drawing {missing[0]}" + (f" ({len(missing)} are missing)." if missing[1:] else ".")
            )
        identity = begin_batch(wanted)
        parts.worker.wake()
        return _progress(identity)

    @routes.get("/batch/{batch_id}/progress", summary="How far a batch is", responses=NOT_FOUND)
    def progress(batch_id: Id) -> BatchProgress:
        return _progress(batch_id)

    @routes.get("/drawing/{drawing_id}", summary="The analyses of a drawing, newest first", responses=NOT_FOUND)
    def of_drawing(parts: Parts, drawing_id: Id) -> list[AnalysisAnswer]:
        with database.session(read_only=True) as db:
            drawing = db.get(Drawing, drawing_id)
            if drawing is None:
                raise HTTPException(404, f"There is no drawing {drawing_id}.")
            asked = (
                select(Analysis)
                .where(Analysis.drawing_id == drawing_id)
                .order_by(Analysis.created_at.desc(), Analysis.id)
            )
            rows = list(db.scalars(asked.limit(50)))
        return [_first(answer(parts, drawing, row, shared=True)) for row in rows]

    @routes.get("/{analysis_id}", summary="One analysis", responses=NOT_FOUND)
    def one(parts: Parts, analysis_id: Id) -> AnalysisAnswer:
        try:
            with database.session(read_only=True) as db:
                drawing, row = service.find(db, analysis_id)
        except Unknown as error:
            raise as_http(error) from error
        return _first(answer(parts, drawing, row, shared=True))

    return routes


def _first(told: AnalysisAnswer, count: int = 3) -> AnalysisAnswer:
    told.comparison_examples = told.comparison_examples[:count]
    return told


def _progress(identity: str) -> BatchProgress:
    with database.session(read_only=True) as db:
        if db.get(Batch, identity) is None:
            raise HTTPException(404, f"There is no batch {identity}.")
        rows = db.execute(
            select(BatchItem, Analysis.is_anomaly, Analysis.normalized_score)
            .outerjoin(Analysis, Analysis.id == BatchItem.analysis_id)
            .where(BatchItem.batch_id == identity)
            .order_by(BatchItem.id)
        ).all()
    items = [
        {
            "drawing_id": item.drawing_id,
            "state": item.state,
            "analysis_id": item.analysis_id,
            "is_anomaly": anomaly,
            "normalized_score": score,
            "error": item.error,
        }
        for item, anomaly, score in rows
    ]
    done = sum(1 for one in items if one["state"] == "done")
    failed = sum(1 for one in items if one["state"] == "failed")
    return BatchProgress.model_validate(
        {
            "batch_id": identity,
            "state": "done" if done + failed == len(items) else "running",
            "total": len(items),
            "done": done,
            "failed": failed,
            "progress": (done + failed) / max(1, len(items)),
            "items": items,
        }
    )


def _stats(days: int = 30) -> dict[str, Any]:
    unusual = func.sum(case((Analysis.is_anomaly, 1), else_=0))
    first = datetime.now(UTC).date() - timedelta(days=days - 1)
    since = datetime(first.year, first.month, first.day, tzinfo=UTC).timestamp()
    with database.session(read_only=True) as db:
        total, anomalies, seconds = db.execute(
            select(func.count(), unusual, func.avg(Analysis.seconds)).select_from(Analysis)
        ).one()
        groups = db.execute(
            select(Analysis.age_group, func.count(), unusual, func.avg(Analysis.normalized_score)).group_by(
                Analysis.age_group
            )
        ).all()
        parts = db.execute(
            select(Analysis.anomaly_attribution, func.count())
            .where(Analysis.is_anomaly.is_(True))
            .group_by(Analysis.anomaly_attribution)
        ).all()
        recent = db.execute(select(Analysis.created_at, Analysis.is_anomaly).where(Analysis.created_at >= since)).all()
    by_day = {(first + timedelta(days=number)).isoformat(): [0, 0] for number in range(days)}
    for at, is_anomaly in recent:
        day = by_day.setdefault(datetime.fromtimestamp(min(at, time.time()), UTC).date().isoformat(), [0, 0])
        day[0] += 1
        day[1] += bool(is_anomaly)
    return {
        "total": int(total),
        "anomalies": int(anomalies or 0),
        "anomaly_rate": round(int(anomalies or 0) / total, 6) if total else 0.0,
        "mean_seconds": None if seconds is None else round(float(seconds), 4),
        "by_age_group": [
            {
                "age_group": name,
                "analyses": int(count),
                "anomalies": int(above or 0),
                "mean_normalized_score": round(float(score), 2),
            }
            for name, count, above, score in sorted(groups, key=lambda row: float(row[0].split("-")[0]))
        ],
        "by_attribution": [
            {"name": name, "count": int(count)} for name, count in sorted(parts, key=lambda row: -row[1])
        ],
        "by_day": [
            {"day": day, "analyses": count, "anomalies": above} for day, (count, above) in sorted(by_day.items())
        ],
    }
