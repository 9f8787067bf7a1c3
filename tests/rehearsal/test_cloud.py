"""The cloud plane's story, against a rehearsed account without bodies."""

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
PLAYBOOK = ROOT / ".venv" / "bin" / "ansible-playbook"
WRITES = re.compile(
    r"^(Create|Put|Delete|Modify|Update|Set|Tag|Untag|Attach|Detach|Associate|Disassociate|Authorize|Revoke|Run|Terminate|Add|Remove"
    r"|Register|Deregister|Import|Request|Change|Start|Stop|Subscribe|Publish|Allocate|Release|Replace|Rotate|Restore|Enable|Disable)"
)

pytestmark = pytest.mark.timeout(1500)


class Cloud:
    """A rehearsed account, and the playbooks against it."""

    def __init__(self, state: Path, inventory: Path = ROOT / "inventories" / "rehearsal", port: int = PORT) -> None:
        self.state, self.inventory, self.endpoint = state, inventory, f"http://127.0.0.1:{port}"
        self.there: dict[tuple[str, str], Any] = {}  # what was there before it was removed
        self.environment = {**os.environ, "AWS_ENDPOINT_URL": self.endpoint, "ANSIBLE_FORCE_COLOR": "0"}

    def rehearsal(self, *words: str) -> str:
        command = [sys.executable, "-m", "rehearsal", "--state", str(self.state), *words]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=180).stdout

    def command(self, name: str, *flags: str) -> list[str]:
        return [str(PLAYBOOK), f"playbooks/{name}.yml", "-i", str(self.inventory), *flags]

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
            service, region_name=where.get("region", "us-east-1"), endpoint_url=self.endpoint, aws_access_key_id="rehearsal",
            aws_secret_access_key="rehearsal",
        )  # fmt: skip

    def account(self) -> account.Account:
        """Return the account as seen by the plan of the inventory."""
        given = yaml.safe_load((self.inventory / "group_vars" / "all.yml").read_text(encoding="utf-8"))
        number = self.client("sts").get_caller_identity()["Account"]
        plan = cloud.build(
            given["pergola_cloud"],
            manifest.load_all(ROOT, given["pergola_apps"]),
            environment=given["pergola_environment"],
            account=number,
        )
        return account.Account(self.client, plan)

    def described(self) -> dict[tuple[str, str], Any]:
        """Return what there is, without what AWS names anew each time."""
        changing = {"host of a group", "snapshot"}
        own = {"hosts", "instance_type"}  # of a group: how many hosts it has at the moment is its own affair
        return {
            (thing.kind, thing.name): {key: value for key, value in thing.details.items() if key not in own}
            for thing in account.found(self.account())
            if thing.kind not in changing
        }

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
    assert "playbooks/cloud.yml -i inventories/rehearsal" in aws.play("status")
    assert aws.writes(before) == []
    assert aws.described() == {}


# ---------------------------------------------------------------- the whole life of an account: make test-rehearsal


def changed_of(printed: str) -> dict[str, str]:
    """Return how many tasks of each lane changed something, where any did."""
    recap = dict(re.findall(r"^(\w+) +ok=\d+ changed=(\d+) failed=0", printed, re.MULTILINE))
    assert "aws_network" in recap, printed[-3000:]
    return {lane: count for lane, count in recap.items() if count != "0"}


@pytest.mark.long
def test_2_a_run_that_is_killed_is_run_again_through_errors_of_the_cloud(aws: Cloud) -> None:
    """Killed in the middle; then every tenth call throttled and every twentieth failing: botocore's retries, set in one place, carry it."""
    process = subprocess.Popen(
        aws.command("cloud"), cwd=ROOT, env=aws.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not any(row["action"] == "CreateVpc" for row in aws.requests()):
        assert process.poll() is None
        assert time.monotonic() < deadline, "no VPC was made"
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    aws.rehearsal("fault", "throttle", "0.1")
    aws.rehearsal("fault", "error", "0.05")
    try:
        aws.play("cloud")
    finally:
        aws.rehearsal("fault", "none")
    assert re.search(r"ok +The account is what the inventory says", aws.play("drift"))


@pytest.mark.long
def test_3_a_second_run_changes_nothing(aws: Cloud) -> None:
    assert changed_of(aws.play("cloud")) == {}


@pytest.mark.long
def test_4_a_provisioned_account_can_be_previewed_and_checked_and_nothing_is_written(aws: Cloud) -> None:
    before, there = len(aws.requests()), aws.described()
    assert re.search(r"rehearsal: 0 to make, 0 to change, 0 to remove, \d+ as wanted", aws.play("preview"))
    aws.play("cloud", "--check", "--diff")
    assert aws.writes(before) == []
    assert aws.described() == there


@pytest.mark.long
def test_5_what_somebody_changed_by_hand_is_found_and_put_right(aws: Cloud) -> None:
    ec2 = aws.client("ec2")
    (group,) = ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["pergola-rehearsal-hosts"]}])[
        "SecurityGroups"
    ]
    world = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=[world])
    told = aws.play("drift", check=False)
    assert "failed=1" in told
    assert re.search(r"~ security group +pergola-rehearsal-hosts", told)
    assert "aws_network" in changed_of(aws.play("cloud"))
    aws.play("drift")


