"""Structured logs."""

import json
import logging
import sys

import pytest

from app.core import logs


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_has_what_one_searches_for(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("wine")
    token = logs.request_id.set("abc12345")
    logging.getLogger("here").info("two\nlines, %s", "ü", extra={"event": "x", "n": 3})
    logs.request_id.reset(token)
    (line,) = lines(capsys)
    assert line["level"] == "info"
    assert line["app"] == "wine"
    assert line["release"] == "dev"
    assert line["request_id"] == "abc12345"
    assert line["message"] == "two\nlines, ü"
    assert (line["event"], line["n"]) == ("x", 3)
    assert str(line["ts"]).endswith("Z")


def test_an_exception_stays_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("here").exception("it failed")
    (line,) = lines(capsys)
    assert "ValueError: broken" in str(line["exception"])


def test_extra_cannot_overwrite_what_the_platform_says(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logging.getLogger("here").info("x", extra={"request_id": "forged", "level": "none"})
    (line,) = lines(capsys)
    assert (line["request_id"], line["level"]) == ("", "info")


def test_what_json_cannot_hold_is_shown_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logging.getLogger("here").info("x", extra={"path": sys.path, "thing": object})
    (line,) = lines(capsys)
    assert "object" in str(line["thing"])


def test_configuring_twice_prints_once_and_the_servers_own_access_lines_are_gone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logging.getLogger("uvicorn.error").setLevel("CRITICAL")  # as a server does that was told to be quiet
    logs.configure()
    logs.configure()
    logging.getLogger("uvicorn.error").warning("once")
    logging.getLogger("uvicorn.access").info("never")
    found = lines(capsys)
    assert [line["message"] for line in found if line["logger"] == "uvicorn.error"] == ["once"]
    assert not any(line["logger"] == "uvicorn.access" for line in found)
