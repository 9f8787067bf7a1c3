"""One cloud without containers, in this process: moto's classes are patched once."""

from __future__ import annotations

import base64
import itertools
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config

from emulator.world import Settings
from rehearsal.cloud import Cloud

number = itertools.count(1)
IMAGES: list[str] = []


def image(ec2: Any) -> str:
    """Return one of AWS's images: always the same, as their whole list takes two seconds."""
    if not IMAGES:
        IMAGES.append(ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"])
    return IMAGES[0]


class Account:
    """The rehearsed account as a test sees it: boto3 clients, and a network to put things into."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        ec2 = self.client("ec2")
        self.vpc = ec2.create_vpc(CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
        self.subnets = [
            ec2.create_subnet(VpcId=self.vpc, CidrBlock=f"10.20.{n}.0/24", AvailabilityZone=f"us-east-1{z}")["Subnet"][
                "SubnetId"
            ]
            for n, z in enumerate("ab")
        ]
        self.ami = image(ec2)
        self.target_group = self.make_target_group()
        self.template = f"hosts-{next(number)}"
        ec2.create_launch_template(
            LaunchTemplateName=self.template,
            LaunchTemplateData={
                "ImageId": self.ami,
                "InstanceType": "t3.small",
                "UserData": base64.b64encode(b"#!/bin/sh\n").decode(),
            },
        )

    def client(self, service: str) -> Any:
        return boto3.client(
            service, region_name="us-east-1", endpoint_url=self.cloud.world.settings.endpoint, aws_access_key_id="rehearsal",
            aws_secret_access_key="rehearsal", config=Config(retries={"max_attempts": 8, "mode": "standard"}),
        )  # fmt: skip

    def make_target_group(self) -> str:
        elb, name = self.client("elbv2"), f"web-{next(number)}"
        made = elb.create_target_group(Name=name, Protocol="HTTP", Port=80, VpcId=self.vpc)["TargetGroups"][0]
        attributes = [{"Key": "deregistration_delay.timeout_seconds", "Value": "10"}]
        elb.modify_target_group_attributes(TargetGroupArn=made["TargetGroupArn"], Attributes=attributes)
        return str(made["TargetGroupArn"])

    def make_group(self, desired: int, minimum: int = 1) -> str:
        name = f"group-{next(number)}"
        self.client("autoscaling").create_auto_scaling_group(
            AutoScalingGroupName=name, MinSize=minimum, MaxSize=10, DesiredCapacity=desired,
            LaunchTemplate={"LaunchTemplateName": self.template, "Version": "1"}, VPCZoneIdentifier=",".join(self.subnets),
            TargetGroupARNs=[self.target_group], HealthCheckType="ELB", HealthCheckGracePeriod=60,
        )  # fmt: skip
        return name

    def group(self, name: str) -> dict[str, Any]:
        found = self.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[name])[
            "AutoScalingGroups"
        ]
        return dict(found[0])

    def until(self, ask: Callable[[], Any], seconds: float = 30) -> Any:
        """Wait until an answer is true, and return it."""
        deadline = time.monotonic() + seconds
        while not (answer := ask()):
            assert time.monotonic() < deadline, self.cloud.world.events[-10:] + list(self.cloud.world.problems.values())
            time.sleep(0.05)
        return answer


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Run one cloud, fifty times as fast as AWS."""
    state = tmp_path_factory.mktemp("rehearsal")
    running = Cloud(Settings(state=str(state), port=free_port(), speed=50, bodies=False))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def account(cloud: Cloud) -> Account:
    """Give a network of its own in the one account."""
    return Account(cloud)
