"""What is promised of the rehearsal's own code: small enough to be read, and knowing nothing of Pergola."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PERGOLA = {"app", "deploys", "prober", "plugins", "bench", "scripts"}


def test_the_bodies_are_under_1500_lines() -> None:
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "rehearsal").glob("*.py")) < 1500


@pytest.mark.parametrize(
    "path", sorted([*(ROOT / "rehearsal").glob("*.py"), *(ROOT / "emulator").glob("*.py")]), ids=lambda path: path.stem
)
def test_nothing_of_pergola_is_imported(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not {name.partition(".")[0] for name in names} & PERGOLA
