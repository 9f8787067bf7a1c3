"""Parts of the rehearsal by themselves: HAProxy's configuration, packet filters, names, metadata, alarms, archives."""

from __future__ import annotations

import io
import json
import socket
import struct
import sys
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from emulator import names
from emulator.checks import matches
from emulator.metadata import look
from emulator.watch import Watch, computed, from_logs, judge
from emulator.world import Health, RehearsalError
from rehearsal import __main__ as command_line
from rehearsal import containers
from rehearsal.balancer import Balancers, match
from rehearsal.network import Networks
from tests.unit.rehearsal.conftest import Account


@pytest.mark.parametrize(
    ("status", "codes", "good"),
    [
        (200, "200", True),
        (204, "200", False),
        (302, "200-399", True),
        (404, "200,301-302", False),
        (301, "200,301-302", True),
    ],
)
def test_matcher(status: int, codes: str, good: bool) -> None:
    assert matches(status, codes) is good


def test_conditions_become_patterns() -> None:
    assert match({"Field": "path-pattern", "Values": ["/wine/*", "/a.b?"]}) == r"{ path -m reg ^/wine/.*$|^/a\.b.$ }"
    host = {"Field": "host-header", "HostHeaderConfig": {"Values": ["*.example.org"]}}
    assert match(host) == r"{ req.hdr(host),field(1,:) -m reg -i ^.*\.example\.org$ }"
    assert match({"Field": "source-ip", "SourceIpConfig": {"Values": ["10.0.0.0/8"]}}) == "{ src 10.0.0.0/8 }"


class Site:
    """A balancer with a blue and a green target group, and an instance in each."""

    def __init__(self, account: Account) -> None:
        self.account, self.elb = account, account.client("elbv2")
        self.blue, self.green = account.make_target_group(), account.make_target_group()
        ec2 = account.client("ec2")
        self.instances = ec2.run_instances(ImageId=account.ami, MinCount=2, MaxCount=2, SubnetId=account.subnets[0])[
            "Instances"
        ]
        for group, instance in zip((self.blue, self.green), self.instances, strict=True):
            self.elb.register_targets(TargetGroupArn=group, Targets=[{"Id": instance["InstanceId"]}])
        made = self.elb.create_load_balancer(Name=f"lb-{self.blue[-8:]}", Subnets=account.subnets)["LoadBalancers"][0]
        self.balancer = made["LoadBalancerArn"]

    def forward(self, blue: int, green: int) -> dict[str, Any]:
        shares = [{"TargetGroupArn": self.blue, "Weight": blue}, {"TargetGroupArn": self.green, "Weight": green}]
        return {"Type": "forward", "ForwardConfig": {"TargetGroups": shares}}

    def listener(self, action: dict[str, Any], port: int = 80) -> str:
        made = self.elb.create_listener(
            LoadBalancerArn=self.balancer, Protocol="HTTP", Port=port, DefaultActions=[action]
        )
        return str(made["Listeners"][0]["ListenerArn"])

    def config(self) -> str:
        world = self.account.cloud.world
        balancers = Balancers(world, Networks(world, lambda _: None))
        balancers.numbers[self.balancer] = 0
        plan = balancers._plan(0, world.backend("elbv2").load_balancers[self.balancer])
        return plan[-1]["haproxy.cfg"]


def test_weights_share_the_requests(account: Account) -> None:
    site = Site(account)
    site.listener(site.forward(90, 10))
    config = site.config()
    assert "set-var(txn.w80_0) rand(100)" in config
    assert "{ var(txn.w80_0) -m int lt 90 }" in config
    assert "{ var(txn.w80_0) -m int lt 100 }" in config
    for instance in site.instances:
        assert f"server {instance['InstanceId']} {instance['PrivateIpAddress']}:80" in config


def test_a_group_without_weight_gets_nothing(account: Account) -> None:
    site = Site(account)
    site.listener(site.forward(100, 0))
    assert "set-var(txn.w80_0) rand(100)" in site.config()
    assert sum("use_backend" in line for line in site.config().splitlines()) == 1


def test_the_unhealthy_get_nothing_unless_all_are(account: Account) -> None:
    site, health = Site(account), account.cloud.world.health
    site.listener({"Type": "forward", "TargetGroupArn": site.blue})
    site.elb.register_targets(TargetGroupArn=site.blue, Targets=[{"Id": site.instances[1]["InstanceId"]}])
    first, second = (i["InstanceId"] for i in site.instances)
    health[site.blue, first] = Health("unhealthy", "Target.Timeout")
    assert f"server {first}" not in site.config()
    assert f"server {second}" in site.config()
    health[site.blue, second] = Health("unhealthy", "Target.Timeout")
    assert f"server {first}" in site.config()
    assert f"server {second}" in site.config()


