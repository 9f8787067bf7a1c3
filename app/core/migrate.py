"""Bring the app's database to this release's tables: `python -m app.core.migrate`.

Two histories share a database: the platform's own (`app/core/migrations/versions`) and the app's
(`app/<name>/migrations/versions`). Each is an ordinary Alembic history; no `alembic.ini` and no `env.py` are needed.

A run is one transaction under a lock. Two at once are safe: the second waits and finds nothing to do. A migration that
fails leaves the database as it was.

    python -m app.core.migrate                      apply what is missing
    python -m app.core.migrate --check              only say what is missing (exit code 1 when something is)
    python -m app.core.migrate --new "add a table"  begin a new migration file for the app
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from app.core.database import DatabaseError, make_engine
from app.core.settings import Settings, get_settings

CORE: Final = Path(__file__).with_name("migrations")
APPS: Final = Path(__file__).resolve().parents[1]
_LOCK: Final = 7237391  # any number, the same for every run: PostgreSQL's advisory lock for migrations


class MigrationError(DatabaseError):
    """A migration failed; the message names it."""


@dataclass(frozen=True)
class History:
    """One line of migrations and the table that says how far it has come."""

    name: str
    folder: Path
    version_table: str

    def scripts(self) -> ScriptDirectory:
        """The migrations, in order."""
        # the template of new files is ours; the files are the app's
        return ScriptDirectory(str(CORE), version_locations=[str(self.folder)])


def histories(app: str, apps: Path = APPS) -> list[History]:
    """The histories of an app's database: the platform's first, then the app's own when it has one."""
    found = [History("core", CORE / "versions", "pergola_core_version")]
    folder = apps / app / "migrations" / "versions"
    if folder.is_dir():
        found.append(History(app, folder, "alembic_version"))
    return found


def pending(url: str, lines: list[History]) -> list[str]:
    """What `upgrade` would apply, as `history: revision, message`."""
    with _connection(url) as connection:
        return [f"{line.name}: {step}" for line in lines for step in _missing(connection, line)]


def upgrade(url: str, lines: list[History]) -> list[str]:
    """Apply what is missing and return it. Raises MigrationError; then nothing has changed."""
    applied: list[str] = []
    at = ""
    try:
        with _connection(url) as connection:
            for line in lines:
                at = line.name
                missing = _missing(connection, line)
                if missing:
                    _run(connection, line)
                    applied += [f"{line.name}: {step}" for step in missing]
            _check_references(connection)
    except MigrationError:
        raise
    except Exception as error:  # a migration is ordinary code: anything can happen in it
        reason = " ".join(str(error.__cause__ or error).split())[:500] or type(error).__name__
        raise MigrationError(
            f"migrations of {at or 'the database'} failed, nothing was changed: {reason}. "
            "Correct the migration (or the database) and run again."
        ) from error
    return applied


@contextmanager
def _connection(url: str) -> Iterator[Connection]:
    """One transaction that holds the lock for migrations; commits at the end, rolls back on an exception."""
    made = make_engine(url, foreign_keys=False)
    try:
        with made.begin() as connection:  # SQLite: BEGIN IMMEDIATE, which is the lock
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            yield connection
    finally:
        made.dispose()


def _missing(connection: Connection, line: History) -> list[str]:
    """Revisions the database does not have yet, oldest first.

    A database that is ahead of this release (the release was rolled back) misses nothing: migrations keep old code working.
    """
    scripts = line.scripts()
    context = MigrationContext.configure(connection, opts={"version_table": line.version_table})
    done = context.get_current_heads()
    known = {script.revision for script in scripts.walk_revisions()}
    if not set(done) <= known:
        return []
    reached = {script.revision for head in done for script in scripts.iterate_revisions(head, "base")}
    steps = [script for script in scripts.walk_revisions() if script.revision not in reached]
    return [f"{script.revision}, {script.doc}" for script in reversed(steps)]


def _run(connection: Connection, line: History) -> None:
    scripts = line.scripts()

    def steps(revision: Any, _context: MigrationContext) -> Any:
        return scripts._upgrade_revs("head", revision)  # noqa: SLF001 - what Alembic's own command does

    with EnvironmentContext(Config(), scripts, fn=steps, destination_rev="head") as environment:
        environment.configure(connection=connection, version_table=line.version_table, render_as_batch=True)
        environment.run_migrations()


def _check_references(connection: Connection) -> None:
    """Foreign keys were off while SQLite's tables were rebuilt: see that every row still refers to one that exists."""
    if connection.dialect.name != "sqlite":
        return
    if broken := connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall():
        tables = ", ".join(sorted({str(row[0]) for row in broken}))
        raise MigrationError(
            f"migrations left {len(broken)} rows in {tables} that refer to nothing; nothing was changed"
        )


def ensure(settings: Settings) -> list[str]:
    """Apply what is missing for the app that `settings` name; returns it."""
    return upgrade(settings.database_url, histories(settings.app))


def new(app: str, message: str, apps: Path = APPS) -> Path:
    """Write the frame of a new migration of `app` and return its path."""
    folder = apps / app / "migrations" / "versions"
    folder.mkdir(parents=True, exist_ok=True)
    line = History(app, folder, "alembic_version")
    number = len(list(line.scripts().walk_revisions())) + 1
    made = line.scripts().generate_revision(
        f"{number:04d}", message, version_path=str(folder), head="head", file_template="%(rev)s_%(slug)s"
    )
    if made is None:
        raise MigrationError(f"no migration was written to {folder}")
    return Path(made.path)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m app.core.migrate", description="Bring the app's database up to date."
    )
    parser.add_argument("--check", action="store_true", help="only say what is missing")
    parser.add_argument("--new", metavar="MESSAGE", help="begin a new migration file for the app")
    given = parser.parse_args(arguments)
    settings = get_settings()
    try:
        if given.new:
            print(new(settings.app, given.new))
            return 0
        if given.check:
            steps = pending(settings.database_url, histories(settings.app))
            print("\n".join(steps) or f"{settings.app}: nothing to migrate")
            return 1 if steps else 0
        steps = ensure(settings)
    except (DatabaseError, SQLAlchemyError) as error:
        print(f"{settings.app}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    for step in steps:
        print(f"{settings.app}: migrated {step}")
    print(f"{settings.app}: database is up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
