"""A host that configures itself slowly tells its group that it is at work."""

from __future__ import annotations

import sys
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

import pytest

SETTINGS = {"group": "main-blue", "launch_hook": "serve", "region": "us-east-1"}


@pytest.fixture
def said(serve: Callable[[Any], None]) -> list[dict[str, str]]:
    """Give what an API is told; it answers every second call with an error."""
    heard: list[dict[str, str]] = []

    def answer(_: Any, body: bytes) -> tuple[int, bytes]:
        heard.append(dict(urllib.parse.parse_qsl(body.decode())))
        return (200 if len(heard) % 2 else 500), b""

    serve(answer)
    return heard


@pytest.fixture
def instance(program: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the program, hurried."""
    monkeypatch.setattr(program, "metadata", lambda _: "i-1")
    monkeypatch.setattr(program, "BEAT", 0.02)
    return program


def test_it_goes_on_through_errors_and_ends_with_the_work(instance: Any, said: list[dict[str, str]]) -> None:
    deadline = time.monotonic() + 30
    with instance.alive(SETTINGS, "launch_hook"):
        while len(said) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    told = len(said)
    assert said[0] == {
        "Action": "RecordLifecycleActionHeartbeat", "Version": "2011-01-01", "AutoScalingGroupName": "main-blue",
        "LifecycleHookName": "serve", "InstanceId": "i-1",
    }  # fmt: skip
    time.sleep(0.2)
    assert len(said) == told


def test_it_goes_on_when_the_role_had_no_keys_for_a_moment(
    instance: Any, said: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([RuntimeError("asking for credentials failed 6 times")])

    def keys() -> dict[str, str]:
        for error in answers:
            raise error
        return {"AccessKeyId": "a", "SecretAccessKey": "s", "Token": "t"}

    monkeypatch.setattr(sys.modules["user_data"], "keys", keys)
    deadline = time.monotonic() + 30
    with instance.alive(SETTINGS, "launch_hook"):
        while not said:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_it_ends_with_the_work_that_fails(instance: Any, said: list[dict[str, str]]) -> None:
    with pytest.raises(RuntimeError, match="no"), instance.alive(SETTINGS, "launch_hook"):
        raise RuntimeError("no")
    told = len(said)
    time.sleep(0.2)
    assert len(said) == told


def test_a_host_that_hangs_is_given_up_after_all(
    instance: Any, said: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance, "LONGEST", 0.1)
    with instance.alive(SETTINGS, "launch_hook"):
        time.sleep(0.4)
        told = len(said)
        time.sleep(0.3)
        assert len(said) == told


def test_an_instance_outside_a_group_says_nothing(instance: Any, said: list[dict[str, str]]) -> None:
    with instance.alive({"region": "us-east-1"}, "launch_hook"):
        time.sleep(0.2)
    assert said == []
