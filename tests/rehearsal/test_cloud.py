"""The cloud plane's story, against a rehearsed account without bodies."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from app.core import cloud, manifest
from app.core.cloud import account

ROOT = Path(__file__).resolve().parents[2]
PORT = 29670
ENDPOINT = f"http://127.0.0.1:{PORT}"
PLAYBOOK = ROOT / ".venv" / "bin" / "ansible-playbook"
WRITES = re.compile(
    r"^(Create|Put|Delete|Modify|Update|Set|Tag|Untag|Attach|Detach|Associate|Disassociate|Authorize|Revoke|Run|Terminate|Add|Remove"
    r"|Register|Deregister|Import|Request|Change|Start|Stop|Subscribe|Publish|Allocate|Release|Replace|Rotate|Restore|Enable|Disable)"
)

pytestmark = pytest.mark.timeout(1500)


class Cloud:
    """A rehearsed account, and the playbooks against it."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.environment = {**os.environ, "AWS_ENDPOINT_URL": ENDPOINT, "ANSIBLE_FORCE_COLOR": "0"}

    def rehearsal(self, *words: str) -> None:
        command = [sys.executable, "-m", "rehearsal", "--state", str(self.state), *words]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=180)

    def command(self, name: str, *flags: str) -> list[str]:
        return [str(PLAYBOOK), f"playbooks/{name}.yml", "-i", "inventories/rehearsal", *flags]

    def play(self, name: str, *flags: str, check: bool = True) -> str:
        """Run a playbook to its end and return what it printed."""
        done = subprocess.run(
            self.command(name, *flags),
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=1200,
        )
        if check and done.returncode:
            pytest.fail(
                f"{name} {' '.join(flags)} ended with {done.returncode}\n{done.stdout[-8000:]}\n{done.stderr[-2000:]}"
            )
        return done.stdout

    def client(self, service: str, **where: str) -> Any:
        return boto3.client(
            service, region_name=where.get("region", "us-east-1"), endpoint_url=ENDPOINT, aws_access_key_id="rehearsal",
            aws_secret_access_key="rehearsal",
        )  # fmt: skip

    def account(self) -> account.Account:
        """Return the account as seen by the plan of inventories/rehearsal."""
        given = yaml.safe_load(
            (ROOT / "inventories" / "rehearsal" / "group_vars" / "all.yml").read_text(encoding="utf-8")
        )
        number = self.client("sts").get_caller_identity()["Account"]
        plan = cloud.build(
            given["pergola_cloud"],
            manifest.load_all(ROOT, given["pergola_apps"]),
            environment="rehearsal",
            account=number,
        )
        return account.Account(self.client, plan)

    def described(self) -> dict[tuple[str, str], Any]:
        """Return what there is, without what AWS names anew each time."""
        changing = {"host of a group", "snapshot"}
        things = account.found(self.account())
        return {(thing.kind, thing.name): dict(thing.details) for thing in things if thing.kind not in changing}

    def requests(self) -> list[dict[str, Any]]:
        lines = (self.state / "requests.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def writes(self, since: int) -> list[str]:
        """Return the calls after the first ``since`` that wrote something."""
        found = []
        for row in self.requests()[since:]:
            method, _, path = row["action"].partition(" ")
            rest = bool(path)  # REST services have a method and a path for an action
            if (rest and method not in {"GET", "HEAD"}) or (not rest and WRITES.match(row["action"])):
                found.append(f"{row['service']} {row['action']}")
        return found


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Give a rehearsed account, empty at first; made anew for this file."""
    made = Cloud(tmp_path_factory.mktemp("cloud") / "state")
    made.rehearsal("up", "--no-bodies", "--name", "cloud-test", "--port", str(PORT))
    yield made
    made.rehearsal("down")


def test_1_an_empty_account_can_be_previewed_and_checked_and_nothing_is_written(aws: Cloud) -> None:
    before = len(aws.requests())
    shown = aws.play("preview")
    assert re.search(r"\+ load balancer +pergola-rehearsal +[\d.]+", shown)
    assert re.search(r"\+ VPC +pergola-rehearsal +free", shown)
    assert re.search(r"rehearsal: \d+ to make, 0 to change, 0 to remove, 0 as wanted", shown)
    aws.play("cloud", "--check")
    assert aws.writes(before) == []
    assert aws.described() == {}
