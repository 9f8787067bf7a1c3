"""Instances as containers with systemd: launched, stopped, baked and buried as the API says."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from emulator.world import HISTORY, RehearsalError, World
from rehearsal.containers import LABEL, SYSTEMD, console, cpu_seconds, create, docker, process, remove
from rehearsal.network import TO_METADATA, Networks

UNKNOWN = 1024  # MiB of a type that moto does not know
PATIENCE = 240  # seconds in which an instance that reboots has to end; then its power is taken away
INIT = ["sh", "-c", f"{TO_METADATA} && mount --make-rshared / && exec /sbin/init"]
UNIT = """[Unit]
Description=Run the user data of this instance once (the rehearsal's cloud-init)
After=network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/python3 /usr/local/lib/rehearsal/first_boot.py
TimeoutStartSec=infinity
[Install]
WantedBy=multi-user.target
"""


class Wanted(NamedTuple):
    """What the API says of an instance."""

    id: str
    state: str
    address: str
    vpc: str
    cidr: str
    image: str
    memory: int  # MiB, its type's


class Machines:
    """The loop of instances."""

    def __init__(self, world: World, networks: Networks) -> None:
        self.world, self.networks = world, networks
        self.cpu: dict[str, tuple[float, float]] = {}
        self.going: dict[str, float] = {}  # instances that reboot, and until when they may take for their end
        self.pool = ThreadPoolExecutor(2, "launch")
        self.baked: set[str] = set()  # AMIs that are images here
        self.prefix = f"{world.settings.name}-i-"
        world.console = lambda instance: console(f"{world.settings.name}-{instance}")

    def step(self) -> None:
        """Bring the containers to what the API says, and what became of them to the API."""
        wanted = self._wanted()
        listed = docker("ps", "-a", "--no-trunc", "--filter", f"label={LABEL}={self.world.settings.name}",
                        "--format", "{{.Names}} {{.State}} {{.ID}}")  # fmt: skip
        have = {n.removeprefix(f"{self.world.settings.name}-"): (s, i) for n, s, i in map(str.split, listed.splitlines())
                if n.startswith(self.prefix)}  # fmt: skip
        gone = [f"{self.world.settings.name}-{i}" for i in have if i not in wanted]
        for name in gone:
            self.world.consoles[name.removeprefix(f"{self.world.settings.name}-")] = console(name)
            for oldest in list(self.world.consoles)[:-HISTORY]:
                del self.world.consoles[oldest]
        remove(*gone)
        errors = list(self.pool.map(self._change, [(w, have.get(w.id)) for w in wanted.values()]))
        for name in gone:
            self._forget(name.removeprefix(f"{self.world.settings.name}-"))
        self._groups()
        self._images()
        for error in filter(None, errors):
            raise error

    def _wanted(self) -> dict[str, Wanted]:
        from moto.ec2.models.instance_types import INSTANCE_TYPES as types  # noqa: N811, PLC0415  moto takes a second to import

        settings = self.world.settings
        with self.world.lock:
            ec2, found = self.world.backend("ec2"), {}
            baked = {key for key, ami in ec2.amis.items() if ami.instance_id and ami.owner_id == ec2.account_id}
            for i in ec2.all_instances():
                if i.state != "terminated" and i.vpc_id:
                    known = settings.images.get(i.image_id, settings.image)
                    image = f"{settings.name}/ami:{i.image_id}" if i.image_id in baked else known
                    memory = types[i.instance_type]["MemoryInfo"]["SizeInMiB"] if i.instance_type in types else UNKNOWN
                    cidr = ec2.get_vpc(i.vpc_id).cidr_block
                    found[i.id] = Wanted(i.id, i.state, i.private_ip, i.vpc_id, cidr, image, memory)
            return found

    def _change(self, both: tuple[Wanted, tuple[str, str] | None]) -> Exception | None:
        want, have = both
        container = f"{self.world.settings.name}-{want.id}"
        try:
            if want.state == "running" and have is None:
                self._launch(container, want)
            elif want.id in self.world.rebooting:
                self.world.rebooting.discard(want.id)
                if have is not None and have[0] == "running" and want.id not in self.going:
                    self.going[want.id] = time.monotonic() + self.world.real(PATIENCE)
                    docker("kill", "--signal", "INT", container)  # systemd's Ctrl-Alt-Del
            elif want.state == "running" and have is not None and have[0] in {"running", "paused"}:
                if time.monotonic() > self.going.get(want.id, float("inf")):
                    self.world.say(f"{want.id} did not end within {PATIENCE} s: it is reset")
                    self.going[want.id] = float("inf")
                    docker("kill", container)
                self._measure(want.id, have[1])
            elif want.state == "running" and want.id in self.world.booted and want.id not in self.going:
                self._died(want.id)
            elif want.state == "running":
                docker("start", container)
                self.going.pop(want.id, None)
                self._came(container, want.id)  # in a network namespace of its own
            elif want.state == "stopped" and have is not None and have[0] == "running":
                docker("stop", "--time", "30", container)
                self._forget(want.id)
        except (RehearsalError, OSError, KeyError) as error:
            return error
        return None

    def _launch(self, container: str, want: Wanted) -> None:
        settings = self.world.settings
        options = [*SYSTEMD, *self.networks.ensure(want.vpc, want.cidr), f"--ip={want.address}", f"--memory={want.memory}m",
                   f"--cpus={settings.cpus}", f"--hostname=ip-{want.address.replace('.', '-')}"]  # fmt: skip
        # AWS's clients on the machine find the API as everything else there does: by its environment
        where = f"AWS_ENDPOINT_URL=http://{self.networks.made[want.vpc]}:{settings.port}"
        known = f"{where} AWS_REGION={settings.region} REHEARSAL_SPEED={settings.speed:g}"
        known += f" S3_BROWSER_ENDPOINT={settings.endpoint}"  # whoever visits is outside the VPC
        files = {
            "/etc/environment": f"{where}\nAWS_REGION={settings.region}\n",
            "/etc/systemd/system.conf.d/rehearsal.conf": f"[Manager]\nDefaultEnvironment={known}\n",
            "/etc/systemd/system/rehearsal-user-data.service": UNIT,
            "/etc/systemd/system/multi-user.target.wants/rehearsal-user-data.service": "->../rehearsal-user-data.service",
            "/usr/local/lib/rehearsal/first_boot.py": (Path(__file__).parent / "first_boot.py").read_text(),
        }
        create(container, settings.name, want.image, INIT, options, files)
        self._came(container, want.id)

    def _came(self, container: str, instance: str) -> None:
        self.world.processes[instance] = process(container)
        self.world.booted[instance] = time.monotonic()
        self.world.say(f"{instance} boots")

    def _forget(self, instance: str) -> None:
        for table in (self.world.booted, self.world.processes, self.world.metrics, self.cpu, self.going):
            table.pop(instance, None)

    def _died(self, instance: str) -> None:
        """Tell the API that a machine ended by itself."""
        with self.world.lock:
            found = self.world.backend("ec2").get_instance_by_id(instance)
            if found is not None and found.state == "running":
                ends = found.instance_initiated_shutdown_behavior == "terminate" or hasattr(found, "autoscaling_group")
                (found.terminate if ends else found.stop)()
                self.world.say(f"{instance} ended by itself")
        self._forget(instance)

    def _measure(self, instance: str, container: str) -> None:
        used, now = cpu_seconds(container), time.monotonic()
        before = self.cpu.get(instance)
        if used is None or (before and now - before[0] < self.world.real(15)):
            return
        self.cpu[instance] = now, used
        if before:
            self.world.metrics[instance] = min(
                100.0, 100 * (used - before[1]) / (now - before[0]) / self.world.settings.cpus
            )

    def _groups(self) -> None:
        """Put the security groups of each machine in force."""
        with self.world.lock:
            rules = {
                i.id: self.networks.rules(i.security_groups, i.vpc_id, i.subnet_id, public=bool(i.public_ip))
                for i in self.world.backend("ec2").all_instances() if i.id in self.world.booted and i.state == "running"
            }  # fmt: skip
        for instance, text in rules.items():
            self.networks.protect(instance, self.world.processes.get(instance, 0), text)

    def _images(self) -> None:
        """Commit what is to become an AMI; forget what was deregistered."""
        name = self.world.settings.name
        with self.world.lock:
            amis = dict(self.world.backend("ec2").amis)
        for key, ami in amis.items():
            if ami.state == "pending" and ami.instance_id:
                docker(
                    "commit",
                    "-c",
                    f"LABEL {LABEL}={name}",
                    f"{name}-{ami.instance_id}",
                    f"{name}/ami:{key}",
                    timeout=600,
                )
                ami.state = "available"
                self.world.say(f"{key} is baked from {ami.instance_id}")
                self.baked.add(key)
        for key in self.baked - set(amis):
            docker("image", "rm", f"{name}/ami:{key}", check=False)
            self.baked.discard(key)
