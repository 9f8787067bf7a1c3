"""The worker's steps: unpack uploads, put projects and tasks into CVAT, notice what was annotated, fetch it.

What is to do stands in the tables. A row is taken for a while (`taken_at`); when its worker dies another takes it, and every step finds
what is there already. So a crash, a second worker or an answer that was lost makes nothing twice.
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, or_, select, update

from app.ava import clips, cvat_xml, events, post_annotation_service, service
from app.ava.cvat_integration import Cvat, CvatError, connect
from app.ava.settings import AvaSettings
from app.ava.tables import Clip, Project, Task, Upload
from app.ava.uploads import Uploads
from app.core import database, metrics
from app.core.storage import Storage, StorageError

log = logging.getLogger(__name__)

LEASE_SECONDS: Final = 300.0
FIRST_WAIT: Final = 5.0
LONGEST_WAIT: Final = 3600.0
HOPELESS_WAIT: Final = 600.0  # what another try will not mend a person may: look again, but seldom

tasks_done = metrics.counter("AvaTasks", "Tasks by what was done with them", ("what",))


@dataclass
class Work:
    """Does what there is to do, one thing at a time."""

    settings: AvaSettings
    storage: Storage
    uploads: Uploads
    _taken: tuple[Any, int | str] | None = field(default=None, init=False)

    def step(self) -> bool:
        """Do one thing; False when there was nothing."""
        return self._unpack() or self._project() or self._task() or self._reconcile()

    def _beat(self) -> None:
        """Hold what was taken while CVAT works on it."""
        if self._taken is not None:
            table, identity = self._taken
            with database.session() as db:
                db.execute(update(table).where(table.id == identity).values(taken_at=time.time()))

    def _take(self, table: Any, wanted: ColumnElement[bool]) -> Any:
        """Take a row that waits; None when there is none."""
        now = time.time()
        asked = select(table).where(wanted, table.taken_at < now - LEASE_SECONDS).order_by(table.id).limit(1)
        with database.session(read_only=True) as db:  # looking must not make writers wait
            if db.scalar(asked.with_only_columns(table.id)) is None:
                return None
        with database.session() as db:
            if db.get_bind().dialect.name == "postgresql":
                asked = asked.with_for_update(skip_locked=True)
            row = db.scalar(asked)
            if row is not None:
                row.taken_at = now
                self._taken = (table, row.id)
            return row

    @contextlib.contextmanager
    def _held(self, table: Any, identity: int | str) -> Iterator[None]:
        """Give the row back afterwards; after a failure it waits, longer each time, and says why."""
        values: dict[str, Any] = {"taken_at": 0.0, "attempts": 0, "error": None}
        try:
            yield
        except (CvatError, cvat_xml.XmlError, clips.ClipError, StorageError, service.Refused) as error:
            again = isinstance(error, StorageError) or (isinstance(error, CvatError) and error.again)
            values = self._failed(table, identity, str(error), again=again)
        except Exception:
            values = self._failed(table, identity, "something broke on our side; the log says what", again=True)
            log.exception("work failed", extra={"event": "work_failed", "table": table.__tablename__, "row": identity})
        finally:
            self._taken = None
            with database.session() as db:
                db.execute(update(table).where(table.id == identity).values(**values))

    def _failed(self, table: Any, identity: int | str, reason: str, *, again: bool) -> dict[str, Any]:
        with database.session(read_only=True) as db:
            attempts = int(db.scalar(select(table.attempts).where(table.id == identity)) or 0) + 1
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(attempts - 1, 20)) if again else HOPELESS_WAIT
        log.warning("%s %s: %s", table.__tablename__, identity, reason, extra={"event": "work_waits", "seconds": wait})
        values = {"taken_at": 0.0, "attempts": attempts, "error": reason[:500]}
        return values if table is Upload else {**values, "next_at": time.time() + wait}

    def _unpack(self) -> bool:
        row = self._take(Upload, Upload.state == "received")
        if row is None:
            return False
        self.uploads.unpack(row.id, self._beat)
        self._taken = None
        return True

    def _project(self) -> bool:
        """Make a project in CVAT, with its labels and its webhook."""
        missing = [Project.cvat_project_id.is_(None)]
        if self.settings.webhook_url:
            missing.append(Project.cvat_webhook_id.is_(None))
        row = self._take(Project, and_(or_(*missing), Project.next_at <= time.time()))
        if row is None:
            return False
        with self._held(Project, row.id), connect(self.settings, self._beat) as cvat:
            if row.cvat_project_id is None:
                labels = service.profile_of(row).cvat_labels()
                row.cvat_project_id = cvat.ensure_project(row.name, labels, row.org_slug)
                self._save(Project, row.id, cvat_project_id=row.cvat_project_id)
            if self.settings.webhook_url:
                hook = cvat.ensure_webhook(
                    row.cvat_project_id, self.settings.webhook_url, self.settings.webhook_secret, row.org_slug
                )
                self._save(Project, row.id, cvat_webhook_id=hook)
        return True

    def _save(self, table: Any, identity: int, **values: Any) -> None:
        with database.session() as db:
            db.execute(update(table).where(table.id == identity).values(**values))

    def _task(self) -> bool:
        """Put a task into CVAT, or fetch its annotations."""
        in_cvat = select(Project.id).where(Project.cvat_project_id.is_not(None))
        wanted = and_(
            or_(Task.stale.is_(True), Task.status.in_(service.PIPELINE)),
            Task.project_id.in_(in_cvat),
            Task.next_at <= time.time(),
        )
        row = self._take(Task, wanted)
        if row is None:
            return False
        # a session serves many tasks: logging in for each would be most of the work
        with contextlib.ExitStack() as stack:
            cvat: Cvat | None = None
            while row is not None:
                good = False
                with self._held(Task, row.id):
                    if cvat is None:
                        cvat = stack.enter_context(connect(self.settings, self._beat))
                    if row.status in service.PIPELINE:
                        self._dispatch(cvat, row)
                        tasks_done.labels("dispatched").inc()
                    else:
                        post_annotation_service.fetch(cvat, row.id)
                        tasks_done.labels("fetched").inc()
                    good = True
                row = self._take(Task, wanted) if good else None
        return True

    def _dispatch(self, cvat: Cvat, row: Task) -> None:
        with database.session(read_only=True) as db:
            project = db.get_one(Project, row.project_id)
            clip = db.get_one(Clip, row.clip)
            proposals = clip.proposals
        if clip.frames == 0:
            clip = self._look(clip)
        if project.cvat_project_id is None:
            return
        user = cvat.user_id(row.annotator, project.org_slug)
        if row.cvat_task_id is None:
            name = f"{row.clip} {row.annotator}"
            row.cvat_task_id = cvat.ensure_task(project.cvat_project_id, name, project.org_slug)
            self._save(Task, row.id, cvat_task_id=row.cvat_task_id, status="created")
        if row.status in {"planned", "created"}:
            with self.storage.local(clip.storage_key) as archive:
                cvat.upload_frames(row.cvat_task_id, archive)
            self._save(Task, row.id, status="uploaded")
        if row.status != "imported":
            if proposals is not None:
                boxes = cvat_xml.read(proposals).boxes
                size = (clip.width, clip.height)
                xml = cvat_xml.write(row.clip, boxes, service.profile_of(project), frames=clip.frames, size=size)
                cvat.import_annotations(row.cvat_task_id, xml)
            self._save(Task, row.id, status="imported")
        job = cvat.assign(row.cvat_task_id, user)
        with database.session() as db:
            task = db.get_one(Task, row.id)
            task.job_id, task.status = job, "ready"
            events.record(db, events.READY, task=task)

    def _look(self, clip: Clip) -> Clip:
        """Look into a clip that was named by its key only."""
        with self.storage.local(clip.storage_key) as path:
            seen = clips.inspect(path, clip.name)
            size = path.stat().st_size
        with database.session() as db:
            row = db.get_one(Clip, clip.name)
            row.frames, row.width, row.height, row.size_bytes = seen.frames, seen.width, seen.height, size
            return row

    def _reconcile(self) -> bool:
        """Ask CVAT what has changed in a project, from time to time."""
        due = time.time() - self.settings.reconcile_seconds
        wanted = and_(
            Project.cvat_project_id.is_not(None), Project.reconciled_at <= due, Project.next_at <= time.time()
        )
        row = self._take(Project, wanted)
        if row is None:
            return False
        with self._held(Project, row.id), connect(self.settings, self._beat) as cvat:
            post_annotation_service.reconcile(cvat, row)
        return True
