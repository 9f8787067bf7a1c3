"""A queue in a table: work is leased, not handed over, so that a worker that dies loses nothing.

    class Task(Leased, Base): ...                              # the app's own table, with its own columns beside these

    task = claim(Task, owner, seconds=30)                      # the oldest that waits, or whose worker went silent
    renew(Task, task.id, owner, seconds=30)                    # from time to time: False says that somebody else has it now
    with session() as db:
        if settle(db, Task, task.id, owner, "done"):           # in one transaction with the result: it is written once or never
            db.add(Result(...))

Works on SQLite and PostgreSQL alike. Claims are atomic (SKIP LOCKED, or SQLite's write lock); a result counts only while its
worker still holds the lease, so work may be begun twice and is never done twice. Clocks of several hosts must agree to within a lease.
"""

import time
from typing import Any, Final, TypeVar

from sqlalchemy import CursorResult, String, and_, or_, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from app.core.database import session

WAITING: Final = "waiting"
WORKING: Final = "working"


class Leased:
    """Columns of a table of work. `state` is waiting, working, or what `settle` was told; `attempts` counts the claims."""

    state: Mapped[str] = mapped_column(String(10))
    owner: Mapped[str] = mapped_column(String(64))
    lease_until: Mapped[float]
    attempts: Mapped[int]


T = TypeVar("T", bound=DeclarativeBase)


def claim(table: type[T], owner: str, seconds: float) -> T | None:
    """Take the oldest piece of work that waits or whose lease has ended; None when there is none."""
    now = time.time()
    columns: Any = table
    free = or_(
        columns.state == WAITING,
        and_(columns.state == WORKING, columns.lease_until < now),
    )
    with session(read_only=True) as db:  # looking must not make writers wait
        if db.scalar(select(columns.id).where(free).limit(1)) is None:
            return None
    with session() as db:
        asked = select(table).where(free).order_by(columns.id).limit(1)
        if db.get_bind().dialect.name == "postgresql":
            asked = asked.with_for_update(skip_locked=True)
        row: Any = db.scalar(asked)
        if row is None:
            return None
        row.state, row.owner, row.lease_until = WORKING, owner, now + seconds
        row.attempts += 1
        db.flush()
        found: T = row
        return found


def renew(table: type[DeclarativeBase], identity: int, owner: str, seconds: float, **values: Any) -> bool:
    """Keep the lease for `seconds` more, and set these columns; False when it is this owner's no longer."""
    with session() as db:
        return _change(db, table, identity, owner, lease_until=time.time() + seconds, **values)


def settle(db: Session, table: type[DeclarativeBase], identity: int, owner: str, state: str, **values: Any) -> bool:
    """End the work within the caller's transaction; False (and nothing is changed) when it is this owner's no longer."""
    return _change(db, table, identity, owner, state=state, **values)


def give_back(table: type[DeclarativeBase], identity: int, owner: str) -> bool:
    """Let another worker have it at once: this one is asked to stop. The attempt does not count."""
    columns: Any = table
    with session() as db:
        return _change(db, table, identity, owner, state=WAITING, lease_until=0.0, attempts=columns.attempts - 1)


def _change(db: Session, table: type[DeclarativeBase], identity: int, owner: str, **values: Any) -> bool:
    columns: Any = table
    done = db.execute(
        update(table)
        .where(columns.id == identity, columns.owner == owner, columns.state == WORKING)
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    return isinstance(done, CursorResult) and done.rowcount == 1
