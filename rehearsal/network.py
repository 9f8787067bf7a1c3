"""VPCs as Docker networks: the way to metadata and the API, routes, security groups, names."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Callable
from ipaddress import IPv4Network
from typing import Any

from emulator import metadata, names
from emulator.server import serve
from emulator.world import World
from rehearsal.containers import LABEL, create, docker, listen_inside, process, remove, run, shield

METADATA = "169.254.169.254"
TO_METADATA = f"ip route replace {METADATA}/32 dev eth0"  # first command of every machine: never by way of the gateway


class Networks:
    """The VPCs that have machines in them."""

    def __init__(self, world: World, api: Callable[[str], Any]) -> None:
        self.world, self.api = world, api
        self.made: dict[str, str] = {}  # VPC: address of its services
        self.applied: dict[str, tuple[int, str]] = {}  # container: process and rules
        self.lock = threading.Lock()

    def ensure(self, vpc: str, cidr: str) -> list[str]:
        """Make a VPC's network if it is not there; return the `docker create` options that join it."""
        name = f"{self.world.settings.name}-{vpc}"
        services = str(IPv4Network(cidr)[2])  # where AWS has its resolver
        with self.lock:
            if vpc not in self.made:
                bridge = "rh" + hashlib.sha256(name.encode()).hexdigest()[:10]
                for chain in ("DOCKER-USER", "INPUT"):
                    shield(self.world.settings.name, bridge, chain)
                docker("network", "create", f"--label={LABEL}={self.world.settings.name}", "--subnet", cidr, "--gateway",
                       str(IPv4Network(cidr)[1]), "-o", f"com.docker.network.bridge.name={bridge}", name)  # fmt: skip
                try:
                    self._services(name, services)
                except Exception:
                    remove(f"{name}-services")
                    docker("network", "rm", name, check=False)
                    raise
                self.made[vpc] = services
        return [f"--network={name}", f"--dns={services}"]

    def _services(self, network: str, address: str) -> None:
        """Give a network its metadata service, API and resolver: sockets that exist only in its namespace."""
        container, settings = f"{network}-services", self.world.settings
        options = [f"--network={network}", f"--ip={address}", "--cap-add=NET_ADMIN", "--init"]
        command = ["sh", "-c", f"ip address add {METADATA}/32 dev eth0 && touch /run/ready && exec sleep infinity"]
        create(container, settings.name, settings.image, command, options, {})
        run(
            "sh",
            "-c",
            f"for _ in $(seq 100); do docker exec {container} test -e /run/ready && exit; sleep 0.1; done; exit 1",
        )
        pid = process(container)
        metadata.serve(self.world, listen_inside(pid, METADATA, 80))
        serve(self.api(network), listen_inside(pid, address, settings.port), f"api of {network}")
        names.serve(self.world, listen_inside(pid, address, 53, socket.SOCK_DGRAM), network)

    # ------------------------------------------------------------------ security groups
    def protect(self, container: str, pid: int, rules: str) -> None:
        """Put packet filter rules into a container's namespace, if they are not there."""
        if pid and self.applied.get(container) != (pid, rules):
            run("nsenter", f"--net=/proc/{pid}/ns/net", "iptables-restore", "-w", text=rules)
            self.applied[container] = (pid, rules)

    def rules(self, groups: list[Any], vpc: str, subnet: str | None, *, public: bool) -> str:
        """Return the packet filter of a machine; the caller holds the lock."""
        ec2, port = self.world.backend("ec2"), self.world.settings.port
        cidr, services = ec2.get_vpc(vpc).cidr_block, self.made[vpc]
        outside = self._outside(ec2, vpc, subnet, public=public)
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
            for line in self._lines(chain, rule)
        }
        return "\n".join([*lines, *sorted(found), "COMMIT", ""])

    def _lines(self, chain: str, rule: Any) -> list[str]:
        peers = [rule.ip_range["CidrIp"]] if rule.ip_range.get("CidrIp") else []
        if rule.source_group.get("GroupId"):
            peers = [f"{address}/32" for address in self.members(rule.source_group["GroupId"])]
        protocol, what = str(rule.ip_protocol), ""
        if protocol in {"tcp", "udp"}:
            what = f" -p {protocol} --dport {rule.from_port}:{rule.to_port}"
        elif protocol != "-1":
            what = f" -p {protocol}"
        return [f"-A {chain} {'-s' if chain == 'INPUT' else '-d'} {peer}{what} -j ACCEPT" for peer in peers]

    def members(self, group: str) -> list[str]:
        """Return the addresses of what is in a security group."""
        world = self.world
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

    @staticmethod
    def _outside(ec2: Any, vpc: str, subnet: str | None, *, public: bool) -> bool:
        """Return whether a machine's route table leads out."""
        tables = ec2.describe_route_tables(filters={"association.subnet-id": [subnet]}) if subnet else []
        tables = tables or ec2.describe_route_tables(filters={"vpc-id": [vpc], "association.main": ["true"]})
        ways = [r for table in tables for r in table.routes if r.destination_cidr_block == "0.0.0.0/0"]
        return any(r.nat_gateway is not None or (r.gateway is not None and public) for r in ways)
