"""cloud_status: read from an account that moto holds, whole and in this process."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from ansible.module_utils.testing import patch_module_args
from moto import mock_aws

from plugins.modules import cloud_status

COLOURS = [
    {"colour": colour, "name": f"pergola-test-main-{colour}", "target_group": f"pergola-test-main-{colour}"}
    for colour in ("blue", "green")
]
Read = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "no-such-word")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield


@pytest.fixture
def read(capsys: pytest.CaptureFixture[str]) -> Read:
    def call(**more: Any) -> dict[str, Any]:
        params = {
            "prefix": "pergola-test",
            "balancer": "pergola-test",
            "fleets": [{"fleet": "main", "colours": COLOURS}],
            "budget": "pergola-test",
            "next_command": "make it",
            **more,
        }
        with patch_module_args(params), pytest.raises(SystemExit):
            cloud_status.main()
        answer: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert not answer.get("failed"), answer
        return answer

    return call


def build(blue: int = 2, weights: tuple[int, int] = (90, 10)) -> None:
    """Two colours behind a balancer, the first with hosts."""
    ec2, elb = boto3.client("ec2"), boto3.client("elbv2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{n}.0/24", AvailabilityZone=f"us-east-1{zone}")["Subnet"][
            "SubnetId"
        ]
        for n, zone in enumerate("ab")
    ]
    groups = [
        elb.create_target_group(Name=row["target_group"], Protocol="HTTPS", Port=443, VpcId=vpc)["TargetGroups"][0][
            "TargetGroupArn"
        ]
        for row in COLOURS
    ]
    balancer = elb.create_load_balancer(Name="pergola-test", Subnets=subnets)["LoadBalancers"][0]["LoadBalancerArn"]
    targets = [{"TargetGroupArn": arn, "Weight": weight} for arn, weight in zip(groups, weights, strict=True)]
    elb.create_listener(
        LoadBalancerArn=balancer,
        Protocol="HTTP",
        Port=80,
        DefaultActions=[{"Type": "forward", "ForwardConfig": {"TargetGroups": targets}}],
    )
    data = base64.b64encode(b'#!/usr/bin/python3\nSETTINGS = {"release": "releases/sites/2026-abc"}\n').decode()
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    ec2.create_launch_template(
        LaunchTemplateName="hosts", LaunchTemplateData={"ImageId": image, "InstanceType": "t3.small", "UserData": data}
    )
    for row, arn, size in zip(COLOURS, groups, (blue, 0), strict=True):
        boto3.client("autoscaling").create_auto_scaling_group(
            AutoScalingGroupName=row["name"], MinSize=0, MaxSize=4, DesiredCapacity=size, VPCZoneIdentifier=",".join(subnets),
            LaunchTemplate={"LaunchTemplateName": "hosts", "Version": "1"}, TargetGroupARNs=[arn],
            Tags=[{"Key": "Name", "Value": row["name"], "PropagateAtLaunch": True}],
        )  # fmt: skip


def test_an_empty_account_is_told_what_to_do(read: Read) -> None:
    answer = read()
    assert answer["empty"]
    assert answer["text"] == ["Nothing of pergola-test is there. Make it: make it"]


def test_hosts_colours_and_releases_are_shown(read: Read) -> None:
    build()
    answer = read()
    assert not answer["empty"]
    assert [(row["colour"], row["hosts"], row["visitors"]) for row in answer["colours"]] == [
        ("blue", 2, "90 %"),
        ("green", 0, "10 %"),
    ]
    assert {(row["fleet"], row["colour"], row["release"], row["type"]) for row in answer["hosts"]} == {
        ("main", "blue", "2026-abc", "t3.small")
    }
    assert {row["zone"] for row in answer["hosts"]} <= {"us-east-1a", "us-east-1b"}
    assert all(row["address"] and row["health"] and row["since"] for row in answer["hosts"])
    page = "\n".join(answer["text"])
    assert "FLEET  COLOUR  VISITORS  HOSTS  HEALTHY  WISHED" in page
    assert "0 <= 2 <= 4" in page


def test_open_alarms_are_named_and_those_without_data_are_counted(read: Read) -> None:
    watch = boto3.client("cloudwatch")
    for name in ("cpu", "disk", "memory"):
        watch.put_metric_alarm(
            AlarmName=f"pergola-test-{name}", AlarmDescription=f"The {name} is full.", Namespace="x", MetricName=name, Period=60,
            Statistic="Average", EvaluationPeriods=1, ComparisonOperator="GreaterThanThreshold", Threshold=1,
        )  # fmt: skip
    for name, state in (("cpu", "ALARM"), ("disk", "INSUFFICIENT_DATA"), ("memory", "OK")):
        watch.set_alarm_state(AlarmName=f"pergola-test-{name}", StateValue=state, StateReason="a test")
    answer = read()
    assert [(row["name"], row["state"]) for row in answer["alarms"]] == [("cpu", "ALARM"), ("disk", "no data yet")]
    assert "3 alarms: 1 open, 1 without data yet, 1 in order" in answer["text"]
    assert any("cpu since 20" in line and "The cpu is full." in line for line in answer["text"])


def test_what_was_spent_is_the_budget_s_own_count(read: Read) -> None:
    boto3.client("budgets").create_budget(
        AccountId="123456789012",
        Budget={
            "BudgetName": "pergola-test", "BudgetType": "COST", "TimeUnit": "MONTHLY", "BudgetLimit": {"Amount": "60", "Unit": "USD"},
            "CalculatedSpend": {"ActualSpend": {"Amount": "12.3", "Unit": "USD"}, "ForecastedSpend": {"Amount": "41", "Unit": "USD"}},
        },
    )  # fmt: skip
    assert read()["text"][-1] == "spent: 12.30 USD this month of a budget of 60.00; the month will come to 41.00"


def test_a_single_host_without_a_group_is_shown_too(read: Read) -> None:
    ec2 = boto3.client("ec2")
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "pergola-test-main"}]}]
    ec2.run_instances(ImageId=image, InstanceType="t3.medium", MinCount=1, MaxCount=1, TagSpecifications=tags)
    answer = read(balancer="")
    assert [(row["type"], row["state"]) for row in answer["hosts"]] == [("t3.medium", "running")]
    assert "no fleets yet" in answer["text"]
