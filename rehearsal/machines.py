"""Instances as containers with systemd: launched, stopped, baked and buried as the API says."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from rehearsal.containers import LABEL, SYSTEMD, cpu_seconds, create, docker, process, remove
from rehearsal.network import TO_METADATA, Networks
from rehearsal.world import RehearsalError, World

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


class Machines:
    """The loop of instances."""

    def __init__(self, world: World, networks: Networks) -> None:
        self.world, self.networks = world, networks
        self.cpu: dict[str, tuple[float, float]] = {}
        self.pool = ThreadPoolExecutor(2, "launch")
        self.baked: set[str] = set()  # AMIs that are images here
        self.prefix = f"{world.settings.name}-i-"

    def step(self) -> None:
        """Bring the containers to what the API says, and what became of them to the API."""
        wanted = self._wanted()
        listed = docker("ps", "-a", "--no-trunc", "--filter", f"label={LABEL}={self.world.settings.name}",
                        "--format", "{{.Names}} {{.State}} {{.ID}}")  # fmt: skip
        have = {n.removeprefix(f"{self.world.settings.name}-"): (s, i) for n, s, i in map(str.split, listed.splitlines())
                if n.startswith(self.prefix)}  # fmt: skip
        gone = [f"{self.world.settings.name}-{i}" for i in have if i not in wanted]
        remove(*gone)
        errors = list(self.pool.map(self._change, [(w, have.get(w.id)) for w in wanted.values()]))
        for name in gone:
            self._forget(name.removeprefix(f"{self.world.settings.name}-"))
        self._groups()
        self._images()
        for error in filter(None, errors):
            raise error

    def _wanted(self) -> dict[str, Wanted]:
        settings = self.world.settings
        with self.world.lock:
            ec2, found = self.world.backend("ec2"), {}
            baked = {key for key, ami in ec2.amis.items() if ami.instance_id and ami.owner_id == ec2.account_id}
            for i in ec2.all_instances():
                if i.state != "terminated" and i.vpc_id:
                    known = settings.images.get(i.image_id, settings.image)
                    image = f"{settings.name}/ami:{i.image_id}" if i.image_id in baked else known
                    found[i.id] = Wanted(i.id, i.state, i.private_ip, i.vpc_id, ec2.get_vpc(i.vpc_id).cidr_block, image)
            return found

    def _change(self, both: tuple[Wanted, tuple[str, str] | None]) -> Exception | None:
        want, have = both
        container = f"{self.world.settings.name}-{want.id}"
        try:
            if want.state == "running" and have is None:
                self._launch(container, want)
            elif want.id in self.world.rebooting:
                self.world.rebooting.discard(want.id)
                if have is not None and have[0] == "running":
                    docker("restart", "--time", "60", container, timeout=180)
                    self._came(container, want.id)  # in a network namespace of its own again
            elif want.state == "running" and have is not None and have[0] in {"running", "paused"}:
                self._measure(want.id, have[1])
            elif want.state == "running" and want.id in self.world.booted:
                self._died(want.id)
            elif want.state == "running":
                docker("start", container)
                self._came(container, want.id)
            elif want.state == "stopped" and have is not None and have[0] == "running":
                docker("stop", "--time", "30", container)
                self._forget(want.id)
        except (RehearsalError, OSError, KeyError) as error:
            return error
        return None

    def _launch(self, container: str, want: Wanted) -> None:
        settings = self.world.settings
        options = [*SYSTEMD, *self.networks.ensure(want.vpc, want.cidr), f"--ip={want.address}", f"--memory={settings.memory}",
                   f"--cpus={settings.cpus}", f"--hostname=ip-{want.address.replace('.', '-')}"]  # fmt: skip
        # AWS's clients on the machine find the API as everything else there does: by its environment
        where = f"AWS_ENDPOINT_URL=http://{self.networks.made[want.vpc]}:{settings.port}"
        files = {
            "/etc/environment": f"{where}\nAWS_REGION={settings.region}\n",
            "/etc/systemd/system.conf.d/rehearsal.conf": f"[Manager]\nDefaultEnvironment={where} AWS_REGION={settings.region}\n",
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
        for table in (self.world.booted, self.world.processes, self.world.metrics, self.cpu):
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
