"""Databases and migrations."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from app.core import database, migrate
from app.core.auth import AdminSession, LoginAttempt
from app.core.database import DatabaseError, engine, make_engine, session
from app.core.migrate import History, MigrationError, histories, main, pending, upgrade
from app.core.settings import get_settings
from tests.unit.processes import told_at_once

FIRST = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0001", None
def upgrade():
    op.create_table("parent", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String))
    op.create_table(
        "child", sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("parent_id", sa.Integer, sa.ForeignKey("parent.id", name="fk_child", ondelete="CASCADE"), nullable=False),
    )
"""
SECOND = """
'''Add a note.'''
import time
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0002", "0001"
def upgrade():
    time.sleep(0.2)
    with op.batch_alter_table("parent", recreate="always") as table:
        table.add_column(sa.Column("note", sa.String))
"""
BROKEN = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0003", "0002"
def upgrade():
    op.create_table("half", sa.Column("id", sa.Integer, primary_key=True))
    op.execute("INSERT INTO nothing_of_this_name VALUES (1)")
"""
ORPHANS = """
from alembic import op
revision, down_revision = "0003", "0002"
def upgrade():
    op.execute("DELETE FROM parent")
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/state/demo.db"


@pytest.fixture
def lines(tmp_path: Path) -> list[History]:
    """The platform's history and one of an app with two migrations."""
    folder = tmp_path / "app" / "demo" / "migrations" / "versions"
    folder.mkdir(parents=True)
    (folder / "0001_first.py").write_text(FIRST)
    (folder / "0002_note.py").write_text(SECOND)
    return histories("demo", tmp_path / "app")


def add(lines: list[History], name: str, source: str) -> list[History]:
    (lines[1].folder / name).write_text(source)
    return lines


def tables(url: str) -> set[str]:
    return set(inspect(engine(url)).get_table_names())


def test_sqlite_is_made_for_many_readers_and_safe_references(url: str) -> None:
    with session(url) as db:
        assert db.scalar(text("PRAGMA journal_mode")) == "wal"
        assert db.scalar(text("PRAGMA foreign_keys")) == 1
        assert db.scalar(text("PRAGMA busy_timeout")) == database.BUSY_SECONDS * 1000
        db.execute(text("CREATE TABLE t (id INTEGER PRIMARY KEY)"))
        db.execute(text("CREATE TABLE u (t_id INTEGER NOT NULL REFERENCES t (id))"))
    with pytest.raises(IntegrityError), session(url) as db:
        db.execute(text("INSERT INTO u VALUES (7)"))


def test_a_block_that_raises_changes_nothing(url: str) -> None:
    with session(url) as db:
        db.execute(text("CREATE TABLE t (id INTEGER)"))

    def breaks() -> None:
        with session(url) as db:
            db.execute(text("INSERT INTO t VALUES (1)"))
            db.execute(text("CREATE TABLE later (id INTEGER)"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        breaks()
    with session(url, read_only=True) as db:
        assert db.scalar(text("SELECT count(*) FROM t")) == 0
    assert tables(url) == {"t"}


def test_read_modify_write_from_many_threads_loses_nothing(url: str) -> None:
    with session(url) as db:
        db.execute(text("CREATE TABLE t (n INTEGER)"))
        db.execute(text("INSERT INTO t VALUES (0)"))

    def add_one(_: int) -> None:
        with session(url) as db:
            value = db.scalar(text("SELECT n FROM t"))
            db.execute(text("UPDATE t SET n = :n"), {"n": value + 1})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add_one, range(80)))
    with session(url, read_only=True) as db:
        assert db.scalar(text("SELECT n FROM t")) == 80


def test_a_reader_does_not_wait_for_a_writer(url: str) -> None:
    with session(url) as db:
        db.execute(text("CREATE TABLE t (n INTEGER)"))
    read: list[int] = []

    def reader() -> None:
        with session(url, read_only=True) as db:
            read.append(db.scalar(text("SELECT count(*) FROM t")))

    with session(url) as db:
        db.execute(text("INSERT INTO t VALUES (1)"))
        thread = threading.Thread(target=reader)
        thread.start()
        thread.join(5)
        assert read == [0]


@pytest.mark.parametrize(
    ("wrong", "told"), [("nonsense", "expected sqlite"), ("mysql+pymysql://x/y", "mysql is not supported")]
)
def test_a_wrong_url_says_what_to_do_and_shows_no_password(wrong: str, told: str) -> None:
    with pytest.raises(DatabaseError, match=told):
        make_engine(wrong)


