"""A whole account as AWS's own describe calls tell it: nothing here knows how Pergola names or finds things."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from botocore.exceptions import ClientError

Client = Callable[..., Any]
Rows = dict[str, list[dict[str, Any]]]

# kind: service, call, where its answer has the rows, arguments
LISTS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "vpc": ("ec2", "describe_vpcs", "Vpcs", {}),
    "subnet": ("ec2", "describe_subnets", "Subnets", {}),
    "route table": ("ec2", "describe_route_tables", "RouteTables", {}),
    "internet gateway": ("ec2", "describe_internet_gateways", "InternetGateways", {}),
    "nat gateway": ("ec2", "describe_nat_gateways", "NatGateways", {}),
    "address": ("ec2", "describe_addresses", "Addresses", {}),
    "security group": ("ec2", "describe_security_groups", "SecurityGroups", {}),
    "endpoint": ("ec2", "describe_vpc_endpoints", "VpcEndpoints", {}),
    "flow log": ("ec2", "describe_flow_logs", "FlowLogs", {}),
    "launch template": ("ec2", "describe_launch_templates", "LaunchTemplates", {}),
    "image": ("ec2", "describe_images", "Images", {"Owners": ["self"]}),
    "instance": ("ec2", "describe_instances", "Reservations", {}),
    "volume": ("ec2", "describe_volumes", "Volumes", {}),
    "scaling group": ("autoscaling", "describe_auto_scaling_groups", "AutoScalingGroups", {}),
    "scaling policy": ("autoscaling", "describe_policies", "ScalingPolicies", {}),
    "scheduled action": ("autoscaling", "describe_scheduled_actions", "ScheduledUpdateGroupActions", {}),
    "load balancer": ("elbv2", "describe_load_balancers", "LoadBalancers", {}),
    "target group": ("elbv2", "describe_target_groups", "TargetGroups", {}),
    "database": ("rds", "describe_db_instances", "DBInstances", {}),
    "subnet group": ("rds", "describe_db_subnet_groups", "DBSubnetGroups", {}),
    "parameter group": ("rds", "describe_db_parameter_groups", "DBParameterGroups", {}),
    "snapshot": ("rds", "describe_db_snapshots", "DBSnapshots", {}),
    "bucket": ("s3", "list_buckets", "Buckets", {}),
    "secret": ("secretsmanager", "list_secrets", "SecretList", {}),
    "role": ("iam", "list_roles", "Roles", {}),
    "profile": ("iam", "list_instance_profiles", "InstanceProfiles", {}),
    "certificate": ("acm", "list_certificates", "CertificateSummaryList", {}),
    "zone": ("route53", "list_hosted_zones", "HostedZones", {}),
    "log group": ("logs", "describe_log_groups", "logGroups", {}),
    "metric filter": ("logs", "describe_metric_filters", "metricFilters", {}),
    "log query": ("logs", "describe_query_definitions", "queryDefinitions", {}),
    "alarm": ("cloudwatch", "describe_alarms", "MetricAlarms", {}),
    "dashboard": ("cloudwatch", "list_dashboards", "DashboardEntries", {}),
    "topic": ("sns", "list_topics", "Topics", {}),
    "subscription": ("sns", "list_subscriptions", "Subscriptions", {}),
    "trail": ("cloudtrail", "describe_trails", "trailList", {}),
    "firewall": ("wafv2", "list_web_acls", "WebACLs", {"Scope": "REGIONAL"}),
    "parameter": ("ssm", "describe_parameters", "Parameters", {}),
}
# kind: calls that tell more of one of it: service, call, argument, and which key of the row it is given
MORE: dict[str, list[tuple[str, str, str, str]]] = {
    "launch template": [("ec2", "describe_launch_template_versions", "LaunchTemplateId", "LaunchTemplateId")],
    "scaling group": [("autoscaling", "describe_lifecycle_hooks", "AutoScalingGroupName", "AutoScalingGroupName")],
    "load balancer": [
        ("elbv2", "describe_load_balancer_attributes", "LoadBalancerArn", "LoadBalancerArn"),
        ("elbv2", "describe_listeners", "LoadBalancerArn", "LoadBalancerArn"),
        ("elbv2", "describe_tags", "ResourceArns", "LoadBalancerArn"),
    ],
    "target group": [
        ("elbv2", "describe_target_group_attributes", "TargetGroupArn", "TargetGroupArn"),
        ("elbv2", "describe_tags", "ResourceArns", "TargetGroupArn"),
    ],
    "parameter group": [
        ("rds", "describe_db_parameters", "DBParameterGroupName", "DBParameterGroupName"),
        ("rds", "list_tags_for_resource", "ResourceName", "DBParameterGroupArn"),
    ],
    "subnet group": [("rds", "list_tags_for_resource", "ResourceName", "DBSubnetGroupArn")],
    "bucket": [
        ("s3", f"get_bucket_{what}", "Bucket", "Name")
        for what in (
            "policy", "versioning", "encryption", "lifecycle_configuration", "cors", "logging", "replication", "tagging", "ownership_controls"
        )
    ]
    + [("s3", "get_public_access_block", "Bucket", "Name")],
    "role": [("iam", "list_role_tags", "RoleName", "RoleName"), ("iam", "list_role_policies", "RoleName", "RoleName")],
    "profile": [("iam", "get_instance_profile", "InstanceProfileName", "InstanceProfileName")],
    "certificate": [("acm", "list_tags_for_certificate", "CertificateArn", "CertificateArn")],
    "zone": [("route53", "list_resource_record_sets", "HostedZoneId", "Id")],
    "log group": [("logs", "list_tags_for_resource", "resourceArn", "logGroupArn")],
    "alarm": [("cloudwatch", "list_tags_for_resource", "ResourceARN", "AlarmArn")],
    "dashboard": [("cloudwatch", "get_dashboard", "DashboardName", "DashboardName")],
    "topic": [("sns", "list_tags_for_resource", "ResourceArn", "TopicArn")],
    "trail": [("cloudtrail", "list_tags", "ResourceIdList", "TrailARN"), ("cloudtrail", "get_trail_status", "Name", "TrailARN")],
    "firewall": [("wafv2", "list_tags_for_resource", "ResourceARN", "ARN")],
}  # fmt: skip
# kind: which key of a row is its name
NAMES = {
    "vpc": "VpcId", "subnet": "SubnetId", "route table": "RouteTableId", "internet gateway": "InternetGatewayId",
    "nat gateway": "NatGatewayId", "address": "AllocationId", "security group": "GroupId", "endpoint": "VpcEndpointId",
    "flow log": "FlowLogId", "launch template": "LaunchTemplateId", "image": "ImageId", "instance": "InstanceId", "volume": "VolumeId",
    "scaling group": "AutoScalingGroupName", "scaling policy": "PolicyARN", "scheduled action": "ScheduledActionName",
    "load balancer": "LoadBalancerArn", "target group": "TargetGroupArn", "database": "DBInstanceArn", "subnet group": "DBSubnetGroupArn",
    "parameter group": "DBParameterGroupArn", "snapshot": "DBSnapshotArn", "bucket": "Name", "secret": "ARN", "role": "Arn", "profile": "Arn",
    "certificate": "CertificateArn", "zone": "Id", "log group": "arn", "metric filter": "filterName", "log query": "queryDefinitionId",
    "alarm": "AlarmArn", "dashboard": "DashboardName", "topic": "TopicArn", "subscription": "SubscriptionArn", "trail": "TrailARN",
    "firewall": "ARN", "parameter": "ARN",
}  # fmt: skip
TAGS = {"tags", "taglist", "tagset", "tagslist"}
UNTAGGABLE = {"scaling policy", "scheduled action", "metric filter", "log query", "dashboard", "subscription"}
IDS = re.compile(
    r"\b(?:[a-z]{1,12}-[0-9a-f]{8,17}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}|[0-9a-f]{16,64}|\d{13,}|A(?:ROA|IPA)\w{10,})\b"
)
ADDRESSES = re.compile(
    r"\b(?!0\.0\.0\.0)\d{1,3}([.-])\d{1,3}\1\d{1,3}\1\d{1,3}\b(?!/)|\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b"
)
SECRETS = re.compile(r"(:secret:\S+-)\w{6}\b")
CHOSEN = (
    "StateReason",
    "StateValue",
    "InstanceProfileId",
    "DnsEntries",
    "Instances",
    "Placement",
    "AvailableIpAddressCount",
)  # keys of what AWS chooses
MOMENTS = re.compile(r"\d{4}-\d\d-\d\d[T ][\d:.+]+Z?|\b1[78]\d{8,11}\b")


def rows(client: Client, kind: str) -> Iterator[dict[str, Any]]:
    """Give everything of a kind that is not over."""
    service, call, key, given = LISTS[kind]
    api = client(service)
    pages = api.get_paginator(call).paginate(**given) if api.can_paginate(call) else [getattr(api, call)(**given)]
    for row in (row for page in pages for row in page.get(key) or []):
        each = row["Instances"] if kind == "instance" else [row]
        for one in each:
            state = one.get("State")
            over = (state.get("Name") if isinstance(state, dict) else state) in {"terminated", "deleted"}
            if not over and "DeletedDate" not in one:
                yield one


def told(client: Client, kind: str, row: dict[str, Any]) -> dict[str, Any]:
    """Return what else AWS tells of one thing, by the call."""
    found: dict[str, Any] = {}
    for service, call, argument, key in MORE.get(kind, []):
        value = row.get(key) or str(row["arn"]).removesuffix(":*")
        with contextlib.suppress(ClientError):  # S3's way to say that there is none
            answer = getattr(client(service), call)(
                **{argument: [value] if argument.endswith(("Arns", "List")) else value}
            )
            found[call] = {
                name: each
                for name, each in answer.items()
                if name not in {"ResponseMetadata", "NextToken", "IsTruncated"}
            }
    if kind == "role":
        names = found["list_role_policies"]["PolicyNames"]
        found["policies"] = [
            client("iam").get_role_policy(RoleName=row["RoleName"], PolicyName=name)["PolicyDocument"] for name in names
        ]
    if kind == "load balancer":
        listeners = found["describe_listeners"]["Listeners"]
        found["rules"] = [client("elbv2").describe_rules(ListenerArn=one["ListenerArn"])["Rules"] for one in listeners]
    return found


def whole(client: Client) -> Rows:
    """Return everything that is in the account, by kind."""
    return {kind: [{**row, "told": told(client, kind, row)} for row in rows(client, kind)] for kind in LISTS}


def fresh(after: Rows, before: Rows) -> Rows:
    """Return what came into an account, without what was there before."""
    known = {identity(kind, row) for kind, found in before.items() for row in found}
    return {kind: [row for row in found if identity(kind, row) not in known] for kind, found in after.items()}


def identity(kind: str, row: dict[str, Any]) -> str:
    """Return what AWS calls a thing."""
    return f"{kind} {row[NAMES[kind]]}"


def tags(row: Any) -> dict[str, str]:
    """Return the tags of a thing, wherever AWS tells them and however it spells them."""
    found: dict[str, str] = {}
    if isinstance(row, dict):
        for key, child in row.items():
            if key.lower() in TAGS and isinstance(child, dict):
                found |= child
            elif key.lower() in TAGS and isinstance(child, list):
                found |= {one["Key"]: one["Value"] for one in child if "Key" in one}
            else:
                found |= tags(child)
    for one in row if isinstance(row, list) else []:
        found |= tags(one)
    return found


def normalised(found: Rows) -> list[str]:
    """Return an account as lines that are the same when it is made again: ids, moments, addresses and states that AWS chooses are left out."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            kept = {key: child for key, child in value.items() if not key.startswith(CHOSEN)}
            return {plain(key): plain(child) for key, child in sorted(kept.items())}
        if isinstance(value, list):
            return sorted((plain(child) for child in value), key=lambda child: json.dumps(child, default=str))
        if isinstance(value, bool | int | float):
            return "<moment>" if value > 1.7e9 else value
        return MOMENTS.sub("<moment>", SECRETS.sub(r"\1<id>", ADDRESSES.sub("<address>", IDS.sub("<id>", str(value)))))

    for row in (row for kind in ("instance", "volume") for row in found[kind]):
        row.pop("AvailabilityZone", None)  # which of a group's zones has one more host
    return json.dumps(plain(found), indent=1).splitlines()
