"""The identities of the cloud plan: what a host of each fleet, and CI, may do. Nothing more than the manifests need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.core.cloud import backup, database
from app.core.cloud import fleet as fleets
from app.core.cloud.secrets import app_secrets
from app.core.cloud.site import Site

ISSUER = "token.actions.githubusercontent.com"
AUDIENCE = "sts.amazonaws.com"
# AWS adds a dash and six characters to a secret's ARN
SUFFIX = "-??????"


def section(site: Site) -> dict[str, Any]:
    """Return the variables of the role ``aws_identity``."""
    settings = site.settings["identity"]
    return {
        "name": site.prefix,
        "hosts": [host(site, row) for row in site.settings["fleets"]],
        "boundary": settings.get("boundary", ""),
        "deployer": deployer(site) if "repository" in settings else {},
        "tags": site.tags(),
    }


def host_role(site: Site, row: Mapping[str, Any]) -> str:
    """Return the name of a fleet's role, which is its instance profile's name too."""
    return site.name("host", row["name"], limit=64)


def host(site: Site, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the role of a fleet's hosts."""
    return {
        "fleet": row["name"],
        "name": host_role(site, row),
        "policy": {"Version": "2012-10-17", "Statement": host_statements(site, row)},
        "tags": site.tags(Fleet=row["name"]),
    }


def allow(
    sid: str, actions: list[str], resources: list[str], condition: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return one statement of a policy."""
    statement: dict[str, Any] = {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources}
    return {**statement, "Condition": dict(condition)} if condition else statement


def host_statements(site: Site, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what a fleet's hosts may do.

    ``Resource: *`` stands only where AWS knows no resource to name, with a condition where there is one.
    """
    apps = site.apps_of(row)
    storing = [app.name for app in apps if app.data["buckets"]]
    keeping = [app.name for app in apps if backup.jobs(site, app)]
    secrets = [site.secret(app.name, name) for app in apps for name in app_secrets(site, app)]
    if served := database.for_hosts(site, apps):
        secrets += [
            served["endpoint"],
            served["master"],
        ]  # a host's root makes its apps' users; apps cannot ask for credentials
    if password := backup.password(site, apps):
        secrets.append(password)
    groups = [site.log_group(part) for part in ["host", *(app.name for app in apps)]]
    statements = [
        allow("Releases", ["s3:GetObject"], [site.bucket_arn("artefacts", "releases/*")]),
        allow(
            "FindReleases",
            ["s3:ListBucket"],
            [site.bucket_arn("artefacts")],
            {"StringLike": {"s3:prefix": ["releases/*"]}},
        ),
        *_objects(site, "data", "Data", storing),
        *_objects(site, "backups", "Backups", keeping),
        allow(
            "Logs",
            ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            [site.arn("logs", f"log-group:{group}:*") for group in groups],
        ),
        allow(
            "Metrics", ["cloudwatch:PutMetricData"], ["*"], {"StringEquals": {"cloudwatch:namespace": [site.prefix]}}
        ),
        # a shell through SSM instead of SSH; these actions know no resource but *
        allow(
            "Session",
            [
                "ssm:UpdateInstanceInformation",
                "ssmmessages:CreateControlChannel",
                "ssmmessages:CreateDataChannel",
                "ssmmessages:OpenControlChannel",
                "ssmmessages:OpenDataChannel",
            ],
            ["*"],
        ),
        *fleets.host_statements(site, row),
    ]
    if secrets:
        arns = [site.arn("secretsmanager", f"secret:{name}{SUFFIX}") for name in secrets]
        statements.append(allow("Secrets", ["secretsmanager:GetSecretValue"], arns))
    return statements


def _objects(site: Site, purpose: str, sid: str, apps: list[str]) -> list[dict[str, Any]]:
    """Return the statements for the apps' own prefixes of a bucket."""
    if not apps:
        return []
    keys = [site.bucket_arn(purpose, f"{app}/*") for app in apps]
    prefixes = {"StringLike": {"s3:prefix": [f"{app}/*" for app in apps]}}
    return [
        allow(sid, ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], keys),
        allow(f"Find{sid}", ["s3:ListBucket"], [site.bucket_arn(purpose)], prefixes),
    ]


def deployer(site: Site) -> dict[str, Any]:
    """Return the role that CI takes on through OIDC to release and deploy."""
    settings = site.settings["identity"]
    where = settings["github_environment"]
    who = f"environment:{where}" if where else f"ref:refs/heads/{settings['branch']}"
    subject = f"repo:{settings['repository']}:{who}"
    trust = {
        "Effect": "Allow",
        "Principal": {"Federated": site.arn("iam", f"oidc-provider/{ISSUER}", region="")},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {f"{ISSUER}:aud": AUDIENCE, f"{ISSUER}:sub": subject}},
    }
    statements = [
        # deleting: the lease after a deploy, and old releases
        allow("Releases", ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], [site.bucket_arn("artefacts", "*")]),
        allow("FindReleases", ["s3:ListBucket"], [site.bucket_arn("artefacts")]),
        *fleets.deployer_statements(site),
    ]
    return {
        "name": site.name("deployer", limit=64),
        "issuer": ISSUER,
        "trust": {"Version": "2012-10-17", "Statement": [trust]},
        "provider_tags": {**site.tags(), "Environment": "shared"},
        "policy": {"Version": "2012-10-17", "Statement": statements},
        "tags": site.tags(),
    }
