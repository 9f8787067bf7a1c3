"""What a deploy is told: which fleets, which releases, how carefully."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class DeployError(Exception):
    """A deploy cannot be done, or was taken back; the message says why and what to do."""


@dataclass(frozen=True)
class Release:
    """A release of a fleet's hosts.

    Attributes:
        key: Key of its index in the artefact bucket.
        sha256: Checksum of the index.
    """

    key: str
    sha256: str

    @property
    def short(self) -> str:
        """Return its id, twelve hex digits."""
        return self.sha256[:12]


@dataclass(frozen=True)
class Fleet:
    """One fleet in two colours.

    Attributes:
        name: Its name in the inventory.
        groups: Scaling group (and launch template) of each colour.
        targets: Target group of each colour.
        low, high, desired: Its bounds, and its size when no colour has hosts.
        release: What its hosts shall run.
    """

    name: str
    groups: Mapping[str, str]
    targets: Mapping[str, str]
    low: int
    high: int
    desired: int
    release: Release


@dataclass(frozen=True)
class Probe:
    """What the prober asks, and what is too much.

    Attributes:
        url: Where visitors come in.
        rate: Requests a second.
        sessions: Live Streamlit sessions.
        flags: Further flags of ``python -m prober``.
        failures: Failed requests or cut sessions of one weight that are borne.
        slower: The 95th percentile may grow to this multiple of the one before, and then some:
        slower_ms: milliseconds that it may grow in any case.
    """

    url: str
    rate: float = 20
    sessions: int = 1
    flags: tuple[str, ...] = ()
    failures: int = 2
    slower: float = 3
    slower_ms: float = 250


@dataclass(frozen=True)
class Spec:
    """A deploy.

    Attributes:
        environment: Its name, for people.
        region: AWS region.
        bucket: The artefact bucket; lease, state and history are below ``deploys/``.
        balancer: Name of the load balancer.
        fleets: What moves, all of it together.
        weights: Shares of the requests that the new colour gets, one after the other, in percent; the last is 100.
        bake_seconds: How long each share is watched.
        ready_seconds: How long the new hosts may take to become healthy.
        keep_old_seconds: How long the old colour stays warm.
        alarms: Names of the alarms that take the deploy back.
        metrics: CloudWatch namespace in which hosts count their sessions; empty where none do.
        probe: What the prober does; None where nobody can ask from here.
        operator: Who deploys.
        poll_seconds: Pause between two looks.
        lease_seconds: How long a dead controller blocks the next one.
        in_place: One host without a balancer: it moves its services from slot to slot (``deploys.in_place``).
        log_group: Where hosts say what they do.
    """

    environment: str
    region: str
    bucket: str
    balancer: str
    fleets: tuple[Fleet, ...]
    weights: tuple[int, ...] = (10, 50, 100)
    bake_seconds: float = 60
    ready_seconds: float = 900
    keep_old_seconds: float = 900
    alarms: tuple[str, ...] = ()
    metrics: str = ""
    probe: Probe | None = None
    operator: str = "unknown"
    poll_seconds: float = 2
    lease_seconds: float = 60
    in_place: bool = False
    log_group: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not self.fleets:
            raise DeployError("there is no fleet to deploy to")
        if (
            not self.weights
            or self.weights[-1] != 100
            or list(self.weights) != sorted(set(self.weights))
            or self.weights[0] < 1
        ):
            raise DeployError(f"the weights must grow from at least 1 to 100, not {list(self.weights)}")
        for name in ("bake_seconds", "ready_seconds", "keep_old_seconds"):
            if getattr(self, name) < 0:
                raise DeployError(f"{name} must not be negative")

    @property
    def releases(self) -> dict[str, str]:
        """Return each fleet's release id."""
        return {fleet.name: fleet.release.short for fleet in self.fleets}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Spec:
        """Return the deploy that plain data (JSON) describes.

        Raises:
            DeployError: A key is missing or unknown, or its value cannot be.
        """
        try:
            fleets = tuple(Fleet(**{**row, "release": Release(**row["release"])}) for row in data["fleets"])
            probe = (
                Probe(**{**data["probe"], "flags": tuple(data["probe"].get("flags", ()))})
                if data.get("probe")
                else None
            )
            rest = {key: value for key, value in data.items() if key not in {"fleets", "probe"}}
            for key in ("weights", "alarms"):
                if key in rest:
                    rest[key] = tuple(rest[key])
            return cls(fleets=fleets, probe=probe, **rest)
        except (KeyError, TypeError) as error:
            raise DeployError(f"this is no description of a deploy: {error}") from error
