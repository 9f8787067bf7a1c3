"""Run a release's ``prepare`` modules, in the manifest's order: ``python -m app.core.prepare``.

Each is a module with a ``main()`` or a ``__main__`` block, run in a process of its own as ``python -m <module>``. The first that
fails ends the run with its exit code, and the release is not made live.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from app.core.manifest import load
from app.core.settings import get_settings


def modules(folder: Path, app: str) -> list[str]:
    """Return the modules to run: from the release's ``manifest.json``, on a laptop from the app's ``app.yml``."""
    packed = folder / "manifest.json"
    data = json.loads(packed.read_text(encoding="utf-8")) if packed.is_file() else load(folder / "app" / app).data
    return [str(module) for module in data["prepare"]]


def main() -> int:
    """Run every module; return the exit code of the first that fails, else 0."""
    for module in modules(Path.cwd(), get_settings().app):
        began = time.monotonic()
        print(f"prepare: {module}", flush=True)
        done = subprocess.run([sys.executable, "-m", module], check=False)
        if done.returncode != 0:
            print(f"prepare: {module} failed with exit code {done.returncode}", flush=True)
            return done.returncode
        print(f"prepare: {module} done in {time.monotonic() - began:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
