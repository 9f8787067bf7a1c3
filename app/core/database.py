"""Database engines and sessions: SQLite on one host, PostgreSQL in the cloud, the same code for both.

    with session() as db:                 # commits at the end, rolls back on an exception
        db.add(Prediction(...))

    with session(read_only=True) as db:   # readers never wait for a writer
        rows = db.scalars(select(Prediction)).all()

Tables come from migrations (`app.core.migrate`), never from `create_all`.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, MetaData, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import DeclarativeBase, Session

from app.core.settings import get_settings

BUSY_SECONDS: Final = 15
"""How long a SQLite writer waits for the one before it."""

_READ_ONLY: Final = "pergola_read_only"
_NAMES: Final = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class DatabaseError(Exception):
    """The database cannot be used; the message says what to change."""


class Base(DeclarativeBase):
    """Base of an app's tables. Constraints get names, so that a migration can change them on SQLite too."""

    metadata = MetaData(naming_convention=_NAMES)


class CoreBase(DeclarativeBase):
    """Base of the platform's own tables (`pergola_...`), which live in every app's database."""

    metadata = MetaData(naming_convention=_NAMES)


@lru_cache(maxsize=8)
def engine(url: str = "") -> Engine:
    """The engine for `url`, the app's own database when empty; one for each URL of the process."""
    return make_engine(url or get_settings().database_url)


def make_engine(url: str, *, foreign_keys: bool = True) -> Engine:
    """A new engine. SQLite gets WAL, foreign keys and patience; PostgreSQL connections are tested before use.

    Migrations rebuild SQLite tables and say `foreign_keys=False`, or dropping the old table would empty those that refer to it.
    """
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except ArgumentError as error:
        raise DatabaseError("PERGOLA_DATABASE_URL is not a database URL: expected sqlite:////folder/x.db") from error
    if backend == "sqlite":
        if parsed.database and parsed.database != ":memory:":
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        made = create_engine(parsed, connect_args={"timeout": BUSY_SECONDS})
        _tune_sqlite(made, foreign_keys=foreign_keys)
        return made
    if backend == "postgresql":
        return create_engine(parsed, pool_pre_ping=True, pool_size=5, max_overflow=5, pool_recycle=1800)
    raise DatabaseError(f"PERGOLA_DATABASE_URL: {backend} is not supported; use sqlite or postgresql")


def _tune_sqlite(made: Engine, *, foreign_keys: bool) -> None:
    @event.listens_for(made, "connect")
    def connect(connection: sqlite3.Connection, _record: Any) -> None:
        # sqlite3 must not begin transactions by itself: it would begin them too late, and never for DDL
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")
        cursor.close()

    @event.listens_for(made, "begin")
    def begin(connection: Connection) -> None:
        # a transaction that reads and then writes cannot be upgraded once another wrote: take the lock at the start
        read_only = connection.get_execution_options().get(_READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


@contextmanager
def session(url: str = "", *, read_only: bool = False) -> Iterator[Session]:
    """A session on the app's database: commits when the block ends, rolls back when it raises.

    `read_only` lets SQLite readers go on while somebody writes; nothing is committed then.
    """
    with (
        engine(url).connect().execution_options(**{_READ_ONLY: read_only}) as connection,
        Session(bind=connection, expire_on_commit=False) as db,
    ):
        yield db
        if not read_only:
            db.commit()
