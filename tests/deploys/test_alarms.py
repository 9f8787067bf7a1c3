"""Every alarm of an environment is made to fire and to clear, and a person gets a mail of both."""

from __future__ import annotations

import importlib.util
import itertools
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest
from botocore.config import Config

from app.core import cloud, manifest
from app.core.cloud import monitoring
from app.core.logs import JsonFormatter
from tests.deploys.conftest import Environment, certificate, rehearsed

ROOT = Path(__file__).resolve().parents[2]
APPS = manifest.load_all(ROOT, ["portal", "wine", "vision", "drawings", "ava", "judge"])
FLEET = {"database": {"enabled": True}, "fleets": [{"name": "main", "instance_type": "t3.large"}]}
ONE_HOST = {
    "entry": "address",
    "network": {"way_out": "public"},
    "fleets": [{"name": "main", "instance_type": "t3.large", "min": 1, "max": 1, "desired": 1}],
}
DAY = "certificate"  # alarms on a day or an hour: in a cloud of their own, a hundred times as fast
SOON = 120  # seconds in which all alarms of a cloud have fired
ENVIRONMENTS = {"fleet": FLEET, "host": ONE_HOST}


def section(name: str) -> dict[str, Any]:
    built = cloud.build(ENVIRONMENTS[name], APPS, environment=name, account="123456789012")
    return dict(built["monitoring"])


def names(slow: bool) -> list[str]:
    found = [alarm["AlarmName"] for name in ENVIRONMENTS for alarm in section(name)["alarms"]]
    return [one for one in found if one.endswith(DAY) == slow]


def stand_in() -> ModuleType:
    """Return the program that makes metrics of what is scraped."""
    for folder in ("roles/aws_fleet/files", "roles/cloudwatch_agent/files"):
        sys.path.insert(0, str(ROOT / folder))
    try:
        return importlib.import_module("pergola_agent")
    finally:
        del sys.path[:2]


