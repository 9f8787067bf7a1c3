"""Backups of the database: a consistent snapshot of every table, encrypted, checked, restored in one transaction.

A backup is the rows of all tables as JSON lines, read in one transaction that sees one moment, compressed and sealed with
AES-256-GCM. The same file goes back into SQLite or PostgreSQL. Before it counts it is opened again and its rows are compared with
what was read, table by table. A restore takes a safety copy first and replaces all rows in one transaction, or none.

The storage keeps them (`backups/<utc>-<sha8>`, checksummed; the bucket's rules move them to Glacier after 30 days and end them
after 365). Files of drawings are in the same storage and have their own backup.
"""

import base64
import gzip
import hashlib
import io
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Connection, Table, delete, insert, select, text

from app.core import artefacts, database
from app.core.database import Base
from app.core.settings import secret
from app.core.storage import Storage
from app.drawings import tables as _tables
from app.drawings.settings import DrawingsSettings
from app.drawings.tables import Setting

log = logging.getLogger(__name__)

ARTEFACT: Final = "backups"
KIND: Final = "drawings-backup"
SECRET: Final = "backup_key"  # noqa: S105 - the name of a secret
_FORMAT: Final = "pergola-drawings-backup/1"
_LAST: Final = "backup_at"
_ROWS: Final = 500
_OWN: Final = _tables.__name__


class BackupError(Exception):
    """A backup could not be made, read or restored; the message says why."""


@dataclass(frozen=True)
class Snapshot:
    """What a backup holds: for each table its rows, and the SHA-256 of them in the order of their keys."""

    rows: dict[str, int]
    digests: dict[str, str]

    @property
    def total(self) -> int:
        """Rows of all tables."""
        return sum(self.rows.values())


@dataclass(frozen=True)
class Keeper:
    """Makes and restores backups of the app's database."""

    settings: DrawingsSettings
    storage: Storage
    environment: str

    def make(self, reason: str) -> artefacts.Version:
        """Back the database up now. Raises BackupError when what was written is not what was read."""
        with _reading(self.settings.database_url) as connection:
            plain, snapshot = dump(connection)
        sealed = seal(plain, self.key())
        again = check(unseal(sealed, self.key()))
        if again != snapshot:
            raise BackupError("the backup does not hold what was read; nothing was stored")
        return artefacts.save(
            self.storage,
            ARTEFACT,
            sealed,
            {
                "kind": KIND,
                "reason": reason,
                "environment": self.environment,
                "rows": snapshot.total,
                "tables": snapshot.rows,
                "digests": snapshot.digests,
            },
        )

    def list(self) -> list[artefacts.Version]:
        """Every complete backup, newest first."""
        return [one for one in artefacts.versions(self.storage, ARTEFACT) if one.meta.get("kind") == KIND]

    def find(self, identity: str | None, at: datetime | None = None) -> artefacts.Version:
        """A backup by its id, or the newest one at or before a time; the newest of all when neither is given.

        Raises:
            BackupError: There is none.
        """
        for one in self.list():
            if identity is not None and one.id != identity:
                continue
            if at is None or one.created <= at:
                return one
        wanted = f"{identity}" if identity else f"at or before {at.isoformat()}" if at else "yet"
        raise BackupError(f"there is no backup {wanted}")

    def verify(self, one: artefacts.Version) -> Snapshot:
        """Open a backup and compare every table with what was noted when it was made. Raises BackupError."""
        return check(self._open(one), one)

    def restore(self, one: artefacts.Version) -> tuple[artefacts.Version, Snapshot]:
        """Put a backup's rows in the place of all there are; returns the safety copy made before, and what is there now.

        Raises:
            BackupError: The backup is damaged, of another environment or of a newer release; nothing has changed then.
        """
        if one.meta.get("environment") != self.environment:
            raise BackupError(f"this backup is of environment {one.meta.get('environment')}, not of {self.environment}")
        plain = self._open(one)
        wanted = check(plain, one)
        safety = self.make("safety")
        made = database.make_engine(self.settings.database_url)
        try:
            with made.begin() as connection:
                load(connection, plain)
                _, now = dump(connection)
                if now != wanted:
                    raise BackupError("the restored tables are not those of the backup; nothing was changed")
        finally:
            made.dispose()
        log.warning("database restored", extra={"event": "restored", "backup": one.id, "safety_copy": safety.id})
        return safety, wanted

    def due(self) -> bool:
        """Whether it is time; whoever asks first after that gets the turn, in whichever process."""
        now = time.time()
        with database.session() as db:
            row = db.get(Setting, _LAST)
            if row is None:
                db.add(Setting(name=_LAST, value=str(now)))
                return True
            if now - float(row.value) < self.settings.backup_hours * 3600:
                return False
            row.value = str(now)
            return True

    def prune(self) -> None:
        """Delete the oldest beyond `backup_keep`."""
        for one in self.list()[self.settings.backup_keep :]:
            self.storage.delete(f"{one.key}.json")
            self.storage.delete(one.key)

    def key(self) -> bytes:
        """The key that backups are sealed with: made from the secret `backup_key`, on a laptop from a file beside the database."""
        given = secret(SECRET)
        if given is None:
            if self.settings.on_host:
                raise BackupError(f"backups are not set up: give the app the secret {SECRET}")
            given = _laptop_key(self.settings.state_dir / "backup.key")
        derive = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=_FORMAT.encode())
        return derive.derive(given.encode())

    def _open(self, one: artefacts.Version) -> bytes:
        try:
            return unseal(artefacts.load(self.storage, one), self.key())
        except artefacts.ArtefactError as error:
            raise BackupError(str(error)) from error


def _laptop_key(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="utf-8")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        made = secrets.token_hex(32)
        file.write(made)
    return made


