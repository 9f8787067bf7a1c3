"""What a host tells CloudWatch: settings that AWS's agent takes, with the names that alarms and log groups have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft4Validator

from app.core import agent, cloud, manifest, plan
from app.core.cloud import monitoring

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT.parent / "shared" / "data" / "cloudwatch-agent-schema.json"
APPS = manifest.load_all(ROOT, ["portal", "wine", "vision", "drawings", "ava", "judge"])
AGENT = {"project": "pergola", "region": "eu-central-1"}
# What the published schema leaves open: a section whose name is misspelt is ignored without a word.
SECTIONS: dict[str, set[str]] = {
    "": {"agent", "metrics", "logs"},
    "metrics": {"namespace", "aggregation_dimensions", "metrics_collected"},
    "metrics/metrics_collected": {"cpu", "mem", "disk"},
    "logs": {"force_flush_interval", "logs_collected", "metrics_collected"},
    "logs/logs_collected": {"files"},
    "logs/metrics_collected": {"prometheus"},
    "agent": {"metrics_collection_interval", "region", "run_as_user"},
}  # fmt: skip


def told(**more: Any) -> dict[str, Any]:
    return dict(plan.build(APPS, environment="production", agent={**AGENT, **more})["agent"])


def misspelt(config: dict[str, Any]) -> list[str]:
    """Return the sections that the agent would ignore."""
    found = []
    for path, known in SECTIONS.items():
        part: Any = config
        for key in filter(None, path.split("/")):
            part = part.get(key, {})
        found += [f"{path}/{key}".lstrip("/") for key in sorted(set(part) - known)]
    return found


@pytest.mark.parametrize("balanced", [False, True])
def test_awss_agent_takes_the_settings(balanced: bool) -> None:
    if not SCHEMA.is_file():
        pytest.skip("the agent's published schema is not beside the project")
    config = told(balanced=balanced)["config"]
    validator = Draft4Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert [error.message for error in validator.iter_errors(config)] == []
    config["logs"]["logs_collected"]["files"]["collect_list"][0]["log_group"] = "x"
    assert list(validator.iter_errors(config)), "the schema would find a wrong key"


def test_no_section_is_misspelt_and_one_that_is_would_be_found() -> None:
    config = told()["config"]
    assert misspelt(config) == []
    config["logs"]["logs_colected"] = config["logs"].pop("logs_collected")
    config["metricz"] = {}
    assert misspelt(config) == ["metricz", "logs/logs_colected"]


def alarms(inventory: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the plan of the cloud, and what hosts of its first fleet tell."""
    built = cloud.build(
        {"fleets": [{"name": "main", "instance_type": "t3.large"}], **inventory},
        APPS,
        environment="test",
        account="123456789012",
    )
    variables = built["fleet"]["fleets"][0]["release"]["variables"]
    return built["monitoring"], variables["pergola_plan"]["agent"]


ONE_HOST = {
    "entry": "address",
    "network": {"way_out": "public"},
    "fleets": [{"name": "main", "instance_type": "t3.large", "min": 1, "max": 1, "desired": 1}],
}


@pytest.mark.parametrize("inventory", [{}, ONE_HOST], ids=["fleet", "one host"])
def test_every_alarm_on_a_metric_of_hosts_has_somebody_who_sends_it(inventory: dict[str, Any]) -> None:
    section, sent = alarms(inventory)
    config = sent["config"]
    emf = config["logs"]["metrics_collected"]["prometheus"]["emf_processor"]
    assert config["metrics"]["namespace"] == emf["metric_namespace"] == section["namespace"]
    known = {(metric, "Fleet", part["append_dimensions"]["Fleet"]) for part in config["metrics"]["metrics_collected"].values() for metric in part["measurement"]}  # fmt: skip
    for rule in emf["metric_declaration"]:
        assert rule["dimensions"] == [rule["source_labels"]]
        known |= {(selector.strip("^$"), rule["source_labels"][0], rule["label_matcher"].strip("^$")) for selector in rule["metric_selectors"]}  # fmt: skip
    by_others = {"LogErrors", "BackupAgeHours", "BackupShrunk", "ClockOffset"}  # CloudWatch itself; instance.py
    for alarm in section["alarms"]:
        if alarm.get("Namespace") == section["namespace"] and alarm["MetricName"] not in by_others:
            (dimension,) = alarm["Dimensions"]
            assert (alarm["MetricName"], dimension["Name"], dimension["Value"]) in known, alarm["AlarmName"]


