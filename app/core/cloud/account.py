"""What an AWS account holds of an environment: found by tags and names, described in the plan's words, and removed.

Each kind of thing has a function that finds what is there and one that removes one of them. Finding never writes. The order of
``KINDS`` is the order of removal; what cannot go yet (something else still uses it) is tried again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Plan = Mapping[str, Any]
Api = Callable[..., Any]
GONE = ("NotFound", "NoSuch", "NonExistent", "does not exist", "not found")
OVER = {"terminated", "deleted", "failed", "DELETED"}


@dataclass(frozen=True)
class Thing:
    """One thing of an environment, in the plan or in the account.

    Attributes:
        kind: What it is, for example ``subnet``.
        name: Its name, by which plan and account are compared.
        details: What of it is compared and priced.
        handle: What AWS calls it; empty for one of the plan.
        leaving: Whether AWS is removing it already.
    """

    kind: str
    name: str
    details: Mapping[str, Any] = field(default_factory=dict)
    handle: str = ""
    leaving: bool = False


class RefusedError(RuntimeError):
    """AWS answered well and yet did not do it."""


class Account:
    """The AWS account, seen from one environment.

    Args:
        client: Makes a boto3 client of a service's name (and a region).
        plan: The cloud plan.
    """

    def __init__(self, client: Api, plan: Plan) -> None:
        self._client, self.plan = client, plan
        self._clients: dict[tuple[str, str], Any] = {}
        self.prefix = str(plan["prefix"])

    def client(self, service: str, region: str = "") -> Any:
        """Return a client, made once."""
        key = service, region
        if key not in self._clients:
            self._clients[key] = self._client(service, **({"region": region} if region else {}))
        return self._clients[key]

    def pages(self, service: str, operation: str, key: str, region: str = "", **arguments: Any) -> list[dict[str, Any]]:
        """Return all items of a list operation."""
        client = self.client(service, region)
        if client.can_paginate(operation):
            found = client.get_paginator(operation).paginate(**arguments)
            return [item for page in found for item in page.get(key) or []]
        return list(getattr(client, operation)(**arguments).get(key) or [])

    def mine(self, name: str) -> bool:
        """Return whether a name is one of this environment's; neither project nor environment has a dash in it."""
        return name == self.prefix or name.startswith((f"{self.prefix}-", f"{self.prefix}/"))

    def tagged(self) -> list[dict[str, Any]]:
        """Return EC2's filter for this environment."""
        tags = self.plan["tags"]
        return [{"Name": f"tag:{key}", "Values": [tags[key]]} for key in ("Project", "Environment")]

    def ec2(self, operation: str, key: str, **arguments: Any) -> list[dict[str, Any]]:
        """Return what EC2 has of this environment; looked at again here, as not every list takes every filter."""
        rows = self.pages("ec2", operation, key, Filters=self.tagged(), **arguments)
        tags = self.plan["tags"]
        return [row for row in rows if all(tag(row, name) == tags[name] for name in ("Project", "Environment"))]


def tag(row: Mapping[str, Any], key: str = "Name") -> str:
    """Return one tag of an item of EC2."""
    return next((str(each["Value"]) for each in row.get("Tags") or [] if each["Key"] == key), "")


def gone(error: Exception) -> bool:
    """Return whether an error of AWS says that something is not there."""
    return any(word in str(error) for word in GONE)


# ------------------------------------------------------------------ hosts


def scaling_groups(a: Account) -> Iterator[Thing]:
    """Find the scaling groups."""
    for row in a.pages("autoscaling", "describe_auto_scaling_groups", "AutoScalingGroups"):
        if a.mine(row["AutoScalingGroupName"]):
            hosts = row["Instances"]
            kinds = {host.get("InstanceType") for host in hosts}
            details = {"hosts": len(hosts), "instance_type": kinds.pop() if len(kinds) == 1 else None}
            leaving = bool(row.get("Status"))
            yield Thing("scaling group", row["AutoScalingGroupName"], details, row["AutoScalingGroupName"], leaving)


