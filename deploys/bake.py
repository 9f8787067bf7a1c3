"""Images with everything but secrets: built by a host, proved by another, and only then what new hosts boot.

=========  ===============================================================================  ==========================
phase      what happens                                                                     when it fails
=========  ===============================================================================  ==========================
build      a host becomes what the release says, forgets what is its own, and powers off    the host goes
image      it becomes an image                                                              host and image go
boot       a host of the image must say of itself that it serves                            both hosts and the image go
publish    the image is tagged as the current one; launch templates name it                 the next run does it again
=========  ===============================================================================  ==========================

Nothing that is made on the way outlives the run: it is found by its tags, also by the next run after a dead one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from deploys.run import Run
from deploys.spec import DeployError, Fleet
from deploys.store import PREFIX, Lease

ROOT = Path(__file__).resolve().parents[1]
USER_DATA = ROOT / "roles/aws_fleet/files/user_data.py"
LEASE = f"{PREFIX}bake-lease.json"
BOOTED = "BootSucceeded"  # the metric in which roles/aws_fleet/files/instance.py tells how it went
CURRENT, PUBLISHED, PURPOSE, BUILDING = "Current", "Published", "Purpose", "image"
IMAGE_SECONDS = 3600  # AWS copies a disk: minutes
GONE = ("shutting-down", "terminated")


@dataclass(frozen=True)
class Plan:
    """What the cloud plan says of one fleet's hosts (``app.core.cloud.fleet``).

    Attributes:
        fleet: The fleet as deploys know it.
        row: Its instance type, profile, disk, time to configure, image and tags.
        builder: Where the host stands that becomes the image: subnets, security groups, whether it needs a public address.
        subnets, security_group: Where hosts stand.
        base: ``debian``, or ``baked`` to begin from the current image.
        keep: How many published images stay.
        force: Bake although the current image holds the release.
    """

    fleet: Fleet
    row: Mapping[str, Any]
    builder: Mapping[str, Any]
    subnets: Sequence[str]
    security_group: str
    base: str
    keep: int
    force: bool

    @property
    def tags(self) -> dict[str, str]:
        """Tags of all that is made: the fleet's own, and the release."""
        return {**self.row["tags"], "Release": self.fleet.release.short}


