"""Programs of the control node that builds are made with."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


class BundleError(RuntimeError):
    """A bundle cannot be built; the message names the cause and the fix."""


def uv(arguments: Sequence[str], cwd: Path | None = None) -> str:
    """Return what uv prints. Raises BundleError."""
    beside = Path(sys.executable).with_name("uv")
    program = str(beside) if beside.exists() else shutil.which("uv")
    if program is None:
        msg = "uv is missing; run `make venv`, which installs it beside Python"
        raise BundleError(msg)
    return run([program, *arguments], cwd=cwd)


def run(command: Sequence[str], cwd: Path | None = None) -> str:
    """Return what a program prints. Raises BundleError with the end of what it said when it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join(done.stderr.strip().splitlines()[-5:])
        msg = f"{Path(command[0]).name} {' '.join(command[1:4])} … failed:\n{tail}"
        raise BundleError(msg)
    return done.stdout
