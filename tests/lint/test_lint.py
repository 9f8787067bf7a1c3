"""Every linter of ``make lint`` is content."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT = ROOT / "scripts" / "lint"
FOUND = re.search(r"^all=\(([^)]*)\)", LINT.read_text(encoding="utf-8"), re.MULTILINE)
PARTS = FOUND[1].split() if FOUND else []


def test_there_are_parts() -> None:
    assert {"ruff", "mypy", "ansible-lint", "yamllint", "shellcheck", "actionlint", "zizmor"} <= set(PARTS)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", PARTS)
def test_linter_is_content(part: str) -> None:
    done = subprocess.run([LINT, part], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"scripts/lint {part}:\n{done.stdout[-8000:]}{done.stderr[-2000:]}"
