"""The maintenance calendar: everything derives from it, and what hosts run tells how it ended."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from app.core import maintenance, manifest, plan
from tests.modules import loaded

ROOT = Path(__file__).resolve().parents[2]


def workflow() -> dict[Any, Any]:
    return dict(yaml.safe_load((ROOT / ".github/workflows/maintenance.yml").read_text(encoding="utf-8")))


def test_the_workflow_runs_every_job_of_the_control_node_on_its_schedule() -> None:
    control = [job for job in maintenance.CALENDAR if job.where == maintenance.CONTROL]
    begins = workflow()[True]  # YAML takes `on` for a truth value
    assert [row["cron"] for row in begins["schedule"]] == [job.schedule for job in control]
    assert begins["workflow_dispatch"]["inputs"]["job"]["options"] == [job.name for job in control]
    choice = workflow()["jobs"]["maintain"]["steps"][-1]["env"]["JOB"]
    first, second = control
    assert f"github.event.schedule == '{second.schedule}' && '{second.name}' || '{first.name}'" in choice


def test_playbooks_that_the_calendar_names_exist() -> None:
    for job in maintenance.CALENDAR:
        if job.where == maintenance.CONTROL:
            assert all((ROOT / "playbooks" / command[0]).is_file() for command in job.commands)


def test_the_script_runs_the_playbooks_in_order_and_stops_at_the_first_that_fails(tmp_path: Path) -> None:
    tool = tmp_path / "ansible-playbook"
    tool.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/said\ncase $1 in *deploy*) exit 4 ;; esac\n')
    tool.chmod(0o755)

    def run(*words: str) -> int:
        return subprocess.run(
            [sys.executable, "scripts/maintenance", *words],
            cwd=ROOT, env={**os.environ, "PERGOLA_ANSIBLE": str(tool)}, capture_output=True, check=False,
        ).returncode  # fmt: skip

    assert run("patches", "-i", "inventories/staging") == 4
    assert run("cost", "-i", "inventories/staging") == 0
    said = (tmp_path / "said").read_text().splitlines()
    kept = [json.loads(line.partition(" -e ")[2])["maintained"] for line in said if "maintained.yml" in line]
    assert [(row["name"], row["told"]["good"]) for row in kept] == [("patches", False), ("cost", True)]
    assert [line for line in said if "maintained.yml" not in line] == [
        "playbooks/bake.yml -i inventories/staging -e release=live -e force=true",
        "playbooks/deploy.yml -i inventories/staging -e release=live -e newest_image=true",
        "playbooks/cost.yml -i inventories/staging",
        "playbooks/status.yml -i inventories/staging",
    ]
    assert run("log-digest") == run() == 64


def test_the_plan_has_the_hosts_jobs_and_those_of_backups_only_where_there_are_any() -> None:
    def names(*apps: str, **more: Any) -> set[str]:
        return {row["name"] for row in plan.build(manifest.load_all(ROOT, list(apps)), **more)["calendar"]}

    assert names("portal") == {"log-digest", "packages", "capacity"}
    assert names("portal", "wine") == {"log-digest", "packages", "capacity", "backup-check", "backup-full-check"}
    assert {"patches", "cost"} < names("portal", region="eu-central-1")
    assert maintenance.job("log-digest").limit_hours == 48
    with pytest.raises(KeyError, match="log-digest"):
        maintenance.job("nothing")


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Give the program pergola-job, with everything it touches below a scratch folder."""
    module = loaded("roles/baseline/files/pergola_job.py")
    places = {"CONFIG": "jobs.json", "STATE": "state/.jobs", "LOCKS": "", "APPS": "apps", "ACCESS": "nginx"}
    for name, place in places.items():
        monkeypatch.setattr(module, name, tmp_path / place)
    for folder in ("apps/wine", "nginx"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setattr(module.os, "geteuid", lambda: 0)
    return module


def jobs(tmp_path: Path, minutes: float = 5, **commands: list[list[str]]) -> None:
    rows = [
        {"name": name, "schedule": "0 5 * * *", "commands": value, "minutes": minutes, "limit_hours": 48}
        for name, value in commands.items()
    ]
    (tmp_path / "jobs.json").write_text(json.dumps(rows))


def call(command: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["pergola-job", *words])
    return int(command.main())


def kept(tmp_path: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((tmp_path / f"state/.jobs/{name}.json").read_text()))


def test_a_run_is_kept_and_readable_for_the_status_page(
    command: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    jobs(
        tmp_path,
        good=[["true"], ["echo", "hunter2"]],
        bad=[["sh", "-c", "echo hunter2; exit 3"], ["touch", str(tmp_path / "no")]],
    )
    assert call(command, monkeypatch, "run", "good") == 0
    assert call(command, monkeypatch, "run", "bad") == 1
    assert kept(tmp_path, "good")["good"] is True
    assert kept(tmp_path, "bad")["good"] is False
    assert not (tmp_path / "no").exists(), "what comes after a failure is not run"
    assert "hunter2" not in json.dumps(kept(tmp_path, "good") | kept(tmp_path, "bad"))
    assert stat.S_IMODE((tmp_path / "state/.jobs/good.json").stat().st_mode) == 0o644
    capfd.readouterr()
    assert call(command, monkeypatch, "list") == 1
    said = capfd.readouterr().out
    assert "in order" in said
    assert "FAILED" in said
    assert call(command, monkeypatch, "run", "other") == 1


def test_a_run_that_takes_too_long_is_ended_with_what_it_started(
    command: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs(tmp_path, 0.1, slow=[["sh", "-c", f"sleep 600 & echo $! >{tmp_path}/child; wait"]])
    began = time.monotonic()
    assert call(command, monkeypatch, "run", "slow") == 1
    assert time.monotonic() - began < 60
    assert kept(tmp_path, "slow")["good"] is False
    child = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat")
    deadline = time.monotonic() + 20
    while child.exists() and child.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline, "what it started goes on"
        time.sleep(0.1)


def test_two_runs_of_a_job_never_go_on_at_once(
    command: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs(tmp_path, one=[["true"]])
    with (tmp_path / "pergola-job-one").open("w") as lock:
        command.fcntl.flock(lock, command.fcntl.LOCK_EX)
        assert call(command, monkeypatch, "run", "one") == command.BUSY
    assert not (tmp_path / "state").exists()
    assert call(command, monkeypatch, "run", "one") == 0


def test_requests_of_the_last_day_are_counted_whatever_the_log_holds(command: ModuleType, tmp_path: Path) -> None:
    now = time.time()
    rows = [{"epoch": now - age, "status": status} for age, status in ((5, 200), (50, 502), (60, 429), (90000, 500))]
    (tmp_path / "nginx/access.log").write_text("\n".join([*map(json.dumps, rows), "half a li", '{"status": 1}', "7"]))
    assert command.requests(now) == {"all": 3, "failed": 1, "limited": 1}


def test_capacity_says_when_the_disk_will_be_full(
    command: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = command.shutil.disk_usage("/")
    command.keep(
        "capacity", {"time": command.moment(time.time() - 10 * 86400), "disk_used_bytes": disk.used - disk.free // 4}
    )
    assert call(command, monkeypatch, "capacity") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["days_until_full"] == pytest.approx(40, abs=3)
    assert "in 10 days" in told["text"]
    assert "full in" in told["text"]
    assert set(told["apps_bytes"]) == {"wine"}
