"""``make up``, as stories in this order: from nothing to a page, twice the same, closed, healing, and gone."""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from prober.process import ProbeProcess

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.docker, pytest.mark.long, pytest.mark.timeout(1500)]
REACH = "python3 -c 'import socket; socket.create_connection((\"{}\", {}), 3)'"


class Whole:
    """An environment with the portal alone: what is proved does not depend on how many apps there are."""

    name = "rehearsal-whole"
    https, http, port = 29643, 29680, 29670
    group = "pergola-rehearsal-main-blue"
    apps = '{"pergola_apps": ["portal"]}'

    def run(self, *command: str, check: bool = True, seconds: float = 1400) -> subprocess.CompletedProcess[str]:
        """Run a command of the project with this environment's name and ports."""
        environment = {
            **os.environ, "PERGOLA_REHEARSAL": self.name, "PERGOLA_HTTPS_PORT": str(self.https), "PERGOLA_HTTP_PORT": str(self.http),
            "PERGOLA_CLOUD_PORT": str(self.port), "PERGOLA_SPEED": "10", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "ANSIBLE_FORCE_COLOR": "0",
        }  # fmt: skip
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=seconds
        )
        if check and done.returncode:
            pytest.fail(
                f"{' '.join(command)}: {done.returncode}\n{done.stdout[-5000:]}\n{done.stderr[-2000:]}\n{self.said()}"
            )
        return done

    def said(self) -> str:
        """Return what the hosts said while they configured themselves."""
        return self.run("scripts/rehearse", "logs", check=False).stdout[-4000:]

    def status(self) -> dict[str, Any]:
        line = [
            str(ROOT / ".venv/bin/python"),
            "-m",
            "rehearsal",
            "--state",
            f"build/run/{self.name}",
            "status",
            "--json",
        ]
        return dict(json.loads(self.run(*line).stdout))

    def client(self, service: str) -> Any:
        keys = {"aws_access_key_id": "rehearsal", "aws_secret_access_key": "rehearsal"}
        return boto3.client(service, region_name="us-east-1", endpoint_url=f"http://127.0.0.1:{self.port}", **keys)

    def healthy(self) -> dict[str, str]:
        """Return the zone of each healthy host."""
        rows = self.status()["instances"]
        return {row["instance"]: row["zone"] for row in rows if "healthy" in row["health"].values()}

    def page(self, path: str = "/") -> tuple[int, str]:
        """GET a page through the balancer, as a new visitor."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with urllib.request.urlopen(f"https://127.0.0.1:{self.https}{path}", timeout=20, context=context) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""
        except OSError as error:
            return 0, str(error)

    def on(self, instance: str, script: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a script on a host; only tests do."""
        line = ["docker", "exec", f"{self.name}-{instance}", "sh", "-euc", script]
        return subprocess.run(line, capture_output=True, text=True, check=False, timeout=seconds)

    def until(self, ask: Callable[[], Any], what: str, seconds: float = 600) -> Any:
        deadline = time.monotonic() + seconds
        while not (answer := ask()):
            if time.monotonic() > deadline:
                pytest.fail(f"{what} did not come within {seconds:.0f} s\n{self.said()}")
            time.sleep(1)
        return answer


@pytest.fixture(scope="module")
def whole(root: None) -> Iterator[Whole]:
    """Give the environment that `make up` makes; it is taken down at the end, whatever happened."""
    made = Whole()
    made.run("scripts/rehearse", "down", check=False)
    try:
        made.run("scripts/rehearse", "up", "--extra-vars", made.apps)
        yield made
    finally:
        made.run("scripts/rehearse", "down", check=False)


def test_two_hosts_in_two_zones_serve_a_page(whole: Whole) -> None:
    assert sorted(whole.healthy().values()) == ["us-east-1a", "us-east-1b"]
    status, text = whole.page()
    assert status == 200
    assert "Pergola" in text
    assert whole.status()["problems"] == {}


def test_nothing_came_from_the_control_node_but_the_release(whole: Whole) -> None:
    calls = [json.loads(line) for line in (ROOT / "build/run" / whole.name / "requests.jsonl").read_text().splitlines()]
    fetched = {
        call["path"].rpartition("/")[2] for call in calls if call["from"] != "machine" and call["service"] == "s3"
    }
    assert {name.partition("-")[0] for name in fetched} >= {"site", "host", "self", "portal", "layer"}
    answered = [call for call in calls if call["action"] == "CompleteLifecycleAction"]
    assert len(answered) == 2
    assert all(call["from"] != "machine" for call in answered)
    for instance in whole.healthy():
        assert whole.on(instance, "test -e /etc/ssh/sshd_config").returncode, "a host has no SSH server"


