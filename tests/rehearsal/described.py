"""A whole account as AWS's own describe calls tell it: nothing here knows how Pergola names or finds things."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from botocore.exceptions import ClientError

Client = Callable[..., Any]
Rows = dict[str, list[dict[str, Any]]]

# kind: service, call, where its answer has the rows, and which key of a row is its name
LISTS = {
    "vpc": ("ec2", "describe_vpcs", "Vpcs", "VpcId"),
    "subnet": ("ec2", "describe_subnets", "Subnets", "SubnetId"),
    "route table": ("ec2", "describe_route_tables", "RouteTables", "RouteTableId"),
    "internet gateway": ("ec2", "describe_internet_gateways", "InternetGateways", "InternetGatewayId"),
    "nat gateway": ("ec2", "describe_nat_gateways", "NatGateways", "NatGatewayId"),
    "address": ("ec2", "describe_addresses", "Addresses", "AllocationId"),
    "security group": ("ec2", "describe_security_groups", "SecurityGroups", "GroupId"),
    "endpoint": ("ec2", "describe_vpc_endpoints", "VpcEndpoints", "VpcEndpointId"),
    "flow log": ("ec2", "describe_flow_logs", "FlowLogs", "FlowLogId"),
    "launch template": ("ec2", "describe_launch_templates", "LaunchTemplates", "LaunchTemplateId"),
    "image": ("ec2", "describe_images", "Images", "ImageId"),
    "instance": ("ec2", "describe_instances", "Reservations", "InstanceId"),
    "volume": ("ec2", "describe_volumes", "Volumes", "VolumeId"),
    "scaling group": ("autoscaling", "describe_auto_scaling_groups", "AutoScalingGroups", "AutoScalingGroupName"),
    "scaling policy": ("autoscaling", "describe_policies", "ScalingPolicies", "PolicyARN"),
    "scheduled action": (
        "autoscaling",
        "describe_scheduled_actions",
        "ScheduledUpdateGroupActions",
        "ScheduledActionName",
    ),
    "load balancer": ("elbv2", "describe_load_balancers", "LoadBalancers", "LoadBalancerArn"),
    "target group": ("elbv2", "describe_target_groups", "TargetGroups", "TargetGroupArn"),
    "database": ("rds", "describe_db_instances", "DBInstances", "DBInstanceArn"),
    "subnet group": ("rds", "describe_db_subnet_groups", "DBSubnetGroups", "DBSubnetGroupArn"),
    "parameter group": ("rds", "describe_db_parameter_groups", "DBParameterGroups", "DBParameterGroupArn"),
    "snapshot": ("rds", "describe_db_snapshots", "DBSnapshots", "DBSnapshotArn"),
    "bucket": ("s3", "list_buckets", "Buckets", "Name"),
    "secret": ("secretsmanager", "list_secrets", "SecretList", "ARN"),
    "role": ("iam", "list_roles", "Roles", "Arn"),
    "profile": ("iam", "list_instance_profiles", "InstanceProfiles", "Arn"),
    "certificate": ("acm", "list_certificates", "CertificateSummaryList", "CertificateArn"),
    "zone": ("route53", "list_hosted_zones", "HostedZones", "Id"),
    "log group": ("logs", "describe_log_groups", "logGroups", "arn"),
    "metric filter": ("logs", "describe_metric_filters", "metricFilters", "filterName"),
    "log query": ("logs", "describe_query_definitions", "queryDefinitions", "queryDefinitionId"),
    "alarm": ("cloudwatch", "describe_alarms", "MetricAlarms", "AlarmArn"),
    "dashboard": ("cloudwatch", "list_dashboards", "DashboardEntries", "DashboardName"),
    "topic": ("sns", "list_topics", "Topics", "TopicArn"),
    "subscription": ("sns", "list_subscriptions", "Subscriptions", "SubscriptionArn"),
    "trail": ("cloudtrail", "describe_trails", "trailList", "TrailARN"),
    "firewall": ("wafv2", "list_web_acls", "WebACLs", "ARN"),
    "parameter": ("ssm", "describe_parameters", "Parameters", "ARN"),
}
GIVEN: dict[str, dict[str, Any]] = {"image": {"Owners": ["self"]}, "firewall": {"Scope": "REGIONAL"}}
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
TAGS = {"tags", "taglist", "tagset", "tagslist"}
UNTAGGABLE = {"scaling policy", "scheduled action", "metric filter", "log query", "dashboard", "subscription"}
NONE = re.compile("NoSuch|.*NotFound")  # S3's way to say that a bucket has no setting of a kind
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
    service, call, key, _ = LISTS[kind]
    api, given = client(service), GIVEN.get(kind, {})
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
        given = {argument: [value] if argument.endswith(("Arns", "List")) else value}
        try:
            answer = getattr(client(service), call)(**given)
        except ClientError as error:
            if service == "s3" and NONE.match(error.response["Error"]["Code"]):
                continue
            raise
        found[call] = {
            name: each for name, each in answer.items() if name not in {"ResponseMetadata", "NextToken", "IsTruncated"}
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
    return f"{kind} {row[LISTS[kind][-1]]}"


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

    # which of a group's zones has one more host is AWS's choice
    disks = [{key: child for key, child in row.items() if key != "AvailabilityZone"} for row in found["volume"]]
    return json.dumps(plain({**found, "volume": disks}), indent=1).splitlines()
