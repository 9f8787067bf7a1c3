"""A host of the cloud whose clock is wrong knows it from AWS's answers, tells it, and is still heard."""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs

import pytest

SETTINGS = {"region": "eu-central-1", "namespace": "pergola-test"}


class Aws:
    """A stand-in of AWS whose clock differs from this machine's."""

    def __init__(self) -> None:
        self.ahead = 0.0  # of AWS's clock, seconds
        self.told: list[tuple[float, str]] = []  # a metric's value, and when its request was signed


@pytest.fixture
def aws(serve: Callable[[Any], None]) -> Aws:
    found = Aws()

    def answer(request: Any, body: bytes) -> tuple[int, bytes]:
        request.date_time_string = lambda _=None: formatdate(time.time() + found.ahead, usegmt=True)
        if body:
            row = parse_qs(body.decode())
            assert row["MetricData.member.1.MetricName"] == ["ClockOffset"]
            assert row["MetricData.member.1.Dimensions.member.1.Value"] == ["blue-whales"]
            found.told.append((float(row["MetricData.member.1.Value"][0]), request.headers["x-amz-date"]))
        return 200 if body else 403, b"<x/>"

    serve(answer)
    return found


@pytest.fixture
def instance(program: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "feed.json").write_text(json.dumps({"fleet": "blue-whales"}))
    monkeypatch.setattr(program, "FEED", tmp_path / "feed.json")
    return program


@pytest.mark.parametrize(("ahead", "word"), [(-1200, "fast"), (90, "slow")])
def test_a_wrong_clock_is_told_and_requests_are_signed_with_aws_time(
    instance: Any, aws: Aws, capsys: pytest.CaptureFixture[str], ahead: float, word: str
) -> None:
    aws.ahead, clock = ahead, instance.Clock(SETTINGS)
    clock.look(0.0)
    ((seconds, signed),) = aws.told
    assert seconds == pytest.approx(abs(ahead), abs=2)
    theirs = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=ahead)
    assert abs((dt.datetime.strptime(signed, "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC) - theirs).total_seconds()) < 4
    clock.look(61.0)
    aws.ahead = 0
    clock.look(122.0)
    assert aws.told[-1][0] < 2
    assert sys.modules["user_data"].AHEAD == [0.0]
    said = capsys.readouterr().out
    assert [said.count(f"s {word}"), said.count("the clock is right again")] == [1, 1], said


def test_a_clock_that_is_right_is_told_once_a_minute_and_nothing_is_said(
    instance: Any, aws: Aws, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = instance.Clock(SETTINGS)
    for now in (0.0, 5.0, 59.0, 60.0):
        clock.look(now)
    assert len(aws.told) == 2
    assert max(seconds for seconds, _ in aws.told) < 2
    assert capsys.readouterr().out == ""


def test_aws_that_does_not_answer_changes_nothing(
    instance: Any, aws: Aws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.ahead, clock = 1200, instance.Clock(SETTINGS)
    clock.look(0.0)
    known = sys.modules["user_data"].AHEAD[0]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    clock.look(61.0)
    assert [known] == sys.modules["user_data"].AHEAD
    assert "AWS's clock could not be seen" in capsys.readouterr().out


def test_a_slow_answer_says_nothing_of_the_clock(instance: Any, aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance, "PRECISE", -1)
    monkeypatch.setattr(instance, "theirs", lambda _: time.time() + 500)
    instance.Clock(SETTINGS).look(0.0)
    assert aws.told == []
