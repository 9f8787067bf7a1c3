"""A deploy on the one host of an environment without a balancer: there are no colours, the host moves its services from slot to slot.

The host is asked by an object in the artefact bucket, which it looks at every quarter of a minute; nobody logs in to it. It installs the
release, starts it in the idle slots, and tells by a metric whether it serves. What it refuses, it has put back by itself.

=======  =====================================================  =============================================
phase    what happens                                           a failure, or a dead controller
=======  =====================================================  =============================================
launch   the host is asked                                      it is asked for what it had
ready    it installs, proves and switches; then it tells        the same: it goes back to the other slots
shift    alarms and the prober are watched for ``bake_seconds``  the same
live     a host that replaces it would boot the release         finished by the next controller
=======  =====================================================  =============================================
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from app.core.cloud.site import COLOURS
from deploys.engine import ALARM_SECONDS, Engine, Move
from deploys.spec import DeployError, Fleet, Release
from deploys.watch import Prober

WISH = "releases/wanted/{}.json"  # by scaling group; hosts read what is below releases/
SERVES = "ReleaseServes"  # metric: 1 or 0, of the dimension Wish
HOST = COLOURS[0]  # the colour whose group has the host, for good
TOLD_SECONDS = 15  # between two lines while the host is at work


class InPlace(Engine):
    """Deploys and rolls back on one host."""

    def status(self) -> dict[str, Any]:
        """Return the host's release, and what is under way."""
        rows = []
        for fleet in self.spec.fleets:
            group, release = self.cloud.group(fleet.groups[HOST]), self._asked(fleet)
            states = [row["LifecycleState"] for row in group["Instances"]]
            rows.append(
                {
                    "fleet": fleet.name, "colour": "", "weight": 100, "release": release.short if release else "",
                    "hosts": len(states), "healthy": states.count("InService"), "sessions": 0, "retires": "",
                }
            )  # fmt: skip
        return {"colours": rows, "under_way": self._record()}

    # ------------------------------------------------------------ what the host was asked for

    def _asked(self, fleet: Fleet) -> Release | None:
        """Return the release that the host was last asked for; None when it never was: then it has what it booted with."""
        found = self.store.read(WISH.format(fleet.groups[HOST]))
        return Release(found[0]["release"], found[0]["sha256"]) if found else None

    def _ask(self, fleet: Fleet, release: Release) -> str:
        """Ask the host to serve a release; return the name of this wish."""
        token = secrets.token_hex(8)
        wish = {"release": release.key, "sha256": release.sha256, "token": token, "namespace": self.spec.metrics}
        self.store.write(WISH.format(fleet.groups[HOST]), wish)
        return token

    def _moves(self) -> list[Move]:
        return [Move(fleet, HOST, HOST) for fleet in self.spec.fleets if self._asked(fleet) != fleet.release]

    def _back(self, moves: list[Move]) -> bool:
        """Have the host serve a release again: seconds when it still has it."""
        return self._move(moves, "rollback")

    def _served(self, move: Move) -> Release | None:
        return self._asked(move.fleet) or super()._served(move)

    def _path(self, move: Move) -> str:
        return f"{move.fleet.name}: {self._known_before(move)} -> {move.fleet.release.short}, in the other slots of its host"

    # ------------------------------------------------------------ the phases

    def _launch(self, moves: list[Move]) -> None:
        self._held()
        self._tokens = {move.fleet.name: self._ask(move.fleet, move.fleet.release) for move in moves}

    def _ready(self, moves: list[Move]) -> None:
        self._write(phase="ready")
        began, told = time.monotonic(), time.monotonic()
        waiting = {move.fleet.name for move in moves}
        while waiting:
            words = self.cloud.latest(
                self.spec.metrics, SERVES, [self._tokens[name] for name in waiting], dimension="Wish"
            )
            for name in sorted(waiting):
                word = words.get(self._tokens[name])
                if word == 0:
                    raise DeployError(
                        f"{name}: the host refused it and serves what it had; why is in the log group {self.spec.log_group}"
                    )
                if word:
                    self.say("ready", f"{name}: the host serves it after {time.monotonic() - began:.0f} s")
                    waiting.discard(name)
            if not waiting:
                return
            if time.monotonic() - began > self.spec.ready_seconds:
                raise DeployError(f"not ready after {self.spec.ready_seconds:.0f} s ({', '.join(sorted(waiting))})")
            if time.monotonic() - told > TOLD_SECONDS:
                told = time.monotonic()
                left = self.spec.ready_seconds - (told - began)
                self.say("ready", f"{', '.join(sorted(waiting))}: the host is at work; {left:.0f} s left")
            self._pause()

    def _shift(self, moves: list[Move], prober: Prober | None) -> None:
        """Watch what visitors get of it; all of them have it now, but for sessions that stay in the old slot."""
        rows = self._current["fleets"].values()
        if all(row["old"] == row["new"] for row in rows):
            return  # it booted with that: there is nothing new to watch, and nothing else to go back to
        self._write(phase="shift", weight=100)
        began, asked = time.monotonic(), 0.0
        while (left := self.spec.bake_seconds - (time.monotonic() - began)) > 0:
            if prober and self.spec.probe and (seen := prober.seen()).failed > self.spec.probe.failures:
                raise DeployError(f"{seen.failed} of {seen.sent} requests failed ({seen.why})")
            if time.monotonic() - asked > ALARM_SECONDS:
                asked = time.monotonic()
                watched = [] if self.spec.options.get("ignore_alarms") else self.spec.alarms
                if firing := self.cloud.firing(watched):
                    raise DeployError(f"in alarm: {', '.join(firing)}")
            self._pause(left)
        names = ", ".join(move.fleet.name for move in moves)
        self.say("watched", f"{names}: {self.spec.bake_seconds:.0f} s" + (f": {prober.seen()}" if prober else ""))

    def _go_live(self, moves: list[Move], *, keep_seconds: float, numbers: Mapping[str, Any] | None = None) -> None:
        self._write(phase="live")
        self._finish(keep_seconds)
        told = [f"{move.fleet.name}: serves {move.fleet.release.short}" for move in moves]
        self.say(
            "live", f"{', '.join(told)}; sessions stay in the old slots until they end, or for the drain's ceiling"
        )
        self._close("live", numbers=numbers)

    def _finish(self, keep_seconds: float) -> None:
        """Have a host that would replace this one boot the release, too."""
        del keep_seconds
        for move in self._under_way():
            self._boot_with(move, Release(**self._current["fleets"][move.fleet.name]["new"]))

    def _return(self) -> None:
        for move in self._under_way():
            if known := self._current["fleets"][move.fleet.name]["old"]:
                self._ask(move.fleet, Release(**known))
                self._boot_with(move, Release(**known))

    def _boot_with(self, move: Move, release: Release) -> None:
        """Let the group's next host boot a release."""
        if self.cloud.give_release(move.new_group, move.new_group, release):
            self.cloud.prepare(move.new_group, move.new_group)
