"""Projects, clips, uploads and proposals: what comes before annotating."""

from pathlib import Path as Files
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from sqlalchemy import func, select
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from app.ava import schemas, service, uploads
from app.ava.assignment_generator import Assignment, loads
from app.ava.clips import read_frame
from app.ava.context import Context, context
from app.ava.cvat_integration import CvatError, connect
from app.ava.proposals import LONGEST, ProposalError
from app.ava.routes.errors import said
from app.ava.tables import Clip, Upload
from app.core import database

Parts = Annotated[Context, Depends(context)]
UploadId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="32 hexadecimal digits")]
ClipName = Annotated[str, Path(pattern=r"^[A-Za-z0-9._-]{1,100}$")]
NOT_FOUND: Final[dict[int | str, Any]] = {404: {"description": "There is none with this id"}}
REFUSED: Final[dict[int | str, Any]] = {400: {"description": "This cannot be done; the text says why"}}
_BINARY: Final = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}

STATIC: Final = Files(__file__).resolve().parents[1] / "static"

routes = APIRouter()


def _wanted(asked: schemas.ProjectIn) -> service.Wanted:
    plan = None
    if asked.assignments is not None:
        plan = [Assignment(one.clip, one.annotator, one.role) for one in asked.assignments]
    return service.Wanted(
        name=asked.project_name,
        annotators=asked.annotators,
        overlap_percentage=asked.overlap_percentage,
        clips=asked.clips,
        s3_keys=asked.s3_keys,
        org_slug=asked.org_slug or "",
        annotators_per_clip=asked.annotators_per_clip,
        seed=asked.seed,
        plan=plan,
    )


def _plan(plan: list[Assignment]) -> schemas.Plan:
    return schemas.Plan(
        assignments=[schemas.AssignmentOut(**one) for one in service.as_plan(plan)],
        loads=[schemas.Load(annotator=name, **row) for name, row in loads(plan).items()],
        clips=len({one.clip for one in plan}),
        overlap_clips=len({one.clip for one in plan if one.group is not None}),
    )


@routes.post(
    "/projects/preview", summary="The plan of a project that is not made yet", tags=["projects"], responses=REFUSED
)
def preview(asked: schemas.ProjectIn) -> schemas.Plan:
    """Nothing is stored. Edit it and send it back as `assignments`."""
    with said():
        return _plan(service.plan_of(_wanted(asked)))


@routes.post(
    "/projects",
    status_code=201,
    summary="Make a project",
    tags=["projects"],
    responses={
        **REFUSED,
        200: {"model": schemas.Created, "description": "It is there already"},
        409: {"description": "Another project has this name"},
    },
)
def create(parts: Parts, asked: schemas.ProjectIn, response: Response) -> schemas.Created:
    """The plan is stored, and the worker puts its tasks into CVAT. The same request again makes nothing twice."""
    wanted = _wanted(asked)
    with said():
        plan = service.plan_of(wanted)
        _check_people(parts, wanted)
        project, new = service.create(wanted, parts.storage, parts.profile)
    response.status_code = 201 if new else 200
    with database.session(read_only=True) as db:
        row = next(row for row in service.project_rows(db) if row["id"] == project.id)
    return schemas.Created(project=schemas.ProjectOut(**row), created=new, plan=_plan(plan))


def _check_people(parts: Context, wanted: service.Wanted) -> None:
    """Say at once when CVAT has no such user; when CVAT does not answer now, the worker will find out."""
    if not parts.settings.cvat_host:
        return
    try:
        with connect(parts.settings) as cvat:
            missing = cvat.check_users(wanted.annotators, wanted.org_slug)
    except CvatError as error:
        if not error.again:
            raise service.Refused(str(error)) from error
        return
    if missing:
        raise service.Refused(
            f"CVAT has no user {', '.join(map(repr, missing[:5]))}; make the account there, or correct the name."
        )


