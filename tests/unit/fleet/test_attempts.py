"""How often a host tries to become what its release says."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import pytest

SETTINGS = {"group": "main-blue", "region": "us-east-1"}


@pytest.fixture
def tried(program: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Any, list[Exception]]:
    """Give the program, hurried, and the errors that its attempts end with, in turn; without one an attempt is good."""
    errors: list[Exception] = []

    def become(_: dict[str, Any]) -> None:
        if errors:
            raise errors.pop(0)

    monkeypatch.setattr(program, "become", become)
    monkeypatch.setattr(program, "FRESH", tmp_path / "fresh")
    monkeypatch.setattr(program.time, "sleep", lambda _: None)
    return program, errors


def test_what_may_pass_is_tried_three_times(tried: tuple[Any, list[Exception]], capsys: Any) -> None:
    program, errors = tried
    errors += [urllib.error.URLError("no route"), RuntimeError("install: no space"), OSError("gone"), OSError("again")]
    assert program.became(SETTINGS) is False
    assert len(errors) == 1
    assert "attempt 3 of 3 failed" in capsys.readouterr().out


def test_a_release_that_does_not_serve_is_tried_twice(tried: tuple[Any, list[Exception]], capsys: Any) -> None:
    program, errors = tried
    errors += [program.RefusedError("wine: live: not ready")] * 3
    assert program.became(SETTINGS) is False
    assert len(errors) == 1
    assert "attempt 2 of 2 failed" in capsys.readouterr().out


def test_it_may_be_good_in_the_end(tried: tuple[Any, list[Exception]]) -> None:
    program, errors = tried
    errors += [program.RefusedError("wine: live: not ready"), OSError("no route")]
    assert program.became(SETTINGS) is True


def test_it_is_the_way_live_that_is_refused(program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """#!/bin/sh
case $1 in
  pending) echo '{"pending": {"wine": ["release"]}, "layers": []}' ;;
  @FAILS@) echo 'broken' >&2; exit 1 ;;
esac
"""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(program, "HOME", tmp_path)
    bundle = {"app": "wine", "release": "r2", "archive": "a", "archive_sha256": "s", "layers": []}
    for fails, kind in (("install", RuntimeError), ("deploy", program.RefusedError)):
        (tmp_path / "pergola").write_text(script.replace("@FAILS@", fails))
        (tmp_path / "pergola").chmod(0o755)
        with pytest.raises(RuntimeError, match="broken") as caught:
            program.swap(bundle)
        assert type(caught.value) is kind
