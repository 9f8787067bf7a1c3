"""The fleets of the cloud plan: groups of identical hosts, and what their hosts and CI may do with them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from app.core import plan
from app.core.cloud import backup, balancer, database
from app.core.cloud.site import COLOURS, Site

REQUEST_METRIC = "ALBRequestCountPerTarget"
DEBIAN = {"owner": "136693071363", "name": "debian-13-{}-*"}  # Debian's own account on AWS; 12 has too old a Python
PYTHON = "3.13"  # of Debian 13
LEAVE_SECONDS = 900
GRACE_SECONDS, GRACE_SECONDS_BAKED = 300, 60
# AWS's families keep the memory for each processor, and its sizes double; source: the EC2 instance type pages
LARGE_GIB = {"t": 8, "m": 8, "c": 4, "r": 16}
SIZES = {
    "nano": 1 / 16,
    "micro": 1 / 8,
    "small": 1 / 4,
    "medium": 1 / 2,
    "large": 1,
    "xlarge": 2,
    "2xlarge": 4,
    "4xlarge": 8,
}
MACHINES = {"x86_64": "amd64", "arm64": "arm64"}


def section(site: Site) -> dict[str, Any]:
    """Return the variables of the role ``aws_fleet``."""
    return {
        "fleets": [fleet(site, row) for row in site.settings["fleets"]],
        "balanced": site.balanced,
        "prefix": site.prefix,
        "bucket": site.bucket("artefacts"),
        "region": site.region,
        "security_group": site.name("hosts"),
        "subnets": host_subnets(site),
        "builder": builder(site),
        "python": PYTHON,
        "leave_seconds": LEAVE_SECONDS,
        "refresh": site.balanced,  # the one host without a balancer has its data on its disk: it changes in place
        "tags": site.tags(),
    }


def fleet(site: Site, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return one fleet."""
    machine = row["architecture"]
    kept = ("instance_type", "min", "max", "desired", "disk_gb", "image", "launch_seconds", "cpu_percent",
            "requests_per_minute", "spot_percent", "schedule")  # fmt: skip
    return {
        "name": site.name(row["name"]),
        "fleet": row["name"],
        "apps": [manifest.name for manifest in site.apps_of(row)],
        "profile": site.name("host", row["name"], limit=64),
        "image_owner": DEBIAN["owner"],
        "image_name": DEBIAN["name"].format(MACHINES[machine]),
        "machine": machine,
        "colours": [
            {
                "colour": colour,
                "name": site.name(row["name"], colour),
                "target_group": balancer.target_group(site, row, colour),
            }
            for colour in COLOURS
        ],
        "address": "" if site.balanced else site.name(row["name"]),
        "drain_seconds": site.ladder.drain_seconds,
        "grace_seconds": row.get("grace_seconds", GRACE_SECONDS),
        "grace_seconds_baked": row.get("grace_seconds", GRACE_SECONDS_BAKED),
        "release": release(site, row),
        "tags": site.tags(Fleet=row["name"]),
        **{key: row[key] for key in kept},
    }


def memory(instance_type: str) -> float | None:
    """Return the MiB of an instance type; None for a family or size that is not among the common ones."""
    family, _, size = instance_type.partition(".")
    common = re.fullmatch(r"(t[2-4]|[mcr][5-9])[a-z]*", family) and size in SIZES
    return LARGE_GIB[family[0]] * 1024 * SIZES[size] if common else None


def larger(instance_type: str, wanted: float) -> str:
    """Return the smallest type of the same family that has so many MiB."""
    family = instance_type.partition(".")[0]
    enough = (f"{family}.{size}" for size in SIZES if (memory(f"{family}.{size}") or 0) >= wanted)
    return next(enough, f"a fleet for each app, {family}.4xlarge")


def host_subnets(site: Site) -> list[str]:
    """Return the names of the subnets in which hosts stand."""
    kind = "public" if site.settings["network"]["way_out"] == "public" else "private"
    return [site.name(kind, zone[-1]) for zone in site.zones]


def builder(site: Site) -> dict[str, Any]:
    """Return where a host stands that becomes an image: it needs Debian's mirror, which hosts of endpoints alone do not reach."""
    if site.settings["network"]["way_out"] != "endpoints":
        return {"subnets": host_subnets(site), "security_groups": [site.name("hosts")], "address": False}
    subnets = [site.name("public", zone[-1]) for zone in site.zones]
    return {"subnets": subnets, "security_groups": [site.name("hosts"), site.name("builder")], "address": True}


