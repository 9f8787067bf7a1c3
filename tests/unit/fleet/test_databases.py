"""The apps' databases on a server: made once by whoever comes first, each for its app alone, and a password can be rotated."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from tests.modules import loaded
from tests.postgresql import serving

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "roles/aws_fleet/files/databases.py"
# what RDS gives its master user: no superuser
MASTER = "CREATE ROLE pergola LOGIN CREATEROLE CREATEDB PASSWORD 'master'"


@pytest.fixture(scope="module")
def databases() -> ModuleType:
    return loaded(SOURCE)


@pytest.fixture(scope="module")
def where() -> Iterator[dict[str, Any]]:
    with serving(tcp=True) as server:
        with create_engine(server.url).connect() as connection:
            connection.execute(text(MASTER))
            connection.execute(text("COMMIT"))
        yield {"host": "127.0.0.1", "port": server.port, "tls": False}


def ensured(databases: ModuleType, where: dict[str, Any], app: str, password: str) -> str:
    server = databases.connect(where, "pergola", "master", "postgres")
    try:
        databases.ensure(server, app, password)
    finally:
        server.close()
    return str(databases.url(where, app, password))


def run(url: str, statement: str) -> list[Any]:
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            result = connection.execute(text(statement))
            return list(result.scalars()) if result.returns_rows else []
    finally:
        engine.dispose()


def test_an_app_gets_a_database_of_its_own_once(databases: ModuleType, where: dict[str, Any]) -> None:
    url = ensured(databases, where, "tea", "one")
    run(url, "CREATE TABLE leaf (id int)")
    assert ensured(databases, where, "tea", "one") == url
    run(url, "INSERT INTO leaf VALUES (1)")
    assert run(url, "SELECT tableowner FROM pg_tables WHERE tablename = 'leaf'") == ["pergola_tea"]


def test_no_app_comes_into_anothers(databases: ModuleType, where: dict[str, Any]) -> None:
    ensured(databases, where, "tea", "one")
    mate = ensured(databases, where, "mate", "two")
    with pytest.raises(OperationalError, match="permission denied for database"):
        run(mate.replace("/pergola_mate?", "/pergola_tea?"), "SELECT 1")
    with pytest.raises(DBAPIError, match="permission denied"):
        run(mate, "CREATE ROLE more")


def test_a_rotated_password_is_another_login_and_the_old_one_ends(databases: ModuleType, where: dict[str, Any]) -> None:
    old = ensured(databases, where, "cola", "before")
    run(old, "CREATE TABLE drink (id int)")
    new = ensured(databases, where, "cola", "after")
    assert new != old
    run(new, "ALTER TABLE drink ADD COLUMN size int")
    run(old, "SELECT size FROM drink")  # a host that was not renewed yet works on
    ends = "SELECT extract(epoch FROM rolvaliduntil - now()) FROM pg_roles WHERE rolname = '{}'"
    (seconds,) = run(new, ends.format(databases.login_of("cola", "before")))
    assert 86000 < seconds <= 86400
    assert run(new, ends.format(databases.login_of("cola", "after"))) == [None]
    ensured(databases, where, "cola", "after")
    (later,) = run(new, ends.format(databases.login_of("cola", "before")))
    assert later <= seconds, "its end is not put off"


def test_hosts_that_start_together_do_not_meet(databases: ModuleType, where: dict[str, Any]) -> None:
    failures: list[BaseException] = []

    def one() -> None:
        try:
            ensured(databases, where, "juice", "same")
        except BaseException as error:  # noqa: BLE001 - a thread's failure is the test's
            failures.append(error)

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_names_and_passwords_are_never_sql(databases: ModuleType, where: dict[str, Any]) -> None:
    hostile = "it's; DROP ROLE pergola_tea; --"
    ensured(databases, where, "tea", "one")
    server = databases.connect(where, "pergola", "master", "postgres")
    databases.ensure(server, "tea", hostile)
    server.close()
    assert run(
        ensured(databases, where, "tea", "one"), "SELECT count(*) FROM pg_roles WHERE rolname = 'pergola_tea'"
    ) == [1]


@pytest.mark.parametrize(
    ("change", "user"), [({"port": 1}, "pergola"), ({}, "nobody")], ids=["no server", "no such user"]
)
def test_a_server_that_does_not_answer_is_an_error_that_passes(
    databases: ModuleType, where: dict[str, Any], change: dict[str, Any], user: str
) -> None:
    """RDS takes minutes to begin: the caller tries again on OSError."""
    with pytest.raises(OSError, match=r"127\.0\.0\.1: "):
        databases.connect({**where, **change}, user, "master", "postgres")
