"""The rehearsal with containers, as stories in this order: it serves, it isolates, it heals, it ends."""

from __future__ import annotations

import datetime as dt
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest

from tests.rehearsal.conftest import HTTP, HTTPS, Site

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

REACH = "python3 -c 'import socket; socket.create_connection((\"{}\", {}), 2)'"


def test_two_hosts_serve_from_their_user_data(site: Site) -> None:
    site.until(lambda: len(site.healthy()) == 2, "two healthy hosts", seconds=240)  # the first run builds an image
    pages = {site.page() for _ in range(8)}
    names = {f"ip-{site.address(i).replace('.', '-')}\n" for i in site.healthy()}
    assert pages == {(200, name) for name in names}
    zones = {row["zone"] for row in site.status()["instances"]}
    assert zones == {"us-east-1a", "us-east-1b"}


def test_http_leads_to_https_on_this_machine(site: Site) -> None:
    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None

    with pytest.raises(urllib.error.HTTPError) as moved:
        urllib.request.build_opener(Stay).open(f"http://127.0.0.1:{HTTP}/a?b=c", timeout=20)
    assert moved.value.code == 301
    assert moved.value.headers["location"] == f"https://127.0.0.1:{HTTPS}/a?b=c"


def test_what_the_balancer_carries_is_measured(site: Site) -> None:
    balancer = {"LoadBalancer": site.built["balancer"]["LoadBalancerArn"].split(":loadbalancer/")[-1]}
    group = {**balancer, "TargetGroup": site.built["group"].split(":")[-1]}

    def total(name: str, where: dict[str, str]) -> float:
        now = dt.datetime.now(dt.UTC)
        rows = site.client("cloudwatch").get_metric_statistics(
            Namespace="AWS/ApplicationELB", MetricName=name, Statistics=["Sum"], Period=7200, StartTime=now - dt.timedelta(hours=1),
            EndTime=now + dt.timedelta(hours=1), Dimensions=[{"Name": key, "Value": value} for key, value in where.items()],
        )["Datapoints"]  # fmt: skip
        return sum(row["Sum"] for row in rows)

    before = total("RequestCount", group)
    for _ in range(30):
        assert site.page()[0] == 200
    site.until(lambda: total("RequestCount", group) >= before + 30, "the requests in CloudWatch")
    for where in (balancer, group):
        assert total("HTTPCode_Target_2XX_Count", where) >= 30
        assert total("TargetResponseTime", where) > 0
    assert total("HTTPCode_Target_5XX_Count", group) == 0
    assert total("HealthyHostCount", group) >= 2


def test_up_again_does_nothing(site: Site) -> None:
    assert "runs already" in site.up().stdout


def test_metadata_is_version_2_and_has_the_role(site: Site) -> None:
    one = site.healthy()[0]
    script = """python3 - <<'X'
import json, urllib.error, urllib.request
url = "http://169.254.169.254/latest/"
try:
    urllib.request.urlopen(url + "meta-data/instance-id", timeout=5)
except urllib.error.HTTPError as error:
    print(error.code)
ask = urllib.request.Request(url + "api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
key = {"X-aws-ec2-metadata-token": urllib.request.urlopen(ask, timeout=5).read().decode()}
def get(path):
    return urllib.request.urlopen(urllib.request.Request(url + path, headers=key), timeout=5).read().decode()
print(get("meta-data/instance-id"))
print(json.loads(get("meta-data/iam/security-credentials/" + get("meta-data/iam/security-credentials/")))["Code"])
X"""
    done = site.on(one, script)
    assert done.stdout.split() == ["401", one, "Success"], done.stderr


def test_security_groups_and_routes_hold(site: Site) -> None:
    one, two = site.healthy()
    balancer = next(row["address"] for row in site.status()["balancers"])
    assert site.on(one, REACH.format(site.address(two), 80)).returncode != 0  # only the balancer may
    assert site.on(one, REACH.format("10.91.0.1", 22)).returncode != 0  # this machine
    assert site.on(one, REACH.format("192.0.2.1", 80)).returncode != 0  # no route leads out
    endpoint = site.on(one, '. /etc/environment; python3 -c "import urllib.request as u; '
                            "print(u.urlopen('$AWS_ENDPOINT_URL/moto-api/', timeout=10).status)\"")  # fmt: skip
    assert endpoint.stdout.split() == ["200"], endpoint.stderr
    name = site.built["balancer"]["DNSName"]
    assert site.on(one, f"getent hosts {name}").stdout.split()[0] == balancer
    rules = subprocess.run(["iptables", "-w", "-S", "DOCKER-USER"], capture_output=True, text=True, check=True).stdout
    assert any("169.254.0.0/16" in rule and site.name in rule and rule.endswith("DROP") for rule in rules.splitlines())


