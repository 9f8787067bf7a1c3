"""Rate limits: right in a process, over processes, and when the table is full."""

import subprocess
import sys
from pathlib import Path

import pytest
from fastapi import Depends
from fastapi.testclient import TestClient

from app.core import ratelimit
from app.core.api import create_api
from app.core.ratelimit import Counters, RateLimit, RateLimitMiddleware

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def counters(tmp_path: Path) -> Counters:
    return Counters(tmp_path / "deep" / "table")


def test_a_window_has_its_limit_and_then_begins_again(counters: Counters) -> None:
    told = [counters.count(b"me", 3, 60, now=1000.0) for _ in range(5)]
    assert [verdict.allowed for verdict in told] == [True, True, True, False, False]
    assert [verdict.remaining for verdict in told] == [2, 1, 0, 0, 0]
    assert {verdict.reset for verdict in told} == {20}  # the window of 60 s ends at 1020
    assert counters.count(b"me", 3, 60, now=1019.9).reset == 1
    assert counters.count(b"me", 3, 60, now=1020.0).remaining == 2


def test_visitors_and_windows_do_not_share(counters: Counters) -> None:
    for n in range(500):
        assert counters.count(b"visitor %d" % n, 1, 60, now=1000.0).allowed
        assert counters.count(b"visitor %d hourly" % n, 1, 3600, now=1000.0).allowed
    assert sum(counters.count(b"visitor %d" % n, 1, 60, now=1001.0).allowed for n in range(500)) == 0
    assert sum(counters.count(b"visitor %d hourly" % n, 1, 3600, now=1030.0).allowed for n in range(500)) == 0


def test_a_full_table_forgets_those_who_ask_least(counters: Counters, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratelimit, "_ROWS", 8)
    for _ in range(50):
        counters.count(b"greedy", 50, 60, now=1000.0)
    for n in range(500):
        counters.count(b"passer-by %d" % n, 50, 60, now=1000.0)
    assert not counters.count(b"greedy", 50, 60, now=1000.0).allowed


def test_processes_share_one_count(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from app.core.ratelimit import Counters\n"
        f"table = Counters(Path({str(tmp_path / 'table')!r}))\n"
        "print(sum(table.count(b'me', 1000, 3600, now=7200.0).allowed for _ in range(400)))\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    allowed = [int(process.communicate(timeout=60)[0]) for process in running]
    assert sum(allowed) == 1000
    assert len(allowed) == 4


@pytest.mark.parametrize(("limit", "seconds"), [(0, 1), (1, 0), (-1, 60)])
def test_a_limit_that_allows_nothing_is_refused(limit: int, seconds: int) -> None:
    with pytest.raises(ValueError, match="at least 1 request"):
        RateLimit(limit, seconds)


def test_a_route_and_an_api_can_be_limited() -> None:
    app = create_api("Demo")
    app.add_middleware(RateLimitMiddleware, limit=5, seconds=3600)

    @app.get("/upload", dependencies=[Depends(RateLimit(2, 3600, "upload"))])
    def upload() -> int:
        return 1

    @app.get("/other")
    def other() -> int:
        return 1

    client = TestClient(app)
    assert [client.get("/upload").status_code for _ in range(3)] == [200, 200, 429]
    told = client.get("/other")
    assert told.headers["x-ratelimit-limit"] == "5"
    assert told.headers["x-ratelimit-remaining"] == "1"
    assert client.get("/other").status_code == 200
    refused = client.get("/other")
    assert refused.status_code == 429
    assert refused.headers["x-request-id"] == refused.json()["request_id"]
    assert 0 < int(refused.headers["retry-after"]) <= 3600
    assert "Try again in" in refused.json()["detail"]
    for path in ("/health", "/health/ready", "/metrics"):
        assert "x-ratelimit-limit" not in client.get(path).headers
