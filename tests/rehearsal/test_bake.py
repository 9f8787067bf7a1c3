"""An image of a rehearsed environment with containers: baked by a playbook, proved, booted by the group, and nothing left over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rehearsal.test_whole_site import Whole

pytestmark = [pytest.mark.docker, pytest.mark.long, pytest.mark.timeout(3000)]


class Baked(Whole):
    """An environment of its own, with an app that has secrets."""

    name = "rehearsal-bake"
    https, http, port = 29843, 29880, 29870
    apps = '{"pergola_apps": ["portal", "wine"]}'

    def play(self, name: str, *flags: str) -> str:
        line = [
            ".venv/bin/ansible-playbook",
            f"playbooks/{name}.yml",
            "-i",
            "inventories/rehearsal",
            "--extra-vars",
            self.apps,
            *flags,
        ]
        return str(self.run(*line, seconds=2400).stdout)

    def images(self) -> dict[str, dict[str, str]]:
        """Return the tags of each image."""
        rows = self.client("ec2").describe_images(Owners=["self"])["Images"]
        return {row["ImageId"]: {tag["Key"]: tag["Value"] for tag in row["Tags"]} for row in rows}

    def image_of(self, instance: str) -> str:
        found = self.client("ec2").describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
        return str(found["ImageId"])

    def outside_groups(self) -> list[str]:
        """Return the machines that are in no scaling group and not over."""
        grouped = {
            row["InstanceId"]
            for group in self.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
            for row in group["Instances"]
        }
        return [row["instance"] for row in self.status()["instances"] if row["instance"] not in grouped]


@pytest.fixture(scope="module")
def baked(root: None) -> Iterator[Baked]:
    """Give the environment; it is taken down at the end, whatever happened."""
    made = Baked()
    made.run("scripts/rehearse", "down", check=False)
    try:
        made.run("scripts/rehearse", "up", "--extra-vars", made.apps)
        yield made
    finally:
        made.run("scripts/rehearse", "down", check=False)


def test_an_image_is_baked_where_hosts_have_no_way_out(baked: Baked) -> None:
    said = baked.play("bake", "-e", "allow_dirty=true")
    assert " changed=" in said
    (tags,) = baked.images().values()
    assert tags["Current"] == "true"
    assert {"Project", "Environment", "Release", "ManagedBy", "Fleet"} <= set(tags)
    baked.until(lambda: not baked.outside_groups(), "the end of builder and boot test", seconds=60)


def test_again_bakes_nothing(baked: Baked) -> None:
    before = baked.images()
    assert "holds" in baked.play("bake", "-e", "allow_dirty=true")
    assert baked.images() == before


def test_a_host_of_the_image_serves_with_secrets_of_its_own(baked: Baked) -> None:
    (image,) = baked.images()
    before = set(baked.healthy())
    baked.run("scripts/rehearse", "up", "--extra-vars", baked.apps)
    fresh = baked.until(lambda: len(found := set(baked.healthy()) - before) >= 2 and found, "hosts of the image")
    groups = baked.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert {group["HealthCheckGracePeriod"] for group in groups if group["Instances"]} == {60}
    secret = baked.client("secretsmanager").get_secret_value(SecretId="pergola-rehearsal/wine/admin_password")[
        "SecretString"
    ]
    seen: dict[str, Any] = {}
    for instance in fresh:
        assert baked.image_of(instance) == image
        assert baked.on(instance, "cat /etc/pergola/secrets/wine/admin_password").stdout == secret
        seen[instance] = baked.on(instance, "cat /etc/machine-id").stdout
        said = baked.on(instance, "grep -c '^pergola: host.yml' /var/log/cloud-init-output.log || test $? = 1").stdout
        assert said.strip() == "1", "host.yml ran when the image was baked, and not again"
    assert len(set(seen.values())) == len(seen), json.dumps(seen)