@dataclass
class Story:
    """One cloud: what its alarms did, and the mail that it sent."""

    url: str
    state: Path
    alarms: dict[str, dict[str, Any]] = field(default_factory=dict)
    fired: set[str] = field(default_factory=set)
    cleared: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    bad: bool = True
    renew: Callable[[], None] = lambda: None
    balancer: Environment | None = None
    clients: dict[str, Any] = field(default_factory=dict)

    def client(self, service: str) -> Any:
        """Return a client; making one costs more than a call."""
        if service not in self.clients:
            self.clients[service] = self.make_client(service)
        return self.clients[service]

    def make_client(self, service: str) -> Any:
        return boto3.client(
            service, region_name="us-east-1", endpoint_url=self.url, aws_access_key_id="rehearsal", aws_secret_access_key="rehearsal",
            config=Config(retries={"max_attempts": 5}),
        )  # fmt: skip

    def make(self, name: str, wanted: Callable[[str], bool], known: dict[str, str]) -> None:
        """Make what the role aws_monitoring makes."""
        plan, logs, sns = section(name), self.client("logs"), self.client("sns")
        for row in plan["log_groups"]:
            logs.create_log_group(logGroupName=row["name"])
            logs.create_log_stream(logGroupName=row["name"], logStreamName="x")
        for one in plan["filters"]:
            made = {
                "metricName": one["metric"],
                "metricNamespace": one["namespace"],
                "metricValue": "1",
                "dimensions": one["dimensions"],
            }
            logs.put_metric_filter(
                logGroupName=one["log_group"],
                filterName=one["name"],
                filterPattern=one["pattern"],
                metricTransformations=[made],
            )
        for topic in plan["topics"].values():
            arn = sns.create_topic(Name=topic)["TopicArn"]
            sns.subscribe(TopicArn=arn, Protocol="email", Endpoint="ops@example.org")
        for alarm in monitoring.with_names(plan["alarms"], known):
            if wanted(alarm["AlarmName"]):
                self.client("cloudwatch").put_metric_alarm(**alarm)
                self.alarms[alarm["AlarmName"]] = alarm

    # ------------------------------------------------------------ what makes them fire

    def tell(self) -> None:
        """Tell CloudWatch once what is the matter, or that all is well, in the way of whoever tells it."""
        direct: dict[str, list[dict[str, Any]]] = {}
        events: dict[str, list[str]] = {}
        for alarm in self.alarms.values():
            if "Metrics" in alarm:
                self.maths(alarm, direct)
                continue
            space, metric, dimensions = (
                alarm["Namespace"],
                alarm["MetricName"],
                {d["Name"]: d["Value"] for d in alarm["Dimensions"]},
            )
            high = alarm["ComparisonOperator"] == monitoring.ABOVE
            value = alarm["Threshold"] * 2 + 1 if high == self.bad else 0
            folder = "/" + space.replace("-", "/", 1)
            if metric == "LogErrors":
                events[f"{folder}/{dimensions['App']}"] = [line(dimensions["App"])] * (6 if self.bad else 0)
            elif metric == "DaysToExpiry":
                continue  # the rehearsal looks at the certificate itself
            elif (
                not space.startswith("AWS/")
                and ("App" in dimensions or metric == "CertificateDays")
                and "What" not in dimensions
            ):
                events.setdefault(f"{folder}/host", []).extend(scraped(space, metric, dimensions, value))
            else:
                direct.setdefault(space, []).append(
                    {"MetricName": metric, "Dimensions": alarm["Dimensions"], "Value": value}
                )
        for space, data in direct.items():
            self.client("cloudwatch").put_metric_data(Namespace=space, MetricData=data)
        now = int(time.time() * 1000)
        for group, messages in events.items():
            if messages:
                told = [{"timestamp": now, "message": message} for message in messages]
                self.client("logs").put_log_events(logGroupName=group, logStreamName="x", logEvents=told)

    def maths(self, alarm: dict[str, Any], direct: dict[str, list[dict[str, Any]]]) -> None:
        """Tell what is computed from several metrics; healthy hosts are counted by the rehearsal."""
        for query in (query["MetricStat"]["Metric"] for query in alarm["Metrics"] if "MetricStat" in query):
            value = {"RequestCount": 100, "HTTPCode_Target_5XX_Count": 2 if self.bad else 0}.get(query["MetricName"])
            if value is not None:
                direct.setdefault(query["Namespace"], []).append(
                    {"MetricName": query["MetricName"], "Dimensions": query["Dimensions"], "Value": value}
                )

    def hosts(self, number: int) -> None:
        if self.balancer:
            group = self.balancer.groups["blue"]
            self.client("autoscaling").update_auto_scaling_group(
                AutoScalingGroupName=group, MinSize=number, DesiredCapacity=number
            )

    def states(self) -> dict[str, str]:
        pages = self.client("cloudwatch").get_paginator("describe_alarms").paginate()
        return {alarm["AlarmName"]: alarm["StateValue"] for page in pages for alarm in page["MetricAlarms"]}

    def until(self, state: str, wanted: set[str]) -> set[str]:
        """Wait until alarms are in a state; return those that came to it."""
        deadline = time.monotonic() + SOON
        while True:
            found = {name for name, now in self.states().items() if now == state} & wanted
            if found == wanted or time.monotonic() > deadline:
                return found
            time.sleep(0.5)

    def mail(self, name: str) -> list[tuple[str, str]]:
        """Return what was mailed of an alarm, in order: the topic's level, and the new state."""
        found = []
        for path in sorted((self.state / "mail").glob("*.eml")):
            head = dict(part.split(": ", 1) for part in path.read_text().split("\n\n", 1)[0].splitlines())
            state, _, about = head["Subject"].partition(": ")
            if about == name:
                found.append((head["From"].rpartition("-")[2], state))
        return found


def line(app: str) -> str:
    """Return an error as an app writes it."""
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "gone wrong", None, None)
    return JsonFormatter(app=app, slot="a", release="1").format(record)


def scraped(space: str, metric: str, dimensions: dict[str, str], value: float) -> list[str]:
    """Return what the stand-in of the agent sends for a gauge of pergola-feed."""
    ((label, where),) = dimensions.items()
    rule = {
        "source_labels": [label],
        "label_matcher": f"^{where}$",
        "dimensions": [[label]],
        "metric_selectors": [f"^{metric}$"],
    }
    text = f'{metric}{{{label}="{where}"}} {float(value)!r}\n'
    return list(
        STAND_IN.embedded(text, {"metric_namespace": space, "metric_declaration": [rule]}, int(time.time() * 1000))
    )


