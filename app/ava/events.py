"""When what happened, and what follows from it: how fast people annotate, how long tasks wait."""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.ava.tables import Event, Project, Task

INGEST: Final = "ingest_time"
READY: Final = "task_ready"
START: Final = "annotation_start"
END: Final = "annotation_end"
TASK_COMPLETED: Final = "task_completed"
JOB_COMPLETED: Final = "job_completed"
EXPORT: Final = "export_time"
KINDS: Final = (INGEST, READY, START, END, TASK_COMPLETED, JOB_COMPLETED, EXPORT)


def record(
    db: Session, kind: str, *, task: Task | None = None, clip: str | None = None, at: float | None = None
) -> None:
    """Note an event. The first time counts; only the end of annotating moves on when an annotator goes on later."""
    found = select(Event).where(Event.kind == kind)
    found = (
        found.where(Event.task_id == task.id)
        if task is not None
        else found.where(Event.clip == clip, Event.task_id.is_(None))
    )
    there = db.scalar(found.limit(1))
    at = time.time() if at is None else at
    if there is None:
        db.add(
            Event(
                kind=kind,
                project_id=task.project_id if task is not None else None,
                task_id=task.id if task is not None else None,
                clip=task.clip if task is not None else clip,
                at=at,
            )
        )
        db.flush()
    elif kind in {END, EXPORT} and at > there.at:
        there.at = at


@dataclass
class _Times:
    annotator: str
    status: str
    at: dict[str, float]

    @property
    def seconds(self) -> float | None:
        """From the first to the last moment of annotating."""
        if START in self.at and END in self.at and self.at[END] > self.at[START]:
            return self.at[END] - self.at[START]
        return None


def summary(db: Session, project_id: int) -> dict[str, Any] | None:
    """Figures of a project; None when there is none. Times are in seconds; what cannot be known yet is None.

    clips_per_annotator_hour: finished tasks by the hours that their annotators spent on them (from a job's first "in progress" to its
    last "completed"). makespan: from the project's creation to its last retrieved task. queue_wait: from ready to begun.
    """
    project = db.get(Project, project_id)
    if project is None:
        return None
    tasks = _times(db, project_id)
    timed = [(one, one.seconds) for one in tasks if one.seconds is not None]
    hours = sum(seconds for _, seconds in timed if seconds) / 3600
    waits = [one.at[START] - one.at[READY] for one in tasks if START in one.at and READY in one.at]
    done = [one.at[TASK_COMPLETED] for one in tasks if TASK_COMPLETED in one.at]
    qc = db.execute(select(Task.qc_status, func.count()).where(Task.project_id == project_id).group_by(Task.qc_status))
    return {
        "project_id": project.id,
        "project_name": project.name,
        "tasks": len(tasks),
        "clips": db.scalar(select(func.count(Task.clip.distinct())).where(Task.project_id == project_id)) or 0,
        "by_status": dict(sorted(Counter(one.status for one in tasks).items())),
        "by_qc_status": dict(sorted((str(status), int(count)) for status, count in qc)),
        "completed": len(done),
        "clips_per_annotator_hour": len(timed) / hours if hours else None,
        "makespan_seconds": max(done) - project.created_at if done else None,
        "finished": bool(tasks) and len(done) == len(tasks),
        "queue_wait_seconds": _mean(waits),
        "events": {kind: sum(kind in one.at for one in tasks) for kind in KINDS if kind != INGEST},
        "annotators": _by_annotator(tasks),
        "completed_at": sorted(done),
    }


def _times(db: Session, project_id: int) -> list[_Times]:
    found = {
        task: _Times(annotator, status, {})
        for task, annotator, status in db.execute(
            select(Task.id, Task.annotator, Task.status).where(Task.project_id == project_id).order_by(Task.id)
        )
    }
    rows = db.execute(select(Event.task_id, Event.kind, Event.at).where(Event.project_id == project_id))
    for task, kind, at in rows:
        if task in found:
            found[task].at[kind] = at
    return list(found.values())


def _by_annotator(tasks: Iterable[_Times]) -> list[dict[str, Any]]:
    people: dict[str, list[_Times]] = {}
    for one in tasks:
        people.setdefault(one.annotator, []).append(one)
    told = []
    for name, its in sorted(people.items()):
        seconds = [one.seconds for one in its if one.seconds is not None]
        told.append(
            {
                "annotator": name,
                "tasks": len(its),
                "completed": sum(TASK_COMPLETED in one.at for one in its),
                "hours": sum(seconds) / 3600 if seconds else None,
                "clips_per_hour": len(seconds) / (sum(seconds) / 3600) if seconds else None,
            }
        )
    return told


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
