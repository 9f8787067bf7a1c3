"""A host of the cloud tells how old its backups are, also when they are not made any more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from botocore.session import Session
from botocore.validate import ParamValidator

ROW = {
    "app": "wine",
    "what": "database",
    "hours": 0.05,
    "since": 0.052,
    "limit": 0.167,
    "late": False,
    "shrunk": False,
    "bytes": 70000,
}


@pytest.fixture
def instance(program: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the program; what it tells AWS is in ``told``."""
    program.told = []
    monkeypatch.setattr(
        program, "call", lambda service, region, body, headers: program.told.append(parse_qs(body.decode()))
    )
    return program


def command(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int = 0) -> None:
    """Put a program ``pergola-backup`` with that answer into the path."""
    program = folder / "pergola-backup"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\nexit {code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def tell(instance: Any, *moments: float) -> dict[str, dict[str, Any]]:
    """Look at those moments; return the values by metric."""
    backups = instance.Backups({"namespace": "pergola-test", "region": "eu-central-1"})
    for now in moments:
        backups.tell(now)
    return {form["MetricData.member.1.MetricName"][0]: form for form in instance.told}


def test_age_size_and_shrinking_are_told_a_thing_of_an_app(
    instance: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(tmp_path, monkeypatch, json.dumps({"backups": [ROW]}))
    told = tell(instance, 0)
    values = {name: float(form["MetricData.member.1.Value"][0]) for name, form in told.items()}
    assert values == {"BackupAgeHours": 0.052, "BackupShrunk": 0, "BackupBytes": 70000}
    shape = Session().get_service_model("cloudwatch").operation_model("PutMetricData").input_shape
    for form in told.values():
        given = {key: cell[0] for key, cell in form.items()}
        assert given["Namespace"] == "pergola-test"
        dimensions = [
            {part: given[f"MetricData.member.1.Dimensions.member.{number}.{part}"] for part in ("Name", "Value")}
            for number in (1, 2)
        ]
        assert dimensions == [{"Name": "App", "Value": "wine"}, {"Name": "What", "Value": "database"}]
        datum = {"MetricName": "x", "Unit": given["MetricData.member.1.Unit"], "Dimensions": dimensions, "Value": 1.0}
        assert not ParamValidator().validate({"Namespace": "x", "MetricData": [datum]}, shape).has_errors()


def test_what_is_late_is_told_too(instance: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = {**ROW, "hours": None, "since": 3.5, "late": True, "bytes": None}
    command(tmp_path, monkeypatch, json.dumps({"failed": True, "msg": "late", "backups": [late]}), code=1)
    told = tell(instance, 0)
    assert told["BackupAgeHours"]["MetricData.member.1.Value"] == ["3.5"]
    assert "BackupBytes" not in told


def test_it_is_told_now_and_then(instance: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command(tmp_path, monkeypatch, json.dumps({"backups": [{**ROW, "bytes": None}]}))
    tell(instance, 0, 1, instance.BACKUPS - 1, instance.BACKUPS + 1)
    assert len(instance.told) == 4


@pytest.mark.parametrize("answer", ["", "no JSON", '{"failed": true, "msg": "backup.json is missing"}'])
def test_a_host_without_backups_tells_nothing(
    instance: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    command(tmp_path, monkeypatch, answer, code=1)
    assert tell(instance, 0) == {}
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert tell(instance, 0) == {}
