"""What an account holds of an environment: found, described and removed; against moto."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import moto.logs.responses
import pytest
from moto import mock_aws

from app.core import cloud, manifest
from app.core.cloud import account, preview
from emulator import patches

ROOT = Path(__file__).resolve().parents[3]
MANIFESTS = manifest.load_all(ROOT, ["portal", "wine"])
SETTINGS: dict[str, Any] = {
    "database": {"enabled": True},
    "network": {"way_out": "nat"},
    "secrets": {"recovery_days": 0},
}
TRUST = json.dumps({"Version": "2012-10-17", "Statement": []})


def client(service: str, region: str = "us-east-1") -> Any:
    return boto3.client(service, region_name=region)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[account.Account]:
    """Give an empty account and the plan of an environment."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "rehearsal")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    if not hasattr(moto.logs.responses.LogsResponse, "put_query_definition"):
        patches.queries(SimpleNamespace())  # type: ignore[arg-type] # saved queries ask nothing of the world
    with mock_aws():
        yield account.Account(client, cloud.build(SETTINGS, MANIFESTS, environment="test", account="123456789012"))


def tags(plan: Any, name: str) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in {**plan["tags"], "Name": name}.items()]


def network(plan: Any) -> dict[str, Any]:
    """Make a network as the plan says, and two groups that name each other."""
    ec2, name = client("ec2"), plan["prefix"]

    def named(kind: str, what: str = name) -> dict[str, Any]:
        return {"TagSpecifications": [{"ResourceType": kind, "Tags": tags(plan, what)}]}

    vpc = ec2.create_vpc(CidrBlock=plan["network"]["cidr"], **named("vpc"))["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=row["cidr"], AvailabilityZone=row["zone"], **named("subnet", row["name"]))["Subnet"]["SubnetId"]
        for row in plan["network"]["subnets"]
    ]  # fmt: skip
    gateway = ec2.create_internet_gateway(**named("internet-gateway"))["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    address = ec2.allocate_address(Domain="vpc", **named("elastic-ip", f"{name}-nat"))["AllocationId"]
    ec2.create_nat_gateway(SubnetId=subnets[0], AllocationId=address, **named("natgateway"))
    table = ec2.create_route_table(VpcId=vpc, **named("route-table", f"{name}-public"))["RouteTable"]["RouteTableId"]
    ec2.associate_route_table(RouteTableId=table, SubnetId=subnets[0])
    groups = [
        ec2.create_security_group(GroupName=f"{name}-{key}", Description=key, VpcId=vpc, **named("security-group"))[
            "GroupId"
        ]
        for key in ("hosts", "database")
    ]
    for group, peer in (groups, reversed(groups)):
        rule = {"IpProtocol": "tcp", "FromPort": 5432, "ToPort": 5432, "UserIdGroupPairs": [{"GroupId": peer}]}
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    return {"vpc": vpc, "subnets": subnets, "groups": groups}


def test_an_empty_account_holds_nothing(here: account.Account) -> None:
    assert account.found(here) == []
    assert account.sweep(here) == []


def test_a_network_is_found_as_the_plan_names_it_and_removed(here: account.Account) -> None:
    network(here.plan)
    steps = {
        (step.thing.kind, step.thing.name): step for step in preview.compare(here.plan, account.found(here, "network"))
    }
    assert steps["VPC", "pergola-test"].action == "keep"
    assert steps["NAT gateway", "pergola-test"].action == "keep"
    assert steps["public address", "pergola-test-nat"].action == "keep"
    assert steps["subnet", "pergola-test-private-b"].action == "keep"
    assert steps["security group", "pergola-test-hosts"].action == "change"
    assert steps["security group", "pergola-test-balancer"].action == "make"
    removed, errors = account.remove(here, "network", seconds=5, pause=0)
    assert errors == []
    assert ("VPC", "pergola-test") in {(thing.kind, thing.name) for thing in removed}
    assert account.found(here) == []
    assert client("ec2").describe_addresses()["Addresses"] == []


def test_another_environments_things_stay(here: account.Account) -> None:
    other = cloud.build(SETTINGS, MANIFESTS, environment="test2", account="123456789012")
    network(other)
    client("s3").create_bucket(Bucket="pergola-test2-123456789012-data")
    client("iam").create_role(RoleName="pergola-test2-host-main", AssumeRolePolicyDocument=TRUST)
    client("logs").create_log_group(logGroupName="/pergola/test2/host")
    assert account.found(here) == []
    for part in account.PARTS:
        assert account.remove(here, part, seconds=5, pause=0) == ([], [])
    kinds = {thing.kind for thing in account.found(account.Account(client, other))}
    assert kinds >= {"VPC", "bucket", "role", "log group"}


def test_saved_queries_are_found_as_the_plan_names_them_and_removed(here: account.Account) -> None:
    logs, row = client("logs"), here.plan["monitoring"]["queries"][0]
    logs.put_query_definition(name=row["name"], queryString=row["query"], logGroupNames=row["log_groups"])
    other = logs.put_query_definition(name="pergola-test2/errors", queryString="fields a")["queryDefinitionId"]
    steps = {
        (step.thing.kind, step.thing.name): step.action for step in preview.compare(here.plan, account.found(here))
    }
    assert steps["log query", row["name"]] == "keep"
    assert steps["log query", here.plan["monitoring"]["queries"][1]["name"]] == "make"
    assert ("log query", "pergola-test2/errors") not in steps
    assert account.remove(here, "watchers", seconds=5, pause=0)[1] == []
    assert [left["queryDefinitionId"] for left in logs.describe_query_definitions()["queryDefinitions"]] == [other]
    logs.delete_query_definition(queryDefinitionId=other)


def test_a_bucket_goes_with_every_old_version(here: account.Account) -> None:
    s3, name = client("s3"), here.plan["storage"]["buckets"][0]["name"]
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    for content in (b"1", b"2"):
        s3.put_object(Bucket=name, Key="a", Body=content)
    s3.delete_object(Bucket=name, Key="a")
    assert account.remove(here, "data", seconds=5, pause=0)[1] == []
    assert s3.list_buckets()["Buckets"] == []


def test_hosts_data_and_identities_go_in_an_order_in_which_they_can(here: account.Account) -> None:
    made, plan = network(here.plan), here.plan
    iam, rds, role = client("iam"), client("rds"), plan["identity"]["hosts"][0]
    iam.create_role(RoleName=role["name"], AssumeRolePolicyDocument=TRUST)
    iam.put_role_policy(RoleName=role["name"], PolicyName="pergola", PolicyDocument=json.dumps(role["policy"]))
    iam.create_instance_profile(InstanceProfileName=role["name"])
    iam.add_role_to_instance_profile(InstanceProfileName=role["name"], RoleName=role["name"])
    for row in plan["secrets"]["secrets"]:
        client("secretsmanager").create_secret(Name=row["name"], SecretString="x", Tags=tags(plan, row["name"]))
    client("logs").create_log_group(logGroupName="/pergola/test/host")
    name = plan["database"]["name"]
    rds.create_db_subnet_group(DBSubnetGroupName=name, DBSubnetGroupDescription="x", SubnetIds=made["subnets"])
    rds.create_db_instance(DBInstanceIdentifier=name, Engine="postgres", DBInstanceClass="db.t4g.micro", AllocatedStorage=20,
                           DBSubnetGroupName=name, MasterUsername="pergola", MasterUserPassword="long enough")  # fmt: skip
    client("ec2").run_instances(
        ImageId=client("ec2").describe_images()["Images"][0]["ImageId"], MinCount=1, MaxCount=1, SubnetId=made["subnets"][0],
        InstanceType="t3.small", TagSpecifications=[{"ResourceType": "instance", "Tags": tags(plan, "pergola-test-main")}],
    )  # fmt: skip
    steps = {(step.thing.kind, step.thing.name): step for step in preview.compare(plan, account.found(here))}
    assert steps["role", role["name"]].action == "keep"
    assert steps["database", name].usd > 10
    assert steps["host", "pergola-test-main"].action == "remove"
    assert steps["host", "pergola-test-main"].usd > 15
    for part in account.PARTS:
        assert account.remove(here, part, seconds=5, pause=0)[1] == []
    assert account.found(here) == []
    assert account.sweep(here) == []


def test_a_protected_database_is_said_and_stays(here: account.Account) -> None:
    client("rds").create_db_instance(
        DBInstanceIdentifier=here.plan["database"]["name"], Engine="postgres", DBInstanceClass="db.t4g.micro", AllocatedStorage=20,
        MasterUsername="pergola", MasterUserPassword="long enough", DeletionProtection=True,
    )  # fmt: skip
    removed, errors = account.remove(here, "data", seconds=0, pause=0)
    assert removed == []
    assert "database pergola-test-db" in errors[0]
    assert account.guarded(here) == ["database pergola-test-db"]
    assert account.found(here)


def test_the_preview_names_each_thing_with_its_price(here: account.Account) -> None:
    lines = preview.text(preview.compare(here.plan, []), environment="test")
    assert any(line.startswith("+ NAT gateway") and line.endswith("32.85") for line in lines)
    assert any(line.startswith("+ VPC") and line.endswith("free") for line in lines)
    assert lines[-3].startswith("test: ")