def test_the_first_rule_that_matches_decides(account: Account) -> None:
    site = Site(account)
    redirect = {"Type": "redirect", "RedirectConfig": {"Protocol": "HTTPS", "Port": "443", "StatusCode": "HTTP_301"}}
    listener = site.listener(redirect)
    site.elb.create_rule(ListenerArn=listener, Priority=1, Conditions=[{"Field": "path-pattern", "Values": ["/plain"]}],
                         Actions=[{"Type": "forward", "TargetGroupArn": site.blue}])  # fmt: skip
    lines = site.config().splitlines()
    rules = [line for line in lines if "set-var(txn.rule)" in line]
    assert "int(0) if { path -m reg ^/plain$ } !{ var(txn.rule) -m found }" in rules[0]
    assert "int(1) if  !{ var(txn.rule) -m found }" in rules[1]
    moved = [line for line in lines if "http-request redirect" in line]
    assert all("{ var(txn.rule) -m int 1 }" in line for line in moved)
    assert "location https://%[req.hdr(host),field(1,:)]:8443%[pathq]" in moved[0]
    assert "location https://%[req.hdr(host),field(1,:)]:443%[pathq]" in moved[1]


def test_security_groups_become_a_packet_filter(account: Account) -> None:
    ec2, world = account.client("ec2"), account.cloud.world
    front = ec2.create_security_group(GroupName="front", Description="front", VpcId=account.vpc)["GroupId"]
    hosts = ec2.create_security_group(GroupName="hosts", Description="hosts", VpcId=account.vpc)["GroupId"]
    ec2.authorize_security_group_ingress(GroupId=hosts, IpPermissions=[
        {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "UserIdGroupPairs": [{"GroupId": front}]},
        {"IpProtocol": "udp", "FromPort": 53, "ToPort": 54, "IpRanges": [{"CidrIp": "10.20.9.0/24"}]},
    ])  # fmt: skip
    peer = ec2.run_instances(
        ImageId=account.ami, MinCount=1, MaxCount=1, SubnetId=account.subnets[0], SecurityGroupIds=[front]
    )
    address = peer["Instances"][0]["PrivateIpAddress"]
    networks = Networks(world, lambda _: None)
    networks.made[account.vpc] = "10.20.0.2"
    groups = [world.backend("ec2").get_security_group_from_id(hosts)]
    rules = networks.rules(groups, account.vpc, account.subnets[0], public=True)
    assert f"-A INPUT -s {address}/32 -p tcp --dport 443:443 -j ACCEPT" in rules
    assert "-A INPUT -s 10.20.9.0/24 -p udp --dport 53:54 -j ACCEPT" in rules
    assert "-A OUTPUT ! -d 10.20.0.0/16 -j DROP" in rules  # no route leads out
    assert f"-A OUTPUT -d 10.20.0.2 -p tcp --dport {world.settings.port} -j DROP" in rules
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=account.vpc)
    table = ec2.create_route_table(VpcId=account.vpc)["RouteTable"]["RouteTableId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    ec2.associate_route_table(RouteTableId=table, SubnetId=account.subnets[0])
    assert "! -d" not in networks.rules(groups, account.vpc, account.subnets[0], public=True)
    assert "! -d" in networks.rules(groups, account.vpc, account.subnets[0], public=False)
    ec2.create_vpc_endpoint(VpcId=account.vpc, ServiceName="com.amazonaws.us-east-1.s3", RouteTableIds=[table])
    reached = networks.rules(groups, account.vpc, account.subnets[0], public=False)
    assert f"-A OUTPUT -d 10.20.0.2 -p tcp --dport {world.settings.port} -j ACCEPT" in reached


def test_names_of_the_account(account: Account) -> None:
    world, site = account.cloud.world, Site(account)
    name = world.backend("elbv2").load_balancers[site.balancer].dns_name
    world.addresses[site.balancer] = "10.20.0.246"
    route53 = account.client("route53")
    zone = route53.create_hosted_zone(Name="example.test", CallerReference=site.balancer)["HostedZone"]["Id"]
    records = [
        {
            "Name": "app.example.test",
            "Type": "A",
            "AliasTarget": {"HostedZoneId": "Z", "DNSName": name, "EvaluateTargetHealth": False},
        },
        {"Name": "www.example.test", "Type": "CNAME", "TTL": 60, "ResourceRecords": [{"Value": "app.example.test"}]},
        {"Name": "*.dev.example.test", "Type": "A", "TTL": 60, "ResourceRecords": [{"Value": "192.0.2.7"}]},
    ]
    changes = [{"Action": "UPSERT", "ResourceRecordSet": record} for record in records]
    route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": changes})
    assert names.lookup(world, name) == ["10.20.0.246"]
    assert names.lookup(world, "app.example.test.") == ["10.20.0.246"]
    assert names.lookup(world, "WWW.example.test") == ["10.20.0.246"]
    assert names.lookup(world, "x.dev.example.test") == ["192.0.2.7"]
    assert names.lookup(world, "nothing.example.test") == []


def test_a_query_is_answered() -> None:
    question = b"\x03app\x04test\x00" + struct.pack("!HH", 1, 1)
    query = b"\x12\x34" + struct.pack("!HHHHH", 0x0100, 1, 0, 0, 0) + question
    reply = names.answer(query, lambda name: ["192.0.2.7"] if name == "app.test" else [])
    assert reply[:2] == b"\x12\x34"
    assert reply.endswith(struct.pack("!HHIH", 1, 1, 5, 4) + socket.inet_aton("192.0.2.7"))
    assert struct.unpack("!H", names.answer(query, lambda _: [])[2:4])[0] & 0xF == 3


def test_metadata_of_an_instance(account: Account) -> None:
    ec2, iam, world = account.client("ec2"), account.client("iam"), account.cloud.world
    role = f"host-{account.vpc}"
    iam.create_role(RoleName=role, AssumeRolePolicyDocument="{}")
    iam.create_instance_profile(InstanceProfileName=role)
    iam.add_role_to_instance_profile(InstanceProfileName=role, RoleName=role)
    made = ec2.run_instances(ImageId=account.ami, MinCount=1, MaxCount=1, SubnetId=account.subnets[1], UserData="#!/bin/sh\necho hi\n",
                             IamInstanceProfile={"Name": role})["Instances"][0]  # fmt: skip
    instance = world.backend("ec2").get_instance_by_id(made["InstanceId"])
    assert look(world, instance, "/latest/user-data") == b"#!/bin/sh\necho hi\n"
    assert look(world, instance, "/latest/meta-data/placement/") == "availability-zone\nregion"
    assert look(world, instance, "/latest/meta-data/placement/availability-zone") == "us-east-1b"
    assert look(world, instance, "/latest/meta-data/iam/security-credentials/") == role
    keys = look(world, instance, f"/latest/meta-data/iam/security-credentials/{role}")
    assert isinstance(keys, str)
    assert '"Type": "AWS-HMAC"' in keys
    assert look(world, instance, "/latest/nothing") is None


@pytest.mark.parametrize(
    ("points", "treat", "state"),
    [
        ([5.0, 5.0, 5.0], None, "ALARM"),
        ([5.0, 1.0, 5.0], None, "OK"),
        ([None, None, None], None, "INSUFFICIENT_DATA"),
        ([None, None, None], "breaching", "ALARM"),
        ([None, None, None], "notBreaching", "OK"),
        ([None, None, None], "ignore", None),
        ([5.0, None, 5.0], "breaching", "ALARM"),
    ],
)
def test_alarms(points: list[float | None], treat: str | None, state: str | None) -> None:
    alarm = SimpleNamespace(comparison_operator="GreaterThanThreshold", threshold=2, evaluation_periods=3, datapoints_to_alarm=None,
                            treat_missing_data=treat)  # fmt: skip
    assert judge(points, alarm) == state


SHARE = "IF(all > 0, 100 * (FILL(apps, 0) + FILL(front, 0)) / all, 0)"


@pytest.mark.parametrize(
    ("expression", "values", "result"),
    [
        ("FILL(a, 0) + FILL(b, 0)", {"a": 2.0, "b": None}, 2),
        ("FILL(a, 0) + FILL(b, 0)", {"a": None, "b": None}, 0),
        (SHARE, {"all": 200.0, "apps": 3.0, "front": None}, 1.5),
        (SHARE, {"all": 0.0, "apps": None, "front": None}, 0),
        (SHARE, {"all": None, "apps": 3.0, "front": None}, None),
        ("a + b", {"a": 1.0, "b": None}, None),
        ("a / b", {"a": 1.0, "b": 0.0}, None),
        ("IF(a >= 2, a - 1, a * 10)", {"a": 1.0}, 10),
    ],
)
def test_metric_math(expression: str, values: dict[str, float | None], result: float | None) -> None:
    assert computed(expression, values) == result


@pytest.mark.parametrize("expression", ["ANOMALY_DETECTION_BAND(a)", "a if a else 1", "__import__('os')", "a ** 2"])
def test_metric_math_that_is_not_known_is_refused(expression: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        computed(expression, {"a": 1.0})


ERRORS = {
    "filterPattern": '{ ($.level = "error") || ($.level = "critical") }',
    "metricTransformations": [{"metricName": "LogErrors", "metricNamespace": "N", "metricValue": "1", "dimensions": {"App": "$.app"}}],
}  # fmt: skip
EMBEDDED = {"_aws": {"Timestamp": 1, "CloudWatchMetrics": [{"Namespace": "E", "Dimensions": [["App"]], "Metrics": [{"Name": "A"}, {"Name": "B"}]}]}}  # fmt: skip


@pytest.mark.parametrize(
    ("message", "made"),
    [
        ('{"level": "error", "app": "wine"}', [("N", "LogErrors", 1, "wine")]),
        ('{"level": "critical", "app": "ava"}', [("N", "LogErrors", 1, "ava")]),
        ('{"level": "info", "app": "wine", "message": "error"}', []),
        ("error: no JSON", []),
        ('["error"]', []),
        (json.dumps({**EMBEDDED, "App": "wine", "A": 2.5}), [("E", "A", 2.5, "wine")]),
        (json.dumps({**EMBEDDED, "A": 2.5}), []),
        ('{"_aws": 7}', []),
    ],
)
def test_a_log_event_makes_metrics(message: str, made: list[tuple[str, str, float, str]]) -> None:
    found = [
        (space, d["MetricName"], d["Value"], d["Dimensions"][0]["Value"]) for space, d in from_logs([ERRORS], message)
    ]
    assert found == made


def test_an_alarm_sends_mail_and_comes_back(account: Account) -> None:
    sns, watch = account.client("sns"), account.client("cloudwatch")
    topic = sns.create_topic(Name="pages")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="email", Endpoint="pager@example.org")
    watch.put_metric_alarm(AlarmName="hot", Namespace="Test", MetricName="Heat", Statistic="Maximum", Period=60, EvaluationPeriods=1,
                           Threshold=50, ComparisonOperator="GreaterThanThreshold", AlarmActions=[topic], OKActions=[topic],
                           TreatMissingData="notBreaching")  # fmt: skip
    watch.put_metric_data(Namespace="Test", MetricData=[{"MetricName": "Heat", "Value": 90}])
    mail = account.cloud.world.settings.directory / "mail"

    def subjects() -> list[str]:
        letters = sorted(mail.glob("*-pager@example.org.eml"))
        return [line for letter in letters for line in letter.read_text().splitlines() if line.startswith("Subject:")]

    account.until(lambda: "Subject: ALARM: hot" in subjects())
    account.until(lambda: subjects()[-1] == "Subject: OK: hot")  # a minute of the cloud later


def test_an_archive_holds_files_and_links() -> None:
    with tarfile.open(fileobj=io.BytesIO(containers.archive({"/etc/a": "text", "/etc/b": "->a"}))) as tar:
        assert tar.getmember("etc/b").linkname == "a"
        kept = tar.extractfile("etc/a")
        assert kept is not None
        assert kept.read() == b"text"


def test_a_failed_command_names_its_words() -> None:
    with pytest.raises(RehearsalError, match=r"sh -c echo no >&2; exit 3: no"):
        containers.run("sh", "-c", "echo no >&2; exit 3")


def test_down_where_no_cloud_was_ever_up_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["rehearsal", "--state", str(tmp_path / "none"), "down"])
    assert command_line.main() == 0
    assert capsys.readouterr().out == "no cloud runs: nothing to remove\n"
    monkeypatch.setattr(sys, "argv", ["rehearsal", "--state", str(tmp_path / "none"), "status"])
    assert command_line.main() == 1
    assert "Start it" in capsys.readouterr().err


def test_a_metric_of_aws_is_not_missing_because_the_loop_is_late() -> None:
    now = datetime.now(UTC)
    data = [
        SimpleNamespace(namespace=name, name="Hosts", value=2.0, dimensions=[], timestamp=now - timedelta(seconds=8))
        for name in ("AWS/ApplicationELB", "Pergola")
    ]
    world = SimpleNamespace(real=lambda seconds: seconds / 10, backend=lambda _: SimpleNamespace(metric_data=data))
    watch = Watch(world)  # type: ignore[arg-type]
    watch.published_at = now - timedelta(seconds=7)

    def point(namespace: str, number: int = 0) -> float | None:
        asked = SimpleNamespace(
            namespace=namespace,
            metric_name="Hosts",
            dimensions=[],
            period=60,
            statistic="Minimum",
            extended_statistic=None,
        )
        return watch._point(asked, number)

    assert point("AWS/ApplicationELB") == 2.0
    assert point("AWS/ApplicationELB", 1) is None, "there was none in the minute before"
    assert point("Pergola") is None, "a host that says nothing is told"
