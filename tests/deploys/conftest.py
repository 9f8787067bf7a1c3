"""An environment with one fleet in two colours, in a cloud without containers (every registered target is healthy)."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import importlib
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.core.cloud.site import COLOURS
from deploys.engine import Engine
from deploys.spec import Fleet, Release, Spec

ROOT = Path(__file__).resolve().parents[2]
number = itertools.count(1)
SCRIPT = (ROOT / "roles/aws_fleet/files/user_data.py").read_text(encoding="utf-8")  # what the role gives a host


def release(name: str) -> Release:
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    return Release(f"releases/site-{sha256[:12]}.json", sha256)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def certificate(name: str, days: int = 1) -> tuple[bytes, bytes]:
    """Return a self-signed certificate and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name}.invalid")])
    now = dt.datetime.now(dt.UTC)
    made = x509.CertificateBuilder(
        subject, subject, key.public_key(), x509.random_serial_number(), now, now + dt.timedelta(days=days)
    )
    pem = serialization.Encoding.PEM
    return (
        made.sign(key, hashes.SHA256()).public_bytes(pem),
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


class Environment:
    """One environment as a deploy finds it: blue serves the release ``one``."""

    def __init__(self, endpoint: str, hosts: int = 2) -> None:
        self.endpoint, self.name = endpoint, f"shop{next(number)}"
        self.groups = {colour: f"{self.name}-main-{colour}" for colour in COLOURS}
        self.s3().create_bucket(Bucket=f"{self.name}-artefacts")
        self._balancer()
        for colour in COLOURS:
            self._group(colour, hosts if colour == "blue" else 0)
        self.until(lambda: self.states("blue").count("healthy") == hosts)

    def client(self, service: str) -> Any:
        return boto3.client(
            service, region_name="us-east-1", endpoint_url=self.endpoint, aws_access_key_id="rehearsal",
            aws_secret_access_key="rehearsal", config=Config(retries={"max_attempts": 8, "mode": "standard"}),
        )  # fmt: skip

    def s3(self) -> Any:
        return self.client("s3")

    def _balancer(self) -> None:
        ec2, elb = self.client("ec2"), self.client("elbv2")
        vpc = ec2.create_vpc(CidrBlock="10.30.0.0/16")["Vpc"]["VpcId"]
        self.subnets = [
            ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.30.{n}.0/24", AvailabilityZone=f"us-east-1{zone}")["Subnet"]["SubnetId"]
            for n, zone in enumerate("ab")
        ]  # fmt: skip
        self.vpc = vpc
        self.targets = {
            colour: elb.create_target_group(Name=self.groups[colour], Protocol="HTTPS", Port=443, VpcId=vpc)["TargetGroups"][0]["TargetGroupArn"]
            for colour in COLOURS
        }  # fmt: skip
        made = elb.create_load_balancer(Name=self.name, Subnets=self.subnets)["LoadBalancers"][0]["LoadBalancerArn"]
        self.balancer = made
        pem, key = certificate(self.name)
        arn = self.client("acm").import_certificate(Certificate=pem, PrivateKey=key)
        forward = {
            "Type": "forward",
            "ForwardConfig": {
                "TargetGroups": [
                    {"TargetGroupArn": self.targets[colour], "Weight": 100 if colour == "blue" else 0} for colour in COLOURS
                ],
                "TargetGroupStickinessConfig": {"Enabled": True, "DurationSeconds": 3600},
            },
        }  # fmt: skip
        listener = elb.create_listener(
            LoadBalancerArn=made, Protocol="HTTPS", Port=443, Certificates=[{"CertificateArn": arn["CertificateArn"]}], DefaultActions=[forward]
        )["Listeners"][0]["ListenerArn"]  # fmt: skip
        elb.create_rule(
            ListenerArn=listener,
            Priority=10,
            Conditions=[{"Field": "path-pattern", "Values": ["/wine/*"]}],
            Actions=[forward],
        )

    def _group(self, colour: str, hosts: int) -> None:
        name = self.groups[colour]
        settings = {"group": name, "release": release("one").key, "sha256": release("one").sha256, "bucket": "x"}
        data = {
            "ImageId": "ami-12c6146b", "InstanceType": "t3.small",
            "UserData": base64.b64encode(SCRIPT.replace("@SETTINGS@", json.dumps(settings)).encode()).decode(),
            "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": name}, {"Key": "Colour", "Value": colour}]}],
        }  # fmt: skip
        self.client("ec2").create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data)
        self.client("autoscaling").create_auto_scaling_group(
            AutoScalingGroupName=name, MinSize=min(hosts, 1), MaxSize=hosts * 2, DesiredCapacity=hosts,
            LaunchTemplate={"LaunchTemplateName": name, "Version": "1"}, VPCZoneIdentifier=",".join(self.subnets),
            TargetGroupARNs=[self.targets[colour]], HealthCheckType="ELB", HealthCheckGracePeriod=60,
        )  # fmt: skip

    def remove(self) -> None:
        """Remove what the cloud would go on looking after, fifty times as often as AWS does."""
        for group in self.groups.values():
            self.client("autoscaling").delete_auto_scaling_group(AutoScalingGroupName=group, ForceDelete=True)
        elb = self.client("elbv2")
        elb.delete_load_balancer(LoadBalancerArn=self.balancer)
        for target in self.targets.values():
            elb.delete_target_group(TargetGroupArn=target)

    # ------------------------------------------------------------ what a test asks

    def spec(self, name: str, **more: Any) -> Spec:
        fleet = Fleet("main", self.groups, self.groups, low=1, high=4, desired=2, release=release(name))
        known = Spec(
            environment=self.name, region="us-east-1", bucket=f"{self.name}-artefacts", balancer=self.name, fleets=(fleet,),
            bake_seconds=0.2, ready_seconds=20, keep_old_seconds=600, poll_seconds=0.05, operator="ana", lease_seconds=6,
        )  # fmt: skip
        return replace(known, **more)

    def engine(self, spec: Spec, abort: threading.Event | None = None) -> Engine:
        self.lines: list[str] = []
        return Engine(spec, self.lines.append, abort or threading.Event())

    def quiet(self) -> Engine:
        return Engine(self.spec("one"), lambda _: None, threading.Event())

    def states(self, colour: str) -> list[str]:
        engine = self.quiet()
        return list(engine.cloud.hosts(engine.spec.fleets[0], colour).values())

    def weights(self) -> dict[str, int]:
        engine = self.quiet()
        return engine.cloud.weights(engine.spec.fleets[0])

    def every_rule(self) -> list[dict[str, int]]:
        """Weights of each rule by colour."""
        names = {arn: colour for colour, arn in self.targets.items()}
        rules = self.quiet().cloud._rules()
        return [
            {
                names[share["TargetGroupArn"]]: share["Weight"]
                for share in rule["Actions"][0]["ForwardConfig"]["TargetGroups"]
            }
            for rule in rules
        ]

    def live_release(self) -> Release | None:
        weights = self.weights()
        live = max(COLOURS, key=lambda colour: weights[colour])
        return self.quiet().cloud.release_of(self.groups[live])

    def until(self, ask: Callable[[], Any], seconds: float = 30) -> Any:
        deadline = time.monotonic() + seconds
        while not (answer := ask()):
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.05)
        return answer

    def process(self, command: str, spec: Spec) -> subprocess.Popen[str]:
        """Run ``python -m deploys`` as an operator's command does."""
        started = subprocess.Popen(
            [sys.executable, "-m", "deploys", command], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=os.environ,
        )  # fmt: skip
        assert started.stdin is not None
        started.stdin.write(json.dumps(plain(spec)) + "\n")
        started.stdin.flush()
        return started


