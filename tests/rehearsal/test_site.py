"""The rehearsal with containers, as stories in this order: it serves, it isolates, it heals, it ends."""

from __future__ import annotations

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


def test_the_database_answers_its_user(site: Site) -> None:
    rds = site.client("rds")

    def database() -> dict[str, object]:
        return dict(rds.describe_db_instances(DBInstanceIdentifier="main")["DBInstances"][0])

    site.until(lambda: database()["DBInstanceStatus"] == "available", "the database")
    for mode, good in (("require", True), ("disable", False)):
        where = f"host=127.0.0.1 user=owner dbname=app sslmode={mode}"
        line = [
            "docker",
            "exec",
            "-e",
            "PGPASSWORD=it's a \\ secret",
            f"{site.name}-db-main",
            "psql",
            where,
            "-Atc",
            "select current_user",
        ]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert (done.stdout.strip() == "owner") is good, done.stderr
    one, address = site.healthy()[0], site.status()["databases"][0]["address"]
    assert site.on(one, REACH.format(address, 5432)).returncode == 0


def test_a_killed_host_is_replaced(site: Site) -> None:
    victim, other = site.healthy()
    site.command("fault", "kill", victim)
    site.until(lambda: len(site.healthy()) == 2 and victim not in site.healthy(), "a replacement")
    assert other in site.healthy()
    assert site.page()[0] == 200


def test_a_wedged_host_is_replaced(site: Site) -> None:
    scaling = site.client("autoscaling")
    scaling.update_auto_scaling_group(AutoScalingGroupName="fleet", HealthCheckGracePeriod=0)
    victim, other = site.healthy()
    site.command("fault", "wedge", victim)
    site.until(lambda: victim not in site.healthy(), "failed health checks")
    assert {site.page()[0] for _ in range(6)} == {200}
    site.until(lambda: len(site.healthy()) == 2 and victim not in site.healthy(), "a replacement")
    assert other in site.healthy()


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
