"""Who may reach whom: security groups and routes, as the packet filter of a machine."""

from __future__ import annotations

from typing import Any

from emulator.world import METADATA, World


def rules(world: World, groups: list[Any], vpc: str, subnet: str | None, *, services: str, public: bool) -> str:
    """Return the rules of a machine as ``iptables-restore`` takes them; the caller holds the lock.

    Args:
        world: The account.
        groups: The machine's security groups.
        vpc: Where it stands.
        subnet: Likewise; without one the VPC's main route table counts.
        services: The address of the VPC's resolver and API.
        public: Whether it has an address of its own in the internet.
    """
    ec2, port = world.backend("ec2"), world.settings.port
    cidr = ec2.get_vpc(vpc).cidr_block
    outside = leads_out(ec2, vpc, subnet, public=public)
    endpoint = outside or any(e.vpc_id == vpc for e in ec2.vpc_end_points.values())
    lines = ["*filter", ":INPUT DROP", ":FORWARD DROP", ":OUTPUT DROP"]
    for chain in ("INPUT", "OUTPUT"):
        interface = "-i" if chain == "INPUT" else "-o"
        lines += [
            f"-A {chain} {interface} lo -j ACCEPT",
            f"-A {chain} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
        ]
    lines += [
        f"-A OUTPUT -d {METADATA} -p tcp --dport 80 -j ACCEPT",
        f"-A OUTPUT -d {services} -p udp --dport 53 -j ACCEPT",
    ]
    lines += [f"-A OUTPUT -d {services} -p tcp --dport {port} -j {'ACCEPT' if endpoint else 'DROP'}"]
    lines += [] if outside else [f"-A OUTPUT ! -d {cidr} -j DROP"]
    found = {
        line
        for group in groups
        for chain, kept in (("INPUT", group.ingress_rules), ("OUTPUT", group.egress_rules))
        for rule in kept
        for line in lines_of(world, chain, rule)
    }
    return "\n".join([*lines, *sorted(found), "COMMIT", ""])


def lines_of(world: World, chain: str, rule: Any) -> list[str]:
    """Return the lines of one rule of a security group: one for each peer."""
    peers = [rule.ip_range["CidrIp"]] if rule.ip_range.get("CidrIp") else []
    if rule.source_group.get("GroupId"):
        peers = [f"{address}/32" for address in members(world, rule.source_group["GroupId"])]
    protocol, what = str(rule.ip_protocol), ""
    if protocol in {"tcp", "udp"}:
        what = f" -p {protocol} --dport {rule.from_port}:{rule.to_port}"
    elif protocol != "-1":
        what = f" -p {protocol}"
    return [f"-A {chain} {'-s' if chain == 'INPUT' else '-d'} {peer}{what} -j ACCEPT" for peer in peers]


def members(world: World, group: str) -> list[str]:
    """Return the addresses of what is in a security group."""
    found = [i.private_ip for i in world.backend("ec2").all_instances()
             if i.state == "running" and group in {g.id for g in i.security_groups}]  # fmt: skip
    found += [
        world.addresses.get(b.arn)
        for b in world.backend("elbv2").load_balancers.values()
        if group in (b.security_groups or [])
    ]
    found += [world.addresses.get(d.db_instance_identifier) for d in world.backend("rds").databases.values()
              if group in (d.vpc_security_group_ids or [])]  # fmt: skip
    return sorted(address for address in found if address)


def leads_out(ec2: Any, vpc: str, subnet: str | None, *, public: bool) -> bool:
    """Return whether a machine's route table leads out."""
    tables = ec2.describe_route_tables(filters={"association.subnet-id": [subnet]}) if subnet else []
    tables = tables or ec2.describe_route_tables(filters={"vpc-id": [vpc], "association.main": ["true"]})
    ways = [r for table in tables for r in table.routes if r.destination_cidr_block == "0.0.0.0/0"]
    return any(r.nat_gateway is not None or (r.gateway is not None and public) for r in ways)
