"""The one host of the profile ``demo``, as stories in this order: from nothing to its address, a release in place, refused, back, replaced."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench import bad_releases
from prober.process import ProbeProcess
from tests.rehearsal.conftest import rehearsed
from tests.rehearsal.test_whole_site import ROOT, Whole

pytestmark = [pytest.mark.docker, pytest.mark.long, pytest.mark.timeout(3000)]


class Demo(Whole):
    """inventories/demo with what any inventory needs in a rehearsal."""

    name = "rehearsal-demo"
    https, http, port = 29443, 29480, 29470
    group = "pergola-demo-main-blue"

    def __init__(self, folder: Path) -> None:
        given = yaml.safe_load((ROOT / "inventories/demo/group_vars/all.yml").read_text(encoding="utf-8"))
        given["pergola_cloud"]["deploy"] = {"bake_seconds": 5}
        self.folder, self.inventory = folder, rehearsed(folder, given)

    def up(self) -> str:
        return str(self.run("env", f"PERGOLA_INVENTORY={self.inventory}", "scripts/rehearse", "up").stdout)

    def play(self, name: str, *flags: str, check: bool = True, **given: Any) -> str:
        line = [
            ".venv/bin/ansible-playbook",
            f"playbooks/{name}.yml",
            "-i",
            str(self.inventory),
            "-e",
            json.dumps(given),
            *flags,
        ]
        done = self.run(*line, check=check)
        return str(done.stdout + done.stderr)

    def changed(self, stamp: str, *change: Any) -> list[Any]:
        """Return the apps, with a changed copy of one."""
        return ["portal", {"path": str(bad_releases.copy("wine", self.folder, stamp, *change))}]

    def host(self) -> tuple[str, str]:
        """Return the instance in service and its private address, where it is reached from this machine."""
        (row,) = (row for row in self.status()["instances"] if row["state"] == "InService")
        return row["instance"], row["address"]

    def taken_by(self) -> str:
        """Return which instance the address leads to."""
        (row,) = self.client("ec2").describe_addresses()["Addresses"]
        assert {tag["Key"]: tag["Value"] for tag in row["Tags"]}["Name"] == "pergola-demo-main"
        return str(row.get("InstanceId", ""))

    def served(self) -> str:
        """Return the live release of the app that is changed."""
        told = self.on(self.host()[0], "pergola status --json")
        return next(str(app["release"]) for app in json.loads(told.stdout)["apps"] if app["app"] == "wine")


@pytest.fixture(scope="module")
def demo(root: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Give the environment; it is taken down at the end, whatever happened."""
    made = Demo(tmp_path_factory.mktemp("demo"))
    made.run("scripts/rehearse", "down", check=False)
    try:
        made.up()
        yield made
    finally:
        made.run("scripts/rehearse", "down", check=False)


def test_one_host_serves_and_has_the_address(demo: Demo) -> None:
    instance, _ = demo.host()
    assert demo.taken_by() == instance
    assert demo.client("elbv2").describe_load_balancers()["LoadBalancers"] == []
    assert re.search(r"demo: 0 to make, 0 to change, 0 to remove", demo.play("preview"))
    assert "The account is what the inventory says" in demo.play("drift")


def test_the_dynamic_inventory_reaches_the_host(demo: Demo) -> None:
    line = [
        ".venv/bin/ansible",
        "-i",
        "inventories/fleet.aws_ec2.yml",
        "fleet_main",
        "-m",
        "command",
        "-a",
        "pergola status",
    ]
    keys = [
        "PERGOLA_ENVIRONMENT=demo",
        "AWS_ACCESS_KEY_ID=rehearsal",
        "AWS_SECRET_ACCESS_KEY=any-but-a-word-that-occurs",
    ]
    assert "wine" in demo.run("env", *keys, *line).stdout


def test_up_again_changes_nothing(demo: Demo) -> None:
    before = demo.host()
    recap = re.findall(r"^(\w+) +ok=\d+ changed=(\d+) failed=0", demo.up(), re.MULTILINE)
    assert recap
    assert {count for _, count in recap} == {"0"}, recap
    assert demo.host() == before


def test_a_release_comes_goes_back_and_comes_again_without_a_failed_request(demo: Demo) -> None:
    (instance, address), before = demo.host(), demo.served()
    with ProbeProcess(f"https://{address}", "--rate=5", "--sessions=2") as probe:
        told = demo.play("deploy", pergola_apps=demo.changed("in place"), allow_dirty=True)
        new = demo.served()
        assert re.search(r"main: the host serves it after \d+ s", told)
        demo.play("rollback")
        back = demo.served()
        seen = probe.stop()
    assert (new != before, back) == (True, before)
    assert (seen["failed"], seen["sockets_cut"]) == (0, 0), seen["failures"]
    assert demo.host() == (instance, address), "the host is the one that was there"
    history = demo.play("history")
    assert history.count("live") >= 3, "the first, the deploy, the rollback"


def test_a_bad_release_is_refused_and_the_host_serves_what_it_had(demo: Demo) -> None:
    before = demo.served()
    kind = next(kind for kind in bad_releases.KINDS if kind.name == "import error")
    told = demo.play("deploy", check=False, pergola_apps=demo.changed("bad", kind.change), allow_dirty=True)
    assert "taken back: main: the host refused it and serves what it had" in " ".join(told.split())
    assert demo.served() == before
    said = demo.on(demo.host()[0], "journalctl --no-pager --unit=pergola-release")
    assert "a_module_that_nobody_has" in said.stdout, said.stdout[-2000:]


def test_a_host_that_dies_has_a_successor_with_the_release_and_the_address(demo: Demo) -> None:
    (instance, _), before = demo.host(), demo.served()
    demo.run(".venv/bin/python", "-m", "rehearsal", "--state", f"build/run/{demo.name}", "fault", "kill", instance)
    demo.until(lambda: demo.taken_by() not in {"", instance}, "the address's move")
    demo.until(lambda: [row for row in demo.status()["instances"] if row["state"] == "InService"], "a successor")
    assert demo.served() == before


def test_destroy_leaves_nothing(demo: Demo) -> None:
    demo.play("destroy", confirm="demo")
    assert demo.client("ec2").describe_addresses()["Addresses"] == []
    assert demo.status()["instances"] == []
