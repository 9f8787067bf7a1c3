"""Drawings: upload, list, look at, delete."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, File, Form, HTTPException, Path, Query, Response, UploadFile
from sqlalchemy import ColumnElement, func, or_, select
from starlette.concurrency import run_in_threadpool

from app.core import database
from app.core.images import ImageError, read_upload
from app.core.ratelimit import RateLimit
from app.drawings import service
from app.drawings.context import Context, as_http, context
from app.drawings.schemas import BatchUpload, DrawingOut, DrawingStats, History, Label, Page
from app.drawings.service import About, Drawings, Unknown
from app.drawings.settings import DrawingsSettings
from app.drawings.subjects import NAMES, index_of
from app.drawings.tables import Analysis, Drawing

MAX_FILES: Final = 50
MAX_TOTAL: Final = 60 * 1024 * 1024
_MEDIA: Final = {"PNG": "image/png", "JPEG": "image/jpeg", "BMP": "image/bmp", "WEBP": "image/webp"}

Id = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="32 hexadecimal digits")]
Parts = Annotated[Context, Depends(context)]
AgeForm = Annotated[float, Form(ge=2, le=18, description="the child's age in years")]
Word = Annotated[str | None, Form(max_length=100)]
NOT_FOUND: Final[dict[int | str, Any]] = {404: {"description": "There is none with this id"}}


def router(settings: DrawingsSettings) -> APIRouter:
    """The routes; uploads have a limit of their own."""
    routes = APIRouter(prefix="/drawings", tags=["drawings"])
    limited = [Depends(RateLimit(settings.rate_upload, 60, "upload"))]

    @routes.post(
        "/upload",
        status_code=201,
        summary="Store a drawing",
        dependencies=limited,
        responses={
            400: {"description": "Not a picture that can be read, or too small"},
            413: {"description": "Larger than 10 MB"},
        },
    )
    async def upload(
        parts: Parts,
        file: Annotated[UploadFile, File(description="PNG, JPEG, BMP or WebP; at least 32 x 32, at most 10 MB")],
        age_years: AgeForm,
        subject: Annotated[
            Word, Form(description="one of /config/subjects; any other word counts as unspecified")
        ] = None,
        expert_label: Annotated[Label | None, Form()] = None,
        drawing_tool: Word = None,
        prompt: Annotated[str | None, Form(max_length=500)] = None,
    ) -> DrawingOut:
        about = About(file.filename or "drawing", age_years, subject, expert_label, drawing_tool, prompt)
        try:
            row = await run_in_threadpool(parts.drawings.add, await read_upload(file), about)
        except ImageError as error:
            raise error.http() from error
        return DrawingOut(**service.drawing_out(row))

    @routes.post(
        "/batch/upload",
        summary="Store up to 50 drawings",
        dependencies=limited,
        responses={400: {"description": "More than 50 files"}, 413: {"description": "More than 60 MB in all"}},
    )
    async def batch_upload(
        parts: Parts,
        files: Annotated[list[UploadFile], File(description="at most 50 pictures")],
        age_years: AgeForm,
        subject: Word = None,
        expert_label: Annotated[Label | None, Form()] = None,
    ) -> BatchUpload:
        if len(files) > MAX_FILES:
            raise HTTPException(400, f"{len(files)} files are too many: at most {MAX_FILES} at once.")
        if sum(file.size or 0 for file in files) > MAX_TOTAL:
            raise HTTPException(
                413, f"The files are larger than {MAX_TOTAL // 1024**2} MB together; send fewer at once."
            )
        results = []
        for file in files:  # one bad file never fails the others
            about = About(file.filename or "drawing", age_years, subject, expert_label, source="batch")
            results.append(await _one(parts.drawings, file, about))
        good = sum(1 for one in results if one["drawing"])
        return BatchUpload.model_validate({"results": results, "uploaded": good, "failed": len(results) - good})

    _add_reading(routes)
    return routes


async def _one(drawings: Drawings, file: UploadFile, about: About) -> dict[str, Any]:
    try:
        row = await run_in_threadpool(drawings.add, await read_upload(file), about)
    except ImageError as error:
        return {"filename": service.clean_name(about.filename), "drawing": None, "error": str(error)}
    return {"filename": row.filename, "drawing": service.drawing_out(row), "error": None}


class Filters:
    """Which drawings."""

    def __init__(
        self,
        age_min: Annotated[float | None, Query(ge=0, le=18)] = None,
        age_max: Annotated[float | None, Query(ge=0, le=18)] = None,
        subject: Annotated[str | None, Query(max_length=40)] = None,
        expert_label: Annotated[Label | None, Query()] = None,
        source: Annotated[str | None, Query(max_length=10)] = None,
        is_anomaly: Annotated[bool | None, Query(description="by the latest analysis")] = None,
        q: Annotated[str | None, Query(max_length=100, description="part of the file's name or the prompt")] = None,
    ) -> None:
        self.conditions: list[ColumnElement[bool]] = []
        add = self.conditions.append
        if age_min is not None:
            add(Drawing.age_years >= age_min)
        if age_max is not None:
            add(Drawing.age_years <= age_max)
        if subject is not None:
            add(Drawing.subject_index == index_of(subject))
        if expert_label is not None:
            add(Drawing.expert_label == expert_label)
        if source is not None:
            add(Drawing.source == source.replace("\0", ""))
        if q:
            found = f"%{q.replace(chr(0), '').replace('~', '~~').replace('%', '~%').replace('_', '~_')}%"
            add(or_(Drawing.filename.ilike(found, escape="~"), Drawing.prompt.ilike(found, escape="~")))
        if is_anomaly is not None:
            newest = (
                select(Analysis.is_anomaly)
                .where(Analysis.drawing_id == Drawing.id)
                .order_by(Analysis.created_at.desc(), Analysis.id)
                .limit(1)
                .scalar_subquery()
            )
            add(newest.is_(is_anomaly))


Wanted = Annotated[Filters, Depends(Filters)]
PageNumber = Annotated[int, Query(ge=1, le=100_000)]
PageSize = Annotated[int, Query(ge=1, le=100)]


def _page(db: Any, wanted: Filters, page: int, size: int) -> tuple[list[Drawing], dict[str, int]]:
    total = int(db.scalar(select(func.count()).select_from(Drawing).where(*wanted.conditions)) or 0)
    asked = select(Drawing).where(*wanted.conditions).order_by(Drawing.created_at.desc(), Drawing.id)
    rows = list(db.scalars(asked.offset((page - 1) * size).limit(size)))
    return rows, {"total": total, "page": page, "page_size": size, "pages": max(1, -(-total // size))}


def _add_reading(routes: APIRouter) -> None:
    @routes.get("/", summary="Stored drawings, newest first")
    def listing(wanted: Wanted, page: PageNumber = 1, page_size: PageSize = 20) -> Page:
        with database.session(read_only=True) as db:
            rows, about = _page(db, wanted, page, page_size)
        return Page.model_validate({"items": [service.drawing_out(row) for row in rows], **about})

    @routes.get("/history", summary="Stored drawings with their latest analysis, newest first")
    def history(wanted: Wanted, page: PageNumber = 1, page_size: PageSize = 20) -> History:
        with database.session(read_only=True) as db:
            rows, about = _page(db, wanted, page, page_size)
            items = []
            for row in rows:
                found = service.latest(db, row.id)
                items.append(
                    {"drawing": service.drawing_out(row), "analysis": service.analysis_out(found) if found else None}
                )
        return History.model_validate({"items": items, **about})

    @routes.get("/stats", summary="What is stored")
    def stats() -> DrawingStats:
        with database.session(read_only=True) as db:

            def by(column: Any) -> list[tuple[Any, int]]:
                rows = db.execute(select(column, func.count()).select_from(Drawing).group_by(column))
                return sorted(((name, int(count)) for name, count in rows), key=lambda row: (-row[1], str(row[0])))

            ages: dict[int, int] = {}
            for age, count in by(Drawing.age_years):
                ages[int(age)] = ages.get(int(age), 0) + count
            told = {
                "total": int(db.scalar(select(func.count()).select_from(Drawing)) or 0),
                "analyzed": int(db.scalar(select(func.count(Analysis.drawing_id.distinct()))) or 0),
                "by_age": [{"name": str(age), "count": count} for age, count in sorted(ages.items())],
                "by_subject": [{"name": NAMES[index], "count": count} for index, count in by(Drawing.subject_index)],
                "by_label": [{"name": label or "none", "count": count} for label, count in by(Drawing.expert_label)],
                "by_source": [{"name": source, "count": count} for source, count in by(Drawing.source)],
                "size_bytes": int(db.scalar(select(func.coalesce(func.sum(Drawing.size_bytes), 0))) or 0),
            }
        return DrawingStats.model_validate(told)

    @routes.get("/{drawing_id}", summary="One drawing", responses=NOT_FOUND)
    def one(drawing_id: Id) -> DrawingOut:
        return DrawingOut(**service.drawing_out(_find(drawing_id)))

    @routes.get(
        "/{drawing_id}/file",
        summary="The file as it was uploaded",
        response_class=Response,
        responses={**NOT_FOUND, 200: {"description": "The picture", "content": {kind: {} for kind in _MEDIA.values()}}},
    )
    def file(drawing_id: Id, parts: Parts) -> Response:
        row = _find(drawing_id)
        try:
            data = parts.drawings.file(row)
        except Unknown as error:
            raise as_http(error) from error
        headers = {"Content-Disposition": f'inline; filename="{row.id}.{row.format.lower()}"'}
        return Response(data, media_type=_MEDIA[row.format], headers=headers)

    @routes.delete("/{drawing_id}", status_code=204, summary="Forget a drawing and its analyses", responses=NOT_FOUND)
    def delete(drawing_id: Id, parts: Parts) -> None:
        try:
            parts.drawings.delete(drawing_id)
        except Unknown as error:
            raise as_http(error) from error


def _find(identity: str) -> Drawing:
    with database.session(read_only=True) as db:
        row = db.get(Drawing, identity)
    if row is None:
        raise HTTPException(404, f"There is no drawing {identity}.")
    return row
