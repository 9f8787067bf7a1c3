"""Projects: their clips, their plan, what quality control says of their tasks."""

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.ava import attributes, cvat_xml, events
from app.ava.assignment_generator import Assignment, AssignmentError, check_plan, generate
from app.ava.attributes import Profile
from app.ava.boxes import Box, parse_clip
from app.ava.clips import Clip as CutClip
from app.ava.proposals import Proposals, read_proposals
from app.ava.tables import Annotation, Clip, Project, QualityMetric, Task
from app.core import database
from app.core.files import sha256_of
from app.core.storage import Storage

PIPELINE: Final = ("planned", "created", "uploaded", "imported")
OPEN: Final = ("ready", "in_progress")
QC: Final = ("pending", "approved", "rejected")
_MANY: Final = 500  # names in one question to the database


class Unknown(LookupError):
    """There is no such thing; the message names it."""


class Refused(ValueError):
    """This cannot be done; the message says why and what would help."""


class Conflict(Refused):
    """There is something else of this name already."""


@dataclass(frozen=True)
class Wanted:
    """What a new project is asked to be."""

    name: str
    annotators: Sequence[str]
    overlap_percentage: int
    clips: Sequence[str] = ()
    s3_keys: Sequence[str] = ()
    org_slug: str = ""
    annotators_per_clip: int = 2
    seed: int = 0
    plan: Sequence[Assignment] | None = None


def plan_of(wanted: Wanted) -> list[Assignment]:
    """The plan of a project: the edited one when there is one, else one that is made. Raises Refused."""
    names = clip_names(wanted)
    try:
        made = generate(
            names,
            wanted.annotators,
            overlap_percentage=wanted.overlap_percentage,
            k=wanted.annotators_per_clip,
            seed=wanted.seed,
        )
        return made if wanted.plan is None else check_plan(wanted.plan, names, wanted.annotators)
    except AssignmentError as error:
        raise Refused(str(error)) from error


def clip_names(wanted: Wanted) -> list[str]:
    """The clips, by name; those of `s3_keys` are called like their files. Raises Refused."""
    if bool(wanted.clips) == bool(wanted.s3_keys):
        raise Refused("Give either clips (their names) or s3_keys (their files in the storage).")
    names = list(wanted.clips) or [PurePosixPath(key).stem for key in wanted.s3_keys]
    for name in names:
        if parse_clip(name) is None:
            raise Refused(f"{name[:80]!r} is not the name of a clip: expected {{video}}_clip_{{nnn}}.")
    return names


def create(wanted: Wanted, storage: Storage, profile: Profile) -> tuple[Project, bool]:
    """Store a project with its plan; the worker puts it into CVAT. The same project again is given as it is.

    Returns:
        The project, and whether it is new.

    Raises:
        Refused: There is no such plan, or a clip is not here.
        Conflict: A project of this name has another plan.
    """
    plan = plan_of(wanted)
    digest = hashlib.sha256(
        json.dumps(
            [sorted((one.clip, one.annotator, one.role) for one in plan), profile.as_dict()], sort_keys=True
        ).encode()
    ).hexdigest()
    listed = _listed(wanted.s3_keys, storage)
    with database.session() as db:
        there = db.scalar(select(Project).where(Project.name == wanted.name, Project.org_slug == wanted.org_slug))
        if there is not None:
            if there.plan_sha256 != digest:
                raise Conflict(f"There is a project {wanted.name!r} with another plan already; choose another name.")
            return there, False
        _know_clips(db, clip_names(wanted), listed)
        now = time.time()
        project = Project(
            name=wanted.name,
            org_slug=wanted.org_slug,
            annotators=json.dumps(list(wanted.annotators)),
            overlap_percentage=wanted.overlap_percentage,
            annotators_per_clip=wanted.annotators_per_clip,
            seed=wanted.seed,
            attributes=json.dumps(profile.as_dict()),
            plan_sha256=digest,
            attempts=0,
            next_at=0.0,
            taken_at=0.0,
            reconciled_at=now,
            created_at=now,
        )
        db.add(project)
        db.flush()
        db.add_all(
            Task(
                project_id=project.id,
                clip=one.clip,
                annotator=one.annotator,
                role=one.role,
                overlap_group=one.group,
                status=PIPELINE[0],
                qc_status=QC[0],
                stale=False,
                boxes=0,
                attempts=0,
                next_at=0.0,
                taken_at=0.0,
                created_at=now,
            )
            for one in plan
        )
    return project, True


