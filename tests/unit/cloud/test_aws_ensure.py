"""aws_ensure: what no collection covers, compared and changed; against moto."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from plugins.modules import aws_ensure

BODY = {"widgets": [{"type": "text", "x": 0, "y": 0, "width": 6, "height": 6, "properties": {"markdown": "a"}}]}


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "rehearsal")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield


def params(**more: Any) -> dict[str, Any]:
    """A dashboard called site."""
    body = json.dumps(BODY)
    return {
        "read": {"call": "get_dashboard", "args": {"DashboardName": "site"}, "select": "@"},
        "want": {"DashboardBody": body},
        "create": {"call": "put_dashboard", "args": {"DashboardName": "site", "DashboardBody": body}},
        "update": None,
        "delete": {"call": "delete_dashboards", "args": {"DashboardNames": ["site"]}},
        "absent_errors": ["ResourceNotFound"],
        "state": "present",
        **more,
    }


def run(*, check_mode: bool = False, **more: Any) -> dict[str, Any]:
    client = boto3.client("cloudwatch", region_name="us-east-1")
    return aws_ensure.ensure(client, params(**more), check_mode=check_mode)


def test_it_is_made_once() -> None:
    first, second = run(), run()
    assert (first["changed"], first["differences"]) == (True, ["absent"])
    assert (second["changed"], second["differences"]) == (False, [])
    assert json.loads(second["resource"]["DashboardBody"]) == BODY


def test_check_mode_says_what_it_would_do_and_does_nothing() -> None:
    assert run(check_mode=True)["changed"]
    assert run(check_mode=True)["resource"] is None


def test_what_differs_is_named_and_changed() -> None:
    run()
    other = json.dumps({"widgets": []})
    changed = {
        "want": {"DashboardBody": other},
        "update": {"call": "put_dashboard", "args": {"DashboardName": "site", "DashboardBody": other}},
    }
    assert run(check_mode=True, **changed)["differences"] == [".DashboardBody.widgets"]
    assert json.loads(run(**changed)["resource"]["DashboardBody"]) == {"widgets": []}
    assert not run(**changed)["changed"]


def test_it_is_removed_once() -> None:
    run()
    assert run(state="absent")["changed"]
    assert not run(state="absent")["changed"]


def test_without_create_it_only_reads() -> None:
    assert run(create=None) == {"changed": False, "differences": ["absent"], "resource": None}


def test_an_error_that_means_something_else_is_raised() -> None:
    client, read = (
        boto3.client("sqs", region_name="us-east-1"),
        {"call": "get_queue_url", "args": {"QueueName": "none"}, "select": "@"},
    )
    code = "AWS.SimpleQueueService.NonExistentQueue"
    assert aws_ensure.read(client, read, [code]) is None
    with pytest.raises(ClientError, match=code):
        aws_ensure.read(client, read, [])


@pytest.mark.parametrize(
    ("want", "have", "paths"),
    [
        ({"a": "1"}, {"a": 1, "b": 2}, []),
        ({"a": '{"x": [1]}'}, {"a": {"x": [1.0], "y": 2}}, []),
        ({"a": ["x", "y"]}, {"a": ["y", "x"]}, []),
        ({"a": [{"x": 1}]}, {"a": [{"x": 2}]}, [".a[0].x"]),
        ({"a": {"b": 1}}, {"a": None}, [".a"]),
        ({"a": True}, {"a": "True"}, [".a"]),
        ({"a": [1]}, {"a": [1, 2]}, [".a"]),
    ],
)
def test_compared_is_what_is_wanted(want: Any, have: Any, paths: list[str]) -> None:
    assert aws_ensure.differences(aws_ensure.plain(want), aws_ensure.plain(have)) == paths
