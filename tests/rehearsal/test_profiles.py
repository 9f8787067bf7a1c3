"""The whole life of each inventory that comes with Pergola, and of others that are valid, in an account without bodies.

What is there is asked of AWS's own describe calls (``described.py``), and not of what preview, drift and destroy go by.
"""

from __future__ import annotations

import difflib
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.rehearsal import described
from tests.rehearsal.conftest import rehearsed
from tests.rehearsal.test_cloud import ROOT, Cloud, changed_of
from tests.unit.cloud.test_properties import TAGS, WORLD, inventories

PORT = 29650
REGION = "us-east-1"  # the one that has bodies, and zones with these names
PREVIEWED = {
    "vpc": "VPC", "nat gateway": "NAT gateway", "address": "public address", "subnet group": "database subnet group",
    "parameter group": "database parameter group", "profile": "instance profile", "firewall": "web firewall",
    **{kind: kind for kind in ("subnet", "route table", "internet gateway", "security group", "endpoint", "flow log", "launch template",
                               "scaling group", "load balancer", "target group", "database", "bucket", "secret", "role", "certificate",
                               "log group", "log query", "alarm", "dashboard", "topic", "trail", "parameter")},
}  # fmt: skip

pytestmark = [pytest.mark.long, pytest.mark.timeout(3000)]


def drawn(number: int) -> dict[str, Any]:
    """Return one of the inventories that hypothesis draws, always the same."""
    found: list[dict[str, Any]] = []

    @seed(number)
    @settings(max_examples=10, phases=[Phase.generate], database=None, suppress_health_check=list(HealthCheck))
    @given(inventories())
    def draw(inventory: dict[str, Any]) -> None:
        found.append(inventory)

    draw()
    needed = {
        "project": "pergola",  # the operator's policy is for this name
        "region": REGION,
        "secrets": {"recovery_days": 0},  # the same names are made again at once
    }
    return {**found[-1], **needed}


def vars_of(profile: str) -> dict[str, Any]:
    """Return the variables of an inventory that comes with Pergola, or of one that is drawn."""
    if profile.startswith("drawn"):
        number = int(profile.partition(" ")[2])
        return {
            "pergola_apps": ["portal", "wine"],
            "pergola_environment": f"drawn{number}",
            "pergola_cloud": drawn(number),
        }
    return dict(yaml.safe_load((ROOT / "inventories" / profile / "group_vars" / "all.yml").read_text(encoding="utf-8")))


class Profile(Cloud):
    """An account of its own, and what playbooks asked of it."""

    def __init__(self, state: Path, inventory: Path, port: int) -> None:
        super().__init__(state, inventory, port)
        self.calls: list[dict[str, Any]] = []

    def play(self, name: str, *flags: str, check: bool = True) -> str:
        before = len(self.requests())
        try:
            return super().play(name, *flags, check=check)
        finally:
            self.calls += self.requests()[before:]

    def provision(self, before: described.Rows) -> described.Rows:
        """Run the playbook, wait for the groups' hosts, and return what came into the account."""
        self.play("cloud")
        wanted = sum(fleet["desired"] for fleet in self.account().plan["fleet"]["fleets"])
        deadline = time.monotonic() + 60
        while (there := len(list(described.rows(self.client, "instance")))) != wanted:
            assert time.monotonic() < deadline, f"{there} hosts, {wanted} wished"
            time.sleep(0.5)
        return described.fresh(described.whole(self.client), before)


@pytest.fixture(params=["demo", "staging", "production", "drawn 1", "drawn 2"])
def profile(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Profile]:
    """Give an empty account, and an inventory with what any needs in a rehearsal."""
    variables = vars_of(request.param)
    made = Profile(tmp_path / "state", rehearsed(tmp_path, variables), PORT)
    made.rehearsal("up", "--no-bodies", "--name", "profile-test", "--port", str(PORT))
    try:
        if zone := variables["pergola_cloud"].get("domain", {}).get("zone"):
            made.client("route53").create_hosted_zone(Name=zone, CallerReference="test")
        yield made
    finally:
        made.rehearsal("down")


def made_with_its_vpc(row: dict[str, Any]) -> bool:
    """Return whether a thing is the main route table, or the default security group, which AWS makes with a VPC."""
    return row.get("GroupName") == "default" or any(each.get("Main") for each in row.get("Associations", []))