def plain(spec: Spec) -> dict[str, Any]:
    """Return a spec as the JSON that the command reads."""
    rows = [{**fleet.__dict__, "release": fleet.release.__dict__} for fleet in spec.fleets]
    probe = spec.probe.__dict__ if spec.probe else None
    return {**spec.__dict__, "fleets": rows, "probe": probe}


@contextlib.contextmanager
def rehearsed(state: Path, speed: int) -> Iterator[str]:
    """Run a cloud without containers in a process of its own; give where it answers."""
    port = free_port()
    command = [sys.executable, "-m", "rehearsal", "--state", str(state)]
    flags = ["--no-bodies", "--speed", str(speed), "--port", str(port), "--name", f"deploys-{port}"]
    subprocess.run([*command, "up", *flags], cwd=ROOT, check=True, capture_output=True, timeout=180)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        subprocess.run([*command, "down"], cwd=ROOT, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a cloud fifty times as fast as AWS."""
    with rehearsed(tmp_path_factory.mktemp("deploys"), 50) as url:
        yield url


@pytest.fixture
def environment(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Environment]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "rehearsal")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "rehearsal")
    made = Environment(endpoint)
    yield made
    made.remove()


@pytest.fixture
def release_named() -> Callable[[str], Release]:
    return release


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Give the program that runs on a host, with credentials of the emulated account."""
    monkeypatch.syspath_prepend(str(ROOT / "roles/aws_fleet/files"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    first, found = importlib.import_module("user_data"), importlib.import_module("instance")
    monkeypatch.setattr(
        first, "keys", lambda: {"AccessKeyId": "rehearsal", "SecretAccessKey": "rehearsal", "Token": "t"}
    )
    yield found
    for name in ("instance", "user_data"):
        sys.modules.pop(name)