@routes.get("/clips", summary="Clips that are here", tags=["clips"])
def list_clips(
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
    page_size: Annotated[int, Query(ge=1, le=1000)] = 100,
    q: Annotated[str | None, Query(max_length=100, description="part of the name")] = None,
) -> schemas.Clips:
    """By name, page by page."""
    found = select(Clip)
    if q:
        found = found.where(Clip.name.contains(q.replace("\0", ""), autoescape=True))
    with database.session(read_only=True) as db:
        total = db.scalar(select(func.count()).select_from(found.subquery())) or 0
        rows = db.execute(
            found.with_only_columns(
                Clip.name,
                Clip.frames,
                Clip.width,
                Clip.height,
                Clip.boxes,
                Clip.size_bytes,
                Clip.proposals.is_not(None),
                Clip.created_at,
            )
            .order_by(Clip.name)
            .limit(page_size)
            .offset((page - 1) * page_size)
        ).all()
    names = ("name", "frames", "width", "height", "boxes", "size_bytes", "has_proposals", "created_at")
    return schemas.Clips(
        clips=[schemas.ClipOut(**dict(zip(names, row, strict=True))) for row in rows],
        total=total,
        page=page,
        page_size=page_size,
    )


@routes.get(
    "/clips/{clip}/frames/{frame}",
    summary="A frame's picture",
    tags=["clips"],
    response_class=Response,
    responses={**NOT_FOUND, 200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}},
)
def frame(parts: Parts, clip: ClipName, frame: Annotated[int, Path(ge=0, le=9999)]) -> Response:
    """As it was uploaded."""
    with database.session(read_only=True) as db:
        row = db.get(Clip, clip)
    if row is None:
        raise HTTPException(404, f"There is no clip {clip!r}.")
    with said():
        try:
            with parts.storage.open(row.storage_key) as archive:
                data = read_frame(archive, clip, frame)
        except KeyError:
            raise HTTPException(404, f"{clip} has no frame {frame}.") from None
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})


@routes.post(
    "/uploads",
    status_code=201,
    summary="Begin an upload in parts",
    tags=["uploads"],
    responses={**REFUSED, 413: {"description": "Too large"}},
)
def begin(parts: Parts, asked: schemas.UploadIn) -> schemas.UploadParts:
    """A clip, an archive of clips, or a video. Send the parts, in any order, several at once; then complete it."""
    with said():
        return _with_parts(parts, parts.uploads.begin(asked.filename, asked.size_bytes))


@routes.get("/uploads", summary="The latest uploads", tags=["uploads"])
def list_uploads(limit: Annotated[int, Query(ge=1, le=200)] = 20) -> schemas.Uploads:
    """Newest first."""
    with database.session(read_only=True) as db:
        rows = db.scalars(select(Upload).order_by(Upload.created_at.desc()).limit(limit)).all()
    return schemas.Uploads(uploads=[schemas.UploadOut(**uploads.told(row)) for row in rows])


@routes.get("/uploads/page", include_in_schema=False)
def upload_page(parts: Parts) -> Response:
    """A page that sends large files in parts: a screen of Streamlit would hold them in memory."""
    limit = f"{parts.settings.upload_bytes / 1024**3:.3g} GiB"
    page = (STATIC / "upload.html").read_text(encoding="utf-8").replace("5 GiB", limit)
    # parts for a bucket go to the bucket's own address
    where = "https: http://127.0.0.1:* http://localhost:*" if parts.uploads.presigned else ""
    policy = (
        f"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' {where}; frame-ancestors 'self'"
    )
    return Response(page, media_type="text/html", headers={"Content-Security-Policy": policy})


@routes.get("/uploads/page/{name}", include_in_schema=False)
def upload_asset(name: Annotated[str, Path(pattern=r"^upload\.(js|css)$")]) -> Response:
    """Its script and its looks."""
    return Response((STATIC / name).read_bytes(), media_type="text/javascript" if name.endswith(".js") else "text/css")


@routes.get(
    "/uploads/{upload_id}", summary="An upload, and which parts are there", tags=["uploads"], responses=NOT_FOUND
)
def look(parts: Parts, upload_id: UploadId) -> schemas.UploadParts:
    """Ask this after a break, and send the parts that are missing."""
    with said():
        return _with_parts(parts, parts.uploads.find(upload_id))