def test_the_second_run_changes_nothing(whole: Whole) -> None:
    again = whole.run("scripts/rehearse", "up", "--extra-vars", whole.apps)
    recap = dict(re.findall(r"^(\w+) +ok=\d+ changed=(\d+) failed=0", again.stdout, re.MULTILINE))
    assert set(recap) >= {"aws_balancer", "aws_fleet"}
    assert {role: count for role, count in recap.items() if count != "0"} == {}


def test_the_host_plane_on_a_host_changes_nothing(whole: Whole) -> None:
    one = min(whole.healthy())
    script = "set -a; . /etc/environment; python3 /opt/pergola/site/host-*/instance.py check 2>&1 | tail -20"
    done = whole.on(one, script, seconds=600)
    assert " changed=0 failed=0" in done.stdout, done.stdout


def test_hosts_are_closed(whole: Whole) -> None:
    rows = {row["instance"]: row for row in whole.status()["instances"]}
    one, two = sorted(whole.healthy())
    assert whole.on(one, REACH.format(rows[two]["address"], 443)).returncode, "a host reaches only what it must"
    for address, port in (("192.0.2.1", 443), ("198.51.100.7", 80)):
        assert whole.on(one, REACH.format(address, port)).returncode, "private hosts have no way out but the endpoints"
    front = whole.status()["balancers"][0]["address"]
    assert whole.on(one, REACH.format(front, 443)).returncode


def test_the_metadata_address_is_the_vpcs_own(whole: Whole) -> None:
    one = min(whole.healthy())
    first = "import urllib.request as u; print(u.urlopen('http://169.254.169.254/latest/meta-data/', timeout=5).status)"
    done = whole.on(one, f'python3 -c "{first}"')
    assert "401" in done.stderr, "version 1 is refused"
    rules = subprocess.run(["iptables", "-w", "-S", "DOCKER-USER"], capture_output=True, text=True, check=True).stdout
    ours = [rule for rule in rules.splitlines() if f"rehearsal:{whole.name}" in rule]
    assert any("169.254.0.0/16" in rule and rule.endswith("DROP") for rule in ours)


def test_a_host_that_reboots_is_replaced_and_nobody_notices(whole: Whole) -> None:
    victim = min(whole.healthy())
    flags = ["--rate=20", "--sessions=0", "--get=/api/apps", "--post="]
    with ProbeProcess(f"https://127.0.0.1:{whole.https}", *flags) as probe:
        time.sleep(3)
        whole.client("ec2").reboot_instances(InstanceIds=[victim])
        whole.until(lambda: len(now := whole.healthy()) == 2 and victim not in now, "another host in its place")
        seen = probe.stop()
    assert seen["failed"] == 0, seen["failures"]
    assert seen["sent"] > 100
    said = whole.status()["events"]
    assert any("in response to a user health-check" in line for line in said), said
    assert not any(f"{victim} did not end" in line for line in said), said


def test_a_lost_zone_is_survived_and_a_host_replaced(whole: Whole) -> None:
    before = whole.healthy()
    lost = next(zone for zone in sorted(set(before.values())))
    whole.run("scripts/rehearse", "fault", "zone", lost)
    dead = {instance for instance, zone in before.items() if zone == lost}
    whole.until(lambda: not dead & set(whole.healthy()), "the end of the zone", seconds=120)
    assert {whole.page()[0] for _ in range(10)} == {200}
    whole.run("scripts/rehearse", "fault", "none")
    after = whole.until(lambda: len(found := whole.healthy()) >= 2 and found, "a replacement")
    assert not dead & set(after)
    group = whole.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[whole.group])
    sizes = {key: group["AutoScalingGroups"][0][key] for key in ("MinSize", "DesiredCapacity", "MaxSize")}
    assert sizes == {"MinSize": 2, "DesiredCapacity": 2, "MaxSize": 4}


def test_down_leaves_nothing(whole: Whole) -> None:
    whole.run("scripts/rehearse", "down")
    for kind in ("container", "network"):
        flags = ["--all"] if kind == "container" else []
        line = ["docker", kind, "ls", *flags, "-q", "--filter", f"label=rehearsal={whole.name}"]
        assert subprocess.run(line, capture_output=True, check=True).stdout == b""
