"""Metrics, in one process and under real gunicorn workers."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from app.core import metrics

ROOT = Path(__file__).resolve().parents[3]
APP = """
import os
from app.core import metrics
from app.core.api import create_api
from app.core.ratelimit import RateLimitMiddleware

work = metrics.counter("work_done", "Work", ("kind",))
alive = metrics.gauge("workers_alive", "Workers")
seconds = metrics.histogram("work_seconds", "Seconds of work", buckets=(0.1, 1.0))
app = create_api("Demo")
app.add_middleware(RateLimitMiddleware, limit=200, seconds=3600)

@app.get("/work")
async def do() -> dict[str, int]:
    work.labels("test").inc()
    seconds.observe(0.5)
    alive.set(1)
    return {"pid": os.getpid()}

@app.get("/suicide")
async def suicide() -> None:
    os.kill(os.getpid(), 9)
"""


@dataclass
class Served:
    process: subprocess.Popen[bytes]
    socket: Path
    folder: Path
    log: Path
    client: httpx.Client

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.client.get(path, headers={"X-Real-IP": "192.0.2.1", **headers})

    def value(self, line: str) -> float:
        text = self.get("/metrics").text
        found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
        assert found, text
        return float(found[1])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "demo_api.py").write_text(APP)
    socket, folder, log = tmp_path / "api.sock", tmp_path / "metrics", tmp_path / "log"
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
        "PERGOLA_APP": "demo",
        "PERGOLA_STATE_DIR": str(tmp_path / "state"),
        "PROMETHEUS_MULTIPROC_DIR": str(folder),
        "GUNICORN_CMD_ARGS": f"--workers 3 --bind unix:{socket} --timeout 30",
    }
    command = [sys.executable, "-m", "gunicorn", "--config", "python:app.core.gunicorn_conf", "demo_api:app"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=output)
    # a new connection for each request, as nginx does: any worker may get it
    transport = httpx.HTTPTransport(uds=str(socket), verify=False, limits=httpx.Limits(max_keepalive_connections=0))
    client = httpx.Client(transport=transport, base_url="http://demo", timeout=30)
    made = Served(process, socket, folder, log, client)
    deadline = time.monotonic() + 60
    while log.read_text().count("Application startup complete") < 3:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    yield made
    client.close()
    process.terminate()
    assert process.wait(30) == 0, log.read_text()


def test_workers_add_up_whoever_is_asked_and_whoever_dies(served: Served) -> None:
    with ThreadPoolExecutor(8) as pool:
        pids = [answer.json()["pid"] for answer in pool.map(served.get, ["/work"] * 120)]
    assert len(set(pids)) == 3, "the test needs every worker to have worked"
    for _ in range(6):  # whichever worker answers
        assert served.value('work_done_total{kind="test"}') == 120
    assert served.value("work_seconds_count") == 120
    assert served.value('work_seconds_bucket{le="0.1"}') == 0
    assert served.value("workers_alive") == 3
    assert served.get("/health/status").json()["requests"] == 120

    victim = pids[0]
    os.kill(victim, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while served.value("workers_alive") == 3:
        assert time.monotonic() < deadline, served.log.read_text()
        time.sleep(0.2)
    assert served.value("workers_alive") == 2
    assert served.value('work_done_total{kind="test"}') == 120
    assert served.get("/work").status_code == 200
    assert served.value('work_done_total{kind="test"}') == 121

    lines = served.log.read_text().splitlines()
    assert all(line.startswith("{") for line in lines), served.log.read_text()
    assert sum('"message": "GET /work 200"' in line for line in lines) == 121  # each request is logged once


def test_a_limit_holds_over_all_workers(served: Served) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(served.get, ["/work"] * 240))
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(200) == 200
    assert statuses.count(429) == 40
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["retry-after"]) > 0
    assert refused.headers["content-type"] == "application/problem+json"
    assert served.get("/work", **{"X-Real-IP": "192.0.2.2"}).status_code == 200
    assert served.get("/health").status_code == 200


def test_what_the_background_worker_counts_is_told_by_the_api(tmp_path: Path) -> None:
    script = (
        "from app.core import metrics; metrics.counter('Jobs', 'Jobs').inc({}); print(metrics.exposition().decode())"
    )

    def counted(kind: str, number: int) -> str:
        environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / f"ava-a-{kind}")}
        command = [sys.executable, "-c", script.format(number)]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout

    assert "Jobs_total 1.0" in counted("worker", 1), "its own"
    counted("ui", 100)
    told = counted("api", 2)
    assert "Jobs_total 3.0" in told
    assert told.count("# TYPE Jobs_total") == 1


def test_one_name_is_one_metric() -> None:
    first = metrics.counter("test_one", "One", ("a",))
    assert metrics.counter("test_one", "One", ("a",)) is first
    with pytest.raises(ValueError, match="test_one exists already"):
        metrics.counter("test_one", "One", ("b",))
    with pytest.raises(ValueError, match="test_one exists already"):
        metrics.gauge("test_one", "One", ("a",))


def test_a_total_is_over_the_labels_that_count() -> None:
    counted = metrics.counter("test_total", "Total", ("kind",))
    counted.labels("a").inc(3)
    counted.labels("b").inc(4)
    assert metrics.total("test_total") == 7
    assert metrics.total("test_total", lambda labels: labels["kind"] == "b") == 4
    assert metrics.total("test_nothing") == 0
    assert b'test_total{kind="b"} 4.0' in metrics.exposition()
    assert b"_created" not in metrics.exposition()


def test_a_distribution_has_mean_and_quantiles() -> None:
    waits = metrics.histogram("test_waits_seconds", "Waits", ("kind",), buckets=(0.1, 0.2, 0.4))
    assert metrics.distribution("test_waits_seconds").mean is None
    assert metrics.distribution("test_waits_seconds").quantile(0.5) is None
    for value in (0.05, 0.15, 0.15, 0.3):
        waits.labels("a").observe(value)
    waits.labels("b").observe(5.0)
    found = metrics.distribution("test_waits_seconds", lambda labels: labels["kind"] == "a")
    assert found.count == 4
    assert found.mean == pytest.approx(0.1625)
    assert found.quantile(0.5) == pytest.approx(0.15)
    assert found.quantile(1.0) == pytest.approx(0.4)
    assert metrics.distribution("test_waits_seconds").quantile(0.99) == pytest.approx(0.4)
