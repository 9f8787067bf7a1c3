"""The network of the cloud plan: VPC, subnets, routes, endpoints and security groups."""

from __future__ import annotations

import ipaddress
from typing import Any

from app.core.cloud.site import Site

WORLD = "0.0.0.0/0"
DATABASE_PORT = 5432
PRIVATE_OFFSET = 8  # of sixteen subnets the first eight are public, the others private
# what a host without a way out needs: its release and data (gateway, no price), and these by the hour
ENDPOINTS = ("logs", "monitoring", "secretsmanager", "ssm", "ssmmessages", "autoscaling")


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
        "region": site.region,
        "cidr": settings["cidr"],
        "subnets": subnets,
        "way_out": way_out,
        "gateway_endpoints": ["s3"],
        "interface_endpoints": list(ENDPOINTS) if way_out == "endpoints" else [],
        "security_groups": groups(site),
        "flow_log_group": site.log_group("vpc") if settings["flow_log_days"] else "",
        "flow_log_days": settings["flow_log_days"],
        "flow_log_role": site.name("flow-logs", limit=64),
        "boundary": site.settings["identity"].get("boundary", ""),
        "tags": site.tags(),
    }


def host_subnets(site: Site) -> list[str]:
    """Return the names of the subnets in which hosts stand."""
    kind = "public" if site.settings["network"]["way_out"] == "public" else "private"
    return [site.name(kind, zone[-1]) for zone in site.zones]


def needs_private(site: Site) -> bool:
    """Return whether something must stand in private subnets whatever the hosts do."""
    return bool(site.settings["database"]["enabled"])


def groups(site: Site) -> list[dict[str, Any]]:
    """Return the security groups, in the order in which they refer to each other, with rules as the module takes them."""
    way_out, cidr = site.settings["network"]["way_out"], site.settings["network"]["cidr"]
    world = [to_network(WORLD, [80, 443], "visitors")]
    rows: list[tuple[str, list[dict[str, Any]], list[dict[str, Any]]]] = []
    if site.balanced:
        rows.append(("balancer", world, [to_network(cidr, [443], "the hosts")]))
    rows.append(("hosts", [to_group(site, "balancer", 443)] if site.balanced else world, host_egress(way_out, cidr)))
    if site.settings["database"]["enabled"]:
        rows.append(("database", [to_group(site, "hosts", DATABASE_PORT)], []))
    if way_out == "endpoints":
        rows.append(("endpoints", [to_group(site, "hosts", 443)], []))
        rows.append(("builder", [], [to_network(WORLD, [80], "packages for an image")]))  # beside "hosts", for a while
    return [
        {
            "key": key,
            "name": site.name(key),
            "description": describe(site, key),
            "ingress": ingress,
            "egress": egress,
            "tags": site.tags(Name=site.name(key)),
        }
        for key, ingress, egress in rows
    ]


def describe(site: Site, key: str) -> str:
    """Return a security group's description, which can never be changed."""
    return f"{key} of {site.prefix}"


def to_network(cidr: str, ports: list[int], why: str) -> dict[str, Any]:
    """Return a rule for a range of addresses."""
    return {"proto": "tcp", "ports": ports, "cidr_ip": cidr, "rule_desc": why}


def to_group(site: Site, key: str, port: int) -> dict[str, Any]:
    """Return a rule for the members of another group."""
    peer = {"group_name": site.name(key), "group_desc": describe(site, key)}
    return {"proto": "tcp", "ports": [port], **peer, "rule_desc": key}


def host_egress(way_out: str, cidr: str) -> list[dict[str, Any]]:
    """Return where a host may connect to: TLS (AWS, package sources), packages by HTTP, the database; nothing else.

    TLS goes to any address even where only endpoints exist, as S3's gateway endpoint answers at public addresses; the
    route table then leads nowhere else.
    """
    ports = [443] if way_out == "endpoints" else [80, 443]
    return [to_network(WORLD, ports, "AWS and packages"), to_network(cidr, [DATABASE_PORT], "the database")]
