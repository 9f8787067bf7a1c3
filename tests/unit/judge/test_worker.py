"""The queue and the worker: killed with SIGKILL in every phase, asked to stop, slow, late; nothing is lost and nothing is done twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update

from app.core import database, leases
from app.judge import worker as working
from app.judge.jobs import close_if_done
from app.judge.settings import JudgeSettings
from app.judge.tables import Job, Scorecard, Submission, Task, UsageDay
from app.judge.worker import Outcome, Scratch, Worker

from .conftest import V1, make, submit
from .repositories import ADA, SOURCE, START, Made, build

ROOT = Path(__file__).resolve().parents[3]
EACH = 0.008  # US dollars
GATE = """#!/bin/sh
for name in ls-remote clone ls-tree log; do
  case " $* " in *" $name "*) while [ -e {gates}/$name ]; do sleep 0.02; done;; esac
done
exec {git} "$@"
"""
TOOL = """#!/bin/sh
while [ -e {gates}/eslint ]; do sleep 0.02; done
echo '[]'
"""


@pytest.fixture
def gates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git and an eslint that wait while a file of that name is there: so a worker can be met in a phase."""
    folder, programs = tmp_path / "gates", tmp_path / "programs"
    folder.mkdir()
    programs.mkdir()
    for name, text in (
        ("git", GATE.format(gates=folder, git=shutil.which("git"))),
        ("eslint", TOOL.format(gates=folder)),
    ):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Start a real worker process."""
    monkeypatch.setenv("JUDGE_LEASE_SECONDS", "1")
    monkeypatch.setenv("JUDGE_POLL_SECONDS", "0.1")
    running: list[subprocess.Popen[bytes]] = []

    def begin() -> subprocess.Popen[bytes]:
        log = (tmp_path / f"worker-{len(running)}.log").open("wb")
        process = subprocess.Popen([sys.executable, "-m", "app.judge.worker"], cwd=ROOT, stderr=log)
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.wait(10)


def wait(what: Callable[[], bool], seconds: float = 40.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def phase() -> str | None:
    with database.session(read_only=True) as db:
        return db.scalar(select(Task.phase).where(Task.state == leases.WORKING))


def all_done(api: TestClient, hack_id: str) -> bool:
    return api.get(f"{V1}/hackathons/{hack_id}/analyze/status").json()["status"] == "completed"


def queued(api: TestClient, repos: Path, count: int) -> tuple[str, list[str]]:
    for number in range(count):
        build(
            repos / "team" / f"r{number}",
            [Made(ADA, START, "Count the votes at last", {"a.py": SOURCE, "b.js": "let a = 1;\n"})],
        )
    hack_id = make(api)
    ids = submit(api, hack_id, *(f"r{number}" for number in range(count)))
    assert api.post(f"{V1}/hackathons/{hack_id}/analyze").status_code == 202
    return hack_id, ids


def check_once(api: TestClient, hack_id: str, count: int) -> None:
    """Everything was judged, and every effect is there exactly once."""
    state = api.get(f"{V1}/hackathons/{hack_id}/analyze/status").json()
    assert state["progress"] == {
        "total_submissions": count,
        "completed": count,
        "failed": 0,
        "remaining": 0,
        "percent_complete": 100.0,
    }
    with database.session(read_only=True) as db:
        assert db.scalar(select(func.count()).select_from(Scorecard)) == count
        costs = db.scalars(select(Submission.total_cost_usd)).all()
        used = db.scalar(select(func.sum(UsageDay.cost_usd)))
    assert costs == pytest.approx([EACH] * count)
    assert used == pytest.approx(EACH * count)


@pytest.mark.parametrize(("gate", "met"), [("clone", "cloning"), ("log", "reading"), ("eslint", "tools")])
def test_killed_in_a_phase_another_takes_over(
    api: TestClient,
    repos: Path,
    gates: Path,
    start: Callable[[], subprocess.Popen[bytes]],
    state: Path,
    gate: str,
    met: str,
) -> None:
    hack_id, _ = queued(api, repos, 1)
    (gates / gate).touch()
    first = start()
    wait(lambda: phase() == met)
    time.sleep(0.1)
    first.kill()
    assert first.wait(10) == -signal.SIGKILL
    (gates / gate).unlink()
    assert not all_done(api, hack_id)
    start()
    wait(lambda: all_done(api, hack_id))
    check_once(api, hack_id, 1)
    with database.session(read_only=True) as db:
        assert db.scalars(select(Task.attempts)).all() == [2]
    wait(lambda: len(list((state / "scratch").iterdir())) == 1)  # what the dead one left has been removed
    programs = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(gates.parent / "programs") not in programs  # its children died with it


def test_killed_again_and_again_at_any_moment(
    api: TestClient, repos: Path, start: Callable[[], subprocess.Popen[bytes]]
) -> None:
    hack_id, _ = queued(api, repos, 6)
    for pause in (1.3, 1.7, 2.2):
        process = start()
        time.sleep(pause)
        process.kill()
        process.wait(10)
    start()
    start()
    wait(lambda: all_done(api, hack_id), 90)
    check_once(api, hack_id, 6)


def test_asked_to_stop_it_gives_back_and_ends(
    api: TestClient, repos: Path, gates: Path, start: Callable[[], subprocess.Popen[bytes]], state: Path
) -> None:
    hack_id, ids = queued(api, repos, 1)
    (gates / "clone").touch()
    process = start()
    wait(lambda: phase() == "cloning")
    began = time.monotonic()
    process.terminate()
    assert process.wait(10) == 0
    assert time.monotonic() - began < 5
    with database.session(read_only=True) as db:
        assert db.execute(select(Task.state, Task.attempts, Task.lease_until)).one() == ("waiting", 0, 0.0)
    assert api.get(f"{V1}/submissions/{ids[0]}").json()["status"] == "pending"
    assert list((state / "scratch").iterdir()) == []
    (gates / "clone").unlink()
    start()
    wait(lambda: all_done(api, hack_id))
    check_once(api, hack_id, 1)


def test_an_api_restart_loses_nothing(
    make_api: Callable[[], TestClient],
    api: TestClient,
    repos: Path,
    gates: Path,
    start: Callable[[], subprocess.Popen[bytes]],
) -> None:
    hack_id, _ = queued(api, repos, 2)
    (gates / "ls-remote").touch()
    start()
    wait(lambda: phase() == "cloning")
    again = make_api_without_copy(make_api)
    again.headers["X-API-Key"] = api.headers["X-API-Key"]
    told = again.get(f"{V1}/hackathons/{hack_id}/analyze/status").json()
    assert (told["status"], told["progress"]["remaining"]) == ("running", 2)
    assert told["current_submission"] == "Team r0"
    assert again.get(f"{V1}/hackathons/{hack_id}").json()["status"] == "analyzing"
    assert again.post(f"{V1}/hackathons/{hack_id}/analyze").status_code == 409
    (gates / "ls-remote").unlink()
    wait(lambda: all_done(again, hack_id))
    check_once(again, hack_id, 2)
    assert again.get(f"{V1}/hackathons/{hack_id}").json()["status"] == "completed"


def make_api_without_copy(make_api: Callable[[], TestClient]) -> TestClient:
    """Another API process on the same data."""
    from .conftest import load_api

    del make_api
    return TestClient(load_api(), base_url="https://judge.example")


def test_many_workers_never_take_the_same(api: TestClient, repos: Path) -> None:
    queued(api, repos, 1)
    with database.session() as db:
        first = db.scalars(select(Task)).one()
        for _ in range(39):
            db.add(Task(job_id=first.job_id, submission_id=first.submission_id, state="waiting", owner="", lease_until=0.0, attempts=0,
                        phase="", cost_usd=0.0, error=None, created_at=0.0, finished_at=None))  # fmt: skip

    def take(name: int) -> list[int]:
        mine = []
        while (task := leases.claim(Task, str(name), 30)) is not None:
            mine.append(task.id)
        return mine

    with ThreadPoolExecutor(6) as pool:
        taken = [one for mine in pool.map(take, range(6)) for one in mine]
    assert len(taken) == len(set(taken)) == 40


def test_a_lease_ends_and_a_late_result_does_not_count(api: TestClient, repos: Path, settings: JudgeSettings) -> None:
    hack_id, ids = queued(api, repos, 1)
    slow, quick = Worker(settings), Worker(settings)
    task = leases.claim(Task, slow.owner, 30)
    assert task is not None
    late = slow._begin(task)
    assert late is not None
    assert leases.claim(Task, quick.owner, 30) is None
    with database.session() as db:
        db.execute(update(Task).values(lease_until=time.time() - 1))
    assert quick.step() is True
    assert leases.renew(Task, task.id, slow.owner, 30) is False
    before = api.get(f"{V1}/submissions/{ids[0]}/scorecard").json()
    with pytest.raises(working.Lost):
        slow._finish(late, Outcome("failed", "failed", "too late"))
    assert leases.give_back(Task, task.id, slow.owner) is False
    assert api.get(f"{V1}/submissions/{ids[0]}/scorecard").json() == before
    check_once(api, hack_id, 1)
    slow.scratch.close()
    quick.scratch.close()


def test_a_submission_that_kills_its_workers_is_given_up(api: TestClient, repos: Path, settings: JudgeSettings) -> None:
    hack_id, ids = queued(api, repos, 1)
    for _ in range(settings.attempts):
        assert leases.claim(Task, "dead", -1) is not None
    worker = Worker(settings)
    assert worker.step() is True
    worker.scratch.close()
    told = api.get(f"{V1}/submissions/{ids[0]}").json()
    assert told["status"] == "failed"
    assert told["error_message"] == "Judging was interrupted 5 times and given up."
    assert api.get(f"{V1}/hackathons/{hack_id}/analyze/status").json()["status"] == "failed"


def test_a_lease_is_renewed_while_a_submission_takes_long(
    api: TestClient, repos: Path, gates: Path, monkeypatch: pytest.MonkeyPatch, settings: JudgeSettings
) -> None:
    hack_id, _ = queued(api, repos, 1)
    (gates / "clone").touch()
    worker = Worker(settings.model_copy(update={"lease_seconds": 0.6}))
    with ThreadPoolExecutor(1) as pool:
        judging = pool.submit(worker.step)
        time.sleep(2.0)  # more than three leases
        assert leases.claim(Task, "other", 30) is None
        (gates / "clone").unlink()
        assert judging.result(30)
    worker.scratch.close()
    check_once(api, hack_id, 1)


def test_a_job_closes_once_and_only_at_its_end(api: TestClient, repos: Path) -> None:
    queued(api, repos, 2)
    with database.session() as db:
        job = db.scalars(select(Job)).one()
        assert close_if_done(db, job.id) is False
        db.execute(update(Task).values(state="done"))
        assert close_if_done(db, job.id) is True
        assert close_if_done(db, job.id) is False
        assert close_if_done(db, "01ARZ3NDEKTSV4RRFFQ69G5FAV") is False


def test_scratch_of_living_workers_stays(tmp_path: Path) -> None:
    tmp_path = tmp_path / "scratch"
    tmp_path.mkdir()
    one = Scratch(tmp_path, "one")
    (tmp_path / "dead").mkdir()
    (tmp_path / "dead" / "lock").touch()
    two = Scratch(tmp_path, "two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    one.close()
    assert two.sweep() == 0
    two.close()
    assert list(tmp_path.iterdir()) == []
