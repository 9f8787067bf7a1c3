"""Datasets in the store: made of what was approved, kept with their manifest."""

import json
import time
from typing import Any
from uuid import uuid4

from sqlalchemy import select

from app.ava import events, service
from app.ava.dataset_generator import Options, Source, generate
from app.ava.service import Refused, Unknown
from app.ava.tables import Clip, DatasetBuild, Task
from app.core import database
from app.core.storage import Storage


def build(storage: Storage, project_id: int, options: Options) -> DatasetBuild:
    """Make the dataset of a project's approved tasks.

    Raises:
        Unknown: There is no such project.
        Refused: Nothing was approved.
    """
    with database.session(read_only=True) as db:
        project = service.find_project(db, project_id)
        tasks = list(
            db.scalars(
                select(Task)
                .where(Task.project_id == project_id, Task.qc_status == "approved", Task.retrieved_at.is_not(None))
                .order_by(Task.clip, Task.role.desc(), Task.id)  # the primary first
            )
        )
        if not tasks:
            raise Refused("Nothing of this project was approved yet; approve tasks under Quality Control first.")
        boxes = service.boxes_of(db, [task.id for task in tasks])
        names = sorted({task.clip for task in tasks})
        sizes = {
            clip: (width, height)
            for begin in range(0, len(names), 500)
            for clip, width, height in db.execute(
                select(Clip.name, Clip.width, Clip.height).where(Clip.name.in_(names[begin : begin + 500]))
            )
        }
    sources = [Source(clip, [boxes[task.id] for task in tasks if task.clip == clip], sizes[clip]) for clip in names]
    made = generate(sources, service.profile_of(project), options)
    row = DatasetBuild(
        id=uuid4().hex, project_id=project_id, manifest=json.dumps(made.manifest), created_at=time.time()
    )
    for name, data in made.files.items():  # files first: no row is ever without them
        storage.put(f"datasets/{row.id}/{name}", data)
    with database.session() as db:
        db.add(row)
        for task in db.scalars(select(Task).where(Task.id.in_([task.id for task in tasks]))):
            events.record(db, events.EXPORT, task=task, at=row.created_at)
    return row


def find(identity: str) -> DatasetBuild:
    """A dataset. Raises Unknown."""
    with database.session(read_only=True) as db:
        row = db.get(DatasetBuild, identity)
    if row is None:
        raise Unknown("There is no such dataset.")
    return row


def listed(project_id: int) -> list[DatasetBuild]:
    """The datasets of a project, newest first."""
    with database.session(read_only=True) as db:
        service.find_project(db, project_id)
        return list(
            db.scalars(
                select(DatasetBuild)
                .where(DatasetBuild.project_id == project_id)
                .order_by(DatasetBuild.created_at.desc())
            )
        )


def told(row: DatasetBuild) -> dict[str, Any]:
    """A dataset for the API."""
    return {
        "id": row.id,
        "project_id": row.project_id,
        "created_at": row.created_at,
        "manifest": json.loads(row.manifest),
    }