def remove_scaling_group(a: Account, thing: Thing) -> None:
    """Remove a scaling group with its hosts."""
    a.client("autoscaling").delete_auto_scaling_group(AutoScalingGroupName=thing.handle, ForceDelete=True)


def machines(a: Account) -> Iterator[dict[str, Any]]:
    """Give every machine of the environment that is not over."""
    for reservation in a.pages("ec2", "describe_instances", "Reservations", Filters=a.tagged()):
        yield from (row for row in reservation["Instances"] if row["State"]["Name"] not in OVER)


def instances(a: Account) -> Iterator[Thing]:
    """Find hosts that are in no scaling group."""
    for row in machines(a):
        if not tag(row, "aws:autoscaling:groupName"):
            leaving = row["State"]["Name"] == "shutting-down"
            yield Thing(
                "host",
                tag(row) or row["InstanceId"],
                {"instance_type": row["InstanceType"]},
                row["InstanceId"],
                leaving,
            )


def group_instances(a: Account) -> Iterator[Thing]:
    """Find hosts of scaling groups: they go with their group, and their security groups only after them."""
    for row in machines(a):
        if tag(row, "aws:autoscaling:groupName"):
            yield Thing("host of a group", row["InstanceId"], {}, row["InstanceId"], leaving=True)


def launch_templates(a: Account) -> Iterator[Thing]:
    """Find the launch templates."""
    for row in a.pages("ec2", "describe_launch_templates", "LaunchTemplates"):
        if a.mine(row["LaunchTemplateName"]):
            yield Thing("launch template", row["LaunchTemplateName"], {}, row["LaunchTemplateId"])


def images(a: Account) -> Iterator[Thing]:
    """Find baked images."""
    for row in a.ec2("describe_images", "Images", Owners=["self"]):
        yield Thing("image", row["Name"], {}, row["ImageId"])


def snapshots(a: Account) -> Iterator[Thing]:
    """Find the snapshots of baked images."""
    for row in a.ec2("describe_snapshots", "Snapshots", OwnerIds=["self"]):
        yield Thing("snapshot", row["SnapshotId"], {"gb": row["VolumeSize"]}, row["SnapshotId"])


# ------------------------------------------------------------------ what watches


def alarms(a: Account) -> Iterator[Thing]:
    """Find the alarms; those that scaling made go with it."""
    for row in a.pages("cloudwatch", "describe_alarms", "MetricAlarms", AlarmNamePrefix=f"{a.prefix}-"):
        yield Thing("alarm", row["AlarmName"], {"threshold": float(row["Threshold"])}, row["AlarmName"])


def dashboards(a: Account) -> Iterator[Thing]:
    """Find the dashboards."""
    for row in a.pages("cloudwatch", "list_dashboards", "DashboardEntries", DashboardNamePrefix=a.prefix):
        if a.mine(row["DashboardName"]):
            yield Thing("dashboard", row["DashboardName"], {}, row["DashboardName"])


def log_queries(a: Account) -> Iterator[Thing]:
    """Find the saved queries of logs."""
    found = a.client("logs").describe_query_definitions(queryDefinitionNamePrefix=f"{a.prefix}/", maxResults=1000)
    for row in found["queryDefinitions"]:
        yield Thing("log query", row["name"], {}, row["queryDefinitionId"])


def topics(a: Account) -> Iterator[Thing]:
    """Find the topics."""
    for row in a.pages("sns", "list_topics", "Topics"):
        if a.mine(name := row["TopicArn"].rpartition(":")[2]):
            yield Thing("topic", name, {}, row["TopicArn"])


def budgets(a: Account) -> Iterator[Thing]:
    """Find the budgets."""
    for row in a.pages("budgets", "describe_budgets", "Budgets", AccountId=a.plan["account"]):
        if a.mine(row["BudgetName"]):
            details = {"usd": float(row["BudgetLimit"]["Amount"])}
            yield Thing("budget", row["BudgetName"], details, row["BudgetName"])


def trails(a: Account) -> Iterator[Thing]:
    """Find the trails of API calls."""
    for row in a.pages("cloudtrail", "describe_trails", "trailList"):
        if a.mine(row["Name"]):
            yield Thing("trail", row["Name"], {}, row["TrailARN"])


