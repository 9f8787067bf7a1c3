"""Backups of a host with all its apps: they come back by the playbooks, and a drill finds what does not."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest

from prober.process import ProbeProcess
from tests.conftest import ROOT, LocalHost

pytestmark = [pytest.mark.host, pytest.mark.timeout(900)]


def playbook(host: LocalHost, name: str, *extra: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a playbook of the project on the host."""
    flags = [part for pair in extra for part in ("-e", pair)]
    return host.run(
        str(ROOT / ".venv/bin/ansible-playbook"),
        f"playbooks/{name}.yml",
        "-i",
        "inventories/local",
        *flags,
        check=check,
    )


def sql(host: LocalHost, statement: str) -> str:
    """Ask the PostgreSQL database of ava."""
    return host.sh(
        f'cd / && runuser -u pergola-ava -- psql -XAtq -v ON_ERROR_STOP=1 -d pergola_ava -c "{statement}"'
    ).strip()


def sqlite(host: LocalHost, app: str, statement: str) -> str:
    """Ask an app's SQLite database, as the app's user."""
    program = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=30); print(c.execute(sys.argv[2]).fetchall()); c.commit()"
    return host.sh(
        f"runuser -u pergola-{app} -- python3 -c '{program}' /var/lib/pergola/{app}/{app}.db \"{statement}\""
    ).strip()


def test_everything_that_the_manifests_name_is_backed_up(local_host: LocalHost) -> None:
    said = playbook(local_host, "backup").stdout
    kept = {f"{job['app']} {job['what']}" for job in jobs(local_host)}
    assert {"ava database", "ava storage", "judge database", "vision storage", "wine database", "wine storage"} < kept
    for name in kept:
        assert f"{name}: " in said
    assert local_host.ask("pergola-backup age").returncode == 0


def jobs(host: LocalHost) -> list[dict[str, Any]]:
    """Return what the host backs up."""
    return list(json.loads(host.sh("cat /etc/pergola/backup.json"))["jobs"])


def test_the_maintenance_calendar_runs_and_is_told(local_host: LocalHost) -> None:
    calendar = json.loads(local_host.sh("cat /etc/pergola/jobs.json"))
    assert {"backup-check", "backup-full-check", "log-digest", "packages", "capacity"} == {
        job["name"] for job in calendar
    }
    for job in calendar:
        assert f" pergola-job run {job['name']} " in local_host.sh("cat /etc/cron.d/pergola-jobs")
        local_host.sh(f"pergola-job run {job['name']}")
    told = {row["title"]: row for row in local_host.get("/api/status").json()["jobs"]}
    assert [told[job["title"]]["in_order"] for job in calendar] == [True] * len(calendar)
    assert "requests failed" in told["Log digest"]["text"]
    assert "Backups verified" in local_host.get("/status").text


def test_apps_come_back_to_their_backup_and_serve_while_others_do_not_notice(local_host: LocalHost) -> None:
    sql(local_host, "CREATE TABLE planted AS SELECT n, 'text ' || n AS text FROM generate_series(1, 1000) n")
    sqlite(local_host, "drawings", "CREATE TABLE planted (n INTEGER)")
    sqlite(local_host, "drawings", "INSERT INTO planted VALUES (1), (2), (3)")
    playbook(local_host, "backup")
    sql(local_host, "DELETE FROM planted WHERE n > 10")
    sqlite(local_host, "drawings", "DROP TABLE planted")
    local_host.sh("rm -rf /var/lib/pergola/drawings/storage/models")
    with ProbeProcess(local_host.url, "--rate=10", "--sessions=1") as probe:  # wine is not restored
        ava = playbook(local_host, "restore", "app=ava", "what=database").stdout
        drawings = playbook(local_host, "restore", "app=drawings").stdout
        report = probe.stop()
    assert "ava database: back to" in ava
    assert "drawings database: back to" in drawings
    assert "drawings storage: back to" in drawings
    assert sql(local_host, "SELECT count(*), min(text) FROM planted") == "1000|text 1"
    assert sqlite(local_host, "drawings", "SELECT count(*) FROM planted") == "[(3,)]"
    local_host.sh("test -d /var/lib/pergola/drawings/storage/models")
    for app in ("ava", "drawings"):
        assert local_host.get(f"/{app}/api/health/ready").status_code in {
            200,
            404,
        }  # 404: only the host itself may look deeply
        assert local_host.get(f"/{app}/").status_code == 200
    assert local_host.get("/health").status_code == 200
    assert (report["failed"], report["sockets_cut"]) == (0, 0), report
    (aside,) = re.findall(r"what was\s+there before is snapshot ([0-9a-f]{8})", ava)
    playbook(local_host, "restore", "app=ava", "what=database", f"snapshot={aside}")
    assert sql(local_host, "SELECT count(*) FROM planted") == "10", "a restore can be undone"
    sql(local_host, "DROP TABLE planted")
    sqlite(local_host, "drawings", "DROP TABLE planted")


def test_what_cannot_be_restored_is_told_and_touches_nothing(local_host: LocalHost) -> None:
    before = local_host.app("wine")
    for extra, reason in (
        (["app=vine"], "this host backs up:"),
        (["app=wine", "at=tomorrow"], "is no time"),
        (["app=wine", "at=2001-01-01T00:00:00Z"], "the oldest is of"),
        ([], "Say what to restore"),
    ):
        done = playbook(local_host, "restore", *extra, check=False)
        assert done.returncode != 0
        assert reason in done.stdout + done.stderr
    assert local_host.app("wine") == before


def test_a_drill_proves_every_backup_and_finds_planted_corruption(local_host: LocalHost) -> None:
    playbook(local_host, "backup")
    assert "wine storage: equal" in playbook(local_host, "drill").stdout
    told = json.loads(local_host.sh("cat /var/lib/pergola/.backup/drill.json"))
    assert told["good"]
    assert {f"{row['app']} {row['what']}" for row in told["rows"]} == {
        f"{job['app']} {job['what']}" for job in jobs(local_host)
    }
    assert max(row["rpo_seconds"] for row in told["rows"]) < 600
    local_host.sh(
        "for file in $(find /var/lib/pergola/.backup/repositories/vision/data -type f); do chmod u+w $file; "
        "printf damage | dd of=$file bs=1 seek=$(($(stat -c %s $file) / 2)) conv=notrunc status=none; done; rm -rf /var/cache/pergola-backup"
    )
    done = playbook(local_host, "drill", check=False)
    assert done.returncode != 0
    assert "vision storage" in done.stdout + done.stderr
    assert "backups that do not restore" in done.stdout + done.stderr
    local_host.sh("rm -rf /var/lib/pergola/.backup/repositories/vision /var/lib/pergola/.backup/vision-storage.json")
    playbook(local_host, "backup", "app=vision")
    playbook(local_host, "drill", "app=vision")
    assert json.loads(local_host.sh("cat /var/lib/pergola/.backup/drill.json"))["good"]