class Baker(Run):
    """Bakes an image for each fleet."""

    def plans(self) -> list[Plan]:
        """Return what is to be baked.

        Raises:
            DeployError: The inventory names an image, which would be used whatever is baked.
        """
        given, section = self.spec.options, self.spec.options["fleet"]
        base = str(given.get("base", "debian"))
        if base not in {"debian", "baked"}:
            raise DeployError(f"base: expected debian or baked, got {base!r}")
        found = []
        for fleet in self.spec.fleets:
            row = next(row for row in section["fleets"] if row["fleet"] == fleet.name)
            if row["image"]:
                raise DeployError(
                    f"pergola_cloud/fleets/{fleet.name}/image names {row['image']}: no baked image would ever be used; remove that first"
                )
            found.append(
                Plan(
                    fleet, row, section["builder"], section["subnets"], section["security_group"], base,
                    int(given.get("keep", 3)), bool(given.get("force")),
                )
            )  # fmt: skip
        return found

    def bake(self) -> dict[str, str]:
        """Bake what no current image holds yet; return the new images by fleet.

        Raises:
            DeployError: A host did not become an image, or an image no host; nothing of it is left.
        """
        plans = self.plans()
        with Lease(self.store, self.spec.operator, self.spec.lease_seconds, key=LEASE, what="bakes"):
            return {plan.fleet.name: image for plan in plans if (image := self._fleet(plan))}

    def _fleet(self, plan: Plan) -> str:
        self._sweep(plan)
        published = self._published(plan)
        if published and not plan.force and tag(published[0], "Release") == plan.fleet.release.short:
            image = str(published[0]["ImageId"])
            self.say("done", f"{plan.fleet.name}: {image} holds {plan.fleet.release.short} already")
            self._point(plan, image)  # an interrupted run may have left that undone
            self._prune(plan)
            return ""
        try:
            image = self._image(plan, self._built(plan, published))
            self._boots(plan, image)
            self._publish(plan, image)
        finally:
            self._sweep(plan)
        self._prune(plan)
        return image

    # ------------------------------------------------------------ the phases

    def _built(self, plan: Plan, published: list[dict[str, Any]]) -> str:
        """Return a host that has become what the release says, and has sealed itself and stopped."""
        base = self._base(plan, published)
        subnets, groups = plan.builder["subnets"], plan.builder["security_groups"]
        host = self._run_host(
            plan, base, "builder", subnets, groups, address=bool(plan.builder["address"]), settings={"bake": True}
        )
        self.say("build", f"{plan.fleet.name}: {host} from {base} becomes {plan.fleet.release.short}")
        began = time.monotonic()
        while (state := self._state(host)) != "stopped":
            if state in GONE:
                raise DeployError(f"{host} ended before it had become an image ({state})")
            self._refuse_failed(host)
            self._in_time(began, plan.row["launch_seconds"], f"{host} did not become an image")
            self._pause()
        self.say("build", f"sealed and stopped after {time.monotonic() - began:.0f} s")
        return host

    def _image(self, plan: Plan, host: str) -> str:
        """Return the image of a stopped host."""
        ec2, began = self.cloud.client("ec2"), time.monotonic()
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        name = f"{plan.row['name']}-{plan.fleet.release.short}-{stamp}"
        tags = _tags({**plan.tags, "Name": name})
        image = str(
            ec2.create_image(
                InstanceId=host, Name=name, TagSpecifications=[{"ResourceType": kind, "Tags": tags} for kind in ("image", "snapshot")],
            )["ImageId"]
        )  # fmt: skip
        while (found := ec2.describe_images(ImageIds=[image])["Images"][0])["State"] != "available":
            if found["State"] != "pending":
                raise DeployError(
                    f"{image} could not be made: {found.get('StateReason', {}).get('Message', found['State'])}"
                )
            self._in_time(began, IMAGE_SECONDS, f"{image} was not made")
            self._pause()
        ec2.terminate_instances(InstanceIds=[host])
        self.say("image", f"{image} after {time.monotonic() - began:.0f} s")
        return image

    def _boots(self, plan: Plan, image: str) -> None:
        """Wait until a host of the image, where hosts stand and with their rights, says of itself that it serves."""
        host = self._run_host(plan, image, "boot-test", plan.subnets, [plan.security_group], address=False, settings={})
        began = time.monotonic()
        while self._booted(host) is not True:
            self._refuse_failed(host)
            if (state := self._state(host)) in {*GONE, "stopped"}:
                raise DeployError(f"{host}, the first host of {image}, ended by itself ({state})")
            self._in_time(
                began, plan.row["launch_seconds"], f"{host}, the first host of {image}, did not say that it serves"
            )
            self._pause()
        self.say("boot", f"{host} of {image} serves after {time.monotonic() - began:.0f} s")

    def _publish(self, plan: Plan, image: str) -> None:
        """Make the image the one that new hosts boot."""
        ec2 = self.cloud.client("ec2")
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        older = [row["ImageId"] for row in self._published(plan)]
        ec2.create_tags(Resources=[image], Tags=_tags({CURRENT: "true", PUBLISHED: moment}))
        if older:  # last: there is a current one at every moment, and the newest of two counts
            ec2.create_tags(Resources=older, Tags=_tags({CURRENT: "false"}))
        self._point(plan, image)
        self.say(
            "publish", f"{plan.fleet.name}: the next deploy's hosts boot {image}; site.yml replaces those that run"
        )

    def _point(self, plan: Plan, image: str) -> None:
        """See to it that the newest version of each colour's launch template names the image; groups name the versions they had."""
        ec2 = self.cloud.client("ec2")
        for name in plan.fleet.groups.values():
            template = self._template(name)
            if template and template["LaunchTemplateData"].get("ImageId") != image:
                data = {**template["LaunchTemplateData"], "ImageId": image}
                ec2.create_launch_template_version(LaunchTemplateName=name, LaunchTemplateData=data)

    # ------------------------------------------------------------ what is left

    def _sweep(self, plan: Plan) -> None:
        """Let everything go that was made on the way to an image: hosts, and images that were never published."""
        ec2 = self.cloud.client("ec2")
        hosts = [row["InstanceId"] for row in self._instances(plan) if tag(row, PURPOSE) == BUILDING]
        if hosts:
            ec2.terminate_instances(InstanceIds=hosts)
        for row in self._images(plan):
            if not tag(row, PUBLISHED):
                self._remove(row)

    def _prune(self, plan: Plan) -> None:
        """Keep the newest published images, and every one that something names."""
        rows = self._published(plan)[plan.keep :]
        used = self._used(plan) if rows else set()
        for row in rows:
            if row["ImageId"] in used:
                self.say("prune", f"{row['ImageId']} is old but in use")
            else:
                self._remove(row)
                self.say("prune", f"{row['ImageId']} is gone")

    def _used(self, plan: Plan) -> set[str]:
        """Return the images of running hosts, and of the template versions that groups launch from or would launch from next."""
        used = {str(row["ImageId"]) for row in self._instances(plan)}
        for name in plan.fleet.groups.values():
            if template := self._template(name):
                used.add(str(template["LaunchTemplateData"].get("ImageId")))
                used.add(self.cloud.image_of(name))
        return used

    def _remove(self, image: Mapping[str, Any]) -> None:
        """Deregister an image and delete its snapshots."""
        ec2 = self.cloud.client("ec2")
        ec2.deregister_image(ImageId=image["ImageId"])
        for row in image.get("BlockDeviceMappings", ()):
            if snapshot := row.get("Ebs", {}).get("SnapshotId"):
                try:
                    ec2.delete_snapshot(SnapshotId=snapshot)
                except ClientError as error:
                    if "NotFound" not in error.response["Error"]["Code"]:
                        raise

    # ------------------------------------------------------------ what AWS says

    def _base(self, plan: Plan, published: list[dict[str, Any]]) -> str:
        """Return the image to begin from: Debian's newest or the current one; else what the fleet's hosts boot now."""
        if plan.base == "baked" and published:
            return str(published[0]["ImageId"])
        given = {"Owners": [plan.row["image_owner"]], "Filters": [{"Name": "name", "Values": [plan.row["image_name"]]}]}
        debian = self.cloud.client("ec2").describe_images(**given)["Images"]
        if debian:
            return str(max(debian, key=lambda row: str(row["CreationDate"]))["ImageId"])
        for name in plan.fleet.groups.values():
            if template := self._template(name):
                return str(template["LaunchTemplateData"]["ImageId"])
        raise DeployError(
            f"there is no image {plan.row['image_name']} of the account {plan.row['image_owner']} in this region"
        )

    def _run_host(
        self,
        plan: Plan,
        image: str,
        what: str,
        subnets: Sequence[str],
        groups: Sequence[str],
        *,
        address: bool,
        settings: Mapping[str, Any],
    ) -> str:
        """Launch a host outside every group and return its id."""
        ec2, row, release = self.cloud.client("ec2"), plan.row, plan.fleet.release
        told = {
            "bucket": self.spec.bucket, "region": self.spec.region, "namespace": self.spec.metrics, "release": release.key,
            "sha256": release.sha256, "group": "", "drain_seconds": 0, "report": True, **settings,
        }  # fmt: skip
        script = USER_DATA.read_text(encoding="utf-8").replace("@SETTINGS@", json.dumps(told))
        name = f"{row['name']}-{what}"
        tags = _tags({**plan.tags, "Name": name, PURPOSE: BUILDING})
        subnet, found = self._subnet(subnets), self._groups(groups)
        place: dict[str, Any] = {
            "SubnetId": subnet,
            "SecurityGroupIds": found,
        }  # the subnet decides on a public address
        if address:
            card = {"DeviceIndex": 0, "SubnetId": subnet, "Groups": found, "AssociatePublicIpAddress": True}
            place = {"NetworkInterfaces": [card]}
        made = ec2.run_instances(
            ImageId=image, InstanceType=row["instance_type"], MinCount=1, MaxCount=1, **place,
            IamInstanceProfile={"Name": row["profile"]}, UserData=script,
            InstanceInitiatedShutdownBehavior="stop",
            MetadataOptions={"HttpTokens": "required", "HttpEndpoint": "enabled", "HttpPutResponseHopLimit": 1},
            BlockDeviceMappings=[{
                "DeviceName": "/dev/xvda",
                "Ebs": {"VolumeSize": row["disk_gb"], "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True},
            }],
            TagSpecifications=[{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")],
        )  # fmt: skip
        return str(made["Instances"][0]["InstanceId"])

    def _subnet(self, names: Sequence[str]) -> str:
        found = self.cloud.client("ec2").describe_subnets(Filters=[{"Name": "tag:Name", "Values": list(names)}])[
            "Subnets"
        ]
        if not found:
            raise DeployError(
                f"there is no subnet {' or '.join(names)}; make the environment first: ansible-playbook site.yml"
            )
        return str(min(found, key=lambda row: str(row["AvailabilityZone"]))["SubnetId"])

    def _groups(self, names: Sequence[str]) -> list[str]:
        given = [{"Name": "group-name", "Values": list(names)}]
        found = self.cloud.client("ec2").describe_security_groups(Filters=given)["SecurityGroups"]
        if missing := sorted(set(names) - {row["GroupName"] for row in found}):
            raise DeployError(
                f"there is no security group {', '.join(missing)}; make the environment first: ansible-playbook site.yml"
            )
        return [str(row["GroupId"]) for row in found]

    def _mine(self, plan: Plan) -> list[dict[str, Any]]:
        return [
            {"Name": f"tag:{key}", "Values": [plan.row["tags"][key]]} for key in ("Project", "Environment", "Fleet")
        ]

    def _instances(self, plan: Plan) -> list[dict[str, Any]]:
        """Return the fleet's machines that are not over."""
        pages = self.cloud.client("ec2").get_paginator("describe_instances").paginate(Filters=self._mine(plan))
        rows = [row for page in pages for reservation in page["Reservations"] for row in reservation["Instances"]]
        return [row for row in rows if row["State"]["Name"] not in GONE]

    def _images(self, plan: Plan) -> list[dict[str, Any]]:
        """Return the fleet's images."""
        return list(self.cloud.client("ec2").describe_images(Owners=["self"], Filters=self._mine(plan))["Images"])

    def _published(self, plan: Plan) -> list[dict[str, Any]]:
        """Return the fleet's images that proved themselves, the newest first."""
        rows = [row for row in self._images(plan) if tag(row, PUBLISHED) and row["State"] == "available"]
        return sorted(rows, key=lambda row: (tag(row, PUBLISHED), str(row["CreationDate"])), reverse=True)

    def _template(self, name: str) -> dict[str, Any] | None:
        """Return the newest version of a launch template; None when there is no such template yet."""
        try:
            return self.cloud.template(name, "$Latest")
        except ClientError as error:
            if "NotFound" in error.response["Error"]["Code"]:
                return None
            raise

    def _state(self, host: str) -> str:
        try:
            found = self.cloud.client("ec2").describe_instances(InstanceIds=[host])
        except ClientError as error:
            if "NotFound" in error.response["Error"]["Code"]:
                return "pending"  # not everywhere known yet
            raise
        return str(found["Reservations"][0]["Instances"][0]["State"]["Name"])

    def _booted(self, host: str) -> bool | None:
        """Return whether a host came up, as it says itself; None while it has said nothing."""
        value = self.cloud.latest(self.spec.metrics, BOOTED, [host]).get(host)
        return None if value is None else value > 0

    def _refuse_failed(self, host: str) -> None:
        if self._booted(host) is False:
            raise DeployError(
                f"{host} gave up; the end of its console output says why: aws ec2 get-console-output --latest --instance-id {host}"
            )

    @staticmethod
    def _in_time(began: float, seconds: float, what: str) -> None:
        if time.monotonic() - began > seconds:
            raise DeployError(f"{what} within {seconds:.0f} s")


def tag(row: Mapping[str, Any], key: str) -> str:
    """Return a tag's value; empty when there is none."""
    return next((str(one["Value"]) for one in row.get("Tags", ()) if one["Key"] == key), "")


def _tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
