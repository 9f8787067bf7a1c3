"""Health checks of targets: which are due, and what their results mean."""

from __future__ import annotations

import time
from collections.abc import Container
from typing import NamedTuple

from emulator.world import Health, World, serving


class Check(NamedTuple):
    """One health check that is due."""

    group: str
    target: str
    address: str
    port: int
    scheme: str
    path: str
    timeout: float
    codes: str
    balancer: int  # a process in the balancer's namespace


class Checks:
    """The health of every target, as its group's thresholds have it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.streaks: dict[tuple[str, str], tuple[bool, int]] = {}  # target: last result, how often in a row
        self.next: dict[tuple[str, str], float] = {}
        self.fresh: dict[tuple[str, str], Health] = {}  # what this step's checks have decided

    def due(self, pending: Container[tuple[str, str]]) -> list[Check]:
        """Return the checks that are due, but for those that have not come back yet."""
        world, now = self.world, time.monotonic()
        with world.lock:
            elb, ec2, found = world.backend("elbv2"), world.backend("ec2"), []
            for group in elb.target_groups.values():
                pids = [world.processes[b] for b in serving(elb, group.arn) if b in world.processes]
                for key, target in group.targets.items() if group.health_check_enabled else ():
                    instance = ec2.get_instance_by_id(key)
                    if not pids:
                        world.health[group.arn, key] = Health(
                            "unused", "Target.NotInUse", "Target group is not configured to receive traffic"
                        )
                    elif now >= self.next.get((group.arn, key), 0) and (group.arn, key) not in pending:
                        self.next[group.arn, key] = now + world.real(float(group.health_check_interval_seconds))
                        port = target["Port"] if group.health_check_port == "traffic-port" else group.health_check_port
                        found.append(Check(group.arn, key, instance.private_ip if instance else key, int(port), group.health_check_protocol,
                                           group.health_check_path or "/", float(group.health_check_timeout_seconds),
                                           str((group.matcher or {}).get("HttpCode") or "200"), pids[0]))  # fmt: skip
            return found

    def note(self, check: Check, reason: str | None, words: str) -> None:
        """Turn a check's result into the target's health once it has been so often enough."""
        key, good = (check.group, check.target), reason is None
        with self.world.lock:
            group = self.world.backend("elbv2").target_groups.get(check.group)
            if group is None or check.target not in group.targets:
                return
            was, often = self.streaks.get(key, (good, 0))
            self.streaks[key] = good, (often + 1 if was == good else 1)
            before = self.world.health_of(*key).state
            needed = int(group.healthy_threshold_count if good else group.unhealthy_threshold_count)
            if self.streaks[key][1] >= needed or (
                good and before in {"initial", "unused"}
            ):  # AWS takes the first success of a new target
                after = Health("healthy") if good else Health("unhealthy", reason, words)
                self.fresh[key] = after
                if after.state != before:
                    self.world.say(f"{check.target} is {after.state} in {group.name} {words}")
            elif before == "unused":
                self.world.health.pop(key, None)


def matches(status: int, codes: str) -> bool:
    """Return whether a status is among ``200,300-399``."""
    spans = [part.partition("-") for part in codes.split(",")]
    return any(int(low) <= status <= int(high or low) for low, _, high in spans)
