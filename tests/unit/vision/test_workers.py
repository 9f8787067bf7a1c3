"""Several real workers: every counter equals what happened, a hundred at once are answered, and memory stays bounded."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from app.core.storage import FolderStorage

ROOT = Path(__file__).resolve().parents[3]
WORKERS = 2
MOST_MB = 1024  # limits.memory of the manifest


@pytest.fixture
def server(state: Path, storage: FolderStorage, starter: list[str], tmp_path: Path) -> Iterator[tuple[httpx.Client, int]]:  # fmt: skip
    """The API under gunicorn as on a host, on a unix socket; gives a client and the parent's pid."""
    path, log = tmp_path / "api.sock", (tmp_path / "log").open("wb")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "gunicorn", "--config", "python:app.core.gunicorn_conf"]
    process = subprocess.Popen(
        [*command, f"--workers={WORKERS}", f"--bind=unix:{path}", "app.vision.api:app"],
        cwd=ROOT,
        env=environment,
        stdout=log,
        stderr=log,
    )
    # a new connection for each request, as nginx does: any worker may get it
    transport = httpx.HTTPTransport(uds=str(path), retries=1, limits=httpx.Limits(max_keepalive_connections=0))
    client = httpx.Client(transport=transport, base_url="http://vision", timeout=240)
    try:
        _wait(client, process, tmp_path / "log")
        yield client, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        client.close()


def _wait(client: httpx.Client, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail(f"the workers did not become ready:\n{log.read_text()[-3000:]}")


def samples(client: httpx.Client, name: str) -> dict[str, float]:
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(name)]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def memory_mb(pid: int) -> float:
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(one.memory_info().rss for one in family) / 1024**2


@pytest.mark.timeout(600)
def test_a_hundred_at_once_are_answered_counted_and_fit_into_memory(
    server: tuple[httpx.Client, int], clean: bytes, dirty: bytes
) -> None:
    client, pid = server
    wanted = [(clean, "clean")] * 40 + [(dirty, "dirty")] * 50 + [(b"no picture", "")] * 10
    most = 0.0

    def ask(number: int) -> tuple[int, str]:
        data, _ = wanted[number]
        # another visitor each time: it is not the rate limit that is tested here
        headers = {"X-Real-IP": f"10.0.0.{number}"}
        answer = client.post(
            "/api/v1/classify/single", files={"image": ("x", data)}, data={"model_type": "fast"}, headers=headers
        )
        return answer.status_code, answer.json().get("result", {}).get("predicted_class", "")

    with ThreadPoolExecutor(100) as pool:
        running = [pool.submit(ask, number) for number in range(len(wanted))]
        while not all(one.done() for one in running):
            most = max(most, memory_mb(pid))
            time.sleep(0.1)
        found = [one.result() for one in running]
    assert found == [(200, label) if label else (400, "") for _, label in wanted]
    assert samples(client, "vision_classifications_total{") == {
        'vision_classifications_total{model_type="fast",predicted_class="clean"}': 40,
        'vision_classifications_total{model_type="fast",predicted_class="dirty"}': 50,
    }
    assert samples(client, "vision_refusals_total{") == {'vision_refusals_total{reason="not_an_image"}': 10}
    assert samples(client, "ClassificationLatency_count") == {"ClassificationLatency_count": 90}
    requests = samples(client, "http_requests_total{")
    single = {name: value for name, value in requests.items() if "classify/single" in name}
    assert sorted(single.values()) == [10, 90]
    assert len(psutil.Process(pid).children()) == WORKERS
    assert most < MOST_MB, f"{most:.0f} MB"