def test_migrations_apply_once_and_in_order(url: str, lines: list[History]) -> None:
    assert [step.split(",")[0] for step in pending(url, lines)] == ["core: 0001", "demo: 0001", "demo: 0002"]
    assert upgrade(url, lines) == [
        "core: 0001, Admin sessions and login attempts.",
        "demo: 0001, ",
        "demo: 0002, Add a note.",
    ]
    assert {"parent", "child", "pergola_admin_session", "pergola_login_attempt"} <= tables(url)
    assert upgrade(url, lines) == []
    assert pending(url, lines) == []


def test_cores_tables_are_what_its_code_expects(url: str) -> None:
    upgrade(url, histories("demo"))
    found = inspect(engine(url))
    for model in (AdminSession, LoginAttempt):
        made = {column["name"]: column["nullable"] for column in found.get_columns(model.__tablename__)}
        assert made == {column.name: bool(column.nullable) for column in model.__table__.columns}


def test_rebuilding_a_table_keeps_the_rows_that_refer_to_it(url: str, lines: list[History]) -> None:
    later = lines[1].folder / "0002_note.py"
    later.rename(later.with_suffix(".off"))
    upgrade(url, lines)
    with session(url) as db:
        db.execute(text("INSERT INTO parent (id, name) VALUES (1, 'one')"))
        db.execute(text("INSERT INTO child (id, parent_id) VALUES (1, 1)"))
    later.with_suffix(".off").rename(later)
    upgrade(url, lines)
    with session(url, read_only=True) as db:
        assert db.scalar(text("SELECT count(*) FROM child")) == 1
        assert db.scalar(text("SELECT note FROM parent")) is None


def test_a_migration_that_fails_leaves_the_database_as_it_was(url: str, lines: list[History]) -> None:
    upgrade(url, lines)
    with pytest.raises(MigrationError, match=r"migrations of demo failed, nothing was changed: .*nothing_of_this_name"):
        upgrade(url, add(lines, "0003_broken.py", BROKEN))
    assert "half" not in tables(url)
    assert [step.split(",")[0] for step in pending(url, lines)] == ["demo: 0003"]


def test_a_migration_that_orphans_rows_is_refused(url: str, lines: list[History]) -> None:
    upgrade(url, lines)
    with session(url) as db:
        db.execute(text("INSERT INTO parent (id, name) VALUES (1, 'one')"))
        db.execute(text("INSERT INTO child (id, parent_id) VALUES (1, 1)"))
    with pytest.raises(MigrationError, match="1 rows in child that refer to nothing"):
        upgrade(url, add(lines, "0003_orphans.py", ORPHANS))
    with session(url, read_only=True) as db:
        assert db.scalar(text("SELECT count(*) FROM parent")) == 1


def test_a_release_that_was_rolled_back_lives_with_the_newer_tables(url: str, lines: list[History]) -> None:
    upgrade(url, lines)
    (lines[1].folder / "0002_note.py").unlink()
    assert upgrade(url, lines) == []
    assert "parent" in tables(url)


def test_several_runs_at_once_apply_each_migration_once(tmp_path: Path, url: str, lines: list[History]) -> None:
    program = (
        "from pathlib import Path\nfrom app.core.migrate import histories, upgrade\n"
        f"print(len(upgrade({url!r}, histories('demo', Path({str(tmp_path / 'app')!r})))))\n"
    )
    told = told_at_once(program, 4)
    assert sorted(output.strip() for output, _ in told) == ["0", "0", "0", "3"], told
    with session(url, read_only=True) as db:
        assert db.scalar(text("SELECT count(*) FROM alembic_version")) == 1


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "APPS", tmp_path / "app")
    monkeypatch.setattr(migrate.histories, "__defaults__", (tmp_path / "app",))
    monkeypatch.setattr(migrate.new, "__defaults__", (tmp_path / "app",))
    assert main(["--check"]) == 1
    assert "core: 0001" in capsys.readouterr().out
    assert main([]) == 0
    assert main(["--check"]) == 0
    assert main(["--new", "Add a table"]) == 0
    made = Path(capsys.readouterr().out.splitlines()[-1])
    assert made.name == "0001_add_a_table.py"
    assert '"""Add a table."""' in made.read_text()
    assert main([]) == 1
    assert "write this migration" in capsys.readouterr().err
    made.write_text(FIRST)
    assert main(["--new", "second"]) == 0
    second = Path(capsys.readouterr().out.splitlines()[-1])
    assert second.name == "0002_second.py"
    assert "down_revision = '0001'" in second.read_text()
    assert get_settings().database_url.startswith("sqlite")
