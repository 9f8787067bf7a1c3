"""aws_ensure: what no collection covers, compared and changed; against moto."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from ansible.module_utils.testing import patch_module_args
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


def queue(name: str, seconds: str, **more: Any) -> dict[str, Any]:
    """One of several resources: a queue whose messages become visible again after so many seconds."""
    asked = {"QueueUrl": f"https://sqs.us-east-1.amazonaws.com/123456789012/{name}", "AttributeNames": ["All"]}
    return {
        "name": name,
        "read": {"call": "get_queue_attributes", "args": asked, "select": "Attributes"},
        "want": {"VisibilityTimeout": seconds},
        "create": {"call": "create_queue", "args": {"QueueName": name, "Attributes": {"VisibilityTimeout": seconds}}},
        "update": {
            "call": "set_queue_attributes",
            "args": {"QueueUrl": asked["QueueUrl"], "Attributes": {"VisibilityTimeout": seconds}},
        },
        "delete": {"call": "delete_queue", "args": {"QueueUrl": asked["QueueUrl"]}},
        "absent_errors": None,
        "state": None,
        **more,
    }


def several(*rows: dict[str, Any], check_mode: bool = False) -> dict[str, Any]:
    given = params(
        read=None, want={}, create=None, delete=None, absent_errors=["AWS.SimpleQueueService.NonExistentQueue"]
    )
    client = boto3.client("sqs", region_name="us-east-1")
    return aws_ensure.several(client, {**given, "resources": list(rows)}, check_mode=check_mode)


def test_several_are_looked_after_in_one_run() -> None:
    rows = [queue("first", "30"), queue("second", "30")]
    assert several(*rows, check_mode=True)["changed"]
    made = several(*rows)
    assert [(row["name"], row["changed"], row["differences"]) for row in made["resources"]] == [
        ("first", True, ["absent"]),
        ("second", True, ["absent"]),
    ]
    assert not several(*rows)["changed"]
    other = several(rows[0], queue("second", "60"))
    assert [row["differences"] for row in other["resources"]] == [[], [".VisibilityTimeout"]]
    assert several(queue("first", "30", state="absent"), rows[1], check_mode=True)["changed"]
    gone = several(queue("first", "30", state="absent"), queue("second", "60"))
    assert [row["changed"] for row in gone["resources"]] == [True, False]


def test_the_one_that_was_refused_is_named_and_those_before_it_stay() -> None:
    wrong = queue("second", "30", create={"call": "create_queue", "args": {"QueueName": "no name!"}})
    with pytest.raises(aws_ensure.RefusedError, match=r"second: .*InvalidParameterValue") as refused:
        several(queue("first", "30"), wrong, queue("third", "30"))
    assert refused.value.name == "second"
    assert not several(queue("first", "30"))["changed"]
    assert several(queue("third", "30"), check_mode=True)["changed"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "one of the following is required: read, resources"),
        ({"read": {"call": "get_queue_url"}, "resources": []}, "mutually exclusive"),
        ({"resources": [{"name": "a", "read": {"call": "x"}, "state": "absent"}]}, "state=absent needs delete"),
        (
            {"resources": [{"name": "a", "read": {"call": "no_such_call"}}]},
            "boto3's client for sqs has no no_such_call",
        ),
        (
            {"resources": [{"name": "a", "read": {"call": "get_queue_url"}}]},
            "sqs, a: arguments that boto3 does not know",
        ),
        ({"resources": [{"read": {"call": "get_queue_url"}}]}, "missing required arguments: name"),
        ({"read": {"call": "get_queue_url", "args": {"Name": "x"}}}, "sqs: arguments that boto3 does not know"),
    ],
)
def test_wrong_arguments_are_named(
    given: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with patch_module_args({"service": "sqs", **given}), pytest.raises(SystemExit):
        aws_ensure.main()
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["failed"]
    assert message in answer["msg"]