def _listed(keys: Sequence[str], storage: Storage) -> dict[str, str]:
    """The key of each clip, seen to be there. Raises Refused, and StorageError for a key that is none."""
    there = {info.key for prefix in {_folder(key) for key in keys} for info in storage.list(prefix)}
    for key in keys:
        if not key.endswith(".zip") or key not in there:
            raise Refused(f"The storage has no {key[:120]!r}; s3_keys name the zips of clips that are there.")
    return {PurePosixPath(key).stem: key for key in keys}


def _folder(key: str) -> str:
    return f"{key.rpartition('/')[0]}/" if "/" in key else key


def _know_clips(db: Session, names: Sequence[str], listed: dict[str, str]) -> None:
    """See that every clip is here; those of the storage are looked into when it is their turn."""
    known = set(_in_parts(db, names))
    missing = [name for name in names if name not in known]
    for name in missing:
        if name not in listed:
            raise Refused(
                f"The frames of {name!r} are not here ({len(missing)} clips are missing): upload {name}.zip first."
            )
        add_clip(
            db, Clip(name=name, storage_key=listed[name], sha256="", size_bytes=0, frames=0, width=0, height=0, boxes=0)
        )


def _in_parts(db: Session, names: Sequence[str]) -> Iterable[str]:
    for begin in range(0, len(names), _MANY):
        yield from db.scalars(select(Clip.name).where(Clip.name.in_(names[begin : begin + _MANY])))


def add_clip(db: Session, clip: Clip) -> None:
    """Store what is known of a clip."""
    clip.created_at = time.time()
    db.add(clip)
    events.record(db, events.INGEST, clip=clip.name)


def keep_clip(storage: Storage, cut: CutClip) -> bool:
    """Take a clip's zip into the storage; False when the very same one is there.

    Raises:
        Conflict: Another clip of this name is there already.
    """
    digest, size = sha256_of(cut.path), cut.path.stat().st_size
    with database.session(read_only=True) as db:
        there = db.get(Clip, cut.name)
        if there is not None and there.sha256 == digest:
            return False
        if there is not None:
            raise Conflict(
                f"There is another clip {cut.name!r} already; frames that people annotate are not exchanged."
            )
    key = f"clips/{cut.name}.zip"
    storage.adopt(key, cut.path)
    with database.session() as db:
        made = Clip(
            name=cut.name,
            storage_key=key,
            sha256=digest,
            size_bytes=size,
            frames=cut.frames,
            width=cut.width,
            height=cut.height,
            boxes=0,
        )
        add_clip(db, made)
    return True


def keep_proposals(data: bytes) -> Proposals:
    """Store the proposals of clips that are here; those of tasks that are in CVAT already stay as they are.

    Raises:
        app.ava.proposals.ProposalError: They cannot be read.
        Refused: A box is in a frame that its clip does not have.
    """
    with database.session(read_only=True) as db:
        rows = db.execute(select(Clip.name, Clip.width, Clip.height, Clip.frames).where(Clip.frames > 0)).all()
    sizes = {name: (width, height) for name, width, height, _ in rows}
    frames = {name: count for name, _, _, count in rows}
    found = read_proposals(data, sizes)
    profile = attributes.load()
    made: list[tuple[str, bytes, int]] = []
    for clip, boxes in found.clips.items():
        try:
            xml = cvat_xml.write(clip, boxes, profile, frames=frames[clip], size=sizes[clip])
        except cvat_xml.XmlError as error:
            raise Refused(f"{error}; nothing was stored.") from error
        made.append((clip, xml, len(boxes)))
    with database.session() as db:
        for clip, xml, count in made:
            db.execute(update(Clip).where(Clip.name == clip).values(proposals=xml, boxes=count))
    return found


def profile_of(project: Project) -> Profile:
    """The attributes that a project was made with."""
    return attributes.from_dict(json.loads(project.attributes))


def find_project(db: Session, project_id: int) -> Project:
    """A project. Raises Unknown."""
    found = db.get(Project, project_id)
    if found is None:
        raise Unknown(f"There is no project {project_id}.")
    return found


def find_tasks(db: Session, ids: Sequence[int]) -> list[Task]:
    """Tasks in the order of their ids as given. Raises Unknown."""
    found = {task.id: task for task in db.scalars(select(Task).where(Task.id.in_(ids)))}
    for one in ids:
        if one not in found:
            raise Unknown(f"There is no task {one}.")
    return [found[one] for one in ids]


