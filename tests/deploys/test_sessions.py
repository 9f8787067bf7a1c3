"""Live sessions: counted on a host, told as a metric, shown while visitors move."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from deploys import cloud


class Counting:
    """A host whose ``pergola status`` says what a test wants."""

    def __init__(self, folder: Path, instance: ModuleType, environment: Any, host: str) -> None:
        self.answer = folder / f"{host}.json"
        program = folder / "pergola"
        program.write_text(f'#!/bin/sh\n[ "$1 $2" = "status --json" ] && cat {self.answer}\n')
        program.chmod(0o755)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(instance, "metadata", lambda path: host if path == "meta-data/instance-id" else None)
            self.sessions = instance.Sessions({"namespace": environment.name, "region": "us-east-1"})

    def says(self, *counts: int | None) -> None:
        self.answer.write_text(
            json.dumps({"apps": [{"app": f"app{number}", "sessions": count} for number, count in enumerate(counts)]})
        )


@pytest.fixture
def hosts(environment: Any, instance: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Counting]:
    """Give the two hosts that serve."""
    made = []
    for host in environment.quiet().cloud.hosts(environment.spec("one").fleets[0], "blue"):
        folder = tmp_path / host
        folder.mkdir()
        made.append(Counting(folder, instance, environment, host))
    return made


def on(host: Counting, now: float, monkeypatch: pytest.MonkeyPatch) -> int | None:
    """Count on one host."""
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{host.answer.parent}{os.pathsep}{os.environ['PATH']}")
        found: int | None = host.sessions.count(now)
    return found


def test_the_sum_is_known_when_every_host_has_told(
    environment: Any, hosts: list[Counting], monkeypatch: pytest.MonkeyPatch
) -> None:
    told, group = environment.quiet().cloud.sessions, environment.groups["blue"]
    assert told(environment.name, group) is None
    hosts[0].says(3, 1)
    assert on(hosts[0], 0, monkeypatch) == 4
    assert told(environment.name, group) is None, "the other has not told"
    hosts[1].says(2, 0)
    assert on(hosts[1], 0, monkeypatch) == 2
    assert told(environment.name, group) == 6
    assert told(environment.name, environment.groups["green"]) == 0, "a group without hosts has no sessions"


def test_a_host_tells_when_it_has_changed_or_the_number_is_old(
    environment: Any, hosts: list[Counting], instance: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    monkeypatch.setattr(instance, "measured", lambda _, name, value, __: told.append(value))
    for now, count in ((0, 2), (15, 2), (30, 5), (32, 4), (36, 4), (200, 4), (300, 4)):
        hosts[0].says(count)
        assert on(hosts[0], now, monkeypatch) == count
    assert told == [2, 5, 4, 4], "at 0, 30, 36 (the metric has 5 seconds), and 300"
    hosts[0].says(None)
    assert on(hosts[0], 400, monkeypatch) is None, "an app that does not answer still has its visitors"
    hosts[0].answer.unlink()
    assert on(hosts[0], 500, monkeypatch) is None


def test_a_number_that_cannot_be_told_is_told_later(
    environment: Any,
    hosts: list[Counting],
    instance: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hosts[0].says(1)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        assert on(hosts[0], 0, monkeypatch) == 1
    assert "could not be told" in capsys.readouterr().out
    assert on(hosts[0], 15, monkeypatch) == 1
    ids = list(environment.quiet().cloud.hosts(environment.spec("one").fleets[0], "blue"))
    assert environment.quiet().cloud.latest(environment.name, "LiveSessions", ids) == {ids[0]: 1}


def test_both_sides_agree_for_how_long_a_number_stands(instance: ModuleType) -> None:
    assert cloud.RESOLUTION == instance.RESOLUTION
    assert cloud.STANDS >= instance.STANDS + instance.COUNTED + instance.LOOK


def test_a_deploy_shows_the_sessions_of_the_old_colour(
    environment: Any, hosts: list[Counting], monkeypatch: pytest.MonkeyPatch
) -> None:
    for host, count in zip(hosts, (3, 4), strict=True):
        host.says(count)
        on(host, 0, monkeypatch)
    spec = environment.spec("two", metrics=environment.name)
    environment.engine(spec).deploy()
    lines = [line for line in environment.lines if "sessions" in line]
    assert [re.sub(r"^ *\d+:\d\d +", "", line) for line in lines] == [
        "weight 10  sessions main: 7 live in blue; 0 s left",
        "weight 50  sessions main: 7 live in blue; 0 s left",
        "weight 100 sessions main: 7 live in blue; 0 s left",
        "live       sessions main: 7 live in blue; its hosts then wait for them up to the drain's ceiling",
    ]
    rows = {row["colour"]: row["sessions"] for row in environment.engine(spec).status()["colours"]}
    assert rows == {"blue": 7, "green": None}


def test_without_the_metric_nothing_is_shown(environment: Any) -> None:
    environment.engine(environment.spec("two")).deploy()
    assert not [line for line in environment.lines if "sessions" in line]
