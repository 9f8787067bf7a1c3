"""Cron backs up, a PostgreSQL database comes back in one piece, and a drill says what does not."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

FILL = """
CREATE TABLE note (id serial PRIMARY KEY, text text NOT NULL);
CREATE TABLE \\"odd \\"\\"name\\" (data jsonb, at timestamptz DEFAULT now());
INSERT INTO note (text) SELECT 'note ' || n FROM generate_series(1, 5000) n;
INSERT INTO \\"odd \\"\\"name\\" (data) SELECT jsonb_build_object('n', n) FROM generate_series(1, 100) n;
CREATE VIEW long AS SELECT * FROM note WHERE length(text) > 8;
"""


def psql(host: Any, statement: str, user: str = "pergola-notes", database: str = "pergola_notes") -> str:
    """Return the answer to a statement."""
    command = f'runuser -u {user} -- psql -XAtq -v ON_ERROR_STOP=1 -d {database} -c "{statement}"'
    return str(host.check_output(f"cd / && {command}"))


def command(host: Any, *arguments: str, rc: int = 0) -> dict[str, Any]:
    """Run the command and return what it says in JSON."""
    done = host.run(f"pergola-backup {' '.join(arguments)} --json")
    assert done.rc == rc, f"{done.stdout}{done.stderr}"
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(autouse=True)
def filled(host: Any) -> None:
    """Give the database and the folder the same content before each test."""
    psql(host, "DROP SCHEMA public CASCADE; CREATE SCHEMA public;")
    psql(host, FILL)
    host.check_output(
        "cd /var/lib/pergola/notes/storage && rm -rf * && mkdir -p a/b && seq 1000 >a/b/numbers && chown -R pergola-notes: ."
    )


def test_cron_makes_backups(host: Any) -> None:
    host.check_output("rm -f /var/lib/pergola/.backup/*.json")
    deadline = time.monotonic() + 150
    while host.run(
        "test -s /var/lib/pergola/.backup/notes-database.json -a -s /var/lib/pergola/.backup/notes-storage.json"
    ).rc:
        assert time.monotonic() < deadline, host.check_output("journalctl -t pergola-backup --no-pager -n 30")
        time.sleep(2)
    assert host.check_output("pergola-backup age").count("LATE") == 0
    assert "notes database: 2 tables, 5100 rows" in host.check_output("journalctl -t pergola-backup --no-pager -o cat")


def test_a_database_comes_back_while_the_app_is_connected(host: Any) -> None:
    command(host, "run", "notes", "database")
    psql(host, "DELETE FROM note; CREATE TABLE later (id int); DROP VIEW long;")
    (row,) = restored(host)
    assert row["held"] == "2 tables, 5100 rows"
    assert psql(host, "SELECT count(*) FROM note") == "5000"
    assert psql(host, "SELECT count(*) FROM long") != "0"
    assert psql(host, "SELECT to_regclass('later') IS NULL") == "t", "what came later is gone"
    assert psql(host, "INSERT INTO note (text) VALUES ('next') RETURNING id") == "5001", "sequences go on"
    owners = psql(host, "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
    assert owners == "pergola-notes"


def restored(host: Any) -> list[dict[str, Any]]:
    """Restore the database without the services, which this host has not: as the command does between its stop and start."""
    script = """
import argparse, contextlib, importlib.machinery, importlib.util, json, sys
loader = importlib.machinery.SourceFileLoader("backup", "/usr/local/bin/pergola-backup")
module = importlib.util.module_from_spec(importlib.util.spec_from_loader("backup", loader))
loader.exec_module(module)
module.stopped = lambda _: contextlib.nullcontext()
print(json.dumps(module.restore(module.parser().parse_args(["restore", "notes", "database"]))["restored"]))
"""
    return list(json.loads(host.check_output("python3 -c %s", script).splitlines()[-1]))


def test_a_drill_compares_everything_and_leaves_nothing(host: Any) -> None:
    command(host, "run")
    rows = command(host, "drill")["rows"]
    assert [row["held"] for row in rows] == ["2 tables, 5100 rows", "1 files"]
    assert all(row["equal"] for row in rows)
    drills = "SELECT count(*) FROM pg_database WHERE datname LIKE '%drill%'"
    assert psql(host, drills, "postgres", "postgres") == "0"
    assert host.run("ls -d /var/lib/pergola/.backup/.work-*").rc != 0


def test_a_drill_finds_planted_corruption(host: Any) -> None:
    command(host, "run")
    host.check_output(
        "for file in $(find /var/lib/pergola/.backup/repositories/notes/data -type f); do chmod u+w $file; "
        "printf damage | dd of=$file bs=1 seek=$(($(stat -c %s $file) / 2)) conv=notrunc status=none; done"
    )
    host.check_output("rm -rf /var/cache/pergola-backup")
    said = command(host, "drill", rc=1)["msg"]
    assert "backups that do not restore" in said
    assert "notes database" in said
    # the way out: a new repository
    host.check_output("rm -rf /var/lib/pergola/.backup/repositories/notes /var/lib/pergola/.backup/*.json")
    command(host, "run")
    assert command(host, "drill")["good"]


def test_only_root_reads_backups(host: Any) -> None:
    assert host.file("/etc/pergola/backup.password").mode == 0o600
    assert host.file("/etc/pergola/backup.password").content_string == "given-by-the-inventory"
    assert host.file("/etc/pergola/backup.json").mode == 0o600
    done = host.run("runuser -u pergola-notes -- ls /var/lib/pergola/.backup/repositories")
    assert done.rc != 0
