"""A rehearsed cloud with a body, started and ended by its own commands."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).resolve().parents[2]
PORT, HTTPS, HTTP = 29570, 29543, 29580
SERVE = """#!/bin/sh
mkdir -p /srv/www && cd /srv/www && hostname >index.html && echo ok >health
cat >/srv/serve.py <<'END'
import http.server, time
class Pages(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/slow":
            time.sleep(3600)
        super().do_GET()
http.server.ThreadingHTTPServer(("", 80), Pages).serve_forever()
END
cat >/etc/systemd/system/web.service <<'END'
[Service]
WorkingDirectory=/srv/www
ExecStart=/usr/bin/python3 /srv/serve.py
ExecStop=/bin/sh -c 'systemctl list-jobs --no-legend reboot.target kexec.target soft-reboot.target >/srv/jobs; sleep 3'
[Install]
WantedBy=multi-user.target
END
systemctl daemon-reload && systemctl enable --now web
"""


class Site:
    """What a team would have: two zones, hosts behind a balancer, a database."""

    name = "rehearsal-test"

    def __init__(self, state: Path) -> None:
        self.state = state
        self.built: dict[str, Any] = {}
        self.clients: dict[str, Any] = {}

    def command(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one command of the rehearsal."""
        line = [sys.executable, "-m", "rehearsal", "--state", str(self.state), *words]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
        if check and done.returncode:
            pytest.fail(f"{' '.join(words)}: {done.stdout}\n{done.stderr}")
        return done

    def up(self) -> subprocess.CompletedProcess[str]:
        return self.command(
            "up",
            "--name",
            self.name,
            "--port",
            str(PORT),
            "--https-port",
            str(HTTPS),
            "--http-port",
            str(HTTP),
            "--speed",
            "10",
        )

    def client(self, service: str) -> Any:
        """Return a client; making one costs more than a call."""
        if service not in self.clients:
            self.clients[service] = self.make_client(service)
        return self.clients[service]

    @staticmethod
    def make_client(service: str) -> Any:
        return boto3.client(
            service, region_name="us-east-1", endpoint_url=f"http://127.0.0.1:{PORT}", aws_access_key_id="rehearsal",
            aws_secret_access_key="rehearsal", config=Config(retries={"max_attempts": 5}),
        )  # fmt: skip

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.command("status", "--json").stdout))

    def until(self, ask: Callable[[], Any], what: str, seconds: float = 120) -> Any:
        """Wait until an answer is true, and return it."""
        deadline = time.monotonic() + seconds
        while not (answer := ask()):
            if time.monotonic() > deadline:
                pytest.fail(f"{what} did not come within {seconds:.0f} s\n{self.command('status').stdout}")
            time.sleep(0.3)
        return answer

    def healthy(self) -> list[str]:
        found = self.client("elbv2").describe_target_health(TargetGroupArn=self.built["group"])[
            "TargetHealthDescriptions"
        ]
        return sorted(t["Target"]["Id"] for t in found if t["TargetHealth"]["State"] == "healthy")

    def phases(self) -> list[str]:
        """Return the lifecycle state of each host of the fleet."""
        found = self.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=["fleet"])
        return [i["LifecycleState"] for i in found["AutoScalingGroups"][0]["Instances"]]

    def page(self, path: str = "/", seconds: float = 20) -> tuple[int, str]:
        """GET a page through the balancer."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with urllib.request.urlopen(f"https://127.0.0.1:{HTTPS}{path}", timeout=seconds, context=context) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""
        except OSError as error:
            return 0, str(error)

    def on(self, instance: str, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script on an instance."""
        line = ["docker", "exec", f"{self.name}-{instance}", "sh", "-euc", script]
        return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)

    def address(self, instance: str) -> str:
        found = self.client("ec2").describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
        return str(found["PrivateIpAddress"])

    def build(self) -> None:
        """Make the site through the API, from the VPC up."""
        ec2, elb = self.client("ec2"), self.client("elbv2")
        vpc = ec2.create_vpc(CidrBlock="10.91.0.0/16")["Vpc"]["VpcId"]
        subnets = [
            ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.91.{n}.0/24", AvailabilityZone=f"us-east-1{zone}")["Subnet"][
                "SubnetId"
            ]
            for n, zone in enumerate("ab")
        ]
        table = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"][0][
            "RouteTableId"
        ]
        ec2.create_vpc_endpoint(VpcId=vpc, ServiceName="com.amazonaws.us-east-1.s3", RouteTableIds=[table])
        groups = {
            n: ec2.create_security_group(GroupName=n, Description=n, VpcId=vpc)["GroupId"]
            for n in ("front", "hosts", "data")
        }
        for to, source, port in (("hosts", "front", 80), ("data", "hosts", 5432)):
            peer = {
                "IpProtocol": "tcp",
                "FromPort": port,
                "ToPort": port,
                "UserIdGroupPairs": [{"GroupId": groups[source]}],
            }
            ec2.authorize_security_group_ingress(GroupId=groups[to], IpPermissions=[peer])
        iam = self.client("iam")
        iam.create_role(RoleName="host", AssumeRolePolicyDocument="{}")
        iam.create_instance_profile(InstanceProfileName="host")
        iam.add_role_to_instance_profile(InstanceProfileName="host", RoleName="host")
        ami = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        data = {"ImageId": ami, "InstanceType": "t3.small", "UserData": base64.b64encode(SERVE.encode()).decode(),
                "IamInstanceProfile": {"Name": "host"}, "SecurityGroupIds": [groups["hosts"]],
                "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"}}  # fmt: skip
        ec2.create_launch_template(LaunchTemplateName="hosts", LaunchTemplateData=data)
        group = elb.create_target_group(Name="blue", Protocol="HTTP", Port=80, VpcId=vpc, HealthCheckPath="/health",
                                        HealthCheckIntervalSeconds=20, HealthCheckTimeoutSeconds=5, UnhealthyThresholdCount=3,
                                        HealthyThresholdCount=2)["TargetGroups"][0]["TargetGroupArn"]  # fmt: skip
        delay = [{"Key": "deregistration_delay.timeout_seconds", "Value": "20"}]
        elb.modify_target_group_attributes(TargetGroupArn=group, Attributes=delay)
        balancer = elb.create_load_balancer(Name="front", Subnets=subnets, SecurityGroups=[groups["front"]])[
            "LoadBalancers"
        ][0]
        certificate = self.client("acm").import_certificate(**self_signed())["CertificateArn"]
        elb.create_listener(LoadBalancerArn=balancer["LoadBalancerArn"], Protocol="HTTPS", Port=443,
                            Certificates=[{"CertificateArn": certificate}],
                            DefaultActions=[{"Type": "forward", "TargetGroupArn": group}])  # fmt: skip
        redirect = {
            "Type": "redirect",
            "RedirectConfig": {"Protocol": "HTTPS", "Port": "443", "StatusCode": "HTTP_301"},
        }
        elb.create_listener(
            LoadBalancerArn=balancer["LoadBalancerArn"], Protocol="HTTP", Port=80, DefaultActions=[redirect]
        )
        rds = self.client("rds")
        rds.create_db_subnet_group(DBSubnetGroupName="data", DBSubnetGroupDescription="data", SubnetIds=subnets)
        rds.create_db_instance(DBInstanceIdentifier="main", Engine="postgres", DBInstanceClass="db.t4g.micro", AllocatedStorage=20,
                               MasterUsername="owner", MasterUserPassword="it's a \\ secret", DBName="app",
                               DBSubnetGroupName="data", VpcSecurityGroupIds=[groups["data"]])  # fmt: skip
        self.client("autoscaling").create_auto_scaling_group(
            AutoScalingGroupName="fleet", MinSize=2, MaxSize=4, DesiredCapacity=2, VPCZoneIdentifier=",".join(subnets),
            LaunchTemplate={"LaunchTemplateName": "hosts", "Version": "1"}, TargetGroupARNs=[group], HealthCheckType="ELB",
            HealthCheckGracePeriod=300,
        )  # fmt: skip
        self.built = {"group": group, "balancer": balancer, "ami": ami, "subnets": subnets}


