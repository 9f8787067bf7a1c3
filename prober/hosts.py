"""New releases for a host in a container, for tests and benches: what a deploy would bring, without a playbook's seconds."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.core import bundle, manifest

ROOT = Path(__file__).resolve().parents[1]


class HostError(RuntimeError):
    """A command on the host failed; the message has what it said."""


class ContainerHost:
    """A host in a container, asked through ``docker exec``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def ask(self, script: str, *, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a shell script and return how it ended and what it said, each stream by itself."""
        return subprocess.run(
            ["docker", "exec", self.name, "sh", "-euc", script],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    def sh(self, script: str, *, check: bool = True, timeout: float = 300) -> str:
        """Run a shell script; return its output (and errors, when they are not raised).

        Raises:
            HostError: It failed, unless ``check`` is off.
        """
        done = self.ask(script, timeout=timeout)
        if check and done.returncode != 0:
            raise HostError(f"{self.name}: {script}\nended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout + ("" if check else done.stderr)

    def pid(self) -> int:
        """Return the process id of its init on this machine: its namespaces are found by it."""
        told = subprocess.run(
            ["docker", "inspect", "--format", "{{.State.Pid}}", self.name], capture_output=True, text=True, check=True
        )
        return int(told.stdout)

    def pergola(self, *words: str) -> dict[str, Any]:
        """Run ``pergola <words> --json``; return its answer, also when it refused."""
        script = f"pergola {' '.join(words)} --json"
        done = self.ask(script, timeout=600)
        # only what it prints: what it says beside that quotes the apps' logs, which are JSON too
        answers = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if not answers:
            raise HostError(f"{self.name}: {script} said no JSON:\n{done.stdout}{done.stderr}")
        answer: dict[str, Any] = json.loads(answers[-1])
        return answer

    def app(self, name: str) -> dict[str, Any]:
        """Return an app's row of ``pergola status``."""
        rows: dict[str, dict[str, Any]] = {row["app"]: row for row in self.pergola("status")["apps"]}
        return rows[name]

    def python(self) -> str:
        """Return the host's Python as major.minor."""
        return self.sh("python3 -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'").strip()

    def install_changed(self, name: str, change: Callable[[Path], None]) -> str:
        """Build a changed copy of an app of this project and install it on the host; return the release's id."""
        with tempfile.TemporaryDirectory(prefix="pergola-release-") as scratch:
            folder = Path(scratch) / name
            shutil.copytree(ROOT / "app" / name, folder, ignore=shutil.ignore_patterns("__pycache__"))
            change(folder)
            built = bundle.build(
                ROOT,
                manifest.load(folder),
                out=ROOT / "build" / "bundles",
                python=self.python(),
                machine=self.sh("uname -m").strip(),
            )
            incoming = f"/opt/pergola/incoming/{Path(built.archive).name}"
            subprocess.run(
                ["docker", "cp", "--quiet", built.archive, f"{self.name}:{incoming}"], check=True, capture_output=True
            )
        words = [name, built.release, f"--archive={incoming}", f"--sha256={built.archive_sha256}"]
        try:
            answer = self.pergola("install", *words)
        finally:
            self.sh(f"rm -f {incoming}")
        if answer.get("failed"):
            raise HostError(str(answer["msg"]))
        return built.release

    def wait_settled(self, name: str, seconds: float = 60) -> None:
        """Wait until no slot of the app drains.

        Raises:
            HostError: It still does after that time.
        """
        deadline = time.monotonic() + seconds
        while self.app(name)["draining"]:
            if time.monotonic() > deadline:
                raise HostError(f"{self.name}: {name} still drains after {seconds:.0f} s")
            time.sleep(0.3)
