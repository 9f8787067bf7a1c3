"""A host of the cloud learns how the control node's maintenance ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PLAN = {
    "calendar": [
        {"name": "patches", "where": "control"},
        {"name": "cost", "where": "control"},
        {"name": "capacity", "where": "host"},
    ]
}


@pytest.fixture
def bucket(serve: Callable[[Any], None]) -> dict[str, str]:
    """Give what a bucket on a server holds; who does not sign is refused."""
    held: dict[str, str] = {}

    def answer(request: Any, _: bytes) -> tuple[int, bytes]:
        body = held.get(request.path, "").encode()
        signed = "aws4_request" in request.headers.get("Authorization", "")
        return (200 if body and signed else 404 if signed else 403), body

    serve(answer)
    return held


@pytest.fixture
def instance(program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the program, on a host whose plan is PLAN."""
    (tmp_path / "site.json").write_text(json.dumps(PLAN))
    monkeypatch.setattr(program, "SITE", tmp_path / "site.json")
    monkeypatch.setattr(program, "JOBS", tmp_path / "jobs")
    return program


def test_what_maintenance_left_is_kept_for_the_status_page(
    instance: Any, bucket: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"time": "2026-11-24T04:00:00Z", "seconds": 900.0, "good": True}
    bucket["/artefacts/releases/maintenance/patches.json"] = json.dumps(told)
    bucket["/artefacts/releases/maintenance/capacity.json"] = "a job of hosts is their own"
    calendar = instance.Calendar({"bucket": "artefacts", "region": "eu-central-1"})
    calendar.look(0.0)
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == ["patches.json"]
    assert json.loads((tmp_path / "jobs/patches.json").read_text()) == told
    bucket["/artefacts/releases/maintenance/patches.json"] = json.dumps({**told, "good": False})
    calendar.look(60.0)
    assert json.loads((tmp_path / "jobs/patches.json").read_text()) == told, "not asked every few seconds"
    calendar.look(601.0)
    assert json.loads((tmp_path / "jobs/patches.json").read_text())["good"] is False
    bucket["/artefacts/releases/maintenance/patches.json"] = "no JSON"
    calendar.look(1300.0)
    assert json.loads((tmp_path / "jobs/patches.json").read_text())["good"] is False
    assert "could not be learnt" in capsys.readouterr().out