def asked(site: Site, database: str, query: str, mode: str = "require") -> subprocess.CompletedProcess[str]:
    """Ask a database as its user does."""
    where = f"host=127.0.0.1 user=owner dbname=app sslmode={mode}"
    container = ["-e", "PGPASSWORD=it's a \\ secret", f"{site.name}-db-{database}"]
    line = ["docker", "exec", *container, "psql", where, "-v", "ON_ERROR_STOP=1", "-Atc", query]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def available(site: Site, *names: str) -> None:
    """Wait until databases are there."""
    for name in names:
        site.until(lambda name=name: site.client("rds").describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0]["DBInstanceStatus"]
                   == "available", f"the database {name}")  # fmt: skip


def test_the_database_answers_its_user(site: Site) -> None:
    available(site, "main")
    for mode, good in (("require", True), ("disable", False)):
        done = asked(site, "main", "select current_user", mode)
        assert (done.stdout.strip() == "owner") is good, done.stderr
    one, address = site.healthy()[0], site.status()["databases"][0]["address"]
    assert site.on(one, REACH.format(address, 5432)).returncode == 0


def test_a_database_comes_back_as_it_was_at_a_moment(site: Site) -> None:
    """Replayed to a moment between two commits; then it takes the name of the other, which keeps what it had."""
    rds, then = site.client("rds"), "main-as-of-a-moment-with-a-name-of-sixty-letters-at-the-most"
    asked(site, "main", "create table wines (name text)")
    asked(site, "main", "insert into wines values ('before')")
    time.sleep(1.1)  # AWS takes whole seconds
    moment = dt.datetime.now(dt.UTC).replace(microsecond=0)
    time.sleep(1.1)
    assert asked(site, "main", "update wines set name = 'after'").returncode == 0
    for name, how in ((then, {"RestoreTime": moment}), ("now", {"UseLatestRestorableTime": True})):
        rds.restore_db_instance_to_point_in_time(
            SourceDBInstanceIdentifier="main", TargetDBInstanceIdentifier=name, DBSubnetGroupName="data", **how
        )
    available(site, then, "now")
    assert asked(site, then, "select * from wines").stdout == "before\n"
    assert asked(site, "now", "select * from wines").stdout == "after\n"
    for before, name in (("main", "kept"), (then, "main")):
        rds.modify_db_instance(DBInstanceIdentifier=before, NewDBInstanceIdentifier=name, ApplyImmediately=True)
    available(site, "main", "kept")
    assert asked(site, "main", "insert into wines values ('later') returning name").stdout.splitlines()[0] == "later"
    assert asked(site, "kept", "select * from wines").stdout == "after\n"
    endpoint = rds.describe_db_instances(DBInstanceIdentifier="main")["DBInstances"][0]["Endpoint"]["Address"]
    address = next(row["address"] for row in site.status()["databases"] if row["database"] == "main")
    one = site.healthy()[0]
    site.until(
        lambda: site.on(one, f"getent hosts {endpoint}").stdout.split()[:1] == [address], "the name's new address"
    )
    for name in ("now", "kept"):
        rds.delete_db_instance(DBInstanceIdentifier=name, SkipFinalSnapshot=True)


def replaced(site: Site, victim: str) -> None:
    """Wait until two hosts serve and the victim is none of them, in one and the same answer."""
    site.until(lambda: len(now := site.healthy()) == 2 and victim not in now, "a replacement")


def test_a_killed_host_is_replaced(site: Site) -> None:
    victim, other = site.healthy()
    ec2, said = (
        site.client("ec2"),
        site.on(victim, "echo said >> /var/log/cloud-init-output.log; cat /var/log/cloud-init-output.log").stdout,
    )
    assert ec2.get_console_output(InstanceId=victim, Latest=True)["Output"] == said
    site.command("fault", "kill", victim)
    replaced(site, victim)
    assert other in site.healthy()
    assert ec2.get_console_output(InstanceId=victim, Latest=True)["Output"] == said, "why it died can still be read"
    assert site.page()[0] == 200


def test_a_wedged_host_is_replaced(site: Site) -> None:
    scaling = site.client("autoscaling")
    scaling.update_auto_scaling_group(AutoScalingGroupName="fleet", HealthCheckGracePeriod=0)
    victim, other = site.healthy()
    site.command("fault", "wedge", victim)
    site.until(lambda: victim not in site.healthy(), "failed health checks")
    assert {site.page()[0] for _ in range(6)} == {200}
    replaced(site, victim)
    assert other in site.healthy()


def alone(site: Site) -> str:
    """Launch an instance outside the group, and return it when it serves."""
    made = site.client("ec2").run_instances(
        LaunchTemplate={"LaunchTemplateName": "hosts"}, MinCount=1, MaxCount=1, SubnetId=site.built["subnets"][0]
    )["Instances"][0]["InstanceId"]
    site.until(lambda: site.on(made, "systemctl is-active web").returncode == 0, "an instance")
    return str(made)


