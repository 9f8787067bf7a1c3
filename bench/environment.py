"""A rehearsed environment of a bench: made and removed by the project's own commands."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3

ROOT = Path(__file__).resolve().parents[1]


def say(text: str) -> None:
    """Print progress."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def for_host(name: str, https: int, http: int) -> Callable[..., str]:
    """Return what runs the project's commands for one host of a bench's own (`make up-local`), and gives what they print.

    The command ends the bench when it fails, with its last words.
    """
    environment = {
        **os.environ, "PERGOLA_LOCAL_HOST": name, "PERGOLA_HTTPS_PORT": str(https), "PERGOLA_HTTP_PORT": str(http),
    }  # fmt: skip

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            words = done.stdout[-3000:] + done.stderr[-2000:]
            raise SystemExit(f"bench: {shlex.join(command)} ended with {done.returncode}\n{words}")
        return done.stdout

    return run


class Environment:
    """One rehearsed environment with a name and ports of its own."""

    def __init__(self, name: str, apps: list[Any], speed: float, *, https: int, http: int, port: int) -> None:
        self.name, self.apps, self.speed, self.port = name, apps, speed, port
        self.url, self.endpoint = f"https://127.0.0.1:{https}", f"http://127.0.0.1:{port}"
        self.environment = {
            **os.environ, "PERGOLA_REHEARSAL": name, "PERGOLA_HTTPS_PORT": str(https), "PERGOLA_HTTP_PORT": str(http),
            "PERGOLA_CLOUD_PORT": str(port), "PERGOLA_SPEED": str(speed), "AWS_ENDPOINT_URL": self.endpoint,
        }  # fmt: skip

    def run(self, *command: str) -> str:
        """Run a command of the project; its progress goes to standard error."""
        done = subprocess.run(command, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"bench: {' '.join(command)} ended with {done.returncode}\n{done.stdout[-3000:]}")
        return done.stdout

    def up(self, **settings: Any) -> float:
        """Make the environment, or bring it to changed settings; return the seconds."""
        began = time.monotonic()
        self.run("scripts/rehearse", "up", "--extra-vars", json.dumps({"pergola_apps": self.apps, **settings}))
        return time.monotonic() - began

    def client(self, service: str) -> Any:
        """Return a client of its AWS account."""
        keys = {"aws_access_key_id": "rehearsal", "aws_secret_access_key": "rehearsal"}
        return boto3.client(service, region_name="us-east-1", endpoint_url=self.endpoint, **keys)

    def status(self) -> dict[str, Any]:
        """Return what there is."""
        command = [sys.executable, "-m", "rehearsal", "--state", f"build/run/{self.name}", "status", "--json"]
        return dict(json.loads(self.run(*command)))

    def healthy(self) -> dict[str, str]:
        """Return the zone of each healthy host."""
        rows = self.status()["instances"]
        return {row["instance"]: row["zone"] for row in rows if "healthy" in row["health"].values()}

    def until(self, ask: Callable[[], Any], what: str, seconds: float = 1200) -> float:
        """Wait until an answer is true; return the seconds it took."""
        began = time.monotonic()
        while not ask():
            if time.monotonic() - began > seconds:
                raise SystemExit(f"bench: {what} did not come within {seconds:.0f} s; see: make logs")
            time.sleep(0.5)
        return time.monotonic() - began

    def resize(self, group: str, hosts: int) -> None:
        """Ask a scaling group for so many hosts, as its least too: without visitors its own policies would take a wish back at once."""
        self.client("autoscaling").update_auto_scaling_group(
            AutoScalingGroupName=group, MinSize=hosts, DesiredCapacity=hosts
        )

    def hurt(self, kind: str) -> tuple[float, float]:
        """Kill or wedge a host, or lose a zone; return the seconds until the balancer noticed, and until as many were healthy."""
        before = self.healthy()
        zone = min(before.values())
        victims = {host for host, where in before.items() if kind == "zone" and where == zone} or {min(before)}
        began = time.monotonic()
        self.run("scripts/rehearse", "fault", kind, zone if kind == "zone" else min(victims))
        self.until(lambda: not victims & set(self.healthy()), f"detection of {kind}")
        detected = time.monotonic() - began
        self.until(lambda: len(self.healthy()) >= len(before), f"recovery from {kind}")
        mended = time.monotonic() - began
        if kind == "zone":
            self.run("scripts/rehearse", "fault", "none")
        return detected, mended

    def settings(self) -> dict[str, Any]:
        """Return the inventory's cloud settings."""
        text = self.run(".venv/bin/ansible-inventory", "-i", "inventories/rehearsal", "--host", "localhost")
        return dict(json.loads(text)["pergola_cloud"])
