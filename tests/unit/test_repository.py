"""What git holds: nothing that only this machine has."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def held() -> list[tuple[str, str]]:
    """Return mode and path of every file that git has."""
    done = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-s"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [(line.split()[0], line.split("\t")[1]) for line in done.stdout.splitlines()]


def test_no_link_leads_out_of_the_project() -> None:
    links = [ROOT / path for mode, path in held() if mode == "120000"]
    assert [str(link) for link in links if not link.resolve().is_relative_to(ROOT)] == []


def test_what_is_made_is_not_in_git() -> None:
    made = (".venv", "build", ".vagrant", "__pycache__", ".hypothesis")
    assert [path for _, path in held() if any(part in made for part in Path(path).parts)] == []
