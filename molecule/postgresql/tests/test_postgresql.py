"""Who may enter which database, and what becomes of a wrong setting."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SCENARIO = Path(__file__).resolve().parents[1]
READ = "SELECT answer FROM note"


def psql(user: str, database: str, statement: str, *options: str) -> str:
    """Return the command by which the system's ``user`` runs ``statement``."""
    return " ".join(
        [
            "runuser",
            "-u",
            user,
            "--",
            "psql",
            "-XAtq",
            "-v",
            "ON_ERROR_STOP=1",
            *options,
            "-d",
            database,
            "-c",
            f'"{statement}"',
        ]
    )


def administer(host: Any, statement: str, database: str = "postgres") -> str:
    """Run ``statement`` as the host's root and return the answer."""
    return str(host.check_output(psql("root", database, statement, "-U", "postgres")))


def converge(host: Any, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run the scenario's playbook once more on ``host`` with other variables."""
    return subprocess.run(
        [
            "ansible-playbook",
            "--inventory",
            os.environ["MOLECULE_INVENTORY_FILE"],
            "--limit",
            host.backend.name,
            "--extra-vars",
            json.dumps(variables),
            str(SCENARIO / "converge.yml"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def row(host: Any) -> Iterator[None]:
    """Give the app a table that holds one row, which READ reads."""
    host.check_output(psql("pergola-notes", "pergola_notes", "CREATE TABLE note AS SELECT 42 AS answer"))
    yield
    host.check_output(psql("pergola-notes", "pergola_notes", "DROP TABLE note"))


def test_an_app_owns_its_database_without_a_password(host: Any, row: None) -> None:
    assert host.check_output(psql("pergola-notes", "pergola_notes", READ)) == "42"
    assert administer(host, "SELECT count(*) FROM pg_authid WHERE rolpassword IS NOT NULL") == "0"


def test_a_sandboxed_service_of_the_app_gets_in(host: Any, row: None) -> None:
    sandbox = "-p PrivateUsers=yes -p PrivateNetwork=yes -p ProtectSystem=strict -p NoNewPrivileges=yes"
    answer = host.check_output(
        f"systemd-run --quiet --wait --pipe --collect -p User=pergola-notes {sandbox} "
        f"psql -XAtq -d pergola_notes -c '{READ}'"
    )
    assert answer == "42"


@pytest.mark.parametrize(
    ("user", "database", "role", "reason"),
    [
        ("pergola-other", "pergola_notes", "pergola-other", "no pg_hba.conf entry"),
        ("pergola-other", "pergola_notes", "pergola-notes", "Peer authentication failed"),
        ("pergola-notes", "postgres", "pergola-notes", "no pg_hba.conf entry"),
        ("nobody", "pergola_notes", "pergola-notes", "Peer authentication failed"),
        ("nobody", "pergola_notes", "postgres", "eer authentication failed"),
        ("nobody", "pergola_notes", "nobody", "no pg_hba.conf entry"),
    ],
)
def test_nobody_else_gets_in(host: Any, user: str, database: str, role: str, reason: str) -> None:
    refusal = host.run(psql(user, database, "SELECT 1", "-U", role))
    assert refusal.rc == 2, refusal.stdout
    assert reason in refusal.stderr


def test_an_app_cannot_make_databases_or_roles(host: Any) -> None:
    for statement in ("CREATE DATABASE more", "CREATE ROLE more"):
        refusal = host.run(psql("pergola-notes", "pergola_notes", statement))
        assert "permission denied" in refusal.stderr


def test_only_who_is_asked_to_listens_on_the_network(host: Any, neighbour: Any) -> None:
    ports = host.check_output("ss -Hltn 'sport = :5432'")
    assert bool(ports) == ("bookworm" in host.backend.name)
    if not ports:  # this host keeps to its socket
        return
    administer(host, "ALTER ROLE \\\"pergola-notes\\\" PASSWORD 'of-this-test'")
    try:
        address = host.check_output("hostname -I").split()[0]
        visit = f"PGPASSWORD=%s psql -XAtq 'host={address} user=pergola-notes dbname=%s sslmode=%s' -c 'SELECT 42'"
        assert neighbour.check_output(visit % ("of-this-test", "pergola_notes", "require")) == "42"
        assert "authentication failed" in neighbour.run(visit % ("wrong", "pergola_notes", "require")).stderr
        assert "no encryption" in neighbour.run(visit % ("of-this-test", "pergola_notes", "disable")).stderr
        assert "no pg_hba.conf entry" in neighbour.run(visit % ("of-this-test", "pergola_other", "require")).stderr
    finally:
        administer(host, 'ALTER ROLE \\"pergola-notes\\" PASSWORD NULL')


def test_a_new_cluster_is_utf8_and_checks_its_pages(host: Any) -> None:
    assert administer(host, "SHOW data_checksums") == "on"
    encodings = administer(host, "SELECT DISTINCT pg_encoding_to_char(encoding) || ' ' || datcollate FROM pg_database")
    assert encodings == "UTF8 C.UTF-8"


def test_the_extensions_are_there(host: Any) -> None:
    extensions = administer(host, "SELECT extname FROM pg_extension WHERE extname = 'pg_trgm'", "pergola_notes")
    assert extensions == "pg_trgm"


def test_the_settings_fit_the_host_and_are_in_force(host: Any) -> None:
    assert administer(host, "SELECT count(*) FROM pg_settings WHERE pending_restart") == "0"
    total = int(host.check_output("awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo"))
    buffers = int(administer(host, "SELECT setting::bigint * 8 / 1024 FROM pg_settings WHERE name = 'shared_buffers'"))
    assert 0.03 * total < buffers < 0.06 * total
    assert administer(host, "SHOW log_connections") == "on"


def test_data_outlives_a_restart(host: Any, row: None) -> None:
    host.run_expect([0], "systemctl restart 'postgresql@*-main'")
    assert host.check_output(psql("pergola-notes", "pergola_notes", READ)) == "42"


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"settings": {"shared_buffers": "plenty"}}, "shared_buffers"),
        ({"databases": [{"name": "pergola_notes", "user": "pergola-notes", "from": ["10.999.0.0/8"]}]}, "10.999.0.0"),
    ],
    ids=["setting", "network"],
)
def test_what_postgresql_does_not_understand_never_stays(host: Any, variables: dict[str, Any], named: str) -> None:
    files = "cat /etc/postgresql/*/main/pg_hba.conf /etc/postgresql/*/main/conf.d/*; ls -R /etc/postgresql"
    before = host.check_output(files)
    run = converge(host, **variables)
    assert run.returncode != 0
    assert named in run.stdout, f"the error must name what is wrong:\n{run.stdout}"
    assert host.check_output(files) == before
    assert administer(host, "SELECT 1") == "1"
