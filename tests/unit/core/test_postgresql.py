"""The database code on a real PostgreSQL: what SQLite's locks do there must be done by others."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi import HTTPException
from sqlalchemy import inspect, text

from app.core import auth
from app.core.database import engine, session
from app.core.migrate import MigrationError, histories, pending, upgrade
from app.core.settings import clear_settings
from tests.postgresql import serving
from tests.unit.processes import told_at_once

SLOW = """
'''A slow one.'''
import time
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0001", None
def upgrade():
    op.create_table("thing", sa.Column("id", sa.Integer, primary_key=True))
    time.sleep(0.5)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a PostgreSQL of its own, on a unix socket."""
    with serving() as made:
        yield made.url


@pytest.fixture
def url(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    with session(server) as db:
        db.execute(text("DROP SCHEMA public CASCADE"))
        db.execute(text("CREATE SCHEMA public"))
    monkeypatch.setenv("PERGOLA_DATABASE_URL", server)
    monkeypatch.setenv("PERGOLA_SECRET_ADMIN_PASSWORD", "right")
    clear_settings()
    return server


def test_migrations_of_several_runs_at_once(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "app" / "demo" / "migrations" / "versions"
    folder.mkdir(parents=True)
    (folder / "0001_slow.py").write_text(SLOW)
    program = (
        "from pathlib import Path\nfrom app.core.migrate import histories, upgrade\n"
        f"print(len(upgrade({url!r}, histories('demo', Path({str(tmp_path / 'app')!r})))))\n"
    )
    told = told_at_once(program, 3)
    assert sorted(output.strip() for output, _ in told) == ["0", "0", "2"], told
    lines = histories("demo", tmp_path / "app")
    assert pending(url, lines) == []

    (folder / "0002_broken.py").write_text(
        "from alembic import op\nrevision, down_revision = '0002', '0001'\n"
        "def upgrade():\n    op.drop_table('thing')\n    op.execute('nonsense')\n"
    )
    with pytest.raises(MigrationError, match="migrations of demo failed, nothing was changed"):
        upgrade(url, lines)
    assert "thing" in inspect(engine(url)).get_table_names()


def test_guessing_in_parallel_gains_nothing(url: str) -> None:
    def guess(n: int) -> int:
        try:
            auth.log_in(f"guess {n}", "192.0.2.9")
        except HTTPException as error:
            return error.status_code
        return 200

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(guess, range(16)))
    assert sorted(told) == [401] * 5 + [429] * 11
    token = auth.log_in("right", "192.0.2.10")
    assert auth._find(token) is not None
    assert auth._find("x" + token) is None


def test_a_connection_that_the_server_closed_is_replaced(url: str) -> None:
    with session(url) as db:
        assert db.scalar(text("SELECT 1")) == 1
    with session(url) as db, engine(url).connect() as other:
        own = db.scalar(text("SELECT pg_backend_pid()"))
        other.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND pid <> :own"
            ),
            {"own": own},
        )
    with session(url) as db:
        assert db.scalar(text("SELECT 1")) == 1
