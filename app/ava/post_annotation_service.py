"""After annotating: notice that a job has changed, fetch its annotations, keep them.

A change is noticed twice over, by CVAT's webhook and by asking CVAT from time to time, since a webhook can be lost.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from app.ava import cvat_xml, events
from app.ava.cvat_integration import Cvat, JobState, when
from app.ava.service import OPEN, Refused, profile_of
from app.ava.tables import Annotation, Project, Task
from app.core import database

COMPLETED: Final = "completed"
IN_PROGRESS: Final = "in progress"
_IN_HAND: Final = (*OPEN, "completed", "retrieved")
_SLACK: Final = 1e-3  # a time that went through text and back


def note(db: Session, job: JobState) -> Task | None:
    """Note what CVAT says of a job; its task when something is to be fetched or has moved, None when it is nobody's here."""
    task = db.scalar(select(Task).where(Task.job_id == job.id))
    if task is None or task.status not in _IN_HAND:
        return None
    if job.state in {IN_PROGRESS, COMPLETED}:
        events.record(db, events.START, task=task, at=job.updated)
    if job.state == COMPLETED:
        events.record(db, events.END, task=task, at=job.updated)
        events.record(db, events.JOB_COMPLETED, task=task)
        if task.source_updated_at is None or job.updated > task.source_updated_at + _SLACK:
            task.stale = True
            task.next_at, task.attempts = 0.0, 0
        if task.status in OPEN:
            task.status = "completed"
    elif job.state == IN_PROGRESS and task.status == "ready":
        task.status = "in_progress"
    elif (
        job.state == IN_PROGRESS and task.status == "retrieved" and job.updated > (task.source_updated_at or 0) + _SLACK
    ):
        task.status = "in_progress"  # somebody goes on with it; what was fetched stays until it is completed again
    return task


def receive(message: Mapping[str, Any]) -> Task | None:
    """Take one message of CVAT's webhook. Raises Refused when it is not understood."""
    event = message.get("event")
    if event == "ping":
        return None
    if event != "update:job":
        raise Refused(f"Only update:job is expected here, not {str(event)[:40]!r}.")
    job = message.get("job")
    if not isinstance(job, Mapping):
        raise Refused("The message has no job.")
    identity, updated = job.get("id"), when(job.get("updated_date"))
    # PostgreSQL's integer ends at 2^31
    if not isinstance(identity, int) or isinstance(identity, bool) or not 0 < identity < 2**31 or updated is None:
        raise Refused("The message's job has no id or no updated_date.")
    task_id = job.get("task_id")
    state = JobState(
        identity, task_id if isinstance(task_id, int) else 0, str(job.get("state")), str(job.get("stage")), updated
    )
    with database.session() as db:
        return note(db, state)


def reconcile(cvat: Cvat, project: Project) -> int:
    """Ask CVAT for every job of a project and note what has changed; how many are to be fetched."""
    if project.cvat_project_id is None:
        return 0
    jobs = cvat.jobs(project.cvat_project_id, project.org_slug)
    with database.session() as db:
        noted = [note(db, job) for job in jobs]
        db.execute(update(Project).where(Project.id == project.id).values(reconciled_at=time.time()))
    return sum(1 for task in noted if task is not None and task.stale)


def fetch(cvat: Cvat, task_id: int) -> None:
    """Fetch a task's annotations and keep them. Raises CvatError, and XmlError when the export cannot be read."""
    with database.session(read_only=True) as db:
        task = db.get_one(Task, task_id)
        job = task.job_id
    if job is None:
        return
    # the time first: what is saved while the export runs is then newer than it, and is fetched once more
    before = cvat.job(job)
    keep(task_id, cvat.export(job), before.updated)


def keep(task_id: int, xml: bytes, updated: float) -> bool:
    """Keep a job's annotations in one transaction; False when they are the same as before.

    Annotations that changed after somebody approved or rejected them are looked at again.

    Raises:
        app.ava.cvat_xml.XmlError: They cannot be read; nothing is changed.
    """
    found = cvat_xml.read(xml)
    digest = hashlib.sha256(xml).hexdigest()
    with database.session() as db:
        task = db.get_one(Task, task_id)
        profile = profile_of(db.get_one(Project, task.project_id))
        changed = task.xml_sha256 != digest
        if changed:
            strange = [word for box in found.boxes for word in profile.unknown_to_profile(box.attributes)]
            if strange:
                raise cvat_xml.XmlError(f"{strange[0]} is not in the attributes of this project")
            db.execute(delete(Annotation).where(Annotation.task_id == task_id))
            rows = [
                {
                    "task_id": task_id,
                    "track": box.track,
                    "frame": box.frame,
                    "xtl": box.xtl,
                    "ytl": box.ytl,
                    "xbr": box.xbr,
                    "ybr": box.ybr,
                    "outside": outside,
                    "occluded": box.occluded,
                    "attributes": json.dumps(profile.complete(box.attributes)),
                }
                for outside, boxes in ((False, found.boxes), (True, found.outside))
                for box in boxes
            ]
            if rows:
                db.execute(insert(Annotation), rows)
            task.xml, task.xml_sha256, task.boxes = xml, digest, len(found.boxes)
            task.qc_status = "pending"
        task.retrieved_at, task.source_updated_at = time.time(), updated
        task.stale, task.error, task.status = False, None, "retrieved"
        events.record(db, events.TASK_COMPLETED, task=task)
    return changed