# ------------------------------------------------------------------ the way in


def balancers(a: Account) -> Iterator[Thing]:
    """Find the load balancers."""
    for row in a.pages("elbv2", "describe_load_balancers", "LoadBalancers"):
        if a.mine(row["LoadBalancerName"]):
            arn = row["LoadBalancerArn"]
            found = a.client("elbv2").describe_load_balancer_attributes(LoadBalancerArn=arn)["Attributes"]
            idle = next((int(each["Value"]) for each in found if each["Key"] == "idle_timeout.timeout_seconds"), 60)
            details = {"idle_seconds": idle, "zones": len(row["AvailabilityZones"])}
            yield Thing("load balancer", row["LoadBalancerName"], details, arn)


def target_groups(a: Account) -> Iterator[Thing]:
    """Find the target groups."""
    for row in a.pages("elbv2", "describe_target_groups", "TargetGroups"):
        if a.mine(row["TargetGroupName"]):
            details = {"health_path": row.get("HealthCheckPath")}
            yield Thing("target group", row["TargetGroupName"], details, row["TargetGroupArn"])


def certificates(a: Account) -> Iterator[Thing]:
    """Find the certificates."""
    wanted = {(key, a.plan["tags"][key]) for key in ("Project", "Environment")}
    for row in a.pages("acm", "list_certificates", "CertificateSummaryList"):
        tags = a.client("acm").list_tags_for_certificate(CertificateArn=row["CertificateArn"])["Tags"]
        if wanted <= {(each["Key"], each.get("Value")) for each in tags}:
            yield Thing("certificate", row["DomainName"], {}, row["CertificateArn"])


def web_firewalls(a: Account) -> Iterator[Thing]:
    """Find the web firewalls."""
    for row in a.pages("wafv2", "list_web_acls", "WebACLs", Scope="REGIONAL"):
        if a.mine(row["Name"]):
            yield Thing("web firewall", row["Name"], {}, row["Id"])


def remove_web_firewall(a: Account, thing: Thing) -> None:
    """Remove a web firewall."""
    name = {"Name": thing.name, "Scope": "REGIONAL", "Id": thing.handle}
    lock = a.client("wafv2").get_web_acl(**name)["LockToken"]
    a.client("wafv2").delete_web_acl(**name, LockToken=lock)


def distributions(a: Account) -> Iterator[Thing]:
    """Find CloudFront's distributions, which are named by their comment."""
    found = a.client("cloudfront").list_distributions().get("DistributionList", {}).get("Items") or []
    for row in found:
        if a.mine(row.get("Comment", "")):
            yield Thing("distribution", row["Comment"], {}, row["Id"])


def remove_distribution(a: Account, thing: Thing) -> None:
    """Switch a distribution off; once it is off everywhere, remove it."""
    client = a.client("cloudfront")
    answer = client.get_distribution_config(Id=thing.handle)
    settings = answer["DistributionConfig"]
    if settings["Enabled"]:
        client.update_distribution(
            Id=thing.handle, IfMatch=answer["ETag"], DistributionConfig={**settings, "Enabled": False}
        )
    else:
        client.delete_distribution(Id=thing.handle, IfMatch=answer["ETag"])


def records(a: Account) -> Iterator[Thing]:
    """Find the DNS records of the site: its name, and what proves it to ACM."""
    name, zone_name = a.plan["domain"].get("name"), a.plan["domain"].get("zone")
    if not (name and zone_name):
        return
    names = (name, *a.plan["domain"]["apps"].values())
    for zone in a.pages("route53", "list_hosted_zones", "HostedZones"):
        if zone["Name"] != f"{zone_name}.":
            continue
        for row in a.pages("route53", "list_resource_record_sets", "ResourceRecordSets", HostedZoneId=zone["Id"]):
            said = row["Name"].rstrip(".")
            if said in names and row["Type"] in {"A", "AAAA"}:
                yield Thing("DNS record", f"{said} {row['Type']}", row, zone["Id"])
            elif row["Type"] == "CNAME" and said.startswith("_") and said.partition(".")[2] in names:
                yield Thing("DNS record", proof(said.partition(".")[2]), row, zone["Id"])  # ACM chooses how it begins


