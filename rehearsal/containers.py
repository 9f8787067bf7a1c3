"""Docker and network namespaces, through the programs that every Docker machine has."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tarfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path

from emulator.world import RehearsalError

LABEL = "rehearsal"
SYSTEMD = (
    "--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN", "--cap-add=SYS_PTRACE", "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined", "--cgroupns=host", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw",
    "--tmpfs=/run", "--tmpfs=/run/lock", "--env=container=docker", "--stop-signal=SIGRTMIN+3",
)  # fmt: skip


def run(*command: str, text: str | bytes | None = None, check: bool = True, timeout: float = 120) -> str:
    """Run a program and return what it printed."""
    given = text.encode() if isinstance(text, str) else text
    done = subprocess.run(command, input=given, capture_output=True, check=False, timeout=timeout)
    if check and done.returncode:
        raise RehearsalError(f"{' '.join(command[:6])}: {done.stderr.decode(errors='replace').strip()[-600:]}")
    return done.stdout.decode(errors="replace").strip()


def docker(*arguments: str, text: str | bytes | None = None, check: bool = True, timeout: float = 120) -> str:
    """Run the docker client."""
    return run("docker", *arguments, text=text, check=check, timeout=timeout)


def ready() -> None:
    """Raise unless containers and their namespaces can be used."""
    if not hasattr(os, "setns") or os.geteuid() != 0:
        raise RehearsalError(
            "instances need Linux and root (network namespaces). Run it with sudo, or with --no-bodies."
        )
    missing = [program for program in ("docker", "iptables", "nsenter", "ss") if shutil.which(program) is None]
    if missing:
        raise RehearsalError(
            f"not installed: {', '.join(missing)}. Debian: apt install docker.io iptables iproute2 util-linux"
        )
    try:
        docker("version", "--format", "{{.Server.Version}}")
    except (OSError, RehearsalError) as error:
        raise RehearsalError(f"Docker does not answer ({error}). Start it: scripts/docker-ready") from error


def containers(name: str) -> dict[str, str]:
    """Return the state of each container of a rehearsal."""
    listed = docker("ps", "-a", "--filter", f"label={LABEL}={name}", "--format", "{{.Names}} {{.State}}")
    return {line.split()[0]: line.split()[1] for line in listed.splitlines()}


def process(container: str) -> int:
    """Return the process id of a running container's first process, or 0."""
    return int(docker("inspect", "-f", "{{.State.Pid}}", container, check=False) or 0)


def taken(container: str, path: str) -> bytes:
    """Return a file or folder of a container, also of a stopped one, as a tar archive with owners and modes."""
    line = ["docker", "cp", "--archive", f"{container}:{path}", "-"]
    done = subprocess.run(line, capture_output=True, check=False, timeout=120)
    if done.returncode:
        raise RehearsalError(f"{' '.join(line)}: {done.stderr.decode(errors='replace').strip()[-600:]}")
    return done.stdout


def console(container: str) -> str:
    """Return the end of what a machine said on its console while it configured itself, at most 64 KiB; also of a stopped one."""
    try:
        packed = taken(container, "/var/log/cloud-init-output.log")
    except RehearsalError:
        return ""
    with tarfile.open(fileobj=BytesIO(packed)) as tar:
        said = tar.extractfile(tar.next() or "")
        return said.read()[-65536:].decode(errors="replace") if said else ""


def remove(*names: str) -> None:
    """Remove containers that may or may not be there."""
    if names:
        docker("unpause", *names, check=False)  # a frozen process cannot die; Docker may wait for it for minutes
        docker("rm", "-f", "-v", *names, check=False)


def sweep(name: str) -> tuple[int, int]:
    """Remove every container and network of a rehearsal; return how many there were."""
    found = sorted(containers(name))
    remove(*found)
    images = docker("image", "ls", f"{name}/ami", "--format", "{{.Repository}}:{{.Tag}}").split()
    if images:
        docker("image", "rm", *images, check=False)
    networks = docker("network", "ls", "--filter", f"label={LABEL}={name}", "--format", "{{.Name}}").split()
    for network in networks:
        docker("network", "rm", network)
    for chain in ("INPUT", "DOCKER-USER"):
        for rule in run("iptables", "-w", "-S", chain, check=False).splitlines():
            if f'rehearsal:{name}"' in rule or rule.split().count(f"rehearsal:{name}"):
                run("iptables", "-w", "-D", *rule.replace('"', "").split()[1:])
    return len(found), len(networks)