def app_tables() -> list[Table]:
    """Tables of the app, those that others refer to first."""
    own = {mapper.class_.__tablename__ for mapper in Base.registry.mappers if mapper.class_.__module__ == _OWN}
    return [table for table in Base.metadata.sorted_tables if table.name in own]


class _reading:  # noqa: N801 - used like a function
    """A transaction that only reads, and sees one moment of the whole database."""

    def __init__(self, url: str) -> None:
        self._engine = database.make_engine(url)

    def __enter__(self) -> Connection:
        self._connection = self._engine.connect().execution_options(pergola_read_only=True)
        self._connection.begin()
        if self._engine.dialect.name == "postgresql":
            self._connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._engine.dispose()


def dump(connection: Connection) -> tuple[bytes, Snapshot]:
    """All rows as JSON lines, and their count and SHA-256 table by table."""
    out, rows, digests = io.BytesIO(), {}, {}
    out.write(json.dumps({"format": _FORMAT}).encode() + b"\n")
    for table in app_tables():
        digest, count = hashlib.sha256(), 0
        out.write(
            json.dumps({"table": table.name, "columns": [column.name for column in table.columns]}).encode() + b"\n"
        )
        for row in connection.execute(select(table).order_by(*table.primary_key.columns)):
            line = json.dumps([_plain(value) for value in row], ensure_ascii=False).encode()
            digest.update(line)
            out.write(line + b"\n")
            count += 1
        rows[table.name], digests[table.name] = count, digest.hexdigest()
    return out.getvalue(), Snapshot(rows, digests)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | memoryview):
        return {"b": base64.b64encode(bytes(value)).decode()}
    return value


def _lines(plain: bytes) -> Iterator[tuple[str, list[str], list[bytes]]]:
    """Each table's name, columns and rows (as lines)."""
    first, *rest = plain.splitlines()
    if json.loads(first).get("format") != _FORMAT:
        raise BackupError("this is not a backup of this app")
    name, columns = "", list[str]()
    rows = list[bytes]()
    for line in rest:
        if line.startswith(b"{"):
            if name:
                yield name, columns, rows
            head = json.loads(line)
            name, columns, rows = head["table"], head["columns"], []
        else:
            rows.append(line)
    if name:
        yield name, columns, rows


def check(plain: bytes, one: artefacts.Version | None = None) -> Snapshot:
    """Count what a backup holds; with its description also compare. Raises BackupError."""
    try:
        found = list(_lines(plain))
        snapshot = Snapshot(
            {name: len(rows) for name, _, rows in found},
            {name: hashlib.sha256(b"".join(rows)).hexdigest() for name, _, rows in found},
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BackupError(f"the backup cannot be read: {type(error).__name__}") from error
    if one is not None and (snapshot.rows != one.meta.get("tables") or snapshot.digests != one.meta.get("digests")):
        raise BackupError(f"backup {one.id} does not hold the rows it was made with")
    return snapshot


def load(connection: Connection, plain: bytes) -> None:
    """Replace all rows by the backup's. Columns that came later keep their defaults; unknown ones are an error."""
    known = {table.name: table for table in app_tables()}
    held = {name: (columns, rows) for name, columns, rows in _lines(plain)}
    if strange := sorted(set(held) - set(known)):
        raise BackupError(f"the backup has tables that this release does not know: {', '.join(strange)}")
    for table in reversed(app_tables()):
        connection.execute(delete(table))
    for name, table in known.items():
        columns, rows = held.get(name, ([], []))
        if strange := sorted(set(columns) - set(table.columns.keys())):
            raise BackupError(f"the backup's table {name} has unknown columns: {', '.join(strange)}")
        for start in range(0, len(rows), _ROWS):
            values = [
                dict(zip(columns, map(_value, json.loads(line)), strict=True)) for line in rows[start : start + _ROWS]
            ]
            connection.execute(insert(table), values)
        _follow_numbers(connection, table)


def _value(value: Any) -> Any:
    return base64.b64decode(value["b"]) if isinstance(value, dict) else value


def _follow_numbers(connection: Connection, table: Table) -> None:
    """PostgreSQL numbers rows by a counter of its own, which rows with given numbers do not move."""
    (column, *more) = table.primary_key.columns
    if connection.dialect.name != "postgresql" or more or column.type.python_type is not int:
        return
    connection.execute(
        text(
            f"SELECT setval(pg_get_serial_sequence('{table.name}', '{column.name}'), "  # noqa: S608 - names from our own tables
            f"COALESCE((SELECT MAX({column.name}) FROM {table.name}), 0) + 1, false)"
        )
    )


def seal(plain: bytes, key: bytes) -> bytes:
    """Compressed and encrypted; 12 bytes of nonce before it."""
    nonce = secrets.token_bytes(12)
    return nonce + AESGCM(key).encrypt(nonce, gzip.compress(plain, 6, mtime=0), _FORMAT.encode())


def unseal(sealed: bytes, key: bytes) -> bytes:
    """What was sealed. Raises BackupError for another key, and when a single bit is not as it was."""
    try:
        return gzip.decompress(AESGCM(key).decrypt(sealed[:12], sealed[12:], _FORMAT.encode()))
    except (InvalidTag, ValueError, EOFError, OSError) as error:
        raise BackupError("the backup cannot be opened: another key, or damaged") from error


def parse_time(said: str) -> datetime:
    """A time as people write it (ISO 8601); UTC unless it says otherwise. Raises BackupError."""
    try:
        moment = datetime.fromisoformat(said.strip())
    except ValueError:
        raise BackupError(f"{said!r} is no time: expected one such as 2026-11-23T06:00:00Z") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
