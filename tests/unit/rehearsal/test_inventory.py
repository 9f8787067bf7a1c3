"""The dynamic inventory finds the hosts of one environment, in groups."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.unit.rehearsal.conftest import Account

ROOT = Path(__file__).resolve().parents[3]


def inventory(account: Account, **variables: str) -> dict[str, Any]:
    keys = {"AWS_ENDPOINT_URL": account.cloud.world.settings.endpoint, "AWS_ACCESS_KEY_ID": "rehearsal",
            "AWS_SECRET_ACCESS_KEY": "any-but-a-word-that-occurs", "AWS_REGION": "us-east-1", **variables}  # fmt: skip
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-inventory"), "-i", "inventories/fleet.aws_ec2.yml", "--list"],
        cwd=ROOT, env={**os.environ, **keys}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_hosts_of_an_environment_are_found_by_fleet_colour_and_zone(account: Account) -> None:
    ec2 = account.client("ec2")

    def host(environment: str, fleet: str, colour: str, zone: int) -> str:
        tags = {"Project": "pergola", "Environment": environment, "Fleet": fleet, "Colour": colour}
        made = ec2.run_instances(
            ImageId=account.ami, MinCount=1, MaxCount=1, SubnetId=account.subnets[zone],
            TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}],
        )["Instances"][0]["InstanceId"]  # fmt: skip
        return str(made)

    one, two = host("shop", "main", "blue", 0), host("shop", "media", "green", 1)
    other, gone = host("elsewhere", "main", "blue", 0), host("shop", "main", "blue", 0)
    ec2.terminate_instances(InstanceIds=[gone])
    found = inventory(account, PERGOLA_ENVIRONMENT="shop", PERGOLA_REHEARSAL="shop-cloud")
    groups = {name: set(row["hosts"]) for name, row in found.items() if row.get("hosts")}
    assert (groups["fleet_main"], groups["fleet_media"]) == ({one}, {two})
    assert (groups["colour_blue"], groups["zone_us_east_1b"]) == ({one}, {two})
    assert found["_meta"]["hostvars"].keys() == {one, two}
    # how Ansible writes what may have come from outside
    variables = {
        key: row["__ansible_unsafe"]
        for key, row in found["_meta"]["hostvars"][one].items()
        if isinstance(row, dict) and "__ansible_unsafe" in row
    }
    assert variables["ansible_host"] == f"shop-cloud-{one}"
    assert variables["ansible_connection"] == "community.docker.docker"
    assert inventory(account, PERGOLA_ENVIRONMENT="elsewhere")["_meta"]["hostvars"].keys() == {other}
