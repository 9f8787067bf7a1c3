"""The fleets of the cloud plan: groups of identical hosts, and what their hosts and CI may do with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.core.cloud.site import Site


def section(site: Site) -> dict[str, Any]:
    """Return the variables of the role ``aws_fleet``."""
    return {
        "fleets": [
            {
                "name": site.name(row["name"]),
                "fleet": row["name"],
                "apps": [manifest.name for manifest in site.apps_of(row)],
                "instance_type": row["instance_type"],
                "min": row["min"],
                "max": row["max"],
                "desired": row["desired"],
                "disk_gb": row["disk_gb"],
                "tags": site.tags(Fleet=row["name"]),
            }
            for row in site.settings["fleets"]
        ],
    }


def host_statements(site: Site, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what a host may do with its own fleet: answer its lifecycle hooks."""
    group = f"autoScalingGroup:*:autoScalingGroupName/{site.name(row['name'])}*"
    actions = ["autoscaling:CompleteLifecycleAction", "autoscaling:RecordLifecycleActionHeartbeat"]
    return [{"Sid": "Lifecycle", "Effect": "Allow", "Action": actions, "Resource": [site.arn("autoscaling", group)]}]


def deployer_statements(site: Site) -> list[dict[str, Any]]:
    """Return what CI may do with the fleets."""
    groups = [f"autoScalingGroup:*:autoScalingGroupName/{site.name(row['name'])}*" for row in site.settings["fleets"]]
    return [
        {
            "Sid": "Fleets",
            "Effect": "Allow",
            "Action": ["autoscaling:SetDesiredCapacity", "autoscaling:UpdateAutoScalingGroup"],
            "Resource": [site.arn("autoscaling", group) for group in groups],
        }
    ]
