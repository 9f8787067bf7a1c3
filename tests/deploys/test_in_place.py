"""A deploy on the one host without a balancer: the controller here, the host's own program there, S3 and CloudWatch between them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from deploys.in_place import WISH, InPlace
from deploys.spec import DeployError, Release, Spec
from deploys.store import CURRENT
from tests.deploys.conftest import Environment, release


class Host:
    """The program of a host in a thread: all of it but installing and starting, which is done by name."""

    def __init__(self, environment: Environment, program: Any, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.program, self.served, self.refuses, self.restarts = program, ["one"], set[str](), 0
        self.names = {release(name).key: name for name in ("one", "two", "three", "bad")}
        settings = {
            "bucket": f"{environment.name}-artefacts", "region": "us-east-1", "group": environment.groups["blue"], "in_place": True,
            "release": release("one").key, "sha256": release("one").sha256,
        }  # fmt: skip
        index = folder / "index.json"
        index.write_text(json.dumps({"host": {}}))
        (folder / "settings.json").write_text(json.dumps(settings))
        for name, value in {
            "HOME": folder, "HEARD": folder / "heard", "WISH": 0.1, "become": self.become, "fetch": lambda *_: index,
            "unpacked": lambda *_: folder, "run": lambda *_: program.release(), "subprocess": self,
        }.items():  # fmt: skip
            patch.setattr(program, name, value)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch, args=(settings,), daemon=True)

    class CalledProcessError(Exception):
        """What the program expects of ``subprocess``."""

    def run(self, command: list[str], **_: Any) -> None:
        assert command == ["systemctl", "--no-block", "restart", "pergola-instance.service"]
        self.restarts += 1

    def watch(self, settings: dict[str, Any]) -> None:
        wishes = self.program.Wishes(settings)
        while not self.over.wait(0.05):
            wishes.look(time.monotonic())

    def become(self, settings: dict[str, Any]) -> None:
        name = self.names[settings["release"]]
        if name in self.refuses:
            raise self.program.RefusedError(f"{name} does not answer")
        self.served.append(name)

    def boots_with(self) -> str:
        return self.names[json.loads((self.program.HOME / "settings.json").read_text())["release"]]


@pytest.fixture
def shop(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Environment]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "rehearsal")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "rehearsal")
    made = Environment(endpoint, hosts=1)
    yield made
    made.remove()


@pytest.fixture
def host(shop: Environment, instance: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    made = Host(shop, instance, tmp_path, monkeypatch)
    made.thread.start()
    yield made
    made.over.set()
    made.thread.join(10)


def spec(shop: Environment, name: str, **more: Any) -> Spec:
    return shop.spec(name, **{"in_place": True, "metrics": "shop", "log_group": "/shop/host", **more})


def engine(shop: Environment, name: str, abort: threading.Event | None = None, **more: Any) -> InPlace:
    shop.lines = []
    return InPlace(spec(shop, name, **more), shop.lines.append, abort or threading.Event())


def launched_with(shop: Environment) -> Release | None:
    return shop.quiet().cloud.release_of(shop.groups["blue"])


def wished(shop: Environment) -> str:
    found = shop.quiet().store.read(WISH.format(shop.groups["blue"]))
    return found[0]["sha256"] if found else ""


def test_the_host_serves_the_release_and_its_successor_would(shop: Environment, host: Host) -> None:
    assert engine(shop, "two").deploy() is True
    assert "in the other slots of its host" in shop.lines[0]
    assert host.served[-1] == "two"
    assert host.boots_with() == "two"
    assert host.restarts == 1
    assert launched_with(shop) == release("two")
    assert shop.states("blue") == ["healthy"], "the host is the one that was there"
    assert engine(shop, "two").deploy() is False
    (row,) = engine(shop, "two").store.history()
    assert (row["ended"], row["fleets"]["main"]["old"]["sha256"]) == ("live", release("one").sha256)


def test_back_to_what_was_live_before(shop: Environment, host: Host) -> None:
    engine(shop, "two").deploy()
    nothing = Release("", "0" * 64)
    back = engine(shop, "two")
    back.spec = Spec.of({**back.spec.__dict__, "probe": None,
                         "fleets": [{**fleet.__dict__, "release": nothing.__dict__} for fleet in back.spec.fleets]})  # fmt: skip
    assert back.rollback() is True
    assert host.served == ["one", "two", "one"]
    assert launched_with(shop) == release("one")


def test_what_the_host_refuses_is_taken_back_and_the_host_has_put_it_back_by_itself(
    shop: Environment, host: Host
) -> None:
    host.refuses.add("bad")
    with pytest.raises(DeployError, match="taken back: main: the host refused it and serves what it had; why is in the log group /shop/host"):  # fmt: skip
        engine(shop, "bad").deploy()
    assert host.served[-1] == "one"
    assert host.boots_with() == "one"
    assert host.restarts == 0
    assert launched_with(shop) == release("one")
    assert wished(shop) == release("one").sha256
    assert engine(shop, "two").deploy() is True, "the next one finds nothing in its way"


def test_a_host_that_says_nothing_is_asked_for_what_it_had(shop: Environment) -> None:
    with pytest.raises(DeployError, match="taken back: not ready after 1 s"):
        engine(shop, "two", ready_seconds=1).deploy()
    assert wished(shop) == release("one").sha256
    assert launched_with(shop) == release("one")


def test_whoever_ends_it_gets_everything_back(shop: Environment) -> None:
    abort = threading.Event()
    threading.Timer(1, abort.set).start()
    with pytest.raises(DeployError, match="taken back: the operator ended it"):
        engine(shop, "two", abort).deploy()
    assert wished(shop) == release("one").sha256


def test_what_a_dead_controller_left_is_taken_back(shop: Environment) -> None:
    process = shop.process("deploy", spec(shop, "two", lease_seconds=2))
    assert process.stdout is not None
    assert any("  launch  " in line for line in process.stdout)
    look = engine(shop, "two")
    shop.until(lambda: wished(shop) == release("two").sha256)
    process.kill()
    process.wait()
    assert look.status()["under_way"]["what"] == "deploy"
    shop.until(lambda: look.unfinished()["abandoned"])
    assert "taken back" in look.settle_alone()
    assert wished(shop) == release("one").sha256
    assert look.store.read(CURRENT) is None


def test_an_alarm_takes_it_back(shop: Environment, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = engine(shop, "two", bake_seconds=20, alarms=("errors",))
    rings = threading.Event()
    monkeypatch.setattr(watched.cloud, "firing", lambda _: ["errors"] if rings.is_set() else [])
    threading.Thread(target=lambda: (shop.until(lambda: host.served[-1] == "two"), rings.set()), daemon=True).start()
    with pytest.raises(DeployError, match="taken back: in alarm: errors"):
        watched.deploy()
    shop.until(lambda: host.served[-1] == "one")
    assert launched_with(shop) == release("one")


def test_the_address_leads_to_the_host_that_serves(
    shop: Environment, instance: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    ec2, (there,) = shop.client("ec2"), shop.quiet().cloud.group(shop.groups["blue"])["Instances"]
    settings = {"region": "us-east-1", "address": f"{shop.name}-main"}
    monkeypatch.setattr(instance, "metadata", lambda _: there["InstanceId"])
    with pytest.raises(
        RuntimeError, match=rf"no address with the name {shop.name}-main; run ansible-playbook site.yml"
    ):
        instance.take_address(settings)
    made = ec2.allocate_address(
        Domain="vpc",
        TagSpecifications=[{"ResourceType": "elastic-ip", "Tags": [{"Key": "Name", "Value": settings["address"]}]}],
    )
    for _ in range(2):  # again, after a reboot
        instance.take_address(settings)
        (row,) = ec2.describe_addresses(AllocationIds=[made["AllocationId"]])["Addresses"]
        assert row["InstanceId"] == there["InstanceId"]
    ec2.disassociate_address(AssociationId=row["AssociationId"])
    instance.take_address({**settings, "bake": True})  # on the way to an image
    instance.take_address({"region": "us-east-1"})  # behind a balancer
    assert not ec2.describe_addresses(AllocationIds=[made["AllocationId"]])["Addresses"][0].get("InstanceId")
    ec2.release_address(AllocationId=made["AllocationId"])
