"""The role aws_database brings a database back to a moment: against a rehearsed account without containers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.rehearsal.conftest import Account

ROOT = Path(__file__).resolve().parents[3]
THEN, FRESH = "2026-01-31T04:00:00Z", "main-as-of-2026-01-31t040000z"


def playbook(account: Account, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ansible-playbook against the rehearsed account."""
    keys = {"AWS_ENDPOINT_URL": account.cloud.world.settings.endpoint, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "rehearsal",
            "AWS_SECRET_ACCESS_KEY": "any-but-a-word-that-occurs", "ANSIBLE_ROLES_PATH": str(ROOT / "roles"),
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable}  # fmt: skip
    return subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), *words],
        cwd=ROOT, env={**os.environ, **keys}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


class Database:
    """A database as the role makes it, and the role run on it."""

    def __init__(self, account: Account, folder: Path) -> None:
        self.account, self.folder = account, folder
        ec2, secrets = account.client("ec2"), account.client("secretsmanager")
        self.group = ec2.create_security_group(GroupName="database", Description="database", VpcId=account.vpc)[
            "GroupId"
        ]
        for number, subnet in enumerate(account.subnets):
            ec2.create_tags(Resources=[subnet], Tags=[{"Key": "Name", "Value": f"db-{number}"}])
        secrets.create_secret(Name="master", SecretString="of-this-very-day")
        self.variables = {
            "aws_database_name": "main", "aws_database_database": "apps", "aws_database_master_user": "owner",
            "aws_database_master_secret": "master", "aws_database_endpoint_secret": "endpoint", "aws_database_subnets": ["db-0", "db-1"],
            "aws_database_security_group": "database", "aws_database_tags": {"Project": "pergola"}, "aws_database_deletion_protection": True,
        }  # fmt: skip

    def play(self, *steps: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        """Run the role's entry points, each with its variables."""
        tasks = [
            {"ansible.builtin.include_role": {"name": "aws_database", "tasks_from": step.pop("from")}, "vars": step}
            for step in steps
        ]
        path = self.folder / "play.yml"
        path.write_text(
            yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "vars": self.variables, "tasks": tasks}])
        )
        return playbook(self.account, "-i", "localhost,", "-c", "local", str(path))

    def good(self, *steps: dict[str, Any]) -> None:
        """Run them; all end well."""
        done = self.play(*steps)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]

    def there(self) -> dict[str, dict[str, Any]]:
        """Return the servers by name."""
        rows = self.account.client("rds").describe_db_instances()["DBInstances"]
        return {row["DBInstanceIdentifier"]: row for row in rows if row["DBInstanceIdentifier"].startswith("main")}

    def rename(self, before: str, name: str) -> None:
        """Do what the role does between two of its steps."""
        self.account.client("rds").modify_db_instance(
            DBInstanceIdentifier=before, NewDBInstanceIdentifier=name, ApplyImmediately=True
        )


def names(account: Account) -> set[str]:
    return {row["DBInstanceIdentifier"] for row in account.client("rds").describe_db_instances()["DBInstances"]}


def tags(row: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in row["TagList"]}


def test_a_database_comes_back_beside_itself_and_takes_its_name_also_after_an_interruption(
    account: Account, tmp_path: Path
) -> None:
    database = Database(account, tmp_path)
    database.good({"from": "main"}, {"from": "restore", "aws_database_moment": THEN, "aws_database_aside": True})
    found = database.there()
    assert set(found) == {"main", FRESH}
    assert tags(found[FRESH]) == {"Project": "pergola"}
    assert account.cloud.world.restored[FRESH] == ("main", "2026-01-31T04:00:00+00:00")
    fresh = account.cloud.world.backend("rds").databases[FRESH]
    assert fresh._master_user_password == "of-this-very-day", "not that of then"
    for row in found.values():
        assert [group["VpcSecurityGroupId"] for group in row["VpcSecurityGroups"]] == [database.group]
        assert row["DBSubnetGroup"]["DBSubnetGroupName"] == "main"
        assert (row["DeletionProtection"], row["PubliclyAccessible"], row["StorageEncrypted"]) == (True, False, True)

    database.rename("main", "main-before-interrupted")
    refused = database.play({"from": "restore", "aws_database_moment": "latest"})
    assert refused.returncode != 0
    assert f"A restore was not finished: say the moment of {FRESH} again" in " ".join(refused.stdout.split())
    database.good({"from": "restore", "aws_database_moment": THEN})
    found = database.there()
    assert set(found) == {"main", "main-before-interrupted"}
    assert tags(found["main"]) == {"Project": "pergola"}
    assert account.cloud.world.restored["main"][0] == "main", "the one that was restored has the name"

    database.good({"from": "restore", "aws_database_moment": "latest"})
    found = database.there()
    (kept,) = set(found) - {"main", "main-before-interrupted"}
    assert kept.startswith("main-before-2")
    assert {name: row["DBInstanceStatus"] for name, row in found.items()} == {
        "main": "available", "main-before-interrupted": "available", kept: "stopped",
    }  # fmt: skip
    where = json.loads(account.client("secretsmanager").get_secret_value(SecretId="endpoint")["SecretString"])
    assert where["host"] == found["main"]["Endpoint"]["Address"]


def test_a_moment_that_has_not_come_is_refused_in_awss_words(account: Account) -> None:
    rds = account.client("rds")
    rds.create_db_instance(
        DBInstanceIdentifier="young", Engine="postgres", DBInstanceClass="db.t4g.micro", AllocatedStorage=20, MasterUsername="owner",
        MasterUserPassword="secretsecret",
    )  # fmt: skip
    with pytest.raises(rds.exceptions.ClientError, match="cannot be restored to a time later than"):
        rds.restore_db_instance_to_point_in_time(
            SourceDBInstanceIdentifier="young", TargetDBInstanceIdentifier="older", RestoreTime="2099-01-01T00:00:00Z"
        )


def test_what_cannot_be_restored_is_refused_before_anything_is_asked(account: Account, tmp_path: Path) -> None:
    before = names(account)
    for inventory, at, said in (
        ("demo", THEN, "pergola-demo has no database server"),
        ("production", "yesterday", "Say to which moment, in UTC: -e at=2026-01-31T04:00:00Z, or -e at=latest"),
        ("production", "", "Say to which moment"),
    ):
        own = tmp_path / f"{inventory}-{os.getpid()}"  # an inventory has one run at a time, known by its folder's name
        shutil.copytree(ROOT / "inventories" / inventory, own, dirs_exist_ok=True)
        done = playbook(account, "playbooks/restore_database.yml", "-i", str(own), "-e", f"at={at}")
        assert done.returncode != 0
        assert said in " ".join(done.stdout.split()), done.stdout + done.stderr
    assert names(account) == before
