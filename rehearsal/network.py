"""VPCs as Docker networks: the way to metadata and the API, routes, security groups, names."""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
from collections.abc import Callable
from ipaddress import IPv4Network
from typing import Any

from rehearsal import metadata
from rehearsal.containers import LABEL, create, docker, listen_inside, process, remove, run, shield
from rehearsal.server import serve
from rehearsal.world import World

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
        resolver = listen_inside(pid, address, 53, socket.SOCK_DGRAM)
        threading.Thread(target=self._resolve, args=(resolver,), name=f"names of {network}", daemon=True).start()

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

    # ------------------------------------------------------------------ names
    def _resolve(self, sock: socket.socket) -> None:
        while True:
            query, client = sock.recvfrom(512)
            try:
                sock.sendto(answer(query, self.lookup), client)
            except (OSError, ValueError, IndexError, struct.error, UnicodeError) as error:
                self.world.say(f"a query of {client[0]} was not answered: {error}")

    def lookup(self, name: str) -> list[str]:
        """Return the addresses of a name: the VPC's own, Route 53's, then the rest of the world's."""
        with self.world.lock:
            found = self.own(name.lower().rstrip("."), 8)
        if found is not None:
            return found
        try:
            return sorted({str(entry[4][0]) for entry in socket.getaddrinfo(name, None, socket.AF_INET)})
        except OSError:
            return []

    def own(self, name: str, depth: int) -> list[str] | None:
        """Return the addresses that the account knows of a name; None when it is not the account's."""
        world = self.world
        known = {b.dns_name.lower(): world.addresses.get(b.arn) for b in world.backend("elbv2").load_balancers.values()}
        known |= {
            d.address.lower(): world.addresses.get(d.db_instance_identifier)
            for d in world.backend("rds").databases.values()
        }
        known |= {
            i.private_dns_name.lower(): i.private_ip
            for i in world.backend("ec2").all_instances()
            if i.state == "running"
        }
        if name in known:
            return [address for address in [known[name]] if address]
        zones = world.backend("route53", "aws").zones.values()
        zone = max(
            (z for z in zones if f".{name}.".endswith(f".{z.name.lower().rstrip('.')}.")),
            key=lambda z: len(z.name),
            default=None,
        )
        if zone is None:
            return None
        for record in zone.rrsets:
            if record.name.lower().rstrip(".") not in {name, f"*.{name.partition('.')[2]}"}:
                continue
            target = (record.alias_target or {}).get("DNSName") if record.type == "A" else None
            target = record.records[0] if record.type == "CNAME" else target
            if target and depth:
                return self.own(str(target).lower().rstrip(".").removeprefix("dualstack."), depth - 1) or []
            if record.type == "A":
                return list(record.records)
        return []


def answer(query: bytes, lookup: Callable[[str], list[str]]) -> bytes:
    """Return the reply to a DNS query: addresses for A, nothing for other types, no such name for an unknown one."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii"))
        at += 1 + query[at]
    kind = struct.unpack("!H", query[at + 1 : at + 3])[0]
    found = lookup(".".join(labels))
    records = (
        b"".join(struct.pack("!HHHIH", 0xC00C, 1, 1, 5, 4) + socket.inet_aton(a) for a in found) if kind == 1 else b""
    )
    head = struct.pack("!HHHHH", 0x8180 | (0 if found else 3), 1, len(records) // 16, 0, 0)
    return query[:2] + head + query[12 : at + 5] + records