def proof(name: str) -> str:
    """Return how the DNS record is called that proves a name to ACM."""
    return f"proof of {name} CNAME"


def remove_record(a: Account, thing: Thing) -> None:
    """Remove a DNS record."""
    change = {"Action": "DELETE", "ResourceRecordSet": thing.details}
    a.client("route53").change_resource_record_sets(HostedZoneId=thing.handle, ChangeBatch={"Changes": [change]})


# ------------------------------------------------------------------ data


def databases(a: Account) -> Iterator[Thing]:
    """Find the databases."""
    for row in a.pages("rds", "describe_db_instances", "DBInstances"):
        if a.mine(row["DBInstanceIdentifier"]):
            details = {
                "class": row["DBInstanceClass"],
                "storage_gb": row["AllocatedStorage"],
                "two_zones": row["MultiAZ"],
                "backup_days": row["BackupRetentionPeriod"],
                "deletion_protection": row["DeletionProtection"],
            }
            leaving = row["DBInstanceStatus"] == "deleting"
            yield Thing("database", row["DBInstanceIdentifier"], details, row["DBInstanceIdentifier"], leaving)


def remove_database(a: Account, thing: Thing) -> None:
    """Remove a database with its automatic backups."""
    a.client("rds").delete_db_instance(
        DBInstanceIdentifier=thing.handle, SkipFinalSnapshot=True, DeleteAutomatedBackups=True
    )


def subnet_groups(a: Account) -> Iterator[Thing]:
    """Find the databases' groups of subnets."""
    for row in a.pages("rds", "describe_db_subnet_groups", "DBSubnetGroups"):
        if a.mine(row["DBSubnetGroupName"]):
            yield Thing("database subnet group", row["DBSubnetGroupName"], {}, row["DBSubnetGroupName"])


def parameter_groups(a: Account) -> Iterator[Thing]:
    """Find the databases' groups of parameters."""
    for row in a.pages("rds", "describe_db_parameter_groups", "DBParameterGroups"):
        if a.mine(row["DBParameterGroupName"]):
            details = {"family": row["DBParameterGroupFamily"]}
            yield Thing("database parameter group", row["DBParameterGroupName"], details, row["DBParameterGroupName"])


def buckets(a: Account) -> Iterator[Thing]:
    """Find the buckets."""
    for row in a.pages("s3", "list_buckets", "Buckets"):
        if a.mine(row["Name"]):
            region = a.client("s3").get_bucket_location(Bucket=row["Name"]).get("LocationConstraint") or "us-east-1"
            versions = a.client("s3", region).get_bucket_versioning(Bucket=row["Name"]).get("Status", "Off")
            yield Thing("bucket", row["Name"], {"versions": versions}, region)


def remove_bucket(a: Account, thing: Thing) -> None:
    """Empty a bucket, with every old version, and remove it."""
    client = a.client("s3", thing.handle)
    for page in client.get_paginator("list_object_versions").paginate(Bucket=thing.name):
        rows = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        keys = [{"Key": row["Key"], "VersionId": row["VersionId"]} for row in rows]
        if keys:
            answer = client.delete_objects(Bucket=thing.name, Delete={"Objects": keys, "Quiet": True})
            for error in answer.get("Errors") or []:
                raise RefusedError(f"{error['Key']} in it: {error.get('Code')} {error.get('Message')}")
    client.delete_bucket(Bucket=thing.name)


def secrets(a: Account) -> Iterator[Thing]:
    """Find the secrets."""
    for row in a.pages("secretsmanager", "list_secrets", "SecretList"):
        if a.mine(row["Name"]) and "DeletedDate" not in row:
            yield Thing("secret", row["Name"], {}, row["ARN"])


def remove_secret(a: Account, thing: Thing) -> None:
    """Remove a secret; it can be had back for the plan's days of recovery."""
    days = a.plan["secrets"]["recovery_days"]
    how = {"RecoveryWindowInDays": days} if days else {"ForceDeleteWithoutRecovery": True}
    a.client("secretsmanager").delete_secret(SecretId=thing.handle, **how)


