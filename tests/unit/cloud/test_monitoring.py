"""Alarms, log groups and the dashboard: derived from the manifests, in a form that CloudWatch takes."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.validate import ParamValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core import cloud, manifest, schedules
from app.core.cloud import monitoring

ROOT = Path(__file__).resolve().parents[3]
MANIFESTS = manifest.load_all(ROOT, ["portal", "wine"])
ONE_HOST = {
    "entry": "address",
    "network": {"way_out": "public"},
    "fleets": [{"name": "main", "min": 1, "max": 1, "desired": 1}],
}
CLOUDWATCH = boto3.client(
    "cloudwatch", region_name="us-east-1", aws_access_key_id="none", aws_secret_access_key="none"
).meta.service_model


def watch(inventory: dict[str, Any] | None = None) -> dict[str, Any]:
    built = cloud.build(inventory or {}, MANIFESTS, environment="test", account="123456789012")
    return dict(built["monitoring"])


def by_name(section: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {alarm["AlarmName"].removeprefix("pergola-test-"): alarm for alarm in section["alarms"]}


@pytest.mark.parametrize(
    "inventory", [{}, ONE_HOST, {"database": {"enabled": True}}], ids=["fleet", "one host", "database"]
)
def test_cloudwatch_takes_every_alarm(inventory: dict[str, Any]) -> None:
    shape = CLOUDWATCH.operation_model("PutMetricAlarm").input_shape
    for alarm in watch(inventory)["alarms"]:
        assert not ParamValidator().validate(alarm, shape).has_errors(), alarm["AlarmName"]
        assert ("Metrics" in alarm) != ("MetricName" in alarm)
        periods = [alarm.get("Period") or alarm["Metrics"][0]["MetricStat"]["Period"], alarm["EvaluationPeriods"]]
        assert periods[0] * periods[1] <= 86400, "CloudWatch looks at a day at most"
        for query in alarm.get("Metrics", ()):
            assert query["Id"][0].islower()  # CloudWatch's own rule for ids


def test_what_is_promised_is_watched() -> None:
    alarms = by_name(watch({"database": {"enabled": True}}))
    assert set(alarms) == {
        "main-healthy", "response-time", "failed-requests", "certificate", "main-blue-cpu", "main-green-cpu", "main-memory",
        "main-disk", "main-restarts", "main-clock", "portal-errors", "wine-errors", "wine-prediction-latency", "wine-sessions", "database-storage",
    }  # fmt: skip
    limits = {name: (alarm["Threshold"], alarm["EvaluationPeriods"]) for name, alarm in alarms.items()}
    assert limits["main-healthy"] == (1, 1)
    assert limits["response-time"] == (5, 2)
    assert limits["failed-requests"][0] == 1
    assert limits["main-blue-cpu"] == (80, 2)
    assert limits["main-memory"][0] == 85
    assert limits["main-disk"][0] == 80
    assert limits["wine-prediction-latency"] == (2000, 3)
    assert limits["wine-errors"][0] == 5
    assert limits["certificate"][0] == 21
    assert alarms["main-healthy"]["TreatMissingData"] == "breaching"


def test_a_deploy_is_taken_back_by_what_a_release_can_set_off_and_by_nothing_else() -> None:
    """A full disk, an old certificate or a late backup is nobody's release."""
    built = cloud.build({"database": {"enabled": True}}, MANIFESTS, environment="test", account="123456789012")
    blamed = {name.removeprefix("pergola-test-") for name in built["deploy"]["alarms"]}
    assert blamed == {
        "main-healthy", "response-time", "failed-requests", "main-restarts", "portal-errors", "wine-errors", "wine-prediction-latency",
    }  # fmt: skip
    assert blamed <= set(by_name(watch({"database": {"enabled": True}})))


def test_what_hosts_back_up_is_watched_and_nothing_that_aws_keeps() -> None:
    """Of a database on a server and of a bucket nobody would send a metric."""
    alarms = by_name(watch(ONE_HOST))
    kept = {name: alarm for name, alarm in alarms.items() if "-backup-" in name}
    assert set(kept) == {"wine-backup-database", "wine-backup-database-shrunk"}
    assert kept["wine-backup-database"]["Threshold"] == pytest.approx(1 / 6, abs=1e-3)  # every five minutes
    assert kept["wine-backup-database-shrunk"]["MetricName"] == "BackupShrunk"
    for alarm in kept.values():
        assert alarm["Dimensions"] == [{"Name": "App", "Value": "wine"}, {"Name": "What", "Value": "database"}]
        assert alarm["AlarmActions"] == ["arn:aws:sns:us-east-1:123456789012:pergola-test-urgent"]