def boxes_of(db: Session, task_ids: Sequence[int]) -> dict[int, list[Box]]:
    """The boxes that are seen, of each task."""
    told: dict[int, list[Box]] = {task: [] for task in task_ids}
    for begin in range(0, len(task_ids), _MANY):
        rows = db.execute(
            select(
                Annotation.task_id,
                Annotation.track,
                Annotation.frame,
                Annotation.xtl,
                Annotation.ytl,
                Annotation.xbr,
                Annotation.ybr,
                Annotation.attributes,
                Annotation.occluded,
            )
            .where(Annotation.task_id.in_(task_ids[begin : begin + _MANY]), Annotation.outside.is_(False))
            .order_by(Annotation.id)
        )
        for task, track, frame, xtl, ytl, xbr, ybr, said, occluded in rows:
            told[task].append(Box(track, frame, xtl, ytl, xbr, ybr, json.loads(said), occluded))
    return told


def set_qc(ids: Sequence[int], status: str) -> list[Task]:
    """Approve, reject or clear tasks, all or none. Raises Unknown, and Refused when one is not annotated yet."""
    with database.session() as db:
        tasks = find_tasks(db, ids)
        waiting = [task for task in tasks if task.retrieved_at is None]
        if status != QC[0] and waiting:
            raise Refused(
                f"Task {waiting[0].id} ({waiting[0].clip}, {waiting[0].annotator}) has no annotations yet, so it cannot be {status}; "
                "nothing was changed."
            )
        for task in tasks:
            task.qc_status = status
        return tasks


def project_rows(db: Session) -> list[dict[str, Any]]:
    """Every project with how far it is, newest first."""
    counts: dict[int, dict[str, int]] = {}
    for identity, status, qc, count in db.execute(
        select(Task.project_id, Task.status, Task.qc_status, func.count()).group_by(
            Task.project_id, Task.status, Task.qc_status
        )
    ):
        row = counts.setdefault(identity, {})
        for key in ("tasks", f"status:{status}", f"qc:{qc}"):
            row[key] = row.get(key, 0) + count
    errors = select(Task.project_id, func.count()).where(Task.error.is_not(None)).group_by(Task.project_id)
    failed: dict[int, int] = {one: count for one, count in db.execute(errors)}  # noqa: C416 - rows are not plain pairs to mypy
    told = []
    for project in db.scalars(select(Project).order_by(Project.created_at.desc(), Project.id.desc())):
        row = counts.get(project.id, {})
        told.append(
            {
                "id": project.id,
                "name": project.name,
                "org_slug": project.org_slug or None,
                "annotators": json.loads(project.annotators),
                "overlap_percentage": project.overlap_percentage,
                "annotators_per_clip": project.annotators_per_clip,
                "cvat_project_id": project.cvat_project_id,
                "error": project.error,
                "tasks": row.get("tasks", 0),
                "waiting_for_cvat": sum(row.get(f"status:{status}", 0) for status in PIPELINE),
                "open": sum(row.get(f"status:{status}", 0) for status in OPEN),
                "completed": row.get("status:completed", 0) + row.get("status:retrieved", 0),
                "retrieved": row.get("status:retrieved", 0),
                "approved": row.get("qc:approved", 0),
                "rejected": row.get("qc:rejected", 0),
                "failed": failed.get(project.id, 0),
                "created_at": project.created_at,
            }
        )
    return told


def task_row(task: Task) -> dict[str, Any]:
    """A task for the API."""
    return {
        "id": task.id,
        "project_id": task.project_id,
        "clip": task.clip,
        "annotator": task.annotator,
        "role": task.role,
        "overlap_group": task.overlap_group,
        "status": task.status,
        "qc_status": task.qc_status,
        "cvat_task_id": task.cvat_task_id,
        "job_id": task.job_id,
        "boxes": task.boxes,
        "retrieved_at": task.retrieved_at,
        "source_updated_at": task.source_updated_at,
        "error": task.error,
    }


def pairs_of(db: Session, project_id: int) -> list[dict[str, Any]]:
    """The comparisons that were made, of tasks whose annotations are still those that were compared."""
    tasks = {task.id: task for task in db.scalars(select(Task).where(Task.project_id == project_id))}
    told = []
    for one in db.scalars(
        select(QualityMetric).where(QualityMetric.project_id == project_id).order_by(QualityMetric.id)
    ):
        first, second = tasks[one.task_a], tasks[one.task_b]
        told.append(
            {
                "task_ids": [one.task_a, one.task_b],
                "clip": first.clip,
                "annotators": [first.annotator, second.annotator],
                "average_iou": one.average_iou,
                "percent_iou_gte_05": one.percent_iou_gte_05,
                "macro_avg_kappa": one.macro_avg_kappa,
                "fresh": one.xml_a == first.xml_sha256 and one.xml_b == second.xml_sha256,
                "computed_at": one.computed_at,
            }
        )
    return told


def as_plan(plan: Iterable[Assignment]) -> list[dict[str, Any]]:
    """A plan for the API."""
    return [asdict(one) for one in plan]
