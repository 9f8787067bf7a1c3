"""What becomes of a rehearsal whose process ended without `down`: the next one says so and starts clean."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rehearsal.test_cloud import Cloud
from tests.unit.rehearsal.conftest import free_port

NAME = "restart-test"

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


class Rehearsal(Cloud):
    """A rehearsal with nothing in it."""

    def __init__(self, state: Path) -> None:
        self.port = free_port()
        super().__init__(state, port=self.port)

    def up(self) -> str:
        return self.rehearsal("up", "--name", NAME, "--port", str(self.port))

    def kill(self) -> None:
        """End the process at once, as the machine's end would."""
        pid = int((self.state / "pid").read_text())
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def buckets(self) -> list[str]:
        return [row["Name"] for row in self.client("s3").list_buckets()["Buckets"]]


@pytest.fixture
def rehearsal(root: None, tmp_path: Path) -> Iterator[Rehearsal]:
    made = Rehearsal(tmp_path / "state")
    yield made
    made.rehearsal("down")


def test_after_a_kill_the_next_one_says_what_it_removed_and_starts_with_an_empty_account(rehearsal: Rehearsal) -> None:
    assert "starts empty" not in rehearsal.up()
    assert rehearsal.buckets() == []
    rehearsal.client("s3").create_bucket(Bucket="kept")
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
