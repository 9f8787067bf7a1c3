"""What the parts of the rehearsal share: its settings, moto's state, and what AWS remembers but moto does not."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

ACCOUNT = "123456789012"  # moto's account; every ARN that it makes names it
DOOR = "/_rehearsal/"  # path of the rehearsal's own commands at its endpoint
METADATA = "169.254.169.254"  # inside a VPC's namespace; never on this machine
LOG = logging.getLogger("rehearsal")
HISTORY = 200  # events and activities that are kept


class RehearsalError(Exception):
    """Something that the person at the keyboard can mend; the message says how."""


@dataclass(frozen=True)
class Settings:
    """How a rehearsal is run; kept in its state directory so that later commands find it."""

    state: str = "build/run/rehearsal"
    name: str = "rehearsal"  # prefix of containers and networks, and the value of their label
    region: str = "us-east-1"
    port: int = 8470  # of the AWS API, on loopback
    https_port: int = 8443  # of the first load balancer; each further one has ports 10 higher
    http_port: int = 8480
    speed: float = 1.0  # cloud seconds in a real second
    bodies: bool = True  # False: the API and its control loops, without containers
    image: str = "pergola/base:trixie"  # what an AMI boots that is neither in `images` nor baked here
    images: dict[str, str] = field(default_factory=dict)  # AMI id: container image
    cpus: float = 1.0  # of an instance, of whatever type; memory is its type's

    @property
    def directory(self) -> Path:
        """Where the rehearsal keeps its state."""
        return Path(self.state).resolve()

    @property
    def endpoint(self) -> str:
        """The AWS API for whoever runs on this machine."""
        return f"http://127.0.0.1:{self.port}"

    def ports(self, number: int) -> dict[int, int]:
        """The ports of this machine's loopback for those of a load balancer."""
        return {80: self.http_port + 10 * number, 443: self.https_port + 10 * number}

    def save(self) -> None:
        """Write the settings for later commands."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "settings.json").write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, state: str) -> Settings | None:
        """Return the settings of the rehearsal that last ran in a state directory."""
        path = Path(state) / "settings.json"
        if not path.exists():
            return None
        given = json.loads(path.read_text())  # perhaps of another version
        return cls(
            **{**{key: value for key, value in given.items() if key in cls.__dataclass_fields__}, "state": state}
        )


class Health(NamedTuple):
    """A target's health as the API words it."""

    state: str
    reason: str | None = None
    description: str | None = None


class Traffic(NamedTuple):
    """What went through a load balancer to a target group since it began to count: requests, answers by class; seconds of the last ones."""

    requests: float
    answers: tuple[float, float, float]  # of 2xx, 4xx, 5xx
    seconds: float


INITIAL = Health("initial", "Elb.InitialHealthChecking", "Initial health checks in progress")
DRAINING = Health("draining", "Target.DeregistrationInProgress", "Target deregistration is in progress")


@dataclass
class Wait:
    """An instance held by a lifecycle hook."""

    hook: str
    deadline: float
    token: str
    result: str | None = None


class World:
    """One rehearsed account in one region.

    moto is not safe for threads: whoever reads or changes its state holds ``lock``, and nothing slow is done under it.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lock = threading.RLock()
        self.health: dict[tuple[str, str], Health] = {}  # by target group ARN and target id
        self.draining: dict[tuple[str, str], float] = {}  # until when, on the monotonic clock
        self.open: dict[tuple[str, str], int] = {}  # connections to targets that drain
        self.activities: dict[str, list[dict[str, Any]]] = {}
        self.refreshes: dict[str, list[dict[str, Any]]] = {}
        self.waits: dict[tuple[str, str], list[Wait]] = {}  # by instance and transition
        self.since: dict[str, float] = {}  # instance: when its state in the group last changed
        self.booted: dict[str, float] = {}  # instance: when its container started
        self.processes: dict[str, int] = {}  # container: a process in its namespaces
        self.rebooting: set[str] = set()  # instances that were asked to
        self.consoles: dict[str, str] = {}  # what instances that are gone had said
        self.renamed: list[tuple[str, str]] = []  # databases that have another name since the last step
        # database: the one that it begins as, and at which moment ("": the latest)
        self.restored: dict[str, tuple[str, str]] = {}
        self.addresses: dict[str, str] = {}  # load balancer ARN or database id: address in the VPC
        self.metrics: dict[str, float] = {}  # the latest CPU utilisation by instance
        self.problems: dict[str, str] = {}  # what a loop could not do, by its name
        self.events: list[str] = []
        self.faults: dict[str, float] = {}  # kind of API error: share of calls
        self.suspended: set[str] = set()  # zones that are lost
        # of whoever gives the account a body:
        self.console: Callable[[str], str] = lambda _: ""  # what an instance has said so far
        self.counters: Callable[[], Mapping[tuple[str, str], Traffic]] = dict  # by load balancer and target group

    def backend(self, service: str, region: str | None = None) -> Any:
        """Return moto's state of a service."""
        from moto.backends import get_backend  # noqa: PLC0415  importing moto takes a second; `status` does without

        return get_backend(service)[ACCOUNT][region or self.settings.region]  # type: ignore[call-overload,unused-ignore]

    def real(self, seconds: float) -> float:
        """Return how long so many seconds of the cloud take here."""
        return float(seconds) / self.settings.speed

    def say(self, sentence: str) -> None:
        """Record what the cloud did."""
        line = f"{datetime.now(UTC):%H:%M:%S} {sentence}"
        self.events.append(line)
        del self.events[:-HISTORY]
        LOG.info(line)

    def activity(self, group: str, description: str, cause: str, status: str = "Successful") -> None:
        """Record a scaling activity."""
        self.say(f"{group}: {description} ({cause})")
        now, log = datetime.now(UTC), self.activities.setdefault(group, [])
        log.insert(0, {"ActivityId": f"{time.time_ns():032x}", "AutoScalingGroupName": group, "Description": description,
                       "Cause": cause, "StartTime": now, "EndTime": now, "StatusCode": status, "Progress": 100})  # fmt: skip
        del log[HISTORY:]

    def health_of(self, group_arn: str, target: str) -> Health:
        """Return the health of a registered target."""
        return self.health.get((group_arn, target), INITIAL if self.settings.bodies else Health("healthy"))

    def drop(self, group_arn: str, target: str) -> None:
        """Deregister a target; it drains for the group's deregistration delay."""
        group = self.backend("elbv2").target_groups.get(group_arn)
        if group is not None and target in group.targets:
            group.deregister([{"Id": target}])


def serving(elb: Any, group: str) -> list[str]:
    """Return the load balancers that forward to a target group."""
    return [
        b.arn for b in elb.load_balancers.values() if any(group in forwarded(entry) for entry in b.listeners.values())
    ]


def forwarded(listener: Any) -> set[str]:
    """Return the target groups that a listener forwards to."""
    actions = [*listener.default_actions, *(a for rule in listener.rules.values() for a in rule.actions)]
    found = set()
    for action in (a.data if hasattr(a, "data") else a for a in actions):
        groups = (action.get("ForwardConfig") or {}).get("TargetGroups") or []
        found |= {t["TargetGroupArn"] for t in groups} | (
            {action["TargetGroupArn"]} if action.get("TargetGroupArn") else set()
        )
    return found