def untagged(rows: described.Rows) -> list[str]:
    """Return what lacks one of the four tags, of what can have any; the default security group has them too."""
    found = []
    for kind in rows.keys() - described.UNTAGGABLE:
        for row in rows[kind]:
            main = kind == "route table" and made_with_its_vpc(row)
            if not (main or set(described.tags(row)) >= TAGS):
                found.append(described.identity(kind, row))
    return found


def open_to_the_world(rows: described.Rows) -> dict[str, list[int]]:
    """Return the ports that each security group opens to the world."""
    found: dict[str, list[int]] = {}
    for group in rows["security group"]:
        for rule in group["IpPermissions"]:
            ranges = [row["CidrIp"] for row in rule["IpRanges"]] + [
                row["CidrIpv6"] for row in rule.get("Ipv6Ranges", [])
            ]
            if {WORLD, "::/0"} & set(ranges):
                found.setdefault(group["GroupName"].rpartition("-")[2], []).extend(
                    range(rule["FromPort"], rule["ToPort"] + 1)
                )
    return {name: sorted(ports) for name, ports in found.items()}


def previewed(rows: described.Rows) -> Counter[str]:
    """Return how many of each kind there are, in the words of the preview, of what is not made by something else that is there."""
    found = Counter[str]()
    for kind in rows.keys() & PREVIEWED.keys():
        for row in rows[kind]:
            by_policy = row.get("AlarmName", "").startswith("TargetTracking")
            found[PREVIEWED[kind]] += not (made_with_its_vpc(row) or by_policy)
    return +found


def unprotected(profile: Profile, confirm: tuple[str, ...]) -> described.Rows:
    """Try to remove what is protected, which removes nothing; then let go of it, and return what there is."""
    seen = len(profile.requests())
    told = profile.play("destroy", *confirm, check=False)
    assert re.search(r"nothing was removed: database \S+ has deletion protection", " ".join(told.split()))
    assert profile.writes(seen) == []
    variables = profile.inventory / "group_vars" / "all.yml"
    variables.write_text(
        variables.read_text(encoding="utf-8").replace("deletion_protection: true", "deletion_protection: false"),
        encoding="utf-8",
    )
    assert set(changed_of(profile.play("cloud"))) == {"aws_database"}
    return described.whole(profile.client)


def test_it_is_made_kept_removed_and_made_again_the_same(profile: Profile) -> None:
    before = described.whole(profile.client)
    shown = profile.play("preview")
    made = profile.provision(before)
    rows = re.findall(r"^ *\| \+ (\S.*?) {2,}\S", shown, re.MULTILINE)
    assert Counter(row for row in rows if row in PREVIEWED.values()) == previewed(made)
    assert untagged(made) == []
    front = "balancer" if made["load balancer"] else "hosts"
    assert open_to_the_world(made) == {front: [80, 443]}

    assert changed_of(profile.play("cloud")) == {}
    assert re.search(r"ok +The account is what the inventory says", profile.play("drift"))
    assert re.search(r": 0 to make, 0 to change, 0 to remove, \d+ as wanted", profile.play("preview"))
    confirm = ("-e", f"confirm={profile.account().plan['environment']}", "-e", "destroy_pause=1")
    if profile.account().plan["database"]["deletion_protection"]:
        made = described.fresh(unprotected(profile, confirm), before)
    profile.play("destroy", *confirm)
    left = described.fresh(described.whole(profile.client), before)
    assert {kind: rows for kind, rows in left.items() if rows} == {}

    again = profile.provision(before)
    differs = difflib.unified_diff(
        described.normalised(made), described.normalised(again), "before", "again", lineterm="", n=4
    )
    assert not (text := "\n".join(differs)), text

    log = ROOT / "build" / "run" / f"{profile.inventory.name}.requests.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("".join(json.dumps(call) + "\n" for call in profile.calls), encoding="utf-8")
    verify = [sys.executable, "scripts/operator_policy.py", "verify", str(log)]
    allowed = subprocess.run(verify, cwd=ROOT, capture_output=True, text=True, check=False)
    assert allowed.returncode == 0, (
        allowed.stdout + allowed.stderr + f"if it is right: scripts/operator_policy.py record {log}"
    )
