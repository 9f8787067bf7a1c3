"""An app of its own for every test. Repositories are cloned from a folder, as from a git host, by the setting for a mirror."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.core.migrate import histories, upgrade
from app.core.settings import get_settings
from app.judge.settings import JudgeSettings
from tests.unit.judge import repositories
from tests.unit.processes import forget

V1 = "/api/v1"
PASSWORD = "correct horse"
RUBRIC = {
    "name": "Standard",
    "version": "1.0",
    "max_score": 100,
    "dimensions": [
        {"name": "Code", "weight": 0.4, "agent": "bug_hunter", "description": "Is it good?"},
        {"name": "Build", "weight": 0.3, "agent": "performance", "description": ""},
        {"name": "Idea", "weight": 0.2, "agent": "innovation", "description": ""},
        {"name": "Own work", "weight": 0.1, "agent": "ai_detection", "description": ""},
    ],
}
AGENTS = ["bug_hunter", "performance", "innovation", "ai_detection"]


def hackathon(**more: Any) -> dict[str, Any]:
    """A hackathon to make."""
    return {
        "name": "Spring Hack",
        "description": "Forty hours.",
        "start_date": "2025-10-01T00:00:00Z",
        "end_date": "2099-10-12T00:00:00Z",
        "rubric": RUBRIC,
        "agents_enabled": AGENTS,
        "ai_policy_mode": "ai_assisted",
        "budget_limit_usd": 50,
        **more,
    }


def isolate(patch: pytest.MonkeyPatch, folder: Path, repos: Path) -> None:
    """Point this process at a place of its own."""
    for name in list(os.environ):
        if name.startswith(("PERGOLA_", "JUDGE_", "API_BASE_URL")) and name != "PERGOLA_SHARED_DATA":
            patch.delenv(name)
    patch.setenv("PERGOLA_APP", "judge")
    patch.setenv("PERGOLA_STATE_DIR", str(folder))
    patch.setenv("PERGOLA_BASE_PATH", "/")
    patch.setenv("JUDGE_MIRROR", f"file://{repos}")
    patch.setenv("JUDGE_DEFAULT_TIER", "enterprise")
    for name in ("REGISTER_PER_HOUR", "LOGIN_PER_MINUTE", "PUBLIC_PER_MINUTE"):
        patch.setenv(f"JUDGE_{name}", "100000")
    forget()


@pytest.fixture
def repos(tmp_path: Path) -> Path:
    """The folder that stands for a git host."""
    (tmp_path / "repos" / "team").mkdir(parents=True)
    return tmp_path / "repos"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, repos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    isolate(monkeypatch, tmp_path / "state", repos)
    return tmp_path / "state"


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with every table and no row: copying it is quicker than migrating anew for every test."""
    folder = tmp_path_factory.mktemp("empty")
    path = folder / "judge.db"
    upgrade(f"sqlite:///{path}", histories("judge"))
    return path


@pytest.fixture
def settings(state: Path) -> JudgeSettings:
    return get_settings(JudgeSettings)


def load_api() -> Any:
    """The API as a new process would make it."""
    forget()
    for name in [name for name in sys.modules if name == "app.judge.api"]:
        sys.modules.pop(name)
    return importlib.import_module("app.judge.api").app


@pytest.fixture
def make_api(state: Path, empty_database: Path) -> Iterator[Callable[[], TestClient]]:
    state.mkdir()
    shutil.copy(empty_database, state / "judge.db")
    opened: list[TestClient] = []

    def made() -> TestClient:
        client = TestClient(load_api(), base_url="https://judge.example")
        client.__enter__()
        opened.append(client)
        return client

    yield made
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def anonymous(make_api: Callable[[], TestClient]) -> TestClient:
    return make_api()


def register(client: TestClient, email: str = "ada@example.org") -> dict[str, Any]:
    answer = client.post(f"{V1}/organizers", json={"email": email, "name": "Ada", "password": PASSWORD})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


@pytest.fixture
def api(anonymous: TestClient) -> TestClient:
    """The API for an organizer."""
    anonymous.headers["X-API-Key"] = register(anonymous)["api_key"]
    return anonymous


def make(api: TestClient, **more: Any) -> str:
    answer = api.post(f"{V1}/hackathons", json=hackathon(**more))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["hack_id"])


def submit(api: TestClient, hack_id: str, *names: str, members: list[str] | None = None) -> list[str]:
    rows = [
        {"team_name": f"Team {name}", "repo_url": f"https://github.com/team/{name}", "team_members": members or []}
        for name in names
    ]
    answer = api.post(f"{V1}/hackathons/{hack_id}/submissions", json={"submissions": rows})
    assert answer.status_code == 201, answer.text
    return [row["sub_id"] for row in answer.json()["submissions"]]


def work_off() -> int:
    """Judge everything that waits, in this process; how many."""
    from app.judge.worker import Worker

    worker = Worker(get_settings(JudgeSettings))
    done = 0
    while worker.step():
        done += 1
    worker.scratch.close()
    return done


__all__ = ["V1", "hackathon", "make", "register", "repositories", "submit", "work_off"]
