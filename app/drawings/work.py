"""What runs beside the requests: batches, backups every six hours, sweeping old exports, looking for a newer model.

Every worker of the API has one thread for it. An item of a batch is taken by one worker only, and taken again when its worker died;
whose turn a backup is the database decides. So several workers, two slots and a crash are all right.
"""

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import Final
from uuid import uuid4

from sqlalchemy import Select, or_, select, update

from app.core import database
from app.core.images import ImageError
from app.core.storage import StorageError
from app.drawings import exports
from app.drawings.backups import Keeper
from app.drawings.model import NoGroup
from app.drawings.service import Drawings, Unknown
from app.drawings.settings import DrawingsSettings
from app.drawings.store import NoModel
from app.drawings.tables import Batch, BatchItem

log = logging.getLogger(__name__)

LEASE_SECONDS: Final = 120.0
_SWEEP_SECONDS: Final = 60.0


def begin_batch(drawings: list[str]) -> str:
    """Store a batch; workers find it. Returns its id."""
    identity = uuid4().hex
    with database.session() as db:
        db.add(Batch(id=identity, created_at=time.time()))
        db.flush()
        for drawing in drawings:
            db.add(BatchItem(batch_id=identity, drawing_id=drawing, state="waiting", taken_at=0.0))
    return identity


def take() -> BatchItem | None:
    """Take the next item that waits, or one whose worker died; None when there is nothing to do."""
    now = time.time()
    asked: Select[BatchItem] = (
        select(BatchItem)
        .where(
            or_(
                BatchItem.state == "waiting",
                (BatchItem.state == "working") & (BatchItem.taken_at < now - LEASE_SECONDS),
            )
        )
        .order_by(BatchItem.id)
        .limit(1)
    )
    with database.session(read_only=True) as db:  # looking must not make writers wait
        if db.scalar(asked.with_only_columns(BatchItem.id)) is None:
            return None
    with database.session() as db:
        if db.get_bind().dialect.name == "postgresql":
            asked = asked.with_for_update(skip_locked=True)
        item = db.scalar(asked)
        if item is not None:
            item.state, item.taken_at = "working", now
        return item


def finish(item: BatchItem, analysis: str | None, error: str | None) -> None:
    """Note how an item ended."""
    with database.session() as db:
        db.execute(
            update(BatchItem)
            .where(BatchItem.id == item.id)
            .values(state="failed" if error else "done", analysis_id=analysis, error=error)
        )


@dataclass
class Worker:
    """The thread."""

    drawings: Drawings
    keeper: Keeper
    settings: DrawingsSettings
    _stop: threading.Event = field(default_factory=threading.Event)
    _wake: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="work", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the item at hand."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(30)

    def wake(self) -> None:
        """Look now: there is a new batch."""
        self._wake.set()

    def _run(self) -> None:
        looked = swept = time.monotonic()
        while not self._stop.is_set():
            try:
                worked = self.step()
                now = time.monotonic()
                if now - looked >= self.settings.poll_seconds:
                    looked = now
                    self.drawings.store.refresh()
                if now - swept >= _SWEEP_SECONDS:
                    swept = now
                    self.tidy()
            except Exception:  # the thread must outlive a database that is restarting
                log.exception("work beside the requests failed", extra={"event": "work_failed"})
                worked = False
            if not worked:
                self._wake.wait(self.settings.work_seconds)
                self._wake.clear()

    def step(self) -> bool:
        """Do one item of a batch; False when there was none."""
        item = take()
        if item is None:
            return False
        try:
            _, analysis = self.drawings.analyse(item.drawing_id)
        except (Unknown, ImageError, StorageError) as error:
            finish(item, None, str(error)[:300])
        except (NoModel, NoGroup):
            finish(item, None, "no model can judge this drawing")
        except Exception:
            finish(item, None, "something broke on our side; the log says what")
            raise
        else:
            finish(item, analysis.id, None)
        return True

    def tidy(self) -> None:
        """Sweep exports; back the database up when it is time."""
        exports.sweep(self.drawings.storage)
        if self.keeper.due():
            version = self.keeper.make("scheduled")
            self.keeper.prune()
            log.info("database backed up", extra={"event": "backup", "backup": version.id})
