"""The cloud plane's story, against a rehearsed account without bodies: preview, make, again, drift, remove, make again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
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
# modules that report a change although there is none; each with where it is known
ALWAYS_CHANGED: dict[str, str] = {}
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

    def interrupt(self, name: str, *flags: str, at: str) -> None:
        """Run a playbook and interrupt it, as Ctrl-C does, when it prints ``at``."""
        with subprocess.Popen(
            self.command(name, *flags), cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        ) as running:  # fmt: skip
            assert running.stdout is not None
            lines = []
            for line in running.stdout:
                lines.append(line)
                if at in line:
                    os.killpg(running.pid, signal.SIGINT)
                    break
            else:
                pytest.fail(f"{name} never printed {at!r}\n{''.join(lines)[-4000:]}")
            running.stdout.read()
            assert running.wait(timeout=120) != 0

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
    """Give a rehearsed account, empty at first; the tests of this file are one story, in order."""
    made = Cloud(tmp_path_factory.mktemp("cloud") / "state")
    made.rehearsal("up", "--no-bodies", "--name", "cloud-test", "--port", str(PORT))
    yield made
    made.rehearsal("down")


def changed(output: str) -> list[str]:
    """Return the tasks that say they changed something."""
    found = re.findall(r"^ *[\d.]+ s  changed  (.*?) \[", output, re.MULTILINE)
    return [name for name in found if name not in ALWAYS_CHANGED]


def seconds(output: str) -> float:
    match = re.search(r"([\d.]+) s  in all", output)
    assert match, output[-2000:]
    return float(match[1])


def test_1_an_empty_account_can_be_previewed_and_checked_and_nothing_is_written(aws: Cloud) -> None:
    before = len(aws.requests())
    shown = aws.play("preview")
    assert re.search(r"\+ load balancer +pergola-rehearsal +[\d.]+", shown)
    assert re.search(r"\+ VPC +pergola-rehearsal +free", shown)
    assert re.search(r"rehearsal: \d+ to make, 0 to change, 0 to remove, 0 as wanted", shown)
    aws.play("cloud", "--check")
    assert aws.writes(before) == []
    assert aws.described() == {}


def test_2_an_interrupted_run_on_an_account_with_faults_is_run_again_and_ends_right(
    aws: Cloud, record_property: pytest.RecordProperty
) -> None:
    aws.rehearsal("fault", "throttle", "0.05")
    aws.rehearsal("fault", "error", "0.03")
    try:
        aws.interrupt("cloud", at="Security groups allow what is needed")
        output = aws.play("cloud")
    finally:
        aws.rehearsal("fault", "none")
    record_property("first run, seconds", seconds(output))
    refused = [row for row in aws.requests() if row["status"] in {500, 503}]
    assert len(refused) > 10
    kinds = {kind for kind, _ in aws.described()}
    assert kinds >= {
        "VPC",
        "subnet",
        "security group",
        "endpoint",
        "flow log",
        "role",
        "bucket",
        "secret",
        "database",
        "budget",
    }


def test_3_a_second_run_changes_nothing(aws: Cloud, record_property: pytest.RecordProperty) -> None:
    before = len(aws.requests())
    output = aws.play("cloud")
    assert changed(output) == []
    assert aws.writes(before) == []
    record_property("second run, seconds", seconds(output))


def test_4_a_made_account_is_as_planned_and_previewing_it_writes_nothing(aws: Cloud) -> None:
    before = len(aws.requests())
    shown = aws.play("preview")
    assert re.search(r"rehearsal: 0 to make, 0 to change, 0 to remove, \d+ as wanted", shown), shown
    aws.play("drift")
    assert aws.writes(before) == []


def test_5_what_somebody_changed_by_hand_is_named_and_put_right(aws: Cloud) -> None:
    ec2, rehearsed = aws.client("ec2"), aws.account()
    group = next(thing for thing in account.security_groups(rehearsed) if thing.name == "pergola-rehearsal-hosts")
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.authorize_security_group_ingress(GroupId=group.handle, IpPermissions=[ssh])
    ec2.create_vpc(
        CidrBlock="10.99.0.0/16",
        TagSpecifications=[{"ResourceType": "vpc", "Tags": [{"Key": key, "Value": value} for key, value in
                                                            {**rehearsed.plan["tags"], "Name": "pergola-rehearsal-old"}.items()]}],
    )  # fmt: skip
    shown = aws.play("drift", check=False)
    assert re.search(r"~ security group +pergola-rehearsal-hosts +free  ingress", shown), shown
    assert re.search(r"- VPC +pergola-rehearsal-old", shown), shown
    assert "0 to make, 1 to change, 1 to remove" in shown
    checked = aws.play("cloud", "--check")
    assert changed(checked) == ["aws_network : Security groups allow what is needed and nothing else"]


def test_6_a_removal_asks_for_the_name_and_when_interrupted_goes_on(aws: Cloud) -> None:
    old = aws.described()
    aws.play("destroy", "-e", "confirm=production", check=False)
    assert aws.described() == old
    aws.interrupt("destroy", "-e", "confirm=rehearsal", "-e", "destroy_pause=0.2", at="(watchers)")
    assert aws.described()
    output = aws.play("destroy", "-e", "confirm=rehearsal", "-e", "destroy_pause=0.2")
    assert changed(output)
    assert aws.described() == {}
    assert account.sweep(aws.account()) == []


def test_7_made_again_it_is_what_it_was(aws: Cloud) -> None:
    aws.play("cloud")
    first = aws.described()
    aws.play("destroy", "-e", "confirm=rehearsal", "-e", "destroy_pause=0.2")
    aws.play("cloud")
    deadline = time.monotonic() + 60
    while (second := aws.described()) != first and time.monotonic() < deadline:
        time.sleep(1)  # the scaling group launches its hosts by itself
    assert second == first