@routes.put(
    "/uploads/{upload_id}/parts/{number}",
    status_code=204,
    summary="Send one part",
    tags=["uploads"],
    responses={**NOT_FOUND, **REFUSED, 413: {"description": "Longer than the part"}},
    openapi_extra=_BINARY,
)
async def part(
    parts: Parts, upload_id: UploadId, number: Annotated[int, Path(ge=1, le=10_000)], request: Request
) -> None:
    """Streamed to its place on the disk. Sending it again replaces it."""
    with said():
        row = await run_in_threadpool(parts.uploads.find, upload_id)
        try:
            await parts.uploads.write(row, number, request.stream())
        except ClientDisconnect:
            raise service.Refused("The connection ended before the part was here; send it again.") from None


@routes.post(
    "/uploads/{upload_id}/complete", summary="All parts were sent", tags=["uploads"], responses={**NOT_FOUND, **REFUSED}
)
def complete(parts: Parts, upload_id: UploadId) -> schemas.UploadOut:
    """The worker looks into it; ask for the upload until it is ready or failed."""
    with said():
        return schemas.UploadOut(**uploads.told(parts.uploads.complete(parts.uploads.find(upload_id))))


@routes.delete(
    "/uploads/{upload_id}", status_code=204, summary="Give an upload up", tags=["uploads"], responses=NOT_FOUND
)
def drop(parts: Parts, upload_id: UploadId) -> None:
    """Clips that it gave already stay."""
    with said():
        parts.uploads.drop(parts.uploads.find(upload_id))


@routes.post(
    "/uploads/file",
    status_code=201,
    summary="Upload in one request",
    tags=["uploads"],
    responses={**REFUSED, 413: {"description": "Too large"}},
    openapi_extra=_BINARY,
)
async def whole(
    parts: Parts, request: Request, filename: Annotated[str, Query(min_length=1, max_length=300)]
) -> schemas.UploadOut:
    """The body is the file. For large files parts are better: they go on after a break."""
    length = request.headers.get("content-length", "")
    size = int(length) if length.isdecimal() and len(length) < 16 else None
    with said():
        try:
            return schemas.UploadOut(**uploads.told(await parts.uploads.whole(filename, size, request.stream())))
        except ClientDisconnect:
            raise service.Refused("The connection ended before the file was here; send it again.") from None


def _with_parts(parts: Context, row: Upload) -> schemas.UploadParts:
    return schemas.UploadParts(
        **uploads.told(row), parts=[schemas.PartOut(**vars(one)) for one in parts.uploads.parts(row)]
    )


@routes.post(
    "/proposals",
    summary="Boxes to begin with",
    tags=["clips"],
    responses={**REFUSED, 413: {"description": "Too large"}},
    openapi_extra=_BINARY,
)
async def proposals(request: Request) -> schemas.ProposalsOut:
    """A pickle of lists or NumPy arrays, in either form. It is read by a reader that knows numbers only."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > LONGEST:
            raise HTTPException(413, f"The proposals are longer than {LONGEST // 1024**2} MB; send them in parts.")
    with said():
        try:
            found = await run_in_threadpool(service.keep_proposals, bytes(data))
        except ProposalError as error:
            raise service.Refused(f"{str(error)[:1].upper()}{str(error)[1:]}.") from error
    counts = found.counts
    return schemas.ProposalsOut(
        clips=len(found.clips),
        boxes=found.boxes,
        clipped=counts.clipped,
        dropped=counts.dropped,
        renumbered=counts.renumbered,
        skipped_clips=len(found.skipped),
    )


@routes.get("/attributes", summary="The attributes of new projects", tags=["projects"])
def attributes(parts: Parts) -> schemas.AttributesOut:
    """And the ids of actions."""
    profile = parts.profile
    return schemas.AttributesOut(
        attributes=[
            schemas.AttributeOut(name=name, options=list(options)) for name, options in profile.options.items()
        ],
        actions=[schemas.ActionOut(id=one.id, name=one.name, attribute=one.attribute) for one in profile.actions],
    )
