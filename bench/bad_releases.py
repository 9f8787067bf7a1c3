"""Ten kinds of bad release, each a changed copy of an app: what a deploy must take back by itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

CRASH = """
import os as _os
import threading as _threading

_threading.Timer({seconds}, _os._exit, [3]).start()
"""
SLOW_START = """
import time as _time

_time.sleep({seconds})
"""
ERRORS = """
import random as _random

from fastapi.responses import PlainTextResponse as _PlainTextResponse


@app.middleware("http")
async def _spoil(request, call_next):
    if _random.random() < {share}:
        return _PlainTextResponse("spoilt", 500)
    return await call_next(request)
"""
LATENCY = """
import asyncio as _asyncio


@app.middleware("http")
async def _delay(request, call_next):
    await _asyncio.sleep({seconds})
    return await call_next(request)
"""
LEAK = """
import threading as _threading
import time as _time

_kept = []


def _leak():
    _time.sleep({wait})
    while True:
        _kept.append(b"x" * 1_000_000 * {megabytes})
        _time.sleep(1)


_threading.Thread(target=_leak, daemon=True).start()
"""
MIGRATION = '''"""A column of a table that is not there: harmless to the old code, and it fails."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("a_table_that_nobody_made", sa.Column("note", sa.Text, nullable=True))


def downgrade() -> None:
    pass
'''


@dataclass(frozen=True)
class Kind:
    """One kind of bad release.

    Attributes:
        name: What is wrong with it.
        change: Changes the app's folder.
        torn: What is wrong is not in the app: its archive in the bucket is not what the release says.
    """

    name: str
    change: Callable[[Path], None]
    torn: bool = False


def _appended(text: str, file: str = "api.py") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(f"{path.read_text(encoding='utf-8')}\n{text}", encoding="utf-8")

    return change


def _health_elsewhere(folder: Path) -> None:
    """Have the app asked where it does not answer: the wrong port of a service that listens on a socket."""
    path = folder / "app.yml"
    text = path.read_text(encoding="utf-8")
    changed = text.replace('api: { app: "app.wine.api:app"', 'api: { app: "app.wine.api:app", health: /nowhere')
    if changed == text:
        raise ValueError(f"{path} does not begin its api as this bench expects; correct bench/bad_releases.py")
    path.write_text(changed, encoding="utf-8")


def _migration(folder: Path) -> None:
    versions = folder / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions / "0001_bad.py").write_text(MIGRATION, encoding="utf-8")


KINDS = (
    Kind("does not install", lambda _: None, torn=True),
    Kind("import error", _appended("import a_module_that_nobody_has\n")),
    Kind("wrong port", _health_elsewhere),
    Kind("crash after 5 s", _appended(CRASH.format(seconds=5))),
    Kind("slow start past the limit", _appended(SLOW_START.format(seconds=1800))),
    Kind("script raises", _appended('raise RuntimeError("a bad release")\n', "ui.py")),
    Kind("5 % of requests 500", _appended(ERRORS.format(share=0.05))),
    Kind("latency x10", _appended(LATENCY.format(seconds=0.5))),
    Kind("memory leak past the limit", _appended(LEAK.format(wait=15, megabytes=64))),
    Kind("failing migration", _migration),
)


def copy(app: str, into: Path, stamp: str, change: Callable[[Path], None] = lambda _: None) -> Path:
    """Make a changed copy of an app; the stamp makes it a release of its own. Returns its folder, named like the app."""
    folder = into / app
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(ROOT / "app" / app, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "bench.txt").write_text(stamp, encoding="utf-8")
    change(folder)
    return folder
