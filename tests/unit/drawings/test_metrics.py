"""Metrics equal what happened: known operations through several worker processes, then every counter is compared."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from app.core import migrate
from app.core.encoder import Encoder
from app.core.settings import get_settings
from app.core.storage import FolderStorage
from app.drawings import prepare

from .conftest import PASSWORD, V1, picture

ROOT = Path(__file__).resolve().parents[3]
WORKERS = 2


@pytest.fixture
def served(state: Path, storage: FolderStorage, encoder: Encoder, tmp_path: Path) -> Iterator[tuple[httpx.Client, int]]:
    """The API under gunicorn as on a host, with several workers."""
    migrate.ensure(get_settings())
    prepare.unpack(storage, encoder.sha256)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    command = [sys.executable, "-m", "gunicorn", "-c", "app/core/gunicorn_conf.py", "-k", "uvicorn_worker.UvicornWorker",
               "--workers", str(WORKERS), "--bind", f"127.0.0.1:{port}", "app.drawings.api:app"]  # fmt: skip
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(metrics), "DRAWINGS_BACKUP_HOURS": "1000"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=(tmp_path / "log").open("wb"))
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
    deadline = time.monotonic() + 120
    while True:
        try:
            if client.get("/health/ready").status_code == 200:
                break
        except httpx.TransportError:
            pass
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.2)
    yield client, port
    client.close()
    process.send_signal(signal.SIGTERM)
    process.wait(60)


def sample(text: str, name: str) -> dict[str, float]:
    found = re.findall(rf"^{name}(?:\{{(.*?)\}})? (\S+)$", text, re.MULTILINE)
    return {labels: float(value) for labels, value in found}


@pytest.mark.timeout(400)
def test_counters_equal_what_happened_over_several_workers(served: tuple[httpx.Client, int]) -> None:
    client, port = served
    token = client.post("/auth/api/login", json={"password": PASSWORD}).json()["session_token"]
    bearer = {"Authorization": f"Bearer {token}"}
    requests = 1
    ages = [3.5, 5.5, 7.5, 5.5, 3.5, 8.5, 5.5, 10.0]
    made: list[dict[str, object]] = []

    def one(number: int) -> dict[str, object]:
        # a connection of its own for each, so that the workers share the work
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as own:
            answer = own.post(
                f"{V1}/drawings/upload",
                files={"file": ("a.png", picture(number, ages[number]))},
                data={"age_years": str(ages[number]), "subject": "cat"},
            )
            told = own.post(f"{V1}/analysis/analyze/{answer.json()['id']}").json()
            for page in ("demo", "upload"):
                assert (
                    own.post(
                        f"{V1}/metrics/page-view", json={"page": page, "session": f"session-{number % 3}"}
                    ).status_code
                    == 204
                )
            assert own.get(f"{V1}/config/").status_code == 401
            return dict(told["analysis"])

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(one, range(len(ages))))
    requests += 5 * len(ages)
    again = client.post(f"{V1}/analysis/analyze/{'0' * 32}")
    assert again.status_code == 404
    requests += 1

    text = client.get("/metrics").text
    told = sample(text, "AnalysisCount_total")
    expected = Counter((str(one["age_group"]), str(one["is_anomaly"]).lower()) for one in made)
    counted = {
        (re.search('AgeGroup="(.*?)"', labels)[1], re.search('AnomalyDetected="(.*?)"', labels)[1]): value  # type: ignore[index]
        for labels, value in told.items()
    }
    assert counted == {key: float(value) for key, value in expected.items()}
    assert sample(text, "ProcessingTime_count") == {"": float(len(ages))}
    assert sum(sample(text, "PageViews_total").values()) == 2 * len(ages)
    assert sample(text, "ResponseTime_count") == {"": float(requests)}
    assert sum(sample(text, "ErrorCount_total").values()) == 0

    usage = client.get(f"{V1}/metrics/usage", headers=bearer).json()
    assert (usage["page_views"], usage["analyses"], usage["sessions"]) == (2 * len(ages), len(ages), 3)
    performance = client.get(f"{V1}/metrics/performance", headers=bearer).json()
    assert performance["analyses"] == len(ages)
    assert performance["requests"] == requests + 1  # the question about usage
    assert performance["errors"] == 0
    assert performance["anomalies"] == sum(bool(one["is_anomaly"]) for one in made)
    assert performance["processing_seconds"]["count"] == len(ages)
