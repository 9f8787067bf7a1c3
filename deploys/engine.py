"""The motion of a deploy: launch, ready, shift, live; and the way back from each of them.

Every step reads what AWS says and brings it to what it shall be, so that a step that was interrupted is done again without harm. What is
under way is written into the bucket before it begins: whoever comes after a dead controller knows what is half-done.

=======  ==========================================================  ===================================
phase    what happens                                                a failure, or a dead controller
=======  ==========================================================  ===================================
launch   the other colour gets the release and its hosts             the hosts go, visitors saw nothing
ready    every host is deeply ready and healthy                      the same
shift    weights 10, 50, 100; each is watched                        weights back at once, then the same
live     the old colour stays warm, and retires by itself            finished by the next controller
=======  ==========================================================  ===================================
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from deploys import migrations, releases
from deploys.cloud import Cloud, in_seconds
from deploys.spec import COLOURS, DeployError, Fleet, Release, Spec
from deploys.store import CURRENT, HISTORY, Lease, LeaseLostError, Store
from deploys.watch import ENOUGH, Prober, Seen

ALL = 100
GIVE_UP_LAUNCHES = 2  # hosts of a fleet that could not become ready
ALARM_SECONDS = 5  # between two looks at the alarms
BASELINE_SECONDS = 30  # to learn how the live colour answers


class AbortedError(DeployError):
    """Somebody wants the deploy to end: Ctrl-C, or the end of the terminal."""


def stamp() -> str:
    """Return the time as text that sorts."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def other(colour: str) -> str:
    """Return the colour that is not this one."""
    return COLOURS[1 - COLOURS.index(colour)]


