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
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from app.core.cloud.site import COLOURS
from deploys import migrations, releases
from deploys.cloud import in_seconds
from deploys.run import Run
from deploys.spec import DeployError, Fleet, Release, Spec
from deploys.store import CURRENT, HISTORY, LEASE, Lease, LeaseLostError
from deploys.watch import ENOUGH, Prober, Seen

ALL = 100
GIVE_UP_LAUNCHES = 2  # hosts of a fleet that could not become ready
ALARM_SECONDS = 5  # between two looks at the alarms
BASELINE_SECONDS = 30  # to learn how the live colour answers


def stamp() -> str:
    """Return the time as text that sorts."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Move:
    """One fleet on its way from a colour to the other."""

    fleet: Fleet
    old: str
    new: str

    @classmethod
    def away_from(cls, fleet: Fleet, live: str) -> Move:
        """Return the move away from the live colour."""
        return cls(fleet, live, COLOURS[1 - COLOURS.index(live)])

    @property
    def old_group(self) -> str:
        """Scaling group of the colour that serves now."""
        return self.fleet.groups[self.old]

    @property
    def new_group(self) -> str:
        """Scaling group of the colour that shall serve."""
        return self.fleet.groups[self.new]


class Engine(Run):
    """Deploys, rolls back, and tells what is."""

    def __init__(self, spec: Spec, say: Callable[[str], None], abort: threading.Event) -> None:
        super().__init__(spec, say, abort)
        self._lease: Lease | None = None
        self._current: dict[str, Any] = {}

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
                        "sessions": self._sessions(fleet, colour) if states else 0,
                        "retires": retirement.strftime("%H:%M UTC") if retirement and states else "",
                    }
                )  # fmt: skip
        return {"colours": rows, "under_way": self._record()}

    def _record(self) -> dict[str, Any] | None:
        """Return the deploy that is under way, as it was written down."""
        found = self.store.read(CURRENT)
        return found[0] if found else None

    def unfinished(self) -> dict[str, Any]:
        """Return what is under way or was left half-done, as a sentence (empty: nothing), and whether its controller is dead."""
        current, lease = self._record(), self.store.read(LEASE)
        if not current:
            return {"unfinished": "", "abandoned": False}
        what = _named(current)
        if lease and lease[2] <= float(lease[0]["seconds"]):
            now = f"is under way, in its phase {current['phase']!r}; its controller was heard of {lease[2]:.0f} s ago"
            return {"unfinished": f"{what} {now}", "abandoned": False}
        way = "finished" if current["phase"] == "live" else "taken back"
        now = f"was interrupted in its phase {current['phase']!r}; the next deploy, rollback or status has it {way}"
        return {"unfinished": f"{what} {now}", "abandoned": True}

    def _sessions(self, fleet: Fleet, colour: str) -> int | None:
        """Return the live sessions of a colour; None when its hosts do not tell. Only shown: it never ends a deploy."""
        if not self.spec.metrics:
            return None
        try:
            return self.cloud.sessions(self.spec.metrics, fleet.groups[colour])
        except (ClientError, BotoCoreError):
            return None

    def _told_sessions(self, moves: list[Move]) -> str:
        """Return the live sessions of the colours that visitors leave, for a line of progress; empty when no host tells."""
        counts = [(move, self._sessions(move.fleet, move.old)) for move in moves]
        rows = [f"{move.fleet.name}: {found} live in {move.old}" for move, found in counts if found is not None]
        return f"sessions {', '.join(rows)}" if rows else ""

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
            moves = self._moves()
            if not moves:
                self.say("done", "every fleet runs its release already")
                return False
            self._refuse_when_sick()
            self._refuse_to_break_the_old(moves)
            return self._move(moves, "deploy")

    def rollback(self) -> bool:
        """Make the release of the other colour live again: at once while its hosts are warm.

        The fleets' releases in the spec are those to go back to; without any, those that were live before. Returns whether anything
        changed; raises like ``deploy``.
        """
        with Lease(self.store, self.spec.operator, self.spec.lease_seconds) as self._lease:
            self.settle()
            if not any(fleet.release.key for fleet in self.spec.fleets):
                self.spec = replace(self.spec, fleets=tuple(self._before(fleet) for fleet in self.spec.fleets))
            moves = self._moves()
            if not moves:
                self.say("done", "every fleet runs that release already")
                return False
            return self._back(moves)

    def _back(self, moves: list[Move]) -> bool:
        """Give the visitors to hosts that are warm, or do the whole of a deploy."""
        if all(self._warm(move) for move in moves):
            self._open(moves, "rollback")
            for move in moves:
                self.cloud.stay(move.new_group)
            self._weigh(moves, ALL)
            self.say("back", f"visitors have it after {time.monotonic() - self._began:.1f} s")
            for move in moves:  # visitors first
                self._resize(move)
            self._go_live(moves, keep_seconds=0)
            return True
        self.say("launch", "the old hosts are gone: new ones are launched")
        return self._move(moves, "rollback")

    def _moves(self) -> list[Move]:
        """Return the fleets that do not run their release yet, each with the colour that serves now."""
        live = [(fleet, self.live(fleet)) for fleet in self.spec.fleets]
        return [Move.away_from(fleet, colour) for fleet, colour in live if not self._runs(fleet, colour)]

    def _before(self, fleet: Fleet) -> Fleet:
        """Return a fleet with the release that it had before its live one."""
        for row in self.store.past():
            moved = row["fleets"].get(fleet.name)
            if row["ended"] == "live" and moved and moved["old"]:
                return replace(fleet, release=Release(**moved["old"]))
        raise DeployError(f"{fleet.name} has had one release only; there is none to go back to")

    def _runs(self, fleet: Fleet, colour: str) -> bool:
        """Return whether a colour's hosts run the wished release; when asked for, from the newest image too."""
        group = fleet.groups[colour]
        stale = self.spec.options.get("newest_image") and self.cloud.image_of(group) != self.cloud.newest_image_of(
            group
        )
        return not stale and bool(self.cloud.hosts(fleet, colour)) and self.cloud.release_of(group) == fleet.release

    def _warm(self, move: Move) -> bool:
        """Return whether the new colour could take all visitors now, with the wished release."""
        healthy, _ = self._count(move)
        return healthy >= max(1, move.fleet.low) and self.cloud.release_of(move.new_group) == move.fleet.release

    def _count(self, move: Move) -> tuple[int, int]:
        """Return how many hosts of the new colour are healthy, and how many it has."""
        states = list(self.cloud.hosts(move.fleet, move.new).values())
        return states.count("healthy"), len(states)

    def _refuse_when_sick(self) -> None:
        """Refuse to deploy into an alarm: nobody could tell whose fault the next one is."""
        firing = self.cloud.firing(self.spec.alarms)
        if firing and not self.spec.options.get("ignore_alarms"):
            raise DeployError(
                f"not begun: in alarm already: {', '.join(firing)}. Mend that first, or deploy the cure with -e ignore_alarms=true"
            )

    def _refuse_to_break_the_old(self, moves: list[Move]) -> None:
        """Refuse migrations that the live release would not survive: it serves on while the new one comes, and after a rollback."""
        if self.spec.options.get("accept_migrations"):
            return
        records = releases.listed(self.store)
        for move in moves:
            live = self._served(move)
            known = releases.of_site(records, live.key) if live else None
            new = releases.of_site(records, move.fleet.release.key)
            against = migrations.refused(known["migrations"] if known else None, new["migrations"] if new else {})
            if against:
                raise DeployError(
                    f"not begun: the live release would not survive these migrations: {'; '.join(against)}. Add first and remove a release"
                    " later, say on the line why it is harmless (# compatible: ...), or take the risk with -e accept_migrations=true"
                )

    def _open(self, moves: list[Move], what: str) -> None:
        """Write down what is about to be done."""
        identity = f"{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}-{secrets.token_hex(3)}"
        before = [self._served(move) for move in moves]
        self._current = {
            "id": identity, "what": what, "by": self.spec.operator, "began": stamp(), "phase": "launch",
            "fleets": {
                move.fleet.name: {
                    "from": move.old, "to": move.new, "old": asdict(old) if old else None, "new": asdict(move.fleet.release),
                }
                for move, old in zip(moves, before, strict=True)
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

    def _served(self, move: Move) -> Release | None:
        """Return the release that visitors have now."""
        return self.cloud.release_of(move.old_group)

    def _known_before(self, move: Move) -> str:
        """Return what a fleet moves away from, as people know it."""
        known = self._current["fleets"][move.fleet.name]["old"]
        return str(known["sha256"][:12]) if known else "nothing"

    def _path(self, move: Move) -> str:
        """Return from where to where a fleet moves."""
        before = self._known_before(move)
        return f"{move.fleet.name}: {move.old} ({before}) -> {move.new} ({move.fleet.release.short})"

    def _move(self, moves: list[Move], what: str) -> bool:
        """Do the whole of a deploy, or take it back."""
        self._open(moves, what)
        for move in moves:
            self.say("launch", self._path(move))
        try:
            with ExitStack() as stack:
                prober = stack.enter_context(Prober(self.spec.probe)) if self.spec.probe else None
                self._launch(moves)
                self._ready(moves)
                self._shift(moves, prober)
            numbers = prober.report if prober else None
            self._go_live(moves, keep_seconds=self.spec.keep_old_seconds, numbers=numbers)
        except LeaseLostError:
            raise  # whoever took it over does what is right; two must not move the weights
        except (Exception, KeyboardInterrupt) as error:
            reason = str(error) if isinstance(error, DeployError) else f"{type(error).__name__}: {error}"
            self._take_back(moves, reason)
            raise DeployError(f"taken back: {reason}") from error
        return True

    # ------------------------------------------------------------ the phases

    def _launch(self, moves: list[Move]) -> None:
        """Give the other colour the release, and as many hosts as the live one has."""
        for move in moves:
            self._held()
            self.cloud.stay(move.new_group)
            self.cloud.give_release(move.new_group, move.old_group, move.fleet.release)
            self.cloud.prepare(move.new_group, move.old_group)
            self._resize(move)

    def _resize(self, move: Move) -> None:
        """Give the new colour its bounds, and its hosts."""
        self.cloud.resize(move.new_group, move.fleet.low, move.fleet.high, self._wanted(move))

    def _wanted(self, move: Move) -> int:
        """Return how many hosts the new colour needs: as many as the live one has now."""
        fleet, now = move.fleet, int(self.cloud.group(move.old_group)["DesiredCapacity"])
        return min(fleet.high, max(fleet.low, now or fleet.desired))

    def _ready(self, moves: list[Move]) -> None:
        """Wait until every new host is in service and healthy; a host says so of itself only when its apps are deeply ready."""
        self._write(phase="ready")
        began, since, told = time.monotonic(), datetime.now(UTC).replace(microsecond=0), ""
        while True:
            counts = {}
            for move in moves:
                wanted = self._wanted(move)
                if (
                    int(self.cloud.group(move.new_group)["DesiredCapacity"]) < wanted
                ):  # the live colour has grown meanwhile
                    self._held()
                    self._resize(move)
                healthy, there = self._count(move)
                counts[move.fleet.name] = (healthy, max(wanted, there))
                failed = self.cloud.failed_launches(move.new_group, since)
                if len(failed) >= GIVE_UP_LAUNCHES:
                    raise DeployError(
                        f"{move.fleet.name}: {len(failed)} new hosts did not become ready; the last: {failed[0]}"
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

    def _shift(self, moves: list[Move], prober: Prober | None) -> None:
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
            self._weigh(moves, weight)
            self._bake(moves, weight, prober, before)

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

    def _weigh(self, moves: list[Move], weight: int) -> None:
        """Give the new colour a share of the requests."""
        self._held()
        self.cloud.set_weights((move.fleet, {move.old: ALL - weight, move.new: weight}) for move in moves)

    def _bake(self, moves: list[Move], weight: int, prober: Prober | None, before: Seen) -> None:
        """Watch one weight for its time."""
        began, asked, told = time.monotonic(), 0.0, ""
        while True:
            if prober and (trouble := prober.trouble(before)):
                raise DeployError(f"at weight {weight}: {trouble}")
            if time.monotonic() - asked > ALARM_SECONDS:
                asked = time.monotonic()
                if firing := self.cloud.firing(self.spec.alarms):
                    raise DeployError(f"at weight {weight}: in alarm: {', '.join(firing)}")
                left = self.spec.bake_seconds - (time.monotonic() - began)
                if (sessions := self._told_sessions(moves)) and sessions != told:
                    self.say(f"weight {weight}", f"{sessions}; {max(0, left):.0f} s left")
                    told = sessions
            for move in moves:
                healthy, there = self._count(move)
                needed = max(1, there)
                if 2 * healthy < needed:  # one that died and its successor are not two more
                    needed = max(1, min(there, self._wanted(move)))
                if 2 * healthy < needed:
                    raise DeployError(
                        f"at weight {weight}: {move.fleet.name}: only {healthy} of {needed} new hosts are healthy"
                    )
            left = self.spec.bake_seconds - (time.monotonic() - began)
            if left <= 0:
                break
            self._pause(left)
        self.say(
            f"weight {weight}", f"{self.spec.bake_seconds:.0f} s watched" + (f": {prober.seen()}" if prober else "")
        )

    def _go_live(self, moves: list[Move], *, keep_seconds: float, numbers: Mapping[str, Any] | None = None) -> None:
        """Keep the new colour; the old one stays warm for a while and then gives its hosts back by itself."""
        self._write(phase="live")
        self._finish(keep_seconds)
        told = [f"{move.fleet.name}: {move.new} serves {move.fleet.release.short}" for move in moves]
        warm = f"the old colour stays warm for {keep_seconds:.0f} s"
        if sessions := self._told_sessions(moves):
            self.say("live", f"{sessions}; its hosts then wait for them up to the drain's ceiling")
        self.say(
            "live",
            f"{', '.join(told)}; {warm if keep_seconds else 'the other hosts leave when their sessions are over'}",
        )
        self._close("live", numbers=numbers)

    def _finish(self, keep_seconds: float) -> None:
        """Let the old colour of what is under way retire."""
        for move in self._under_way():
            self.cloud.stay(move.old_group)
            if keep_seconds > 0:
                self.cloud.retire_at(move.old_group, in_seconds(max(60, keep_seconds)), str(self._current["id"]))
            else:
                self.cloud.resize(move.old_group, 0, 0, 0)

    def _under_way(self) -> list[Move]:
        """Return the moves that were written down, of fleets that the inventory still has."""
        rows = self._current["fleets"]
        return [
            Move(fleet, rows[fleet.name]["from"], rows[fleet.name]["to"])
            for fleet in self.spec.fleets
            if fleet.name in rows
        ]

    # ------------------------------------------------------------ the way back

    def _take_back(self, moves: list[Move], reason: str) -> None:
        """Bring the visitors back to the old colour, then let the new hosts go; it waits for nothing, so nothing interrupts it."""
        self.say("back", reason)
        self._return()
        self._close("taken back", reason=reason)
        self.say("back", f"{', '.join(move.fleet.name for move in moves)}: everything is as before")

    def _return(self) -> None:
        """Bring what is under way back to where it began."""
        moves = self._under_way()
        self.cloud.set_weights((move.fleet, {move.old: ALL, move.new: 0}) for move in moves)
        for move in moves:
            self.cloud.stay(move.old_group)
            self.cloud.resize(move.new_group, 0, 0, 0)

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
        current = self._record()
        if not current:
            return ""
        self._current = current
        text = f"{_named(current)} was interrupted in its phase {current['phase']!r}"
        if current["phase"] == "live":
            self._finish(self.spec.keep_old_seconds)
            self._close("live", reason="finished by the next controller")
            text += ": finished"
        else:
            self._return()
            self._close("taken back", reason=f"interrupted in its phase {current['phase']}")
            text += ": taken back"
        self.say("before", text)
        return text

    def settle_alone(self) -> str:
        """Do what ``settle`` does, with a lease of its own."""
        with Lease(self.store, self.spec.operator, self.spec.lease_seconds) as self._lease:
            return self.settle()


def _named(current: Mapping[str, Any]) -> str:
    """Return what a deploy under way is called."""
    return f"the {current['what']} that {current['by']} began at {current['began']}"
