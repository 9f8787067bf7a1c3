"""Programs and plugins that stand in no package, as modules."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def loaded(path: str | Path) -> Any:
    """Return a file of the project as a module, a new one each time, which is not in ``sys.modules``."""
    file = ROOT / path
    spec = importlib.util.spec_from_file_location(f"{file.stem}_of_{file.parent.name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
