"""Outside opinions on every policy in the cloud plan."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.core import cloud, manifest
from tests.opinions import opinions, policies

ROOT = Path(__file__).resolve().parents[3]
APPS = sorted(path.parent.name for path in ROOT.glob("app/*/app.yml"))
EVERYTHING: dict[str, Any] = {
    "identity": {"repository": "example/apps"},
    "database": {"enabled": True},
    "storage": {"replica_region": "eu-west-1"},
    "edge": {"firewall": True, "trail": True},
    "fleets": [{"name": "main", "instance_type": "t3.large"}, {"name": "other", "apps": ["wine"]}],
}
ONE_HOST = {
    "entry": "address",
    "network": {"way_out": "public"},
    "fleets": [{"name": "main", "instance_type": "t3.large", "min": 1, "max": 1, "desired": 1}],
}


@pytest.mark.parametrize(
    "inventory",
    [{"fleets": [{"name": "main", "instance_type": "t3.large"}]}, EVERYTHING, ONE_HOST],
    ids=["default", "everything", "one host"],
)
def test_parliament_and_cloudsplaining_find_nothing(inventory: dict[str, Any]) -> None:
    built = cloud.build(inventory, manifest.load_all(ROOT, APPS), environment="test", account="123456789012")
    found = list(policies(built))
    assert found
    assert [line for policy in found for line in opinions(policy)] == []


@pytest.mark.parametrize(
    ("statement", "word"),
    [
        ({"Action": "s3:GetObject", "Resource": "*"}, "allows_data_exfiltration_actions"),
        ({"Action": "iam:*", "Resource": "*"}, "service_wildcard"),
        ({"Action": "s3:GetObjekt", "Resource": "arn:aws:s3:::a/*"}, "UNKNOWN_ACTION"),
        ({"Action": "s3:GetObject", "Resource": "arn:aws:s3:::a"}, "RESOURCE_MISMATCH"),
        ({"Action": "secretsmanager:GetSecretValue", "Resource": "*"}, "allows_data_exfiltration_actions"),
    ],
)
def test_they_would_find_it(statement: dict[str, Any], word: str) -> None:
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement}]}
    assert word in " ".join(opinions(policy))


def test_the_page_explains_what_the_bench_lets_pass() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/security_doc.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_of_alarms_names_each_of_them() -> None:
    page = (ROOT / "docs" / "MONITORING.md").read_text(encoding="utf-8")
    built = cloud.build(EVERYTHING, manifest.load_all(ROOT, APPS), environment="test", account="123456789012")
    rows = set(re.findall(r"^\| `([^`]+)` \| ", page, re.MULTILINE))
    fleets = {row["name"] for row in EVERYTHING["fleets"]}
    for alarm in built["monitoring"]["alarms"]:
        name = alarm["AlarmName"].removeprefix("pergola-test-")
        first, _, rest = name.partition("-")
        kind = f"<fleet>-{rest}" if first in fleets else f"<app>-{rest}" if first in APPS else name
        kind = re.sub(r"-(blue|green)-", "-<colour>-", re.sub(r"-backup-.*", "-backup-<what>", kind))
        known = kind in rows or kind.startswith("<app>-")
        assert known, name