def test_a_reboot_ends_what_runs_and_begins_again(site: Site) -> None:
    """Services are stopped in order, and can see that it is a reboot; what is on the disk stays."""
    ec2, made = site.client("ec2"), alone(site)
    boot = site.on(made, "cat /proc/1/stat").stdout.split()[21]
    ec2.reboot_instances(InstanceIds=[made])

    def again() -> bool:
        found = site.on(made, "cat /proc/1/stat && systemctl is-active --quiet web")
        return found.returncode == 0 and found.stdout.split()[21] != boot

    site.until(again, "the end of the reboot")
    assert " reboot.target" in site.on(made, "cat /srv/jobs").stdout
    assert " start " in site.on(made, "cat /srv/jobs").stdout
    assert ec2.describe_instances(InstanceIds=[made])["Reservations"][0]["Instances"][0]["State"]["Name"] == "running"
    ec2.terminate_instances(InstanceIds=[made])


def test_an_instance_that_does_not_end_is_reset(site: Site) -> None:
    ec2, made = site.client("ec2"), alone(site)
    site.on(
        made, "sed -i 's/sleep 3/sleep 3600/; s/^ExecStop/TimeoutStopSec=infinity\\n&/' /etc/systemd/system/web.service"
    )
    site.on(made, "systemctl daemon-reload")
    boot = site.on(made, "cat /proc/1/stat").stdout.split()[21]
    ec2.reboot_instances(InstanceIds=[made])
    site.until(lambda: site.on(made, "cat /proc/1/stat").stdout.split()[21:22] not in ([], [boot]), "a new boot")
    assert f"{made} did not end within 240 s: it is reset" in site.command("status").stdout
    ec2.terminate_instances(InstanceIds=[made])


def test_a_connection_that_outlives_the_deregistration_delay_is_closed(site: Site) -> None:
    elb, made, answers = site.client("elbv2"), alone(site), []
    target = {"TargetGroupArn": site.built["group"], "Targets": [{"Id": made}]}
    elb.register_targets(**target)
    site.until(lambda: made in site.healthy(), "a third target")

    def wait() -> None:
        answers.append(site.page("/slow", seconds=200)[0])

    for _ in range(3):  # in turn: one each
        threading.Thread(target=wait, daemon=True).start()
    slow = f"ss -Htn state established 'sport = :80' src {site.address(made)}"
    site.until(lambda: site.on(made, slow).stdout, "a request that it works on")
    elb.deregister_targets(**target)
    site.until(lambda: answers, "the end of the connection")
    assert answers == [502]
    assert f"{made}: the deregistration delay is over" in site.command("status").stdout
    assert site.on(made, "systemctl is-active web").returncode == 0, "it was the balancer who closed it"
    site.client("ec2").terminate_instances(InstanceIds=[made])


def test_growing_and_shrinking_under_load_loses_nothing(site: Site) -> None:
    scaling, answers, over = site.client("autoscaling"), [], threading.Event()

    def visit() -> None:
        while not over.is_set():
            answers.append(site.page()[0])
            time.sleep(0.05)

    visitor = threading.Thread(target=visit)
    visitor.start()
    try:
        scaling.set_desired_capacity(AutoScalingGroupName="fleet", DesiredCapacity=3)
        site.until(lambda: len(site.healthy()) == 3, "a third host")
        scaling.set_desired_capacity(AutoScalingGroupName="fleet", DesiredCapacity=2)
        site.until(lambda: site.phases() == ["InService"] * 2, "scaling in and the end of its drain")
    finally:
        over.set()
        visitor.join()
    assert len(answers) > 20
    assert set(answers) == {200}


def test_an_image_is_baked_and_boots(site: Site) -> None:
    ec2, one = site.client("ec2"), site.healthy()[0]
    site.on(one, "echo baked >/etc/baked")
    image = ec2.create_image(InstanceId=one, Name="baked")["ImageId"]
    site.until(lambda: ec2.describe_images(ImageIds=[image])["Images"][0]["State"] == "available", "the image")
    made = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, SubnetId=site.built["subnets"][0])["Instances"][0][
        "InstanceId"
    ]
    site.until(lambda: site.on(made, "cat /etc/baked").stdout == "baked\n", "an instance of it")
    ec2.deregister_image(ImageId=image)
    ec2.terminate_instances(InstanceIds=[made])


def test_down_leaves_nothing(site: Site) -> None:
    assert site.status()["problems"] == {}
    site.command("down")
    for kind in ("container", "network"):
        flags = ["--all"] if kind == "container" else []
        left = subprocess.run(
            ["docker", kind, "ls", *flags, "-q", "--filter", f"label=rehearsal={site.name}"],
            capture_output=True,
            check=True,
        )
        assert left.stdout == b""
    rules = subprocess.run(["iptables", "-w", "-S"], capture_output=True, text=True, check=True).stdout
    assert f"rehearsal:{site.name}" not in rules
    assert "no cloud runs" in site.command("status", check=False).stderr
