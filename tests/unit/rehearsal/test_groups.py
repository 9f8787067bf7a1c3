"""Scaling groups of the rehearsal through boto3, without containers: the number holds, hooks hold, refreshes replace."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError

from emulator.scaling import cron
from tests.unit.rehearsal.conftest import Account


def in_service(account: Account, group: str) -> set[str]:
    return {i["InstanceId"] for i in account.group(group)["Instances"] if i["LifecycleState"] == "InService"}


def test_a_group_fills_up_over_its_zones(account: Account) -> None:
    name = account.make_group(desired=2)
    account.until(lambda: len(in_service(account, name)) == 2)
    zones = {i["AvailabilityZone"] for i in account.group(name)["Instances"]}
    assert len(zones) == 2
    health = account.client("elbv2").describe_target_health(TargetGroupArn=account.target_group)
    assert {t["TargetHealth"]["State"] for t in health["TargetHealthDescriptions"]} == {"healthy"}


def test_what_is_terminated_is_replaced(account: Account) -> None:
    name = account.make_group(desired=2)
    account.until(lambda: len(in_service(account, name)) == 2)
    victim = min(in_service(account, name))
    account.client("ec2").terminate_instances(InstanceIds=[victim])
    account.until(lambda: len(in_service(account, name) - {victim}) == 2)
    log = account.client("autoscaling").describe_scaling_activities(AutoScalingGroupName=name)["Activities"]
    assert len([a for a in log if a["Description"].startswith("Launching")]) == 3


def test_what_is_called_unhealthy_is_replaced(account: Account) -> None:
    name = account.make_group(desired=2)
    account.until(lambda: len(in_service(account, name)) == 2)
    victim = min(in_service(account, name))
    account.client("autoscaling").set_instance_health(InstanceId=victim, HealthStatus="Unhealthy")
    account.until(lambda: victim not in in_service(account, name) and len(in_service(account, name)) == 2)

    def state() -> str:
        found = account.client("ec2").describe_instances(InstanceIds=[victim])["Reservations"][0]["Instances"][0]
        return str(found["State"]["Name"])

    account.until(lambda: state() == "terminated")


def test_the_number_stays_within_its_bounds(account: Account) -> None:
    name, scaling = account.make_group(desired=2), account.client("autoscaling")
    for capacity in (0, 11):
        with pytest.raises(ClientError, match="SetDesiredCapacity value"):
            scaling.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=capacity)
    scaling.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=4)
    account.until(lambda: len(in_service(account, name)) == 4)
    scaling.update_auto_scaling_group(AutoScalingGroupName=name, MaxSize=3)
    account.until(lambda: len(account.group(name)["Instances"]) == 3)
    assert account.group(name)["DesiredCapacity"] == 3


def test_a_launch_waits_at_its_hook(account: Account) -> None:
    scaling = account.client("autoscaling")
    name = account.make_group(desired=0, minimum=0)
    scaling.put_lifecycle_hook(AutoScalingGroupName=name, LifecycleHookName="serve", HeartbeatTimeout=600,
                               LifecycleTransition="autoscaling:EC2_INSTANCE_LAUNCHING", DefaultResult="ABANDON")  # fmt: skip
    scaling.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=1)

    def held() -> list[str]:
        return [i["InstanceId"] for i in account.group(name)["Instances"] if i["LifecycleState"] == "Pending:Wait"]

    first = account.until(held)[0]
    health = account.client("elbv2").describe_target_health(TargetGroupArn=account.target_group)
    assert health["TargetHealthDescriptions"] == []
    done = {"AutoScalingGroupName": name, "LifecycleHookName": "serve"}
    scaling.complete_lifecycle_action(**done, InstanceId=first, LifecycleActionResult="ABANDON")
    second = account.until(lambda: [i for i in held() if i != first])[0]
    scaling.complete_lifecycle_action(**done, InstanceId=second, LifecycleActionResult="CONTINUE")
    account.until(lambda: in_service(account, name) == {second})
    with pytest.raises(ClientError, match="No active Lifecycle Action"):
        scaling.complete_lifecycle_action(**done, InstanceId=second, LifecycleActionResult="CONTINUE")


def test_a_hook_that_nobody_answers_ends(account: Account) -> None:
    scaling = account.client("autoscaling")
    name = account.make_group(desired=1)
    account.until(lambda: len(in_service(account, name)) == 1)
    scaling.put_lifecycle_hook(AutoScalingGroupName=name, LifecycleHookName="drain", HeartbeatTimeout=30,
                               LifecycleTransition="autoscaling:EC2_INSTANCE_TERMINATING", DefaultResult="CONTINUE")  # fmt: skip
    victim = in_service(account, name).pop()
    scaling.terminate_instance_in_auto_scaling_group(InstanceId=victim, ShouldDecrementDesiredCapacity=False)
    account.until(lambda: victim not in {i["InstanceId"] for i in account.group(name)["Instances"]})
    account.until(lambda: len(in_service(account, name)) == 1)


def test_a_refresh_replaces_every_instance_and_keeps_enough(account: Account) -> None:
    scaling = account.client("autoscaling")
    name = account.make_group(desired=2)
    account.until(lambda: len(in_service(account, name)) == 2)
    old = in_service(account, name)
    version = account.client("ec2").create_launch_template_version(
        LaunchTemplateName=account.template, SourceVersion="1",
        LaunchTemplateData={"ImageId": account.ami, "UserData": base64.b64encode(b"#!/bin/sh\n# two\n").decode()},
    )["LaunchTemplateVersion"]["VersionNumber"]  # fmt: skip
    wish = {"LaunchTemplate": {"LaunchTemplateName": account.template, "Version": str(version)}}
    preferences = {"MinHealthyPercentage": 50, "InstanceWarmup": 0}
    scaling.start_instance_refresh(AutoScalingGroupName=name, DesiredConfiguration=wish, Preferences=preferences)
    with pytest.raises(ClientError, match="already in progress"):
        scaling.start_instance_refresh(AutoScalingGroupName=name)
    fewest = 2

    def done() -> bool:
        nonlocal fewest
        fewest = min(fewest, len(in_service(account, name)))
        refresh = scaling.describe_instance_refreshes(AutoScalingGroupName=name)["InstanceRefreshes"][0]
        return bool(refresh["Status"] == "Successful")

    account.until(done)
    assert fewest >= 1
    assert not in_service(account, name) & old
    assert {i["LaunchTemplate"]["Version"] for i in account.group(name)["Instances"]} == {"2"}


def test_deleting_a_group_ends_what_lives_in_it(account: Account) -> None:
    name = account.make_group(desired=2)
    account.until(lambda: len(in_service(account, name)) == 2)
    ids = sorted(in_service(account, name))
    account.client("autoscaling").delete_auto_scaling_group(AutoScalingGroupName=name, ForceDelete=True)
    found = account.client("ec2").describe_instances(InstanceIds=ids)["Reservations"]
    assert {i["State"]["Name"] for r in found for i in r["Instances"]} == {"terminated"}


def test_a_target_drains_before_it_is_gone(account: Account) -> None:
    elb, ec2 = account.client("elbv2"), account.client("ec2")
    instance = ec2.run_instances(ImageId=account.ami, MinCount=1, MaxCount=1, SubnetId=account.subnets[0])["Instances"][
        0
    ]
    target = {"TargetGroupArn": account.target_group, "Targets": [{"Id": instance["InstanceId"]}]}
    elb.register_targets(**target)
    elb.deregister_targets(**target)

    def states() -> list[str]:
        found = elb.describe_target_health(TargetGroupArn=account.target_group)["TargetHealthDescriptions"]
        return [t["TargetHealth"]["State"] for t in found]

    assert states() == ["draining"]
    account.until(lambda: states() == [])


@pytest.mark.parametrize(
    ("expression", "when", "matches"),
    [
        ("0 8 * * MON-FRI", "2026-11-23T08:00", True),
        ("0 8 * * MON-FRI", "2026-11-22T08:00", False),
        ("*/15 * * * *", "2026-11-22T10:45", True),
        ("*/15 * * * *", "2026-11-22T10:46", False),
        ("0 0 1 1,7 *", "2026-07-01T00:00", True),
        ("0 0 * * 7", "2026-11-22T00:00", True),
        ("30 6 22 * MON", "2026-11-22T06:30", True),  # either day, as cron has it
    ],
)
def test_cron(expression: str, when: str, matches: bool) -> None:
    assert cron(expression, datetime.fromisoformat(when).replace(tzinfo=UTC)) is matches


def test_a_group_whose_hosts_are_on_their_way_is_not_measured(account: Account) -> None:
    scaling, name = account.client("autoscaling"), account.make_group(desired=0, minimum=0)
    scaling.put_lifecycle_hook(AutoScalingGroupName=name, LifecycleHookName="serve", HeartbeatTimeout=7200,
                               LifecycleTransition="autoscaling:EC2_INSTANCE_LAUNCHING", DefaultResult="ABANDON")  # fmt: skip
    requests = {
        "PredefinedMetricSpecification": {"PredefinedMetricType": "ALBRequestCountPerTarget", "ResourceLabel": "any"}
    }
    scaling.put_scaling_policy(AutoScalingGroupName=name, PolicyName="requests", PolicyType="TargetTrackingScaling",
                               TargetTrackingConfiguration={**requests, "TargetValue": 100.0})  # fmt: skip
    scaling.update_auto_scaling_group(AutoScalingGroupName=name, MinSize=1, DesiredCapacity=3)
    account.until(lambda: len(account.group(name)["Instances"]) == 3)
    time.sleep(0.5)  # some steps of the loop
    assert account.group(name)["DesiredCapacity"] == 3


def test_a_metric_over_its_target_asks_for_more(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    scaling = account.cloud.scaling
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)

    def minutes(count: int, value: float, there: int) -> int:
        wish = there
        for _ in range(count * 4):
            clock.now += account.cloud.world.real(15)
            wish = scaling.follow("cpu", value, 70.0, there)
        return wish

    assert minutes(2, 95, 2) == 2  # not clear yet
    assert minutes(3, 95, 2) == 3
    assert minutes(10, 10, 3) == 3  # scaling in takes longer
    assert minutes(10, 10, 3) == 2