def self_signed() -> dict[str, bytes]:
    """Return a certificate for the balancer."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "app.example.test")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = builder.serial_number(1).not_valid_before(now).not_valid_after(now + dt.timedelta(days=2))
    pem = built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    form = serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return {"Certificate": pem, "CertificateChain": pem, "PrivateKey": secret}


def rehearsed(folder: Path, variables: dict[str, Any]) -> Path:
    """Return a folder of its own for an inventory, with what any needs in a rehearsal.

    Its name is the environment's: two runs on inventories of one name wait for each other.
    """
    rehearsal = yaml.safe_load((ROOT / "inventories/rehearsal/group_vars/all.yml").read_text(encoding="utf-8"))
    variables["pergola_aws_environment"] = rehearsal["pergola_aws_environment"]
    variables["pergola_cloud"].setdefault("logs", {})["agent"] = rehearsal["pergola_cloud"]["logs"]["agent"]
    inventory = folder / str(variables["pergola_environment"])
    shutil.copytree(ROOT / "inventories" / "demo", inventory)
    (inventory / "group_vars" / "all.yml").write_text(yaml.safe_dump(variables), encoding="utf-8")
    return inventory


@pytest.fixture(scope="session")
def root() -> None:
    """Skip what makes instances where it cannot."""
    if os.geteuid() != 0:
        pytest.skip("instances need root (network namespaces)")


@pytest.fixture(scope="session")
def site(root: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Give one built site; it is taken down at the end, whatever happened."""
    made = Site(tmp_path_factory.mktemp("cloud") / "state")
    try:
        made.up()
        made.build()
        yield made
    finally:
        made.command("down", check=False)