# ------------------------------------------------------------------ the network


def flow_logs(a: Account) -> Iterator[Thing]:
    """Find the flow logs."""
    for row in a.ec2("describe_flow_logs", "FlowLogs"):
        yield Thing("flow log", row.get("LogGroupName") or row["FlowLogId"], {}, row["FlowLogId"])


def endpoints(a: Account) -> Iterator[Thing]:
    """Find the endpoints."""
    for row in a.ec2("describe_vpc_endpoints", "VpcEndpoints"):
        if row["State"] not in OVER:
            kind = row["VpcEndpointType"].lower()
            details = {"type": kind, "zones": len(row.get("SubnetIds") or [])}
            yield Thing("endpoint", tag(row), details, row["VpcEndpointId"], row["State"] == "deleting")


def nat_gateways(a: Account) -> Iterator[Thing]:
    """Find the NAT gateways."""
    for row in a.ec2("describe_nat_gateways", "NatGateways"):
        if row["State"] not in OVER:
            yield Thing("NAT gateway", tag(row), {}, row["NatGatewayId"], row["State"] == "deleting")


def addresses(a: Account) -> Iterator[Thing]:
    """Find the Elastic IP addresses."""
    for row in a.ec2("describe_addresses", "Addresses"):
        yield Thing("public address", tag(row) or row["PublicIp"], {}, row["AllocationId"])


def remove_address(a: Account, thing: Thing) -> None:
    """Release an Elastic IP address."""
    row = a.client("ec2").describe_addresses(AllocationIds=[thing.handle])["Addresses"][0]
    if row.get("AssociationId"):
        a.client("ec2").disassociate_address(AssociationId=row["AssociationId"])
    a.client("ec2").release_address(AllocationId=thing.handle)


def internet_gateways(a: Account) -> Iterator[Thing]:
    """Find the internet gateways."""
    for row in a.ec2("describe_internet_gateways", "InternetGateways"):
        yield Thing("internet gateway", tag(row), {}, row["InternetGatewayId"])


def remove_internet_gateway(a: Account, thing: Thing) -> None:
    """Remove an internet gateway from its VPC, and then itself."""
    client = a.client("ec2")
    found = client.describe_internet_gateways(InternetGatewayIds=[thing.handle])["InternetGateways"]
    for attachment in (row for gateway in found for row in gateway.get("Attachments") or []):
        client.detach_internet_gateway(InternetGatewayId=thing.handle, VpcId=attachment["VpcId"])
    client.delete_internet_gateway(InternetGatewayId=thing.handle)


def subnets(a: Account) -> Iterator[Thing]:
    """Find the subnets."""
    for row in a.ec2("describe_subnets", "Subnets"):
        details = {"cidr": row["CidrBlock"], "zone": row["AvailabilityZone"]}
        yield Thing("subnet", tag(row), details, row["SubnetId"])


def route_tables(a: Account) -> Iterator[Thing]:
    """Find the route tables."""
    for row in a.ec2("describe_route_tables", "RouteTables"):
        routes = sorted(
            f"{route['DestinationCidrBlock']} {(route.get('GatewayId') or route.get('NatGatewayId') or '').partition('-')[0]}"
            for route in row["Routes"]
            if "DestinationCidrBlock" in route
        )
        yield Thing("route table", tag(row), {"routes": routes}, row["RouteTableId"])


def remove_route_table(a: Account, thing: Thing) -> None:
    """Take a route table from its subnets, and remove it."""
    client = a.client("ec2")
    row = client.describe_route_tables(RouteTableIds=[thing.handle])["RouteTables"][0]
    for association in row.get("Associations") or []:
        if not association.get("Main"):
            client.disassociate_route_table(AssociationId=association["RouteTableAssociationId"])
    client.delete_route_table(RouteTableId=thing.handle)


