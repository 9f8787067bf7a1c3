"""Images against the emulated AWS: baked, proved, published, pruned; and nothing left of one that fails. The test plays the hosts."""

from __future__ import annotations

import base64
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from deploys.bake import LEASE, Baker, tag
from deploys.cloud import _settings
from deploys.spec import DeployError, Spec


class Bakery:
    """An environment with what a bake needs beside it, and hosts that do what they are told."""

    def __init__(self, environment: Any, instance: ModuleType) -> None:
        self.environment, self.instance = environment, instance
        self.ec2 = environment.client("ec2")
        self.lines: list[str] = []
        for number, subnet in enumerate(environment.subnets):
            self.ec2.create_tags(
                Resources=[subnet], Tags=[{"Key": "Name", "Value": f"{environment.name}-private-{number}"}]
            )
        for name in ("hosts", "builder"):
            self.ec2.create_security_group(
                GroupName=f"{environment.name}-{name}", Description=name, VpcId=environment.vpc
            )
        environment.client("iam").create_instance_profile(InstanceProfileName=f"{environment.name}-host")
        self.tags = {"Project": environment.name, "Environment": "test", "Fleet": "main", "ManagedBy": "pergola"}
        self.builds, self.boots = True, True  # what becomes of the hosts
        self.seen: dict[str, dict[str, Any]] = {}
        self.over = threading.Event()

    def spec(self, name: str, *, seconds: int = 30, image: str = "", **options: Any) -> Spec:
        prefix = self.environment.name
        row = {
            "fleet": "main", "name": f"{prefix}-main", "instance_type": "t3.small", "profile": f"{prefix}-host", "disk_gb": 8, "launch_seconds": seconds,
            "image": image, "image_owner": "136693071363", "image_name": "debian-13-amd64-*", "tags": self.tags,
        }  # fmt: skip
        section = {
            "fleets": [row], "security_group": f"{prefix}-hosts", "subnets": [f"{prefix}-private-0", f"{prefix}-private-1"],
            "builder": {"subnets": [f"{prefix}-private-1"], "security_groups": [f"{prefix}-hosts", f"{prefix}-builder"], "address": True},
        }  # fmt: skip
        spec: Spec = self.environment.spec(name, metrics=prefix, options={"fleet": section, **options})
        return spec

    def bake(self, name: str, abort: threading.Event | None = None, **options: Any) -> dict[str, str]:
        return Baker(self.spec(name, **options), self.lines.append, abort or threading.Event()).bake()

    def images(self) -> dict[str, str]:
        """Return the value of the tag Current of each image that there is, the newest last."""
        rows = self.ec2.describe_images(
            Owners=["self"], Filters=[{"Name": "tag:Project", "Values": [self.tags["Project"]]}]
        )["Images"]
        return {
            row["ImageId"]: tag(row, "Current")
            for row in sorted(rows, key=lambda row: (tag(row, "Published"), row["CreationDate"]))
        }

    def hosts(self) -> list[dict[str, Any]]:
        """Return the machines of the bake that are not over."""
        wanted = [
            {"Name": "tag:Project", "Values": [self.tags["Project"]]},
            {"Name": "instance-state-name", "Values": ["pending", "running", "stopped"]},
        ]
        found = self.ec2.describe_instances(Filters=wanted)["Reservations"]
        return [row for reservation in found for row in reservation["Instances"]]

    def image_in(self, colour: str) -> str:
        return str(
            self.environment.quiet().cloud.template(self.environment.groups[colour], "$Latest")["LaunchTemplateData"][
                "ImageId"
            ]
        )

    def play(self) -> None:
        """Do what hosts do: become an image and power off, or serve; and say so."""
        while not self.over.wait(0.1):
            for row in self.hosts():
                if row["InstanceId"] in self.seen or row["State"]["Name"] != "running":
                    continue
                data = self.ec2.describe_instance_attribute(InstanceId=row["InstanceId"], Attribute="userData")[
                    "UserData"
                ]["Value"]
                told = _settings(base64.b64decode(data).decode())
                self.seen[row["InstanceId"]] = {**told, "row": row}
                well = self.builds if told.get("bake") else self.boots
                if told.get("bake") and well:
                    self.ec2.stop_instances(InstanceIds=[row["InstanceId"]])
                elif well is not None:
                    with pytest.MonkeyPatch.context() as patch:
                        patch.setattr(self.instance, "metadata", lambda _, host=row["InstanceId"]: host)
                        self.instance.tell_how_it_booted(told, well=well)


@pytest.fixture
def bakery(environment: Any, instance: ModuleType) -> Iterator[Bakery]:
    made = Bakery(environment, instance)
    playing = threading.Thread(target=made.play)
    playing.start()
    yield made
    made.over.set()
    playing.join()
    assert made.hosts() == [], "no host outlives the bake"