def test_every_log_has_a_group_and_every_group_a_log() -> None:
    section, sent = alarms({})
    files = sent["config"]["logs"]["logs_collected"]["files"]["collect_list"]
    groups = {row["name"] for row in section["log_groups"]}
    assert {entry["log_group_name"] for entry in files} == groups
    streams = [(entry["log_group_name"], entry["log_stream_name"]) for entry in files]
    assert len(set(streams)) == len(streams), "two files in one stream lose their order"
    assert sent["config"]["logs"]["metrics_collected"]["prometheus"]["log_group_name"] in groups


def test_the_counter_of_errors_sees_the_apps_own_lines() -> None:
    """A line that is wrapped into fields of the journal would have no $.level."""
    _, sent = alarms({})
    (entry,) = [row for row in sent["config"]["logs"]["logs_collected"]["files"]["collect_list"] if row["log_group_name"].endswith("/wine")]  # fmt: skip
    assert entry["file_path"] == f"{sent['feed']['logs']}/wine.log"
    assert "$.level" in monitoring.ERROR_PATTERN


def test_the_identifiers_are_those_of_the_units() -> None:
    template = (ROOT / "roles/apps/templates/service.j2").read_text(encoding="utf-8")
    assert "SyslogIdentifier=pergola-{{ apps_kind }}-%i" in template
    names = told()["feed"]["apps"]["ava"]["identifiers"]
    assert {"pergola-api-ava-a", "pergola-ui-ava-b", "pergola-worker-ava-a", "pergola-prepare-ava-b"} <= set(names)
    every = [name for app in told()["feed"]["apps"].values() for name in app["identifiers"]]
    assert len(set(every)) == len(every)


def test_the_certificate_is_watched_where_no_balancer_has_it() -> None:
    alone, behind = told(balanced=False), told(balanced=True)
    assert "CertificateDays" in json.dumps(alone["config"])
    assert alone["feed"]["certificate"]
    assert "CertificateDays" not in json.dumps(behind["config"])
    assert behind["feed"]["certificate"] == ""


def test_a_metric_that_a_manifest_names_is_about_the_seconds_that_it_says() -> None:
    assert told()["feed"]["apps"]["wine"]["metrics"] == {"PredictionLatency": 60}
    assert told()["feed"]["apps"]["drawings"]["metrics"]["AnalysisCount"] == 60, "kept without an alarm"
    assert told()["feed"]["apps"]["judge"]["metrics"] == {"JudgeFailed": 300, "JudgeQueueAge": 60}


def test_hosts_tell_what_the_inventory_says() -> None:
    assert "agent" not in plan.build(APPS)
    assert "agent" not in plan.build(APPS, agent={**AGENT, "kind": "none"})
    with pytest.raises(plan.PlanError, match="expected one of amazon, stand-in, none, got 'amzon'"):
        told(kind="amzon")
    with pytest.raises(plan.PlanError, match=r"agent: .*region"):
        plan.build(APPS, agent={"project": "pergola"})
    assert alarms({"logs": {"agent": "stand-in"}})[1]["kind"] == "stand-in"
    assert alarms({})[1]["kind"] == "amazon"


def test_the_address_that_is_scraped_is_the_feeds() -> None:
    both = told()
    (job,) = both["prometheus"]["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"127.0.0.1:{both['feed']['port']}"]}]
    assert both["config"]["logs"]["metrics_collected"]["prometheus"]["prometheus_config_path"] == agent.PROMETHEUS


def test_every_time_format_finds_the_time_of_what_is_written() -> None:
    formats = {entry["file_path"]: entry["timestamp_format"] for entry in told()["config"]["logs"]["logs_collected"]["files"]["collect_list"]}  # fmt: skip
    assert all(
        set(re.findall(r"%\w", form)) <= {"%Y", "%m", "%d", "%H", "%M", "%S", "%f", "%z"} for form in formats.values()
    )
