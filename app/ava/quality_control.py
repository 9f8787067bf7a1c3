"""Quality control over the store: compare tasks, keep what was found, compare a whole project."""

import json
import time
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from sqlalchemy import delete, select

from app.ava import agreement, quality_service, service
from app.ava.attributes import Profile
from app.ava.matching import Matched, match
from app.ava.quality_service import Agreement, NoData
from app.ava.service import Refused, Unknown
from app.ava.tables import QualityMetric, Task
from app.core import database


def check(task_ids: Sequence[int]) -> dict[str, Any]:
    """Compare two tasks of one clip and keep the result.

    Raises:
        Refused: They are not two tasks of one clip.
        Unknown: There is no such task, or nothing in it to compare.
    """
    if len(task_ids) != 2 or task_ids[0] == task_ids[1]:
        raise Refused(f"Comparing takes two different tasks, not {len(set(task_ids))}.")
    with database.session(read_only=True) as db:
        first, second = service.find_tasks(db, task_ids)
        if (first.project_id, first.clip) != (second.project_id, second.clip):
            raise Refused(
                f"Task {first.id} is of {first.clip}, task {second.id} of {second.clip}; compare tasks of one clip."
            )
        for task in (first, second):
            if task.retrieved_at is None:
                raise Unknown(f"Task {task.id} ({task.annotator}) has no annotations yet.")
        profile = service.profile_of(service.find_project(db, first.project_id))
        boxes = service.boxes_of(db, task_ids)
    try:
        found = quality_service.compare([match(boxes[first.id], boxes[second.id])], profile)
    except NoData:
        raise Unknown("Neither task has a box, so there is nothing to compare.") from None
    told = _report(found, first, second)
    _keep([(first, second, told)])
    return told


def _report(found: Agreement, first: Task, second: Task) -> dict[str, Any]:
    told = quality_service.as_dict(found)
    told["task_ids"] = [first.id, second.id]
    told["clip"] = first.clip
    told["annotators"] = [first.annotator, second.annotator]
    told["flip_rates"] = {task.annotator: flips.rate for task, flips in zip((first, second), found.flips, strict=True)}
    return told


def _keep(rows: Sequence[tuple[Task, Task, dict[str, Any]]]) -> None:
    now = time.time()
    with database.session() as db:
        for first, second, told in rows:
            db.execute(
                delete(QualityMetric).where(
                    QualityMetric.task_a.in_((first.id, second.id)), QualityMetric.task_b.in_((first.id, second.id))
                )
            )
            db.add(
                QualityMetric(
                    project_id=first.project_id,
                    task_a=first.id,
                    task_b=second.id,
                    xml_a=first.xml_sha256 or "",
                    xml_b=second.xml_sha256 or "",
                    average_iou=told["average_iou"],
                    percent_iou_gte_05=told["percent_iou_gte_05"],
                    macro_avg_kappa=told["macro_avg_kappa"],
                    report=json.dumps(told),
                    computed_at=now,
                )
            )


def check_project(project_id: int) -> dict[str, Any]:
    """Compare all tasks of a project's overlap clips: each pair, each two annotators over all their clips, all together by alpha.

    Raises:
        Unknown: There is no such project, or no clip with two annotations.
    """
    with database.session(read_only=True) as db:
        profile = service.profile_of(service.find_project(db, project_id))
        tasks = list(
            db.scalars(
                select(Task)
                .where(Task.project_id == project_id, Task.overlap_group.is_not(None), Task.retrieved_at.is_not(None))
                .order_by(Task.clip, Task.id)
            )
        )
        boxes = service.boxes_of(db, [task.id for task in tasks])
    clips: dict[str, list[Task]] = {}
    for task in tasks:
        clips.setdefault(task.clip, []).append(task)
    clips = {clip: its for clip, its in clips.items() if len(its) > 1}
    if not clips:
        raise Unknown("No clip of this project has annotations of two people yet.")
    rows: list[tuple[Task, Task, dict[str, Any]]] = []
    empty: list[str] = []
    between: dict[tuple[str, str], list[Matched]] = {}
    for clip, its in clips.items():
        for one, other in combinations(its, 2):
            first, second = sorted((one, other), key=lambda task: task.annotator)
            work = match(boxes[first.id], boxes[second.id])
            try:
                rows.append((first, second, _report(quality_service.compare([work], profile), first, second)))
            except NoData:
                empty.append(clip)
                continue
            between.setdefault((first.annotator, second.annotator), []).append(work)
    _keep(rows)
    by_clip = [{task.annotator: boxes[task.id] for task in its} for its in clips.values()]
    alphas = quality_service.alphas(by_clip, profile)
    return {
        "project_id": project_id,
        "pairs": len(rows),
        "clips": len(clips),
        "clips_without_boxes": sorted(set(empty)),
        "annotators": [_between(names, work, profile) for names, work in sorted(between.items())],
        "alphas": alphas,
        "alpha_mean": agreement.mean(list(alphas.values())),
        "flip_rates": _flips(tasks, boxes, profile),
    }


def _between(names: tuple[str, str], work: Sequence[Matched], profile: Profile) -> dict[str, Any]:
    told = quality_service.as_dict(quality_service.compare(work, profile))
    return {
        "annotators": list(names),
        "clips": len(work),
        **{
            key: told[key]
            for key in (
                "average_iou",
                "percent_iou_gte_05",
                "f1",
                "tube_iou",
                "macro_avg_kappa",
                "kappa_details",
                "warnings",
                "band",
            )
        },
    }


def _flips(tasks: Sequence[Task], boxes: dict[int, Any], profile: Profile) -> dict[str, float | None]:
    people: dict[str, list[Any]] = {}
    for task in tasks:
        people.setdefault(task.annotator, []).append(boxes[task.id])
    return {name: quality_service.flip_rate(clips, profile).rate for name, clips in sorted(people.items())}


def last(task_ids: Sequence[int]) -> dict[str, Any] | None:
    """What was found of two tasks, when their annotations are still the same."""
    with database.session(read_only=True) as db:
        tasks = {task.id: task for task in service.find_tasks(db, task_ids)}
        for row in db.scalars(
            select(QualityMetric).where(QualityMetric.task_a.in_(task_ids), QualityMetric.task_b.in_(task_ids))
        ):
            if row.xml_a == tasks[row.task_a].xml_sha256 and row.xml_b == tasks[row.task_b].xml_sha256:
                told: dict[str, Any] = json.loads(row.report)
                return told
    return None