STAND_IN = stand_in()


def told(story: Story) -> Story:
    """Let all alarms fire, clear, and lose their data."""
    quiet = threading.Event()

    def telling() -> None:
        while not quiet.wait(0.4):
            story.tell()

    every = set(story.alarms)
    teller = threading.Thread(target=telling)
    teller.start()
    try:
        story.hosts(0)
        story.fired = story.until("ALARM", every)
        story.bad = False
        story.hosts(2)
        story.renew()
        story.cleared = story.until("OK", story.fired)
    finally:
        quiet.set()
        teller.join()
    missing = {
        name
        for name, alarm in story.alarms.items()
        if alarm["TreatMissingData"] == "missing" and not name.endswith(DAY)
    }
    story.silent = story.until("INSUFFICIENT_DATA", missing)
    return story


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """The alarms on minutes: both kinds of environment, in a cloud thirty times as fast as AWS."""
    state = tmp_path_factory.mktemp("quick")
    with rehearsed(state, 30) as url, pytest.MonkeyPatch.context() as patch:
        for key, value in {"ENDPOINT_URL": url, "ACCESS_KEY_ID": "rehearsal", "SECRET_ACCESS_KEY": "rehearsal"}.items():
            patch.setenv(f"AWS_{key}", value)
        story = Story(url, state, balancer=Environment(url))
        assert story.balancer
        known = {"balancer": story.balancer.balancer.split(":loadbalancer/")[-1], "certificate": "arn:none"}
        known |= {f"main-{colour}": arn.split(":")[-1] for colour, arn in story.balancer.targets.items()}
        for name in ENVIRONMENTS:
            story.make(name, lambda alarm: not alarm.endswith(DAY), known)
        yield told(story)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """The alarms on hours and days, in a cloud five thousand times as fast."""
    state = tmp_path_factory.mktemp("slow")
    with rehearsed(state, 5000) as url:
        story = Story(url, state)
        numbers = itertools.count()
        acm = story.client("acm")

        def given(**more: str) -> str:
            days = 1 if next(numbers) == 0 else 60
            pem, key = certificate("x", days)
            return str(acm.import_certificate(Certificate=pem, PrivateKey=key, **more)["CertificateArn"])

        arn = given()
        story.renew = lambda: (given(CertificateArn=arn), None)[1]
        for name in ENVIRONMENTS:
            story.make(name, lambda alarm: alarm.endswith(DAY), {"certificate": arn})
        yield told(story)


def check(story: Story, name: str) -> None:
    """Say whether an alarm did what it is for, and who was told."""
    assert name in story.fired
    assert name in story.cleared
    actions = story.alarms[name]["AlarmActions"]
    (level,) = {arn.rpartition("-")[2] for arn in actions}
    mail = story.mail(name)
    began = mail.index((level, "ALARM"))
    assert (level, "OK") in mail[began:], mail
    assert {to for to, state in mail if state != "INSUFFICIENT_DATA"} == {level}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", names(slow=False))
def test_an_alarm_fires_and_clears_and_is_mailed(quick: Story, name: str) -> None:
    check(quick, name)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", names(slow=True))
def test_a_certificate_that_ends_is_told_and_its_renewal_too(slow: Story, name: str) -> None:
    check(slow, name)


def test_alarms_whose_data_ends_say_so_once(quick: Story) -> None:
    wanted = {name for name, alarm in quick.alarms.items() if alarm["TreatMissingData"] == "missing"}
    assert wanted
    assert quick.silent == wanted
    for name in wanted:
        assert quick.mail(name)[-1] == ("notice", "INSUFFICIENT_DATA")


def test_no_alarm_is_left_out(quick: Story, slow: Story) -> None:
    every = {alarm["AlarmName"] for name in ENVIRONMENTS for alarm in section(name)["alarms"]}
    assert {*quick.alarms, *slow.alarms} == every
    assert len(every) >= 50
