"""What every part of the cloud plan knows of its environment: names, tags, ARNs, zones, timeouts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.core.ladder import Ladder
from app.core.manifest import Manifest

COLOURS = ("blue", "green")
"""The two of a fleet: one serves, the other takes the next release."""

PARTITIONS = {"cn": "aws-cn", "us-gov": "aws-us-gov"}


class CloudError(ValueError):
    """The cloud settings of an inventory are wrong. One line a finding: ``pergola_cloud/<key>: what is wrong``."""


@dataclass(frozen=True)
class Site:
    """One environment of one project in one account.

    Attributes:
        environment: Its name, for example ``production``.
        account: The AWS account's twelve digits.
        settings: The inventory's ``pergola_cloud`` with every default filled in.
        manifests: The apps, by name.
        ladder: The timeouts.
    """

    environment: str
    account: str
    settings: Mapping[str, Any]
    manifests: tuple[Manifest, ...]
    ladder: Ladder

    @property
    def project(self) -> str:
        """Return the project's name."""
        return str(self.settings["project"])

    @property
    def region(self) -> str:
        """Return the AWS region."""
        return str(self.settings["region"])

    @property
    def zones(self) -> list[str]:
        """Return the availability zones."""
        return [f"{self.region}{letter}" for letter in self.settings["zones"]]

    @property
    def prefix(self) -> str:
        """Return what every name begins with: ``<project>-<environment>``."""
        return f"{self.project}-{self.environment}"

    @property
    def partition(self) -> str:
        """Return the first part of every ARN after ``arn``."""
        return next((name for start, name in PARTITIONS.items() if self.region.startswith(f"{start}-")), "aws")

    @property
    def balanced(self) -> bool:
        """Return whether a load balancer stands before the hosts."""
        return bool(self.settings["entry"] == "balancer")

    def name(self, *parts: str, limit: int = 255) -> str:
        """Return a resource's name, ``<prefix>-<parts>``; one longer than AWS allows ends in a hash instead."""
        whole = "-".join([self.prefix, *parts])
        if len(whole) <= limit:
            return whole
        return f"{whole[: limit - 7].rstrip('-')}-{hashlib.sha256(whole.encode()).hexdigest()[:6]}"

    def tags(self, app: str = "shared", **more: str) -> dict[str, str]:
        """Return the tags of a resource: Project, Environment, App and ManagedBy, which everything has, and more."""
        own = {"Project": self.project, "Environment": self.environment, "App": app, "ManagedBy": "pergola"}
        return {**own, **more}

    def arn(self, service: str, resource: str, *, region: str | None = None, account: str | None = None) -> str:
        """Return an ARN; ``region=""`` and ``account=""`` leave them out, as S3 and IAM do."""
        where = self.region if region is None else region
        who = self.account if account is None else account
        return f"arn:{self.partition}:{service}:{where}:{who}:{resource}"

    def bucket(self, purpose: str) -> str:
        """Return a bucket's name; the account's number makes it unique in the world."""
        return self.name(self.account, purpose, limit=63)

    def bucket_arn(self, purpose: str, key: str = "") -> str:
        """Return the ARN of a bucket, or of keys in it."""
        return self.arn("s3", f"{self.bucket(purpose)}{'/' if key else ''}{key}", region="", account="")

    def secret(self, owner: str, name: str) -> str:
        """Return the name of a secret in Secrets Manager."""
        return f"{self.prefix}/{owner}/{name}"

    def log_group(self, part: str) -> str:
        """Return the log group of an app, or of another part: ``host``, ``vpc``."""
        return f"/{self.project}/{self.environment}/{part}"

    def apps_of(self, fleet: Mapping[str, Any]) -> list[Manifest]:
        """Return the apps of a fleet: those it names, or all that no other fleet names."""
        wanted = fleet["apps"]
        if not wanted:
            taken = {name for other in self.settings["fleets"] for name in other["apps"]}
            return [manifest for manifest in self.manifests if manifest.name not in taken]
        return [manifest for manifest in self.manifests if manifest.name in wanted]