def release(site: Site, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the release of a fleet's hosts consists of: its apps, the variables of ``host.yml``, where its secrets are."""
    apps = site.apps_of(row)
    host = plan.build(
        apps,
        environment=site.environment,
        drain_seconds=site.ladder.drain_seconds,
        balancer_idle_seconds=site.ladder.balancer_idle_seconds,
        deregistration_seconds=site.ladder.deregistration_seconds,
        storage=f"s3://{site.bucket('data')}",
        region=site.region,
        database_server=site.settings["database"]["enabled"],
        agent={
            "project": site.project,
            "region": site.region,
            "fleet": row["name"],
            "balanced": site.balanced,
            "kind": site.settings["logs"]["agent"],
        },
    )
    secrets = {
        app.name: {name: site.secret(app.name, name) for name in app.data["secrets"]}
        for app in apps
        if app.data["secrets"]
    }
    if password := backup.password(site, apps):
        secrets[backup.FOLDER] = {"password": password}
    return {
        "apps": [{"path": str(app.folder)} for app in apps],
        "variables": {
            "pergola_environment": site.environment,
            "pergola_health": balancer.health_path(apps),
            "pergola_plan": host,
            **backup.for_hosts(site),
        },
        "database": database.for_hosts(site, apps),
        "secrets": secrets,
    }


def host_statements(site: Site, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what a host may do with its own fleet: answer its lifecycle hooks, ask to be replaced before it reboots, take the address."""
    group = f"autoScalingGroup:*:autoScalingGroupName/{site.name(row['name'])}*"
    actions = [
        "autoscaling:CompleteLifecycleAction",
        "autoscaling:RecordLifecycleActionHeartbeat",
        "autoscaling:SetInstanceHealth",
    ]
    rows: list[dict[str, Any]] = [
        {"Sid": "Lifecycle", "Effect": "Allow", "Action": actions, "Resource": [site.arn("autoscaling", group)]}
    ]
    if not site.balanced:
        own = {"StringEquals": {f"aws:ResourceTag/{key}": site.tags()[key] for key in ("Project", "Environment")}}
        take, tagged = ["ec2:AssociateAddress"], [site.arn("ec2", f"{kind}/*") for kind in ("elastic-ip", "instance")]
        cards = [site.arn("ec2", "network-interface/*")]  # of the instance; AWS tags none of them
        rows += [
            {
                "Sid": "FindAddress",
                "Effect": "Allow",
                "Action": ["ec2:DescribeAddresses"],
                "Resource": ["*"],
            },  # knows no other
            {"Sid": "TakeAddress", "Effect": "Allow", "Action": take, "Resource": tagged, "Condition": own},
            {"Sid": "TakeAddressByCard", "Effect": "Allow", "Action": take, "Resource": cards},
        ]
    return rows


def deployer_statements(site: Site) -> list[dict[str, Any]]:
    """Return what CI may do with the fleets: what a deploy does (``deploys/cloud.py``), on this environment's own groups.

    AWS asks for ``ec2:RunInstances`` and ``iam:PassRole`` of whoever gives a group another launch template.
    """
    rows = site.settings["fleets"]
    groups = [
        site.arn("autoscaling", f"autoScalingGroup:*:autoScalingGroupName/{site.name(row['name'])}*") for row in rows
    ]
    own = {"StringEquals": {f"aws:ResourceTag/{key}": site.tags()[key] for key in ("Project", "Environment")}}
    roles = [site.arn("iam", f"role/{site.name('host', row['name'], limit=64)}", region="") for row in rows]
    templates = site.arn("ec2", "launch-template/*")
    launched = [
        site.arn("ec2", f"{kind}/*") for kind in ("instance", "volume", "network-interface", "subnet", "security-group")
    ]
    seen = [
        "autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeScalingActivities", "autoscaling:DescribeScheduledActions",
        "cloudwatch:GetMetricData", "ec2:DescribeLaunchTemplateVersions",
        "elasticloadbalancing:DescribeListeners", "elasticloadbalancing:DescribeLoadBalancers", "elasticloadbalancing:DescribeRules",
        "elasticloadbalancing:DescribeTargetGroups", "elasticloadbalancing:DescribeTargetHealth",
    ]  # fmt: skip
    moved = [
        "autoscaling:DeleteScheduledAction", "autoscaling:PutScheduledUpdateGroupAction", "autoscaling:SetDesiredCapacity",
        "autoscaling:UpdateAutoScalingGroup",
    ]  # fmt: skip
    balancer = site.name(limit=32)
    rules = [site.arn("elasticloadbalancing", f"{kind}/*/{balancer}/*") for kind in ("listener", "listener-rule")]
    return [
        {"Sid": "Look", "Effect": "Allow", "Action": seen, "Resource": ["*"]},  # these know no resource but *
        {
            "Sid": "Alarms",
            "Effect": "Allow",
            "Action": ["cloudwatch:DescribeAlarms"],
            "Resource": [site.arn("cloudwatch", f"alarm:{site.prefix}-*")],
        },
        {"Sid": "Fleets", "Effect": "Allow", "Action": moved, "Resource": groups},
        {
            "Sid": "Weights",
            "Effect": "Allow",
            "Action": ["elasticloadbalancing:ModifyListener", "elasticloadbalancing:ModifyRule"],
            "Resource": rules,
        },
        {
            "Sid": "Templates",
            "Effect": "Allow",
            "Action": ["ec2:CreateLaunchTemplateVersion"],
            "Resource": [templates],
            "Condition": own,
        },
        {
            "Sid": "Launch",
            "Effect": "Allow",
            "Action": ["ec2:RunInstances"],
            "Resource": [*launched, templates, f"arn:{site.partition}:ec2:{site.region}::image/*"],
            "Condition": {"ArnLike": {"ec2:LaunchTemplate": templates}},
        },
        {
            "Sid": "TagLaunched",
            "Effect": "Allow",
            "Action": ["ec2:CreateTags"],
            "Resource": launched[:2],
            "Condition": {"StringEquals": {"ec2:CreateAction": ["RunInstances"]}},
        },
        {
            "Sid": "Roles",
            "Effect": "Allow",
            "Action": ["iam:PassRole"],
            "Resource": roles,
            "Condition": {"StringEquals": {"iam:PassedToService": ["ec2.amazonaws.com"]}},
        },
    ]