def shield(name: str, bridge: str, chain: str = "DOCKER-USER") -> None:
    """Drop what containers on a bridge send to this machine's metadata address, or (INPUT) to the machine itself.

    Frames between two of them pass the bridge, so ``! -o bridge`` leaves a VPC's own metadata service alone.
    """
    rules = {
        "DOCKER-USER": ["-i", bridge, "!", "-o", bridge, "-d", "169.254.0.0/16"],
        "INPUT": ["-i", bridge, "-m", "conntrack", "--ctstate", "NEW"],
    }
    rule = [*rules[chain], "-m", "comment", "--comment", f"rehearsal:{name}", "-j", "DROP"]
    if any(f"rehearsal:{name}" in line and bridge in line for line in run("iptables", "-w", "-S", chain).splitlines()):
        return
    run("iptables", "-w", "-I", chain, *rule)


def create(
    name: str,
    label: str,
    image: str,
    command: list[str],
    options: list[str],
    files: Mapping[str, str],
    copied: Iterable[tuple[str, str]] = (),
) -> None:
    """Create a container, put files into it, and start it; ``copied`` names other containers, and a path of each that it has too."""
    docker("create", "--name", name, f"--label={LABEL}={label}", *options, image, *command)
    try:
        if files:
            docker("cp", "-", f"{name}:/", text=archive(files))
        for source, path in copied:
            docker("cp", "--archive", "-", f"{name}:{Path(path).parent}", text=taken(source, path))
        docker("start", name)
    except RehearsalError:
        remove(name)
        raise


def archive(files: Mapping[str, str]) -> bytes:
    """Return a tar archive; a value that begins with ``->`` is a symlink."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path.lstrip("/"))
            if content.startswith("->"):
                member.type, member.linkname = tarfile.SYMTYPE, content[2:]
                tar.addfile(member)
            else:
                member.size = len(content.encode())
                tar.addfile(member, BytesIO(content.encode()))
    return buffer.getvalue()


def image(name: str, tag: str, recipe: str) -> str:
    """Build an image from a Dockerfile unless it is there; return its tag."""
    if not docker("image", "ls", "-q", tag):
        shield(name, "docker0")  # the build runs in containers too
        docker("build", "-q", "-t", tag, "-", text=recipe, timeout=600)
    return tag


@contextlib.contextmanager
def inside(pid: int) -> Iterator[None]:
    """Put this thread into the network namespace of a process; sockets made there stay there."""
    own = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
    try:
        target = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            if os.fstat(target).st_ino == os.fstat(own).st_ino:
                raise RehearsalError(f"process {pid} is in the machine's own network namespace")
            os.setns(target, os.CLONE_NEWNET)
        finally:
            os.close(target)
        try:
            yield
        finally:
            os.setns(own, os.CLONE_NEWNET)
    finally:
        os.close(own)


def listen_inside(pid: int, address: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Return a socket that is bound inside a container's network and nowhere else."""
    with inside(pid):
        sock = socket.socket(socket.AF_INET, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(128)
        return sock


def connect_inside(pid: int, address: str, port: int, timeout: float) -> socket.socket:
    """Connect from inside a container's network."""
    with inside(pid):
        return socket.create_connection((address, port), timeout=timeout)


def cpu_seconds(container_id: str) -> float | None:
    """Return the CPU time that a container has used (cgroup v1 or v2), or None when it is gone."""
    first, second = Path(f"/sys/fs/cgroup/cpuacct/docker/{container_id}/cpuacct.usage"), Path("/sys/fs/cgroup")
    if first.exists():
        return int(first.read_text()) / 1e9
    for path in (second / f"docker/{container_id}", second / f"system.slice/docker-{container_id}.scope"):
        if (path / "cpu.stat").exists():
            return int((path / "cpu.stat").read_text().split()[1]) / 1e6
    return None


def ask_socket(path: Path, command: str) -> str:
    """Return what a program answers to a line on its socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(str(path))
        sock.sendall(command.encode())
        return b"".join(iter(lambda: sock.recv(65536), b"")).decode()
