"""The worker, `python -m app.judge.worker`: takes submissions from the queue and judges them.

Each submission is leased. While it is worked on the lease is renewed; a worker that is killed leaves it to end, and another one (or
the same, started again) begins the submission anew. Scorecard, cost, and the end of the task are one transaction that succeeds only
for the lease's owner.

On SIGTERM nothing new is taken, what is being worked on is given back, and the process ends within a second or two.
"""

import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError

from app.core import database, leases, logs, migrate
from app.core.settings import get_settings
from app.judge import keys, llm, scorecard
from app.judge.clone import CloneError, CloneTimeout, clone
from app.judge.confine import Stopped, TooLong, Watch
from app.judge.jobs import close_if_done
from app.judge.repository import RepositoryError
from app.judge.schemas import Rubric
from app.judge.scorecard import Bounds, Disqualified, Rules
from app.judge.settings import JudgeSettings
from app.judge.tables import Hackathon, Job, Scorecard, Submission, Task

log = logging.getLogger(__name__)

DATABASE_SECONDS: Final = 2.0
LOCK: Final = "lock"


class Lost(Exception):
    """Another worker has this submission now, or nobody wants it any more."""


@dataclass(frozen=True)
class Work:
    """One submission to judge, as it was when it was taken."""

    task_id: int
    job_id: str
    sub_id: str
    hack_id: str
    org_id: str
    repo_url: str
    members: tuple[str, ...]
    rules: Rules
    attempts: int


@dataclass(frozen=True)
class Outcome:
    """How judging ended: the task's and the submission's state, what to say, and the scorecard when there is one."""

    state: str
    status: str
    error: str | None = None
    disqualification: str | None = None
    card: dict[str, Any] | None = None


class Scratch:
    """This worker's folder for clones. A file lock says that its owner lives; folders of dead workers are removed."""

    def __init__(self, root: Path, owner: str) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._root = root
        self.sweep()
        self.path = root / owner
        self.path.mkdir(mode=0o700)
        self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def sweep(self) -> int:
        """Remove what workers that were killed left behind; how many folders."""
        removed = 0
        for folder in self._root.iterdir():
            if folder.is_dir() and not _held(folder / LOCK):
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
        return removed

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """A folder for one submission, gone at the end."""
        path = self.path / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o700)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def close(self) -> None:
        """Remove the folder."""
        os.close(self._lock)
        shutil.rmtree(self.path, ignore_errors=True)