def security_groups(a: Account) -> Iterator[Thing]:
    """Find the security groups, but for the one that is always there and goes with its VPC."""
    found = a.ec2("describe_security_groups", "SecurityGroups")
    names = {row["GroupId"]: row["GroupName"] for row in found}
    for row in found:
        if row["GroupName"] != "default":
            details = {
                "ingress": rules(row["IpPermissions"], names),
                "egress": rules(row["IpPermissionsEgress"], names),
            }
            yield Thing("security group", row["GroupName"], details, row["GroupId"])


def rules(permissions: Iterable[Mapping[str, Any]], names: Mapping[str, str]) -> list[str]:
    """Return rules in words, ``tcp 443 0.0.0.0/0``, sorted."""
    rows = []
    for each in permissions:
        protocol, first, last = each["IpProtocol"], each.get("FromPort", "all"), each.get("ToPort", "all")
        peers = [row["CidrIp"] for row in each.get("IpRanges") or []]
        peers += [names.get(row["GroupId"], row["GroupId"]) for row in each.get("UserIdGroupPairs") or []]
        rows += [f"{protocol} {first if first == last else f'{first}-{last}'} {peer}" for peer in peers]
    return sorted(rows)


def remove_security_group(a: Account, thing: Thing) -> None:
    """Remove a security group, its rules first: two groups may name each other."""
    client = a.client("ec2")
    row = client.describe_security_groups(GroupIds=[thing.handle])["SecurityGroups"][0]
    for direction, permissions in (("ingress", row["IpPermissions"]), ("egress", row["IpPermissionsEgress"])):
        try:
            if permissions:
                getattr(client, f"revoke_security_group_{direction}")(GroupId=thing.handle, IpPermissions=permissions)
        except client.exceptions.ClientError as error:
            if not gone(error):  # a rule for a group that went before
                raise
    client.delete_security_group(GroupId=thing.handle)


def vpcs(a: Account) -> Iterator[Thing]:
    """Find the VPCs."""
    for row in a.ec2("describe_vpcs", "Vpcs"):
        yield Thing("VPC", tag(row), {"cidr": row["CidrBlock"]}, row["VpcId"])


# ------------------------------------------------------------------ the rest


def log_groups(a: Account) -> Iterator[Thing]:
    """Find the log groups."""
    start = f"/{a.plan['project']}/{a.plan['environment']}/"
    for row in a.pages("logs", "describe_log_groups", "logGroups", logGroupNamePrefix=start):
        yield Thing("log group", row["logGroupName"], {"days": row.get("retentionInDays")}, row["logGroupName"])


def profiles(a: Account) -> Iterator[Thing]:
    """Find the instance profiles."""
    for row in a.pages("iam", "list_instance_profiles", "InstanceProfiles"):
        if a.mine(row["InstanceProfileName"]):
            yield Thing("instance profile", row["InstanceProfileName"], {}, row["InstanceProfileName"])


def remove_profile(a: Account, thing: Thing) -> None:
    """Take the role out of an instance profile, and remove that."""
    client = a.client("iam")
    row = client.get_instance_profile(InstanceProfileName=thing.handle)["InstanceProfile"]
    for role in row["Roles"]:
        client.remove_role_from_instance_profile(InstanceProfileName=thing.handle, RoleName=role["RoleName"])
    client.delete_instance_profile(InstanceProfileName=thing.handle)


def roles(a: Account) -> Iterator[Thing]:
    """Find the roles, with what they may do."""
    client = a.client("iam")
    for row in a.pages("iam", "list_roles", "Roles"):
        if a.mine(name := row["RoleName"]):
            policies = a.pages("iam", "list_role_policies", "PolicyNames", RoleName=name)
            documents = [
                client.get_role_policy(RoleName=name, PolicyName=str(each))["PolicyDocument"] for each in policies
            ]
            yield Thing("role", name, {"may": [row for each in documents for row in each["Statement"]]}, name)


def remove_role(a: Account, thing: Thing) -> None:
    """Remove a role with its policies."""
    client = a.client("iam")
    for policy in a.pages("iam", "list_role_policies", "PolicyNames", RoleName=thing.handle):
        client.delete_role_policy(RoleName=thing.handle, PolicyName=policy)
    for row in a.pages("iam", "list_attached_role_policies", "AttachedPolicies", RoleName=thing.handle):
        client.detach_role_policy(RoleName=thing.handle, PolicyArn=row["PolicyArn"])
    client.delete_role(RoleName=thing.handle)


