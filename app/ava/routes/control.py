"""Quality control, datasets, figures, and CVAT's messages: what comes after annotating."""

import json
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Query, Request, Response
from sqlalchemy import func, select
from starlette.concurrency import run_in_threadpool

from app.ava import datasets, events, post_annotation_service, quality_control, schemas, service
from app.ava.context import Context, context
from app.ava.cvat_integration import is_signed
from app.ava.dataset_generator import Options
from app.ava.routes.errors import said
from app.ava.tables import Task
from app.core import database

Parts = Annotated[Context, Depends(context)]
ProjectId = Annotated[int, Path(ge=1, le=2**31 - 1)]
DatasetId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
NOT_FOUND: Final[dict[int | str, Any]] = {404: {"description": "There is none with this id"}}
REFUSED: Final[dict[int | str, Any]] = {400: {"description": "This cannot be done; the text says why"}}
_MESSAGE: Final = 1024 * 1024
_MEDIA: Final = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "pbtxt": "text/plain; charset=utf-8",
    "pkl": "application/octet-stream",
}

routes = APIRouter()


@routes.get("/quality-control/projects", summary="All projects", tags=["quality control"])
def projects() -> schemas.Projects:
    """With how far each is."""
    with database.session(read_only=True) as db:
        return schemas.Projects(projects=[schemas.ProjectOut(**row) for row in service.project_rows(db)])


@routes.get(
    "/quality-control/projects/{project_id}/tasks",
    summary="The tasks of a project",
    tags=["quality control"],
    responses=NOT_FOUND,
)
def tasks(
    project_id: ProjectId,
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
    page_size: Annotated[int, Query(ge=1, le=5000)] = 1000,
    qc_status: Annotated[schemas.Status | None, Query()] = None,
    only: Annotated[
        Literal["overlap", "error"] | None, Query(description="clips that several annotate, or tasks that went wrong")
    ] = None,
) -> schemas.Tasks:
    """Page by page, by clip; with every comparison that was made."""
    with said(), database.session(read_only=True) as db:
        service.find_project(db, project_id)
        found = select(Task).where(Task.project_id == project_id)
        if qc_status is not None:
            found = found.where(Task.qc_status == qc_status)
        if only == "overlap":
            found = found.where(Task.overlap_group.is_not(None))
        if only == "error":
            found = found.where(Task.error.is_not(None))
        total = db.scalar(select(func.count()).select_from(found.subquery())) or 0
        rows = db.scalars(
            found.order_by(Task.clip, Task.role.desc(), Task.id).limit(page_size).offset((page - 1) * page_size)
        )
        return schemas.Tasks(
            tasks=[schemas.TaskOut(**service.task_row(task)) for task in rows],
            total=total,
            page=page,
            page_size=page_size,
            pairs=[schemas.PairOut(**pair) for pair in service.pairs_of(db, project_id)],
        )


@routes.post(
    "/quality-control/run-iaa-check",
    summary="Compare two annotators of a clip",
    tags=["quality control"],
    responses={
        400: {"description": "Not two tasks of one clip"},
        404: {"description": "No such task, or nothing to compare"},
    },
)
def run_iaa_check(asked: schemas.CheckIn) -> schemas.CheckOut:
    """Inter-annotator agreement: where the persons are (IoU), and what they do (kappa)."""
    with said():
        return schemas.CheckOut(**quality_control.check(asked.task_ids))


@routes.post(
    "/quality-control/projects/{project_id}/run-iaa-check",
    summary="Compare all annotators of a project",
    tags=["quality control"],
    responses={404: {"description": "No such project, or nothing to compare"}},
)
def run_project_check(project_id: ProjectId) -> schemas.ProjectCheck:
    """Each pair of tasks, each two annotators over all their clips, and all together by Krippendorff's alpha."""
    with said():
        return schemas.ProjectCheck(**quality_control.check_project(project_id))


@routes.post(
    "/quality-control/update-task-status",
    summary="Approve, reject or clear tasks",
    tags=["quality control"],
    responses={**NOT_FOUND, 400: {"description": "A task has no annotations yet; nothing was changed"}},
)
def update_task_status(asked: schemas.StatusIn) -> schemas.StatusOut:
    """All of them or none."""
    with said():
        changed = service.set_qc(list(dict.fromkeys(asked.task_ids)), asked.new_status)
    return schemas.StatusOut(updated=len(changed), new_status=asked.new_status, task_ids=[task.id for task in changed])