def test_an_image_is_baked_proved_and_published(bakery: Bakery, release_named: Callable[[str], Any]) -> None:
    before = bakery.image_in("blue")
    image = bakery.bake("two")["main"]
    assert bakery.images() == {image: "true"}
    (found,) = bakery.ec2.describe_images(ImageIds=[image])["Images"]
    expected = {**bakery.tags, "Release": release_named("two").short, "Name": found["Name"], "Current": "true"}
    assert {row["Key"]: row["Value"] for row in found["Tags"] if row["Key"] != "Published"} == expected
    builder, host = bakery.seen.values()
    assert (builder["row"]["ImageId"], host["row"]["ImageId"]) == (before, image)
    assert builder["bake"] is True
    assert "bake" not in host
    for one in (builder, host):
        assert (one["release"], one["sha256"]) == (release_named("two").key, release_named("two").sha256)
        assert not {"launch_hook", "terminate_hook"} & set(one), "no group waits for it"
    groups = [
        sorted(group["GroupName"].rpartition("-")[2] for group in one["row"]["SecurityGroups"])
        for one in (builder, host)
    ]
    assert groups == [["builder", "hosts"], ["hosts"]], "it is proved where hosts stand, with what hosts may"
    assert bakery.image_in("blue") == bakery.image_in("green") == image
    assert bakery.environment.quiet().cloud.image_of(bakery.environment.groups["blue"]) == before, (
        "running groups are left alone"
    )


def test_a_deploy_takes_the_new_image_along(bakery: Bakery) -> None:
    image = bakery.bake("two")["main"]
    bakery.environment.engine(bakery.environment.spec("two")).deploy()
    cloud = bakery.environment.quiet().cloud
    assert cloud.image_of(bakery.environment.groups["green"]) == image
    hosts = [row["InstanceId"] for row in cloud.group(bakery.environment.groups["green"])["Instances"]]
    found = bakery.ec2.describe_instances(InstanceIds=hosts)["Reservations"]
    assert {row["ImageId"] for reservation in found for row in reservation["Instances"]} == {image}


def test_the_same_release_is_baked_once_unless_forced(bakery: Bakery) -> None:
    first = bakery.bake("two")["main"]
    assert bakery.bake("two") == {}
    again = bakery.bake("two", force=True, base="baked")["main"]
    assert bakery.images() == {first: "false", again: "true"}
    bases = [one["row"]["ImageId"] for one in bakery.seen.values() if one.get("bake")]
    assert bases[1] == first, "it began from the current image"


@pytest.mark.parametrize("fails", ["builds", "boots"])
def test_what_fails_leaves_nothing_and_changes_nothing(bakery: Bakery, fails: str) -> None:
    first, before = bakery.bake("one")["main"], bakery.image_in("blue")
    setattr(bakery, fails, False)
    with pytest.raises(DeployError, match=r"i-\w+ gave up; the end of its console output says why"):
        bakery.bake("two")
    assert bakery.images() == {first: "true"}
    assert bakery.image_in("blue") == before


def test_a_host_that_says_nothing_is_not_waited_for_for_ever(bakery: Bakery) -> None:
    bakery.boots = None  # type: ignore[assignment]
    with pytest.raises(DeployError, match=r"the first host of ami-\w+, did not say that it serves within 1 s"):
        bakery.bake("two", seconds=1)
    assert bakery.images() == {}


def test_the_operator_ends_it(bakery: Bakery) -> None:
    bakery.builds, abort = None, threading.Event()  # type: ignore[assignment]
    threading.Thread(target=lambda: (bakery.environment.until(bakery.hosts), abort.set())).start()
    bakery.environment.lines = []
    with pytest.raises(DeployError, match="the operator ended it"):
        bakery.bake("two", abort)


def test_killed_and_run_again_it_converges(bakery: Bakery) -> None:
    bakery.builds = None  # type: ignore[assignment]
    bakery.environment.lines = []
    process = bakery.environment.process("bake", replace(bakery.spec("two"), lease_seconds=10))
    try:
        bakery.environment.until(bakery.hosts, 120)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(bakery.hosts()) == 1, "a dead controller leaves its builder"
    orphan = bakery.ec2.create_image(InstanceId=bakery.hosts()[0]["InstanceId"], Name="half", TagSpecifications=[
        {"ResourceType": "image", "Tags": [{"Key": key, "Value": value} for key, value in bakery.tags.items()]}
    ])["ImageId"]  # fmt: skip
    bakery.builds = True
    with pytest.raises(DeployError, match=r"ana bakes here since .*; one at a time"):
        bakery.bake("two")
    store = bakery.environment.quiet().store
    bakery.environment.until(lambda: store.read(LEASE)[2] > 10)  # the dead one's lease
    assert bakery.bake("two")
    assert orphan not in bakery.images()
    assert list(bakery.images().values()) == ["true"]


def test_old_images_go_but_never_one_in_use(bakery: Bakery) -> None:
    first = bakery.bake("a", keep=2)["main"]
    bakery.environment.engine(bakery.environment.spec("a")).deploy()
    made = [bakery.bake(name, keep=2)["main"] for name in "bcd"]
    assert list(bakery.images()) == [first, *made[1:]], "hosts run the first"
    assert f"{first} is old but in use" in "\n".join(bakery.lines)
    owned = {row["SnapshotId"] for row in bakery.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]}
    kept = bakery.ec2.describe_images(ImageIds=list(bakery.images()))["Images"]
    needed = {
        disk["Ebs"]["SnapshotId"]
        for row in kept
        for disk in row["BlockDeviceMappings"]
        if "SnapshotId" in disk.get("Ebs", {})
    }
    assert needed <= owned


def test_an_image_that_the_inventory_names_is_not_baked_over(bakery: Bakery) -> None:
    with pytest.raises(
        DeployError, match=r"pergola_cloud/fleets/main/image names ami-0123456789abcdef0: no baked image"
    ):
        bakery.bake("two", image="ami-0123456789abcdef0")
