"""A host that is to reboot has its group replace it first, and waits for its sessions."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

JOB = "12 reboot.target start waiting\n"


class Group:
    """A host, and the group that it is in."""

    def __init__(self) -> None:
        self.heard: list[dict[str, str]] = []
        self.status = 200
        self.wish: Iterator[str] = iter(["InService"])
        self.sessions: Iterator[int] = iter([])
        self.last = ""

    def metadata(self, path: str) -> str:
        if path.endswith("instance-id"):
            return "i-1"
        self.last = next(self.wish, self.last)
        return self.last


@pytest.fixture
def group(
    program: Any, serve: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[Any, Group]:
    """Give the program on a host of a group, hurried; it is to reboot."""
    known = Group()

    def answer(_: Any, body: bytes) -> tuple[int, bytes]:
        known.heard.append(dict(urllib.parse.parse_qsl(body.decode())))
        return known.status, b""

    serve(answer)
    (tmp_path / "systemctl").write_text(f"#!/bin/sh\nprintf '%s' '{JOB}'\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(program, "HOME", tmp_path)
    settings = {"group": "main-blue", "terminate_hook": "leave", "region": "us-east-1", "namespace": ""}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    monkeypatch.setattr(program, "metadata", known.metadata)
    monkeypatch.setattr(program.Sessions, "count", lambda *_: next(known.sessions, 0))
    monkeypatch.setattr(program, "LINGER", 0)
    monkeypatch.setattr(program.time, "sleep", lambda _: None)
    return program, known


def test_the_group_replaces_it_and_its_sessions_end_before_it_goes(group: tuple[Any, Group]) -> None:
    program, known = group
    known.wish, known.sessions = iter(["InService", "InService", "Terminated"]), iter([2, 1, 0, 1, 0, 0, 0])
    assert program.leave() == 0
    first, last = known.heard
    assert first == {
        "Action": "SetInstanceHealth", "Version": "2011-01-01", "InstanceId": "i-1", "HealthStatus": "Unhealthy",
        "ShouldRespectGracePeriod": "false",
    }  # fmt: skip
    assert (last["Action"], last["LifecycleActionResult"]) == ("CompleteLifecycleAction", "CONTINUE")
    assert next(known.sessions, None) is None, "three times in a row without one"


def test_sessions_that_do_not_end_do_not_hold_it_for_ever(
    group: tuple[Any, Group], monkeypatch: pytest.MonkeyPatch
) -> None:
    program, known = group
    known.wish, known.sessions = iter(["InService", "Terminated"]), iter(lambda: 1, 0)
    monkeypatch.setattr(program, "REBOOT", 0.3)
    assert program.leave() == 0
    assert known.heard[-1]["Action"] == "CompleteLifecycleAction"


def test_a_balancer_may_go_on_sending_for_a_while(group: tuple[Any, Group], monkeypatch: pytest.MonkeyPatch) -> None:
    program, _ = group
    clock = iter(range(100_000))
    monkeypatch.setattr(program.time, "monotonic", lambda: next(clock))
    began = next(clock)
    program.until_quiet(program.Sessions({}), 180, 30)
    assert 30 <= next(clock) - began < 60


def test_a_group_that_does_not_hear_it_does_not_keep_it(group: tuple[Any, Group], capsys: Any) -> None:
    program, known = group
    known.status = 403
    assert program.leave() == 1
    assert "the group does not hear it" in capsys.readouterr().out
    assert {told["Action"] for told in known.heard} == {"SetInstanceHealth"}


def test_a_group_that_does_nothing_does_not_keep_it(
    group: tuple[Any, Group], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    program, _ = group
    monkeypatch.setattr(program, "REBOOT", 0.2)
    assert program.leave() == 1
    assert "does not replace this host" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("job", "wish", "name"),
    [
        ("", "InService", "main-blue"),  # it ends, or the service alone is stopped
        (JOB, "Terminated", "main-blue"),  # the group ends it already
        (JOB, "InService", ""),  # on the way to an image, or by itself
    ],
)
def test_whoever_does_not_reboot_out_of_service_asks_nobody(
    group: tuple[Any, Group], tmp_path: Path, job: str, wish: str, name: str
) -> None:
    program, known = group
    (tmp_path / "systemctl").write_text(f"#!/bin/sh\nprintf '%s' '{job}'\n")
    (tmp_path / "settings.json").write_text(json.dumps({"group": name, "region": "us-east-1"}))
    known.wish = iter([wish])
    assert program.leave() == 0
    assert known.heard == []
