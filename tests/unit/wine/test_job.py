"""The training job: one at a time, its progress readable by everybody."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.core import job


def test_nothing_has_run_yet(tmp_path: Path) -> None:
    assert job.read_progress(tmp_path / "nowhere").state == "idle"


def test_only_one_trains(tmp_path: Path) -> None:
    with job.exclusive(tmp_path), pytest.raises(job.Busy), job.exclusive(tmp_path):
        pytest.fail("two trainings at once")
    with job.exclusive(tmp_path):
        pass


def test_progress_is_read_while_it_runs_and_after(tmp_path: Path) -> None:
    with job.exclusive(tmp_path):
        job.write_progress(tmp_path, job.Progress("running", 0.4, "fold 2 of 5", 1.0))
        assert job.read_progress(tmp_path).share == 0.4
        assert job.read_progress(tmp_path).state == "running"
        job.write_progress(tmp_path, job.Progress("done", 1.0, "ready", 1.0, 2.0, "v"))
    assert job.read_progress(tmp_path).state == "done"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("training.json")] == ["training.json"]


def test_a_killed_training_is_called_interrupted(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from app.core import job\n"
        "with job.exclusive(Path(sys.argv[1])):\n"
        "    job.write_progress(Path(sys.argv[1]), job.Progress('running', 0.3, 'fold 1', 1.0)); print('on', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        assert job.read_progress(tmp_path).state == "running"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    found = job.read_progress(tmp_path)
    assert found.state == "interrupted"
    assert found.share == 0.3
    with job.exclusive(tmp_path):
        pass


def test_a_damaged_progress_file_is_a_failure_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text("{", encoding="utf-8")
    assert job.read_progress(tmp_path).state == "failed"


def test_starting_while_one_runs_is_refused(tmp_path: Path) -> None:
    with job.exclusive(tmp_path), pytest.raises(job.Busy):
        job.start(tmp_path, "app.wine.train")


def test_a_started_training_reports_itself(state: Path) -> None:
    """The whole way: a process of its own, on data that cannot be used, says what is wrong."""
    data = state / "storage" / "data"
    data.mkdir(parents=True)
    (data / "reviews.csv").write_text("country,description\nUS,plum\n", encoding="utf-8")
    first = job.start(state, "app.wine.train")
    assert first.state in {"running", "failed"}
    until = time.monotonic() + 60
    while job.read_progress(state).state == "running" and time.monotonic() < until:
        time.sleep(0.1)
    found = job.read_progress(state)
    assert found.state == "failed"
    assert "two countries" in str(found.error)