class Engine:
    """Deploys, rolls back, and tells what is.

    Args:
        spec: What to do.
        say: Prints a line of progress.
        abort: Set when the deploy shall be taken back.
    """

    def __init__(self, spec: Spec, say: Callable[[str], None], abort: threading.Event) -> None:
        self.spec, self._print, self.abort = spec, say, abort
        self.cloud = Cloud(spec.region, spec.balancer)
        self.store = Store(self.cloud.s3, spec.bucket)
        self._began = time.monotonic()
        self._lease: Lease | None = None
        self._current: dict[str, Any] = {}

    def say(self, phase: str, text: str) -> None:
        """Print a line of progress: minutes, phase, what happened."""
        seconds = time.monotonic() - self._began
        self._print(f"{int(seconds // 60):3d}:{int(seconds % 60):02d}  {phase:<10} {text}")

    # ------------------------------------------------------------ what is

    def live(self, fleet: Fleet) -> str:
        """Return the colour that visitors get: the one with the greater weight, blue when nothing has hosts yet."""
        weights = self.cloud.weights(fleet)
        return max(COLOURS, key=lambda colour: (weights[colour], colour == COLOURS[0]))

    def status(self) -> dict[str, Any]:
        """Return fleets with their colours, what is under way, and who has the lease."""
        rows = []
        for fleet in self.spec.fleets:
            weights = self.cloud.weights(fleet)
            for colour in COLOURS:
                states = list(self.cloud.hosts(fleet, colour).values())
                release = self.cloud.release_of(fleet.groups[colour])
                retirement = self.cloud.retirement(fleet.groups[colour])
                rows.append(
                    {
                        "fleet": fleet.name, "colour": colour, "weight": weights[colour],
                        "release": release.short if release and states else "",
                        "hosts": len(states), "healthy": states.count("healthy"),
                        "retires": retirement.strftime("%H:%M UTC") if retirement and states else "",
                    }
                )  # fmt: skip
        current = self.store.read(CURRENT)
        return {"colours": rows, "under_way": current[0] if current else None}

    # ------------------------------------------------------------ deploy

    def deploy(self) -> bool:
        """Bring every fleet to its release.

        Returns:
            Whether anything changed.

        Raises:
            DeployError: It was refused, or taken back; in one line.
        """
        with Lease(self.store, self.spec.operator, self.spec.lease_seconds) as self._lease:
            self.settle()
            old = {fleet.name: self.live(fleet) for fleet in self.spec.fleets}
            moving = [fleet for fleet in self.spec.fleets if not self._runs(fleet, old[fleet.name])]
            if not moving:
                self.say("done", "every fleet runs its release already")
                return False
            self._refuse_when_sick()
            self._refuse_to_break_the_old(moving, old)
            return self._move(moving, old, "deploy")

    def rollback(self) -> bool:
        """Make the release of the other colour live again: at once while its hosts are warm.

        The fleets' releases in the spec are those to go back to; without any, those that were live before. Returns whether anything
        changed; raises like ``deploy``.
        """
        with Lease(self.store, self.spec.operator, self.spec.lease_seconds) as self._lease:
            self.settle()
            if not any(fleet.release.key for fleet in self.spec.fleets):
                self.spec = replace(self.spec, fleets=tuple(self._before(fleet) for fleet in self.spec.fleets))
            old = {fleet.name: self.live(fleet) for fleet in self.spec.fleets}
            moving = [fleet for fleet in self.spec.fleets if not self._runs(fleet, old[fleet.name])]
            if not moving:
                self.say("done", "every fleet runs that release already")
                return False
            if all(self._warm(fleet, other(old[fleet.name])) for fleet in moving):
                self._open(moving, old, "rollback")
                for fleet in moving:
                    warm = fleet.groups[other(old[fleet.name])]
                    self.cloud.stay(warm)
                    self.cloud.resize(warm, fleet.low, fleet.high, self._wanted(fleet, fleet.groups[old[fleet.name]]))
                self._weigh(moving, old, ALL)
                self._go_live(moving, old, keep_seconds=0)
                return True
            self.say("launch", "the old hosts are gone: new ones are launched")
            return self._move(moving, old, "rollback")

    def _before(self, fleet: Fleet) -> Fleet:
        """Return a fleet with the release that it had before its live one."""
        for row in self.store.history(100):
            moved = row["fleets"].get(fleet.name)
            if row["ended"] == "live" and moved and moved["old"]:
                return replace(fleet, release=Release(**moved["old"]))
        raise DeployError(f"{fleet.name} has had one release only; there is none to go back to")

    def _runs(self, fleet: Fleet, colour: str) -> bool:
        """Return whether a colour's hosts run the wished release."""
        return bool(self.cloud.hosts(fleet, colour)) and self.cloud.release_of(fleet.groups[colour]) == fleet.release

    def _warm(self, fleet: Fleet, colour: str) -> bool:
        """Return whether a colour could take all visitors now, with the wished release."""
        healthy = list(self.cloud.hosts(fleet, colour).values()).count("healthy")
        return healthy >= max(1, fleet.low) and self.cloud.release_of(fleet.groups[colour]) == fleet.release

    def _refuse_when_sick(self) -> None:
        """Refuse to deploy into an alarm: nobody could tell whose fault the next one is."""
        firing = self.cloud.firing(self.spec.alarms)
        if firing and not self.spec.options.get("ignore_alarms"):
            raise DeployError(
                f"not begun: in alarm already: {', '.join(firing)}. Mend that first, or deploy the cure with -e ignore_alarms=true"
            )

    def _refuse_to_break_the_old(self, fleets: list[Fleet], old: Mapping[str, str]) -> None:
        """Refuse migrations that the live release would not survive: it serves on while the new one comes, and after a rollback."""
        if self.spec.options.get("accept_migrations"):
            return
        for fleet in fleets:
            live = self.cloud.release_of(fleet.groups[old[fleet.name]])
            known = releases.of_site(self.store, live.key) if live else None
            new = releases.of_site(self.store, fleet.release.key)
            against = migrations.refused(known["migrations"] if known else None, new["migrations"] if new else {})
            if against:
                raise DeployError(
                    f"not begun: the live release would not survive these migrations: {'; '.join(against)}. Add first and remove a release"
                    " later, say on the line why it is harmless (# compatible: ...), or take the risk with -e accept_migrations=true"
                )

    def _open(self, fleets: list[Fleet], old: Mapping[str, str], what: str) -> None:
        """Write down what is about to be done."""
        identity = f"{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}-{secrets.token_hex(3)}"
        before = {fleet.name: self.cloud.release_of(fleet.groups[old[fleet.name]]) for fleet in fleets}
        self._current = {
            "id": identity, "what": what, "by": self.spec.operator, "began": stamp(), "phase": "launch",
            "fleets": {
                fleet.name: {
                    "from": old[fleet.name], "to": other(old[fleet.name]),
                    "old": before[fleet.name].__dict__ if before[fleet.name] else None, "new": fleet.release.__dict__,
                }
                for fleet in fleets
            },
        }  # fmt: skip
        self._write()

    def _write(self, **change: Any) -> None:
        """Write the deploy under way, if the lease is still ours."""
        self._held()
        self._current |= change
        self.store.write(CURRENT, self._current)

    def _held(self) -> None:
        if self._lease is not None:
            self._lease.check()

    def _move(self, fleets: list[Fleet], old: Mapping[str, str], what: str) -> bool:
        """Do the whole of a deploy, or take it back."""
        self._open(fleets, old, what)
        for fleet in fleets:
            new, known = other(old[fleet.name]), self._current["fleets"][fleet.name]["old"]
            known_text = known["sha256"][:12] if known else "nothing"
            self.say("launch", f"{fleet.name}: {old[fleet.name]} ({known_text}) -> {new} ({fleet.release.short})")
        numbers: dict[str, Any] = {}
        try:
            with ExitStack() as stack:
                prober = stack.enter_context(Prober(self.spec.probe)) if self.spec.probe else None
                self._launch(fleets, old)
                self._ready(fleets, old)
                self._shift(fleets, old, prober)
            if prober is not None:
                numbers = prober.report
            self._go_live(fleets, old, keep_seconds=self.spec.keep_old_seconds, numbers=numbers)
        except LeaseLostError:
            raise  # whoever took it over does what is right; two must not move the weights
        except (DeployError, KeyboardInterrupt) as error:
            reason = str(error) or type(error).__name__
            self._take_back(fleets, reason)
            raise DeployError(f"taken back: {reason}") from error
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            self._take_back(fleets, reason)
            raise DeployError(f"taken back: {reason}") from error
        return True

    # ------------------------------------------------------------ the phases

    def _launch(self, fleets: list[Fleet], old: Mapping[str, str]) -> None:
        """Give the other colour the release, and as many hosts as the live one has."""
        for fleet in fleets:
            live, new = fleet.groups[old[fleet.name]], fleet.groups[other(old[fleet.name])]
            self._held()
            self.cloud.stay(new)
            self.cloud.give_release(new, live, fleet.release)
            self.cloud.prepare(new, live)
            self.cloud.resize(new, fleet.low, fleet.high, self._wanted(fleet, live))

    def _wanted(self, fleet: Fleet, live: str) -> int:
        """Return how many hosts the new colour needs: as many as the live one has now."""
        return min(fleet.high, max(fleet.low, int(self.cloud.group(live)["DesiredCapacity"]) or fleet.desired))

    def _ready(self, fleets: list[Fleet], old: Mapping[str, str]) -> None:
        """Wait until every new host is in service and healthy; a host says so of itself only when its apps are deeply ready."""
        self._write(phase="ready")
        began, since, told = time.monotonic(), datetime.now(UTC).replace(microsecond=0), ""
        while True:
            counts = {}
            for fleet in fleets:
                new = fleet.groups[other(old[fleet.name])]
                wanted = self._wanted(fleet, fleet.groups[old[fleet.name]])
                if int(self.cloud.group(new)["DesiredCapacity"]) < wanted:  # the live colour has grown meanwhile
                    self._held()
                    self.cloud.resize(new, fleet.low, fleet.high, wanted)
                states = list(self.cloud.hosts(fleet, other(old[fleet.name])).values())
                counts[fleet.name] = (states.count("healthy"), max(wanted, len(states)))
                failed = self.cloud.failed_launches(new, since)
                if len(failed) >= GIVE_UP_LAUNCHES:
                    raise DeployError(
                        f"{fleet.name}: {len(failed)} new hosts did not become ready; the last: {failed[0]}"
                    )
            text = ", ".join(
                f"{name}: {healthy} of {wanted} hosts healthy" for name, (healthy, wanted) in counts.items()
            )
            if text != told:
                self.say("ready", text)
                told = text
            if all(healthy >= wanted for healthy, wanted in counts.values()):
                self.say("ready", f"after {time.monotonic() - began:.0f} s")
                return
            if time.monotonic() - began > self.spec.ready_seconds:
                raise DeployError(f"not ready after {self.spec.ready_seconds:.0f} s ({text})")
            self._pause()

    def _shift(self, fleets: list[Fleet], old: Mapping[str, str], prober: Prober | None) -> None:
        """Give the new colour more and more of the requests, and watch."""
        before = self._baseline(prober) if prober else Seen()
        if prober and self.spec.probe and before.failed > self.spec.probe.failures:
            raise DeployError(
                f"{before.failed} of {before.sent} requests failed before anything moved ({before.why}): look at the live colour"
            )
        if prober:
            self.say("before", str(before))
        for weight in self.spec.weights:
            self._write(phase="shift", weight=weight)
            if prober:
                prober.mark(f"weight {weight}")
            self._weigh(fleets, old, weight)
            self._bake(fleets, old, weight, prober, before)

    def _baseline(self, prober: Prober) -> Seen:
        """Return what visitors got before anything moved, from enough requests to compare with."""
        deadline = time.monotonic() + BASELINE_SECONDS
        while prober.seen().sent < ENOUGH and time.monotonic() < deadline:
            self._pause()
        if not prober.seen().sent:
            raise DeployError(
                f"the prober got no answer at all from {self.spec.probe.url if self.spec.probe else ''}; is that where visitors come in?"
            )
        return prober.seen()

    def _weigh(self, fleets: list[Fleet], old: Mapping[str, str], weight: int) -> None:
        """Give the new colour a share of the requests."""
        self._held()
        self.cloud.set_weights(
            (fleet, {old[fleet.name]: ALL - weight, other(old[fleet.name]): weight}) for fleet in fleets
        )

    def _bake(
        self, fleets: list[Fleet], old: Mapping[str, str], weight: int, prober: Prober | None, before: Seen
    ) -> None:
        """Watch one weight for its time."""
        began, asked = time.monotonic(), 0.0
        while True:
            if prober and (trouble := prober.trouble(before)):
                raise DeployError(f"at weight {weight}: {trouble}")
            if time.monotonic() - asked > ALARM_SECONDS:
                asked = time.monotonic()
                if firing := self.cloud.firing(self.spec.alarms):
                    raise DeployError(f"at weight {weight}: in alarm: {', '.join(firing)}")
            for fleet in fleets:
                states = list(self.cloud.hosts(fleet, other(old[fleet.name])).values())
                if 2 * states.count("healthy") < max(1, len(states)):
                    raise DeployError(
                        f"at weight {weight}: {fleet.name}: only {states.count('healthy')} of {len(states)} new hosts are healthy"
                    )
            left = self.spec.bake_seconds - (time.monotonic() - began)
            if left <= 0:
                break
            self._pause(left)
        self.say(
            f"weight {weight}", f"{self.spec.bake_seconds:.0f} s watched" + (f": {prober.seen()}" if prober else "")
        )

    def _go_live(
        self,
        fleets: list[Fleet],
        old: Mapping[str, str],
        *,
        keep_seconds: float,
        numbers: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep the new colour; the old one stays warm for a while and then gives its hosts back by itself."""
        self._write(phase="live")
        self._finish(self._current, keep_seconds)
        told = [f"{fleet.name}: {other(old[fleet.name])} serves {fleet.release.short}" for fleet in fleets]
        warm = (
            f"; the old colour stays warm for {keep_seconds:.0f} s"
            if keep_seconds
            else "; the other hosts leave when their sessions are over"
        )
        self.say("live", ", ".join(told) + warm)
        self._close("live", numbers=numbers)

    def _finish(self, current: Mapping[str, Any], keep_seconds: float) -> None:
        """Let the old colour retire."""
        for fleet, row in self._rows(current):
            group = fleet.groups[row["from"]]
            self.cloud.stay(group)
            if keep_seconds > 0:
                self.cloud.retire_at(group, in_seconds(max(60, keep_seconds)), str(current["id"]))
            else:
                self.cloud.resize(group, 0, 0, 0)

    def _rows(self, current: Mapping[str, Any]) -> list[tuple[Fleet, Mapping[str, Any]]]:
        """Return the fleets of a deploy that the inventory still has."""
        return [(fleet, current["fleets"][fleet.name]) for fleet in self.spec.fleets if fleet.name in current["fleets"]]

    # ------------------------------------------------------------ the way back

    def _take_back(self, fleets: list[Fleet], reason: str) -> None:
        """Bring the visitors back to the old colour, then let the new hosts go; nothing interrupts this."""
        self.abort.clear()
        self.say("back", reason)
        self._return(self._current)
        self._close("taken back", reason=reason)
        self.say("back", f"{', '.join(fleet.name for fleet in fleets)}: everything is as before")

    def _return(self, current: Mapping[str, Any]) -> None:
        rows = self._rows(current)
        self.cloud.set_weights((fleet, {row["from"]: ALL, row["to"]: 0}) for fleet, row in rows)
        for fleet, row in rows:
            self.cloud.stay(fleet.groups[row["from"]])
            self.cloud.resize(fleet.groups[row["to"]], 0, 0, 0)

    def _close(self, ended: str, *, reason: str = "", numbers: Mapping[str, Any] | None = None) -> None:
        """Write the history, then forget what was under way."""
        kept = ("sent", "failed", "longest_gap_seconds", "sockets_opened", "sockets_cut", "phases")
        row = {
            **self._current, "ended": ended, "reason": reason, "at": stamp(),
            "seen": {key: numbers[key] for key in kept if key in numbers} if numbers else None,
        }  # fmt: skip
        self.store.write(f"{HISTORY}{row['id']}.json", row)
        self.store.delete(CURRENT)
        self._current = {}

    def settle(self) -> str:
        """Finish or take back what a controller left half-done; return what was done about it, in a line."""
        found = self.store.read(CURRENT)
        if not found:
            return ""
        current = found[0]
        self._current = current
        text = f"the {current['what']} that {current['by']} began at {current['began']} was interrupted in its phase {current['phase']!r}"
        if current["phase"] == "live":
            self._finish(current, self.spec.keep_old_seconds)
            self._close("live", reason="finished by the next controller")
            text += ": finished"
        else:
            self._return(current)
            self._close("taken back", reason=f"interrupted in its phase {current['phase']}")
            text += ": taken back"
        self.say("before", text)
        return text

    def settle_alone(self) -> str:
        """Do what ``settle`` does, with a lease of its own."""
        with Lease(self.store, self.spec.operator, self.spec.lease_seconds) as self._lease:
            return self.settle()

    def _pause(self, at_most: float = float("inf")) -> None:
        """Wait between two looks.

        Raises:
            AbortedError: The operator wants no more of it.
        """
        if self.abort.wait(min(self.spec.poll_seconds, at_most)):
            raise AbortedError("the operator ended it")