def parameters(a: Account) -> Iterator[Thing]:
    """Find the parameters of SSM."""
    for row in a.pages("ssm", "describe_parameters", "Parameters"):
        if a.mine(row["Name"].lstrip("/")):
            yield Thing("parameter", row["Name"], {}, row["Name"])


def call(service: str, operation: str, argument: str, *, many: bool = False) -> Callable[[Account, Thing], None]:
    """Return how to remove what one call with its handle removes."""

    def remove(a: Account, thing: Thing) -> None:
        getattr(a.client(service), operation)(**{argument: [thing.handle] if many else thing.handle})

    return remove


@dataclass(frozen=True)
class Kind:
    """How things of a kind are found and removed; ``remove`` is None for what goes with something else."""

    name: str
    find: Callable[[Account], Iterator[Thing]]
    remove: Callable[[Account, Thing], None] | None


def _kind(
    name: str, find: Callable[[Account], Iterator[Thing]], remove: Callable[[Account, Thing], None] | None
) -> Kind:
    return Kind(name, find, remove)


PARTS: dict[str, list[Kind]] = {
    "hosts": [
        _kind("scaling group", scaling_groups, remove_scaling_group),
        _kind("host", instances, call("ec2", "terminate_instances", "InstanceIds", many=True)),
        _kind("host of a group", group_instances, None),
        _kind("launch template", launch_templates, call("ec2", "delete_launch_template", "LaunchTemplateId")),
        _kind("image", images, call("ec2", "deregister_image", "ImageId")),
        _kind("snapshot", snapshots, call("ec2", "delete_snapshot", "SnapshotId")),
    ],
    "watchers": [
        _kind("alarm", alarms, call("cloudwatch", "delete_alarms", "AlarmNames", many=True)),
        _kind("dashboard", dashboards, call("cloudwatch", "delete_dashboards", "DashboardNames", many=True)),
        _kind("log query", log_queries, call("logs", "delete_query_definition", "queryDefinitionId")),
        _kind("trail", trails, call("cloudtrail", "delete_trail", "Name")),
        _kind("topic", topics, call("sns", "delete_topic", "TopicArn")),
        _kind("budget", budgets, lambda a, thing: a.client("budgets").delete_budget(AccountId=a.plan["account"], BudgetName=thing.handle)),
    ],
    "way in": [
        _kind("distribution", distributions, remove_distribution),
        _kind("DNS record", records, remove_record),
        _kind("load balancer", balancers, call("elbv2", "delete_load_balancer", "LoadBalancerArn")),
        _kind("target group", target_groups, call("elbv2", "delete_target_group", "TargetGroupArn")),
        _kind("web firewall", web_firewalls, remove_web_firewall),
        _kind("certificate", certificates, call("acm", "delete_certificate", "CertificateArn")),
    ],
    "data": [
        _kind("database", databases, remove_database),
        _kind("database subnet group", subnet_groups, call("rds", "delete_db_subnet_group", "DBSubnetGroupName")),
        _kind("database parameter group", parameter_groups, call("rds", "delete_db_parameter_group", "DBParameterGroupName")),
        _kind("bucket", buckets, remove_bucket),
        _kind("secret", secrets, remove_secret),
    ],
    "network": [
        _kind("flow log", flow_logs, call("ec2", "delete_flow_logs", "FlowLogIds", many=True)),
        _kind("endpoint", endpoints, call("ec2", "delete_vpc_endpoints", "VpcEndpointIds", many=True)),
        _kind("NAT gateway", nat_gateways, call("ec2", "delete_nat_gateway", "NatGatewayId")),
        _kind("public address", addresses, remove_address),
        _kind("internet gateway", internet_gateways, remove_internet_gateway),
        _kind("route table", route_tables, remove_route_table),
        _kind("subnet", subnets, call("ec2", "delete_subnet", "SubnetId")),
        _kind("security group", security_groups, remove_security_group),
        _kind("VPC", vpcs, call("ec2", "delete_vpc", "VpcId")),
    ],
    "rest": [
        _kind("log group", log_groups, call("logs", "delete_log_group", "logGroupName")),
        _kind("instance profile", profiles, remove_profile),
        _kind("role", roles, remove_role),
        _kind("parameter", parameters, call("ssm", "delete_parameter", "Name")),
    ],
}  # fmt: skip
"""The kinds in the order in which they can be removed, in parts that are worth a line of progress."""