def _held(path: Path) -> bool:
    """Whether somebody holds this lock. A folder that was made a moment ago may have none yet."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        try:
            return time.time() - path.parent.stat().st_mtime < 10
        except OSError:
            return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


class Worker:
    """Judges submissions, several at a time."""

    def __init__(self, settings: JudgeSettings) -> None:
        self.settings = settings
        self.owner = f"{socket.gethostname()[:24]}-{os.getpid()}-{uuid4().hex[:12]}"
        self.stopping = threading.Event()
        self.scratch = Scratch(settings.state_dir / "scratch", self.owner)
        self._llm = llm.load(settings.agent)

    def run(self) -> None:
        """Work until `stop`."""
        log.info("worker started", extra={"event": "worker_started", "owner": self.owner})
        with ThreadPoolExecutor(self.settings.workers, thread_name_prefix="judge") as pool:
            for future in [pool.submit(self._loop) for _ in range(self.settings.workers)]:
                future.result()
        self.scratch.close()
        log.info("worker ended", extra={"event": "worker_ended", "owner": self.owner})

    def stop(self) -> None:
        """Take nothing new, give back what is being worked on."""
        self.stopping.set()

    def _loop(self) -> None:
        while not self.stopping.is_set():
            try:
                worked = self.step()
            except SQLAlchemyError:  # it must outlive a database that restarts: leases end, nothing is lost
                log.exception("the database does not answer", extra={"event": "database_unavailable"})
                self.stopping.wait(DATABASE_SECONDS)
                continue
            except Exception:
                log.exception("a submission could not be handled", extra={"event": "work_failed"})
                self.stopping.wait(DATABASE_SECONDS)
                continue
            if not worked:
                self.stopping.wait(self.settings.poll_seconds)

    def step(self) -> bool:
        """Judge one submission; False when there was none."""
        task = leases.claim(Task, self.owner, self.settings.lease_seconds)
        if task is None:
            return False
        work = self._begin(task)
        if work is None:
            return True
        if work.attempts > self.settings.attempts:
            told = f"Judging was interrupted {self.settings.attempts} times and given up."
            self._finish(work, Outcome("failed", "failed", told))
            return True
        lease = Lease(task.id, self.owner, self.settings.lease_seconds)
        lease.start()
        try:
            outcome = self._judge(work, lease)
            self._finish(work, outcome)
        except Stopped:
            if self.stopping.is_set() and leases.give_back(Task, task.id, self.owner):
                self._status(work.sub_id, "pending")
        except Lost:
            log.info("the submission is somebody else's now", extra={"event": "lease_lost", "sub_id": work.sub_id})
        finally:
            lease.stop()
        return True

    def _begin(self, task: Task) -> Work | None:
        """What there is to do; None when the submission has gone meanwhile. The first one starts the job."""
        with database.session() as db:
            found = db.execute(
                select(Submission, Hackathon)
                .join(Hackathon, Hackathon.id == Submission.hack_id)
                .where(Submission.id == task.submission_id)
            ).one_or_none()
            if found is None:
                leases.settle(db, Task, task.id, self.owner, "cancelled")
                return None
            submission, hackathon = found
            if hackathon.status == "archived":  # it went between the request to judge it and now
                leases.settle(db, Task, task.id, self.owner, "cancelled", finished_at=time.time())
                close_if_done(db, task.job_id)
                return None
            db.execute(
                update(Job)
                .where(Job.id == task.job_id, Job.status == "queued")
                .values(status="running", started_at=time.time())
            )
            submission.status = "cloning"
            return Work(
                task_id=task.id,
                job_id=task.job_id,
                sub_id=submission.id,
                hack_id=hackathon.id,
                org_id=hackathon.org_id,
                repo_url=submission.repo_url,
                members=tuple(json.loads(submission.team_members)),
                rules=Rules(
                    Rubric.model_validate_json(hackathon.rubric),
                    tuple(json.loads(hackathon.agents)),
                    hackathon.ai_policy_mode,
                    json.loads(hackathon.ai_policy_config),
                    hackathon.start_date,
                    hackathon.end_date,
                    self.settings.price,
                ),
                attempts=task.attempts,
            )

    def _judge(self, work: Work, lease: "Lease") -> Outcome:
        def stopped() -> bool:
            return self.stopping.is_set() or lease.lost.is_set()

        def phase(name: str) -> None:
            if not leases.renew(Task, work.task_id, self.owner, self.settings.lease_seconds, phase=name):
                raise Lost
            if name == "reading":
                self._status(work.sub_id, "analyzing")

        with self.scratch.folder(work.sub_id) as folder:
            try:
                phase("cloning")
                cloned = clone(work.repo_url, folder, self.settings, stopped)
                card = scorecard.judge(
                    cloned,
                    folder,
                    work.rules,
                    members=work.members,
                    bounds=Bounds(self.settings.most_files, self.settings.tool_seconds),
                    llm=self._llm,
                    watch=Watch(stopped),
                    phase=phase,
                )
                phase("saving")
            except CloneTimeout as error:
                return Outcome("failed", "timeout", _sentence(error))
            except TooLong:
                return Outcome("failed", "timeout", "Reading the repository took too long.")
            except (CloneError, RepositoryError) as error:
                return Outcome("failed", "failed", _sentence(error))
            except Disqualified as error:
                return Outcome("failed", "disqualified", str(error), disqualification=str(error))
            except (Stopped, Lost, SQLAlchemyError):
                raise
            except Exception:
                log.exception("judging broke", extra={"event": "judging_broke", "sub_id": work.sub_id})
                return Outcome(
                    "failed", "failed", "Something broke on our side while judging; the worker's log says what."
                )
            return Outcome("done", "completed", card=card)

    @staticmethod
    def _status(sub_id: str, status: str) -> None:
        with database.session() as db:
            db.execute(update(Submission).where(Submission.id == sub_id).values(status=status))

    def _finish(self, work: Work, outcome: Outcome) -> None:
        """Write the result, once. Raises Lost when it is not ours to write."""
        while True:
            try:
                self._save(work, outcome)
            except SQLAlchemyError:
                # judged already: wait for the database as long as it takes; the lease decides whether the result still counts
                if self.stopping.wait(DATABASE_SECONDS):
                    raise
                log.warning(
                    "the result waits for the database", extra={"event": "database_unavailable", "sub_id": work.sub_id}
                )
                continue
            break
        extra = {"event": "judged", "sub_id": work.sub_id, "outcome": outcome.status, "reason": outcome.error or ""}
        log.info("submission judged", extra=extra)

    def _save(self, work: Work, outcome: Outcome) -> None:
        now = time.time()
        cost = float(outcome.card["total_cost_usd"]) if outcome.card else 0.0
        with database.session() as db:
            # the job first: everybody takes these locks in one order
            db.execute(select(Job.id).where(Job.id == work.job_id).with_for_update()).all()
            mine = leases.settle(
                db,
                Task,
                work.task_id,
                self.owner,
                outcome.state,
                phase="ended",
                cost_usd=cost,
                error=outcome.error,
                finished_at=now,
            )
            if not mine:
                raise Lost
            db.execute(
                update(Submission)
                .where(Submission.id == work.sub_id)
                .values(
                    status=outcome.status,
                    error_message=outcome.error if outcome.status != "disqualified" else None,
                    disqualification_reason=outcome.disqualification,
                    overall_score=outcome.card["overall_score"] if outcome.card else None,
                    total_cost_usd=Submission.total_cost_usd + cost,
                    analyzed_at=now,
                )
            )
            old = db.get(Scorecard, work.sub_id)
            if old is not None:
                db.delete(old)
                db.flush()
            if outcome.card is not None:
                db.add(Scorecard(submission_id=work.sub_id, data=json.dumps(outcome.card), created_at=now))
                keys.add_use(db, work.org_id, cost_usd=cost)
            db.flush()
            close_if_done(db, work.job_id)


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."[:500]


class Lease(threading.Thread):
    """Renews a lease until it is stopped; `lost` is set when it is somebody else's, or could not be renewed in its time."""

    def __init__(self, task_id: int, owner: str, seconds: float) -> None:
        super().__init__(name=f"lease-{task_id}", daemon=True)
        self.lost = threading.Event()
        self._task_id, self._owner, self._lease_seconds = task_id, owner, seconds
        self._end = threading.Event()

    def run(self) -> None:
        """Renew three times in each lease."""
        while not self._end.wait(self._lease_seconds / 3):
            try:
                if not leases.renew(Task, self._task_id, self._owner, self._lease_seconds):
                    self.lost.set()
                    return
            except SQLAlchemyError as error:  # nobody else can take it either while the database is away
                log.warning("a lease could not be renewed: %s", type(error).__name__)

    def stop(self) -> None:
        """Renew no more."""
        self._end.set()


def main() -> None:
    """Work until SIGTERM or SIGINT."""
    settings = get_settings(JudgeSettings)
    logs.configure(settings=settings)
    if not settings.on_host:  # on a host the release's preparation has done it
        migrate.ensure(settings)
    worker = Worker(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    runner = threading.Thread(target=worker.run, name="worker")
    runner.start()
    while runner.is_alive():  # the main thread stays free for signals
        runner.join(0.5)


if __name__ == "__main__":
    main()