def test_one_host_without_a_balancer_watches_itself() -> None:
    alarms = by_name(watch(ONE_HOST))
    assert {"main-cpu", "main-memory", "main-disk", "main-certificate"} <= set(alarms)
    assert "@" not in json.dumps([watch(ONE_HOST)[part] for part in ("alarms", "dashboard")])


def test_two_levels_and_every_alarm_tells_one_of_them() -> None:
    section = watch()
    assert section["topics"] == {"urgent": "pergola-test-urgent", "notice": "pergola-test-notice"}
    arns = {f"arn:aws:sns:us-east-1:123456789012:{name}" for name in section["topics"].values()}
    for alarm in section["alarms"]:
        assert set(alarm["AlarmActions"]) <= arns
        assert alarm["AlarmActions"] == alarm["OKActions"]
        assert alarm["AlarmDescription"].endswith((".", ")."))


def test_each_app_and_the_hosts_have_a_log_group_and_errors_are_counted() -> None:
    section = watch({"logs": {"days": 30}})
    assert [row["name"] for row in section["log_groups"]] == [
        "/pergola/test/host",
        "/pergola/test/portal",
        "/pergola/test/wine",
    ]
    assert {row["days"] for row in section["log_groups"]} == {30}
    assert [row["log_group"] for row in section["filters"]] == ["/pergola/test/portal", "/pergola/test/wine"]


def test_the_counted_errors_are_those_that_the_apps_write() -> None:
    """The filter's fields and levels are what app.core.logs writes."""
    import logging

    from app.core.logs import JsonFormatter

    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "gone wrong", None, None)
    line = json.loads(JsonFormatter(app="wine", slot="a", release="1").format(record))
    assert line["app"] == "wine"
    assert f'"{line["level"]}"' in monitoring.ERROR_PATTERN


def test_the_dashboard_shows_every_app_and_no_widget_covers_another() -> None:
    section = watch({"database": {"enabled": True}})
    widgets = section["dashboard"]["widgets"]
    titles = [widget["properties"]["title"] for widget in widgets]
    assert len(set(titles)) == len(titles)
    assert "VinoVoyant: PredictionLatency" in titles
    assert widgets[0]["properties"]["alarms"] == [
        f"arn:aws:cloudwatch:us-east-1:123456789012:alarm:{alarm['AlarmName']}" for alarm in section["alarms"]
    ]
    cells = [
        (x, y)
        for widget in widgets
        for x in range(widget["x"], widget["x"] + widget["width"])
        for y in range(widget["y"], widget["y"] + widget["height"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_a_metric_without_an_alarm_is_shown_and_told() -> None:
    drawings = manifest.load_all(ROOT, ["drawings"])
    built = cloud.build({}, drawings, environment="test", account="123456789012")["monitoring"]
    assert built["metrics"] == [["drawings", "AnalysisCount"]]
    assert "AnalysisCount" in json.dumps(built["dashboard"])
    assert "AnalysisCount" not in json.dumps(built["alarms"])


def test_names_that_aws_gives_are_put_in_and_unknown_ones_stay() -> None:
    section = monitoring.with_names(
        watch()["alarms"], {"balancer": "app/pergola-test/1", "main-blue": "targetgroup/b/1"}
    )
    text = json.dumps(section)
    assert "@balancer" not in text
    assert "@main-blue" not in text
    assert "targetgroup/b/1" in text
    assert "@main-green" in text


@pytest.mark.parametrize(
    ("cron", "hours"),
    [
        ("40 3 * * *", 24),
        ("0 */6 * * *", 6),
        ("*/15 * * * *", 0.25),
        ("0 9-17 * * *", 16),
        ("0 3 * * 0", 7 * 24),
        ("0 3 * * 1-5", 72),
        ("0 0 1 * *", 31 * 24),
        ("0 0 1 * 1", 7 * 24),  # either is enough
        ("0 0 29 2 *", 1461 * 24),
        ("5,20 1 * * *", 23.75),
    ],
)
def test_the_longest_gap_between_two_runs(cron: str, hours: float) -> None:
    assert schedules.longest_gap(cron) == dt.timedelta(hours=hours)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 59), st.integers(1, 12))
def test_the_gap_of_every_nth_hour_is_at_least_that(minute: int, step: int) -> None:
    assert schedules.longest_gap(f"{minute} */{step} * * *") >= dt.timedelta(hours=min(step, 24 - 23 // step * step))
