"""What tests of `app.core` and of the apps on it share about processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from app.core import auth, client, database, ratelimit
from app.core.settings import clear_settings

ROOT = Path(__file__).resolve().parents[2]


def forget() -> None:
    """Drop what modules remember for the life of a process."""
    clear_settings()
    database.engine.cache_clear()
    client.api_client.cache_clear()
    auth._prepared.cache_clear()
    auth._hash_of.cache_clear()
    ratelimit._opened.clear()


def told_at_once(program: str, times: int) -> list[tuple[str, str]]:
    """Run a Python program several times at once; return what each wrote, output and errors."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(times)
    ]
    return [process.communicate(timeout=90) for process in running]
