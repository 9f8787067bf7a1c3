"""cloudwatch_alarms, log_queries and aws_budget: run whole, in this process, against moto."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import boto3
import moto.budgets.responses
import moto.logs.responses
import pytest
from ansible.module_utils.testing import patch_module_args
from moto import mock_aws

from emulator import patches
from plugins.modules import aws_budget, cloudwatch_alarms, log_queries

TAGS = {"Project": "pergola", "Environment": "test"}
MAILS = ["ops@example.org"]
Run = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "no-such-word")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    if not hasattr(moto.budgets.responses.BudgetsResponse, "update_budget"):
        patches.money(SimpleNamespace())  # type: ignore[arg-type] # it asks nothing of the world
    if not hasattr(moto.logs.responses.LogsResponse, "put_query_definition"):
        patches.queries(SimpleNamespace())  # type: ignore[arg-type] # nor do saved queries
    with mock_aws():
        yield


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a module as Ansible does, and return what it answers."""

    def call(module: ModuleType, *, check: bool = False, **params: Any) -> dict[str, Any]:
        with patch_module_args({**params, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            module.main()
        answer: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return answer

    return call


# ---------------------------------------------------------------- alarms


def alarm(name: str, **more: Any) -> dict[str, Any]:
    return {
        "AlarmName": f"pergola-test-{name}", "Namespace": "AWS/EC2", "MetricName": "CPUUtilization", "Period": 300,
        "Statistic": "Average", "Dimensions": [{"Name": "A", "Value": "1"}, {"Name": "B", "Value": "2"}],
        "EvaluationPeriods": 2, "ComparisonOperator": "GreaterThanThreshold", "Threshold": 80, **more,
    }  # fmt: skip


def maths(name: str, expression: str = "a + b") -> dict[str, Any]:
    """An alarm on metric maths, which the collection's own module never finds unchanged."""
    metric = {"Namespace": "AWS/EC2", "MetricName": "CPUUtilization", "Dimensions": []}
    queries = [
        {"Id": i, "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"}, "ReturnData": False} for i in "ab"
    ]
    rest = {"EvaluationPeriods": 1, "ComparisonOperator": "LessThanThreshold", "Threshold": 1.5}
    return {
        "AlarmName": f"pergola-test-{name}",
        "Metrics": [*queries, {"Id": "result", "Expression": expression, "ReturnData": True}],
        **rest,
    }


def ensure(
    run: Run, *alarms: dict[str, Any], check: bool = False, tags: dict[str, str] | None = None
) -> dict[str, Any]:
    return run(cloudwatch_alarms, check=check, prefix="pergola-test-", alarms=list(alarms), tags=tags or TAGS)


def there() -> dict[str, Any]:
    found = boto3.client("cloudwatch").describe_alarms()["MetricAlarms"]
    return {each["AlarmName"].removeprefix("pergola-test-"): each for each in found}


def test_alarms_are_made_once_with_their_tags(run: Run) -> None:
    first = ensure(run, alarm("cpu"), maths("sum"))
    assert (first["changed"], first["created"]) == (True, ["pergola-test-cpu", "pergola-test-sum"])
    again = ensure(
        run,
        alarm("cpu", Threshold=80.0, Dimensions=[{"Name": "B", "Value": "2"}, {"Name": "A", "Value": "1"}]),
        maths("sum"),
    )
    assert not again["changed"], again["diff"]
    listed = boto3.client("cloudwatch").list_tags_for_resource(ResourceARN=there()["sum"]["AlarmArn"])["Tags"]
    assert {tag["Key"]: tag["Value"] for tag in listed} == TAGS


def test_check_mode_says_what_would_change_and_writes_nothing(run: Run) -> None:
    ensure(run, alarm("stays"), alarm("changes"), alarm("goes"))
    before = there()
    said = ensure(run, alarm("stays"), alarm("changes", Threshold=90), alarm("comes"), check=True)
    assert said["created"] == ["pergola-test-comes"]
    assert said["updated"] == ["pergola-test-changes"]
    assert said["removed"] == ["pergola-test-goes"]
    assert said["diff"]["before"]["pergola-test-changes"]["Threshold"] == 80
    assert said["diff"]["after"]["pergola-test-changes"]["Threshold"] == 90
    assert there() == before


def test_what_differs_is_changed_and_what_nobody_wishes_is_removed(run: Run) -> None:
    ensure(run, alarm("cpu"), maths("sum"), alarm("goes"))
    ensure(run, alarm("cpu", Threshold=90), maths("sum", "a - b"))
    found = there()
    assert set(found) == {"cpu", "sum"}
    assert found["cpu"]["Threshold"] == 90
    assert found["sum"]["Metrics"][-1]["Expression"] == "a - b"
    assert not ensure(run, alarm("cpu", Threshold=90), maths("sum", "a - b"))["changed"]


def test_an_alarm_of_somebody_else_is_left_alone(run: Run) -> None:
    """Same prefix, but without our tags: a person made it."""
    boto3.client("cloudwatch").put_metric_alarm(**alarm("by-hand"))
    assert not ensure(run, check=False)["changed"]
    assert set(there()) == {"by-hand"}


def test_an_alarm_that_lost_its_tags_gets_them_back(run: Run) -> None:
    boto3.client("cloudwatch").put_metric_alarm(**alarm("cpu"))
    assert ensure(run, alarm("cpu"))["updated"] == ["pergola-test-cpu"]
    assert not ensure(run, alarm("cpu"))["changed"]


@pytest.mark.parametrize(
    ("prefix", "alarms", "sentence"),
    [
        ("pergola-test", [], "prefix: expected a name that ends with a dash"),
        ("pergola-test-", [{"AlarmName": "other-cpu"}], "alarms: other-cpu does not begin with pergola-test-"),
        ("pergola-test-", [alarm("a"), alarm("a")], "two of them have the same AlarmName"),
    ],
)
def test_a_wrong_set_is_refused(run: Run, prefix: str, alarms: list[dict[str, Any]], sentence: str) -> None:
    answer = run(cloudwatch_alarms, prefix=prefix, alarms=alarms, tags=TAGS)
    assert answer["failed"]
    assert sentence in answer["msg"]
    assert there() == {}


# ---------------------------------------------------------------- budget


def notices(*percents: int, emails: list[str] | None = None) -> list[dict[str, Any]]:
    return [{"type": "ACTUAL", "percent": percent, "emails": emails or MAILS} for percent in percents]


def budget(run: Run, *, check: bool = False, **more: Any) -> dict[str, Any]:
    return run(aws_budget, check=check, name="pergola-test", **more)


def limit() -> str:
    client = boto3.client("budgets")
    return str(
        client.describe_budget(AccountId="123456789012", BudgetName="pergola-test")["Budget"]["BudgetLimit"]["Amount"]
    )


def told() -> dict[float, list[str]]:
    client, key = boto3.client("budgets"), {"AccountId": "123456789012", "BudgetName": "pergola-test"}
    found = client.describe_notifications_for_budget(**key)["Notifications"]
    return {
        each["Threshold"]: [
            person["Address"]
            for person in client.describe_subscribers_for_notification(**key, Notification=each)["Subscribers"]
        ]
        for each in found
    }


def test_a_budget_is_made_once_with_its_notices(run: Run) -> None:
    assert budget(run, usd=40, notices=notices(80, 100), tags=TAGS)["changed"]
    assert (limit(), told()) == ("40.00", {80.0: MAILS, 100.0: MAILS})
    assert not budget(run, usd=40.0, notices=notices(100, 80), tags=TAGS)["changed"]


def test_check_mode_makes_no_budget(run: Run) -> None:
    assert budget(run, usd=40, check=True)["changed"]
    assert boto3.client("budgets").describe_budgets(AccountId="123456789012")["Budgets"] == []


def test_limit_and_notices_follow(run: Run) -> None:
    budget(run, usd=40, notices=notices(80, 100))
    changed = budget(run, usd=60, notices=notices(90, 100, emails=["new@example.org"]))
    assert changed["diff"]["before"]["usd"] == "40.00"
    assert changed["diff"]["after"]["usd"] == "60.00"
    assert (limit(), told()) == ("60.00", {90.0: ["new@example.org"], 100.0: ["new@example.org"]})
    assert not budget(run, usd=60, notices=notices(90, 100, emails=["new@example.org"]))["changed"]


def test_a_budget_of_one_environment_counts_its_tag(run: Run) -> None:
    budget(run, usd=40, tag="user:Environment$test")
    client = boto3.client("budgets")
    found = client.describe_budget(AccountId="123456789012", BudgetName="pergola-test")["Budget"]
    assert found["CostFilters"] == {"TagKeyValue": ["user:Environment$test"]}
    assert not budget(run, usd=40, tag="user:Environment$test")["changed"]
    assert budget(run, usd=40)["changed"]


def test_a_budget_is_removed_once(run: Run) -> None:
    budget(run, usd=40)
    assert budget(run, state="absent")["changed"]
    assert not budget(run, state="absent")["changed"]


def test_a_budget_without_a_limit_is_refused(run: Run) -> None:
    assert "usd" in budget(run)["msg"]


# ---------------------------------------------------------------- saved queries


def query(name: str, text: str = "fields @message", *groups: str) -> dict[str, Any]:
    return {"name": f"pergola-test/{name}", "query": text, "log_groups": list(groups or ("/a", "/b"))}


def saved(run: Run, *queries: dict[str, Any], check: bool = False) -> dict[str, Any]:
    return run(log_queries, check=check, prefix="pergola-test/", queries=list(queries))


def test_saved_queries_are_made_changed_and_removed(run: Run) -> None:
    logs = boto3.client("logs")
    theirs = logs.put_query_definition(name="pergola-other/errors", queryString="fields a")["queryDefinitionId"]

    def names() -> dict[str, str]:
        found = logs.describe_query_definitions(queryDefinitionNamePrefix="pergola-test/")["queryDefinitions"]
        return {row["name"].partition("/")[2]: row["queryString"] for row in found}

    first = saved(run, query("errors"), query("slow"), check=True)
    assert (first["changed"], names()) == (True, {})
    assert saved(run, query("errors"), query("slow"))["created"] == ["pergola-test/errors", "pergola-test/slow"]
    assert names() == {"errors": "fields @message", "slow": "fields @message"}
    assert not saved(run, query("slow"), query("errors", "fields @message", "/b", "/a"))["changed"], (
        "their order is nobody's"
    )
    changed = saved(run, query("errors", "fields level"))
    assert (changed["updated"], changed["removed"]) == (["pergola-test/errors"], ["pergola-test/slow"])
    assert names() == {"errors": "fields level"}
    assert saved(run)["removed"] == ["pergola-test/errors"]
    assert logs.describe_query_definitions()["queryDefinitions"][0]["queryDefinitionId"] == theirs, (
        "somebody else's stay"
    )
    logs.delete_query_definition(queryDefinitionId=theirs)


def test_a_saved_query_of_another_prefix_is_refused(run: Run) -> None:
    answer = run(
        log_queries, prefix="pergola-test/", queries=[{"name": "errors", "query": "fields a", "log_groups": []}]
    )
    assert answer["msg"] == "queries: errors does not begin with pergola-test/"
    assert "ends with a slash" in run(log_queries, prefix="pergola-test", queries=[])["msg"]


def test_two_saved_queries_of_one_name_are_refused(run: Run) -> None:
    query = {"name": "pergola-test/errors", "query": "fields a", "log_groups": []}
    answer = run(log_queries, prefix="pergola-test/", queries=[query, {**query, "query": "fields b"}])
    assert answer["msg"] == "queries: two of them have the same name"
