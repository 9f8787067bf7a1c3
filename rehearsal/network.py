"""VPCs as Docker networks: the way to metadata and the API, routes, security groups, names."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Callable
from ipaddress import IPv4Network
from typing import Any

from emulator import metadata, names, reach
from emulator.server import serve
from emulator.world import METADATA, World
from rehearsal.containers import LABEL, create, docker, listen_inside, process, remove, run, shield

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
        return reach.rules(self.world, groups, vpc, subnet, services=self.made[vpc], public=public)
