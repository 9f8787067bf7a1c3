"""Names as a VPC's resolver answers them: the account's own, Route 53's, then the rest of the world's."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable

from emulator.world import World


def serve(world: World, sock: socket.socket, network: str) -> None:
    """Answer queries on a socket, in the background."""

    def resolve() -> None:
        while True:
            query, client = sock.recvfrom(512)
            try:
                sock.sendto(answer(query, lambda name: lookup(world, name)), client)
            except (OSError, ValueError, IndexError, struct.error, UnicodeError) as error:
                world.say(f"a query of {client[0]} was not answered: {error}")

    threading.Thread(target=resolve, name=f"names of {network}", daemon=True).start()


def lookup(world: World, name: str) -> list[str]:
    """Return the addresses of a name: the VPC's own, Route 53's, then the rest of the world's."""
    with world.lock:
        found = own(world, name.lower().rstrip("."), 8)
    if found is not None:
        return found
    try:
        return sorted({str(entry[4][0]) for entry in socket.getaddrinfo(name, None, socket.AF_INET)})
    except OSError:
        return []


def own(world: World, name: str, depth: int) -> list[str] | None:
    """Return the addresses that the account knows of a name; None when it is not the account's."""
    known = {b.dns_name.lower(): world.addresses.get(b.arn) for b in world.backend("elbv2").load_balancers.values()}
    known |= {
        d.address.lower(): world.addresses.get(d.db_instance_identifier)
        for d in world.backend("rds").databases.values()
    }
    known |= {
        i.private_dns_name.lower(): i.private_ip for i in world.backend("ec2").all_instances() if i.state == "running"
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
            return own(world, str(target).lower().rstrip(".").removeprefix("dualstack."), depth - 1) or []
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