def found(a: Account, part: str | None = None) -> list[Thing]:
    """Return what the account holds of the environment, or of one part of it; writes nothing."""
    kinds = [kind for name, rows in PARTS.items() if part in (None, name) for kind in rows]
    return [thing for kind in kinds for thing in kind.find(a)]


def remove(a: Account, part: str, *, seconds: float = 1800, pause: float = 5) -> tuple[list[Thing], list[str]]:
    """Remove a part of the environment, until nothing of it is there.

    What something else still uses is tried again, so it does not matter where an earlier run was interrupted.

    Args:
        a: The account.
        part: One of ``PARTS``.
        seconds: How long to go on trying.
        pause: Seconds between two rounds.

    Returns:
        What was removed, and in words what could not be; an empty list when all is gone.
    """
    removed: dict[tuple[str, str], Thing] = {}
    deadline, before = time.monotonic() + seconds, None
    while True:
        left, errors = [], []
        for kind in PARTS[part]:
            for thing in kind.find(a):
                left.append((thing.kind, thing.name))
                if kind.remove is None or thing.leaving:
                    continue
                try:
                    kind.remove(a, thing)
                except Exception as error:  # noqa: BLE001 - botocore's errors are made at run time; each is told below
                    if not gone(error):
                        errors.append(f"{thing.kind} {thing.name}: {error}")
                        continue
                removed[thing.kind, thing.name] = thing
        if not left:
            return list(removed.values()), []
        if time.monotonic() > deadline and (errors or left == before):
            return list(removed.values()), errors or [f"{kind} {name} is still there" for kind, name in left]
        if errors or left == before:
            time.sleep(pause)
        before = left


def guarded(a: Account) -> list[str]:
    """Return in words what AWS would refuse to remove: databases with deletion protection."""
    return [f"{thing.kind} {thing.name}" for thing in databases(a) if thing.details["deletion_protection"]]


def sweep(a: Account) -> list[str]:
    """Return the ARNs of everything in the account that has the environment's tags, as AWS's tagging service knows them.

    It goes on naming machines and gateways for an hour after they are over, and secrets that can still be had back; none of them
    costs anything.
    """
    tags = a.plan["tags"]
    filters = [{"Key": key, "Values": [tags[key]]} for key in ("Project", "Environment")]
    rows = a.pages("resourcegroupstaggingapi", "get_resources", "ResourceTagMappingList", TagFilters=filters)
    return sorted(row["ResourceARN"] for row in rows if not over(a, row["ResourceARN"]))


def over(a: Account, arn: str) -> bool:
    """Return whether what an ARN names is over although AWS still shows it."""
    client, (service, kind, name) = a.client, (arn.split(":")[2], *arn.rpartition(":")[2].partition("/")[::2])
    try:
        if (service, kind) == ("ec2", "instance"):
            found = client("ec2").describe_instances(InstanceIds=[name])["Reservations"]
            return all(row["State"]["Name"] in OVER for reservation in found for row in reservation["Instances"])
        if (service, kind) == ("ec2", "natgateway"):
            return all(
                row["State"] in OVER for row in client("ec2").describe_nat_gateways(NatGatewayIds=[name])["NatGateways"]
            )
        if (service, kind) == ("ec2", "vpc-endpoint"):
            return all(
                row["State"] in OVER
                for row in client("ec2").describe_vpc_endpoints(VpcEndpointIds=[name])["VpcEndpoints"]
            )
        if service == "secretsmanager":
            return "DeletedDate" in client("secretsmanager").describe_secret(SecretId=arn)
    except client("ec2").exceptions.ClientError as error:
        if not gone(error):
            raise
        return True
    return False
