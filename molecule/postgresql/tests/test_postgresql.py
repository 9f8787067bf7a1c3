"""Who may enter which database, and what becomes of a wrong setting."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

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
    started = administer(host, "SELECT pg_postmaster_start_time()")
    host.run_expect([0], "systemctl restart 'postgresql@*.service'")
    assert administer(host, "SELECT pg_postmaster_start_time()") != started
    assert host.check_output(psql("pergola-notes", "pergola_notes", READ)) == "42"


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("variables", "wrong"),
    [
        ({"settings": {"shared_buffers": "plenty"}}, "plenty"),
        ({"databases": [{"name": "pergola_notes", "user": "pergola-notes", "from": ["10.999.0.0/8"]}]}, "10.999.0.0"),
    ],
    ids=["setting", "network"],
)
def test_what_postgresql_does_not_understand_never_stays(
    hosts: list[Any], play: Callable[..., subprocess.CompletedProcess[str]], variables: dict[str, Any], wrong: str
) -> None:
    run = play(**variables)
    assert run.returncode != 0
    for host in hosts:
        assert re.search(f"{host.backend.name}.*PostgreSQL keeps its old settings.*{wrong}", run.stdout), run.stdout
        files = host.check_output("find /etc/postgresql -type f -exec cat {} +")
        assert wrong not in files
        assert "pergola_other" in files
        assert "log_connections = on" in files
        assert host.check_output("find /etc/postgresql -name '*~'") == "", "a copy was left behind"
        host.run_expect([0], "systemctl restart 'postgresql@*.service'")
        assert administer(host, "SELECT 1") == "1"


@pytest.mark.timeout(600)
def test_what_a_killed_run_left_unread_is_read_by_the_next(
    hosts: list[Any], play: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    edit = "sed -i 's/^log_connections = .*/log_connections = {}/' /etc/postgresql/*/main/conf.d/60-pergola.conf"
    # The server knows an older file than the one on disk, as if a run had been killed before its reload
    older = edit.format("off") + "; systemctl reload 'postgresql@*.service'; sleep 1.5; " + edit.format("on")
    for host in hosts:
        host.check_output(older)
        assert administer(host, "SHOW log_connections") == "off"
    run = play()
    assert run.returncode == 0, run.stdout
    for host in hosts:
        assert administer(host, "SHOW log_connections") == "on"
