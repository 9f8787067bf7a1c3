"""The network of the cloud plan: VPC, subnets, routes, endpoints and security groups."""

from __future__ import annotations

import ipaddress
from typing import Any

from app.core.cloud.site import Site

WORLD = "0.0.0.0/0"
DATABASE_PORT = 5432
PRIVATE_OFFSET = 8  # of sixteen subnets the first eight are public, the others private
# what a host without a way out needs: its release and data (gateway, no price), and these by the hour
ENDPOINTS = ("logs", "monitoring", "secretsmanager", "ssm", "ssmmessages", "ec2messages", "autoscaling")


def section(site: Site) -> dict[str, Any]:
    """Return the variables of the role ``aws_network``."""
    settings = site.settings["network"]
    way_out = settings["way_out"]
    cidr = ipaddress.ip_network(settings["cidr"])
    blocks = list(cidr.subnets(prefixlen_diff=4))
    rows = (
        [("public", 0)]
        if way_out == "public" and not needs_private(site)
        else [("public", 0), ("private", PRIVATE_OFFSET)]
    )
    subnets = [
        {
            "name": site.name(kind, zone[-1]),
            "kind": kind,
            "zone": zone,
            "cidr": str(blocks[offset + position]),
        }
        for kind, offset in rows
        for position, zone in enumerate(site.zones)
    ]
    return {
        "name": site.prefix,
        "cidr": settings["cidr"],
        "subnets": subnets,
        "way_out": way_out,
        "host_subnets": [
            row["name"] for row in subnets if row["kind"] == ("public" if way_out == "public" else "private")
        ],
        "gateway_endpoints": ["s3"],
        "interface_endpoints": list(ENDPOINTS) if way_out == "endpoints" else [],
        "security_groups": groups(site),
        "flow_log_group": site.log_group("vpc") if settings["flow_log_days"] else "",
        "flow_log_days": settings["flow_log_days"],
        "flow_log_role": site.name("flow-logs", limit=64),
        "tags": site.tags(),
    }


def needs_private(site: Site) -> bool:
    """Return whether something must stand in private subnets whatever the hosts do."""
    return bool(site.settings["database"]["enabled"])


def groups(site: Site) -> list[dict[str, Any]]:
    """Return the security groups, in the order in which they refer to each other.

    A rule's ``peer`` is a CIDR or the ``key`` of another group; ``ports`` are TCP.
    """
    way_out, cidr = site.settings["network"]["way_out"], site.settings["network"]["cidr"]
    world = [{"ports": [80, 443], "peer": WORLD, "why": "visitors"}]
    rows: list[dict[str, Any]] = []
    if site.balanced:
        rows.append(
            {"key": "balancer", "ingress": world, "egress": [{"ports": [443], "peer": cidr, "why": "the hosts"}]}
        )
    from_visitors = [{"ports": [443], "peer": "balancer", "why": "the balancer"}] if site.balanced else world
    rows.append({"key": "hosts", "ingress": from_visitors, "egress": host_egress(way_out, cidr)})
    if site.settings["database"]["enabled"]:
        rows.append(
            {
                "key": "database",
                "ingress": [{"ports": [DATABASE_PORT], "peer": "hosts", "why": "the hosts"}],
                "egress": [],
            }
        )
    if way_out == "endpoints":
        rows.append(
            {"key": "endpoints", "ingress": [{"ports": [443], "peer": "hosts", "why": "the hosts"}], "egress": []}
        )
    return [{**row, "name": site.name(row["key"]), "tags": site.tags(Name=site.name(row["key"]))} for row in rows]


def host_egress(way_out: str, cidr: str) -> list[dict[str, Any]]:
    """Return where a host may connect to: TLS (AWS, package sources by https) and its database, nothing else.

    TLS goes to any address even where only endpoints exist, as S3's gateway endpoint answers at public addresses; the
    route table then leads nowhere else.
    """
    ports = [443] if way_out == "endpoints" else [80, 443]
    return [
        {"ports": ports, "peer": WORLD, "why": "AWS and package sources"},
        {"ports": [DATABASE_PORT], "peer": cidr, "why": "the database"},
    ]
