"""What becomes of a rehearsal whose process ended without `down`: the next one says so and starts clean."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from tests.unit.rehearsal.conftest import free_port

ROOT = Path(__file__).resolve().parents[2]
NAME = "restart-test"

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


class Rehearsal:
    """A rehearsal with nothing in it, and the commands of whoever runs it."""

    def __init__(self, state: Path) -> None:
        self.state, self.port = state, free_port()

    def command(self, *words: str) -> str:
        line = [sys.executable, "-m", "rehearsal", "--state", str(self.state), *words]
        return subprocess.run(line, cwd=ROOT, check=True, capture_output=True, text=True, timeout=180).stdout

    def up(self) -> str:
        return self.command("up", "--name", NAME, "--port", str(self.port))

    def kill(self) -> None:
        """End the process at once, as the machine's end would."""
        pid = int((self.state / "pid").read_text())
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def buckets(self) -> list[str]:
        keys = {"aws_access_key_id": "rehearsal", "aws_secret_access_key": "rehearsal"}
        s3 = boto3.client("s3", region_name="us-east-1", endpoint_url=f"http://127.0.0.1:{self.port}", **keys)
        if not (found := [row["Name"] for row in s3.list_buckets()["Buckets"]]):
            s3.create_bucket(Bucket="kept")
        return found


@pytest.fixture
def rehearsal(tmp_path: Path) -> Iterator[Rehearsal]:
    if os.geteuid() != 0:
        pytest.skip("instances need root (network namespaces)")
    made = Rehearsal(tmp_path / "state")
    yield made
    made.command("down")


def test_after_a_kill_the_next_one_says_what_it_removed_and_starts_with_an_empty_account(rehearsal: Rehearsal) -> None:
    assert "starts empty" not in rehearsal.up()
    assert rehearsal.buckets() == []
    assert "runs already" in rehearsal.up()
    assert rehearsal.buckets() == ["kept"]
    subprocess.run(
        ["docker", "network", "create", f"--label=rehearsal={NAME}", f"{NAME}-left"], check=True, capture_output=True
    )
    rehearsal.kill()
    said = rehearsal.up()
    assert "an earlier rehearsal ended without `down`: 0 containers and 1 networks removed" in said
    assert "the account starts empty: nothing is kept from the last rehearsal" in said
    assert rehearsal.buckets() == []
