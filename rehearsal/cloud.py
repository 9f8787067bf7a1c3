"""The process that is the cloud: moto's server and the loops that give it a body."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from emulator import patches
from emulator.scaling import Scaling
from emulator.server import FAULTS, Api, listen, serve
from emulator.status import status
from emulator.watch import Watch
from emulator.world import Settings, World
from rehearsal.balancer import Balancers
from rehearsal.containers import docker
from rehearsal.databases import Databases
from rehearsal.machines import Machines
from rehearsal.network import Networks

PAUSE = 1.0  # real seconds between two steps of a loop


class Cloud:
    """Everything that runs in one rehearsal."""

    def __init__(self, settings: Settings) -> None:
        self.world = World(settings)
        self.over = threading.Event()
        self.scaling, self.watch = Scaling(self.world), Watch(self.world)
        self.began = time.time()

    def start(self) -> None:
        """Serve the API and start the loops; returns at once."""
        settings, world = self.world.settings, self.world
        settings.directory.mkdir(parents=True, exist_ok=True)
        patches.apply(world)
        os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
        self.server = serve(Api(world, self.control), listen("127.0.0.1", settings.port), "api")
        loops: dict[str, Callable[[], None]] = {"scaling": self.scaling.step, "alarms": self.watch.step}
        if settings.bodies:
            networks = Networks(world, lambda where: Api(world, self.control, where))
            machines, balancers, databases = (part(world, networks) for part in (Machines, Balancers, Databases))
            loops |= {"machines": machines.step, "balancers": balancers.step, "databases": databases.step}
        for name, step in loops.items():
            threading.Thread(target=self._loop, args=(name, step), name=name, daemon=True).start()
        world.say(f"the cloud answers at {settings.endpoint}, {settings.speed:g} of its seconds in one of ours")

    def _loop(self, name: str, step: Callable[[], None]) -> None:
        quick = (
            1.0 if name in {"machines", "databases"} else min(self.world.settings.speed, 5)
        )  # Docker is asked each time
        while not self.over.wait(PAUSE / max(quick, 0.2)):
            try:
                step()
                self.world.problems.pop(name, None)
            except Exception as error:  # noqa: BLE001  a loop must go on; the problem is shown in `status` until it is over
                sentence = f"{type(error).__name__}: {error}"
                if self.world.problems.get(name) != sentence:
                    self.world.say(f"the {name} loop failed: {sentence}\n{traceback.format_exc()}")
                self.world.problems[name] = sentence

    def run(self) -> None:
        """Serve until a signal ends it."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.over.set())
        self.start()
        self.over.wait()
        self.world.say("the cloud ends")

    def stop(self) -> None:
        """End the API and the loops (tests)."""
        self.over.set()
        self.server.shutdown()
        self.server.server_close()

    def control(self, name: str, body: dict[str, Any]) -> Any:
        """Answer the rehearsal's own commands."""
        if name == "status":
            return {**status(self.world), "pid": os.getpid(), "seconds": round(time.time() - self.began)}
        if name == "fault":
            return self.fault(str(body.get("kind")), str(body.get("what", "")))
        raise ValueError(f"no such command: {name}")

    def fault(self, kind: str, what: str) -> dict[str, Any]:
        """Inject a fault, or end one."""
        world = self.world
        if kind in FAULTS:
            share = float(what or 0.2)
            if not 0 <= share <= 1:
                raise ValueError(f"{kind} takes the share of calls, 0 to 1, not {what}")
            world.faults[kind] = share
            if not share:
                del world.faults[kind]
        elif kind == "none":
            world.faults.clear()
            world.suspended.clear()
        elif kind in {"kill", "wedge"}:
            self._hit(kind, {what})
        elif kind == "zone":
            with world.lock:
                zones = {z.name for z in world.backend("ec2").describe_availability_zones()}
                lost = {
                    i.id
                    for i in world.backend("ec2").all_instances()
                    if i.placement.zone == what and i.state == "running"
                }
            if what not in zones:
                raise ValueError(f"no such zone: {what}. There are: {', '.join(sorted(zones))}")
            world.suspended.add(what)
            self._hit("kill", lost & set(world.booted))
        else:
            raise ValueError(
                f"no such fault: {kind}. There are: {', '.join([*FAULTS, 'kill', 'wedge', 'zone', 'none'])}"
            )
        world.say(f"fault: {kind} {what}")
        return {"faults": world.faults, "zones lost": sorted(world.suspended)}

    def _hit(self, kind: str, instances: set[str]) -> None:
        """Kill machines, or freeze everything that runs on them."""
        for instance in instances:
            if instance not in self.world.booted:
                raise ValueError(
                    f"{instance} does not run here. There are: {', '.join(sorted(self.world.booted)) or 'none'}"
                )
            docker("kill" if kind == "kill" else "pause", f"{self.world.settings.name}-{instance}")