@pytest.mark.long
def test_6_what_a_dead_controller_left_is_told_and_taken_back(aws: Cloud) -> None:
    """Nothing boots here, so the deploy is killed while it waits for its hosts."""
    deploy = aws.account().plan["deploy"]
    wanted = {"key": "releases/site-0123456789ab.json", "sha256": "0" * 64}
    fleets = [{**row, "release": wanted} for row in deploy["fleets"]]
    keys = {"AWS_ACCESS_KEY_ID": "rehearsal", "AWS_SECRET_ACCESS_KEY": "rehearsal"}
    process = subprocess.Popen(
        [sys.executable, "-m", "deploys", "deploy"], cwd=ROOT, env={**aws.environment, **keys}, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    given = {
        **deploy,
        "fleets": fleets,
        "probe": None,
        "lease_seconds": 3,
        "operator": "ana",
        "options": {"ignore_alarms": True},
    }
    process.stdin.write(json.dumps(given) + "\n")
    process.stdin.flush()
    lines: list[str] = []
    assert any("  launch  " in (lines.append(line) or line) for line in process.stdout), lines
    assert re.search(
        r"the deploy that ana began at \S+ is under way, in its phase '(launch|ready)'", aws.play("status")
    )
    process.kill()
    process.wait()
    time.sleep(5)  # the lease ends
    left = r"the deploy that ana began at \S+ was interrupted in its phase '(launch|ready)'"
    for _ in range(2):
        assert re.search(left, aws.play("status", "--check"))
    assert re.search(left, aws.play("history"))
    assert re.search(rf"{left}: taken back", aws.play("status"))
    assert not re.search(left, aws.play("status"))
    assert "taken back" in aws.play("history")


@pytest.mark.long
def test_7_the_wrong_name_removes_nothing(aws: Cloud) -> None:
    before, there = len(aws.requests()), aws.described()
    told = aws.play("destroy", "-e", "confirm=production", check=False)
    assert "nothing was removed: the name of this environment is rehearsal" in " ".join(told.split())
    assert aws.writes(before) == []
    assert aws.described() == there


@pytest.mark.long
def test_8_destroy_that_is_killed_is_run_again_and_leaves_nothing(aws: Cloud) -> None:
    aws.there = aws.described()
    command = aws.command("destroy", "-e", "confirm=rehearsal", "-e", "destroy_pause=1")
    process = subprocess.Popen(
        command, cwd=ROOT, env=aws.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )  # fmt: skip
    before, deadline = len(aws.requests()), time.monotonic() + 300
    while not any(row.startswith("autoscaling Delete") for row in aws.writes(before)):
        assert process.poll() is None
        assert time.monotonic() < deadline, "no group was removed"
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    aws.play("destroy", "-e", "confirm=rehearsal", "-e", "destroy_pause=1")
    assert aws.described() == {}
    tagged = aws.client("resourcegroupstaggingapi").get_resources(
        TagFilters=[{"Key": "Environment", "Values": ["rehearsal"]}]
    )
    over = [
        one["InstanceId"]
        for pair in aws.client("ec2").describe_instances()["Reservations"]
        for one in pair["Instances"]
        if one["State"]["Name"] == "terminated"  # AWS tells of them for an hour more
    ]
    left = [row["ResourceARN"] for row in tagged["ResourceTagMappingList"]]
    assert [arn for arn in left if arn.rpartition("/")[2] not in over] == []
    aws.play("destroy", "-e", "confirm=rehearsal")  # there is nothing to remove, which is no error


@pytest.mark.long
def test_9_an_environment_that_is_made_again_equals_the_old_one(aws: Cloud) -> None:
    aws.play("cloud")
    assert aws.described() == aws.there