@routes.post(
    "/quality-control/projects/{project_id}/reconcile",
    status_code=202,
    summary="Ask CVAT now",
    tags=["quality control"],
    responses=NOT_FOUND,
)
def reconcile(project_id: ProjectId) -> dict[str, str]:
    """The worker asks what has changed, and tries again what went wrong."""
    with said(), database.session() as db:
        project = service.find_project(db, project_id)
        project.reconciled_at, project.next_at = 0.0, 0.0
        for task in db.scalars(select(Task).where(Task.project_id == project_id, Task.error.is_not(None))):
            task.next_at = 0.0
    return {"status": "asked"}


@routes.post(
    "/datasets", status_code=201, summary="Make a dataset", tags=["datasets"], responses={**NOT_FOUND, **REFUSED}
)
def make_dataset(parts: Parts, asked: schemas.DatasetIn) -> schemas.DatasetOut:
    """Of everything that was approved; overlap clips by consensus."""
    options = Options(
        excluded=frozenset((one.video_id, one.timestamp) for one in asked.excluded_timestamps),
        val_share=asked.val_share,
        seed=asked.seed,
        video_ids=asked.video_ids,
    )
    with said():
        return schemas.DatasetOut(**datasets.told(datasets.build(parts.storage, asked.project_id, options)))


@routes.get("/datasets", summary="The datasets of a project", tags=["datasets"], responses=NOT_FOUND)
def list_datasets(project_id: Annotated[int, Query(ge=1, le=2**31 - 1)]) -> schemas.Datasets:
    """Newest first."""
    with said():
        return schemas.Datasets(
            datasets=[schemas.DatasetOut(**datasets.told(row)) for row in datasets.listed(project_id)]
        )


@routes.get("/datasets/{dataset_id}", summary="One dataset", tags=["datasets"], responses=NOT_FOUND)
def one_dataset(dataset_id: DatasetId) -> schemas.DatasetOut:
    """With its manifest."""
    with said():
        return schemas.DatasetOut(**datasets.told(datasets.find(dataset_id)))


@routes.get(
    "/datasets/{dataset_id}/files/{name}",
    summary="A file of a dataset",
    tags=["datasets"],
    response_class=Response,
    responses={
        **NOT_FOUND,
        200: {
            "content": {
                media.partition(";")[0]: {"schema": {"type": "string", "format": "binary"}} for media in _MEDIA.values()
            }
        },
    },
)
def dataset_file(
    parts: Parts,
    dataset_id: DatasetId,
    name: Annotated[str, Path(pattern=r"^[a-z][a-z_]{0,40}\.(csv|json|pbtxt|pkl)$")],
) -> Response:
    """As the manifest's hashes say."""
    with said():
        row = datasets.find(dataset_id)
        data = parts.storage.get(f"datasets/{row.id}/{name}")
    return Response(
        data,
        media_type=_MEDIA[name.rpartition(".")[2]],
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@routes.get("/metrics/summary", summary="Figures of a project", tags=["figures"], responses=NOT_FOUND)
def summary(project_id: Annotated[int, Query(ge=1, le=2**31 - 1)]) -> schemas.Summary:
    """How fast people annotate, how long tasks wait, how far it is."""
    with database.session(read_only=True) as db:
        found = events.summary(db, project_id)
    if found is None:
        raise HTTPException(404, f"There is no project {project_id}.")
    return schemas.Summary(**found)


@routes.post(
    "/webhooks/cvat",
    summary="CVAT says that a job has changed",
    tags=["webhook"],
    responses={
        **REFUSED,
        401: {"description": "The signature is not right"},
        413: {"description": "Longer than 1 MiB"},
    },
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}},
)
async def webhook(
    parts: Parts, request: Request, x_signature_256: Annotated[str, Header(max_length=200)] = ""
) -> schemas.WebhookOut:
    """Signed with HMAC-SHA-256 in `X-Signature-256`. What is to be fetched the worker fetches."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _MESSAGE:
            raise HTTPException(413, "The message is longer than 1 MiB.")
    if not is_signed(parts.settings.webhook_secret, bytes(body), x_signature_256):
        raise HTTPException(401, "The signature is not right; give CVAT's webhook the secret cvat_webhook_secret.")
    try:
        message = json.loads(bytes(body))
    except (ValueError, RecursionError):
        raise HTTPException(400, "The message is not JSON.") from None
    if not isinstance(message, dict):
        raise HTTPException(400, "The message is not an object.")
    with said():
        task = await run_in_threadpool(post_annotation_service.receive, message)
    return schemas.WebhookOut(status="taken" if task is not None else "not ours", task_id=task.id if task else None)
