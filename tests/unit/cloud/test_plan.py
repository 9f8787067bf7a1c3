"""The cloud plan: pure, complete, and clear about what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.core import cloud, manifest
from app.core.cloud import preview

ROOT = Path(__file__).resolve().parents[3]
MANIFESTS = manifest.load_all(ROOT, ["portal", "wine"])
ONE_HOST = {
    "entry": "address",
    "network": {"way_out": "public"},
    "fleets": [{"name": "main", "min": 1, "max": 1, "desired": 1}],
}


def plan(settings: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return cloud.build(settings or {}, MANIFESTS, environment="test", account="123456789012", **more)


def test_an_empty_inventory_is_a_whole_environment() -> None:
    built = plan()
    assert set(built) >= set(cloud.SECTIONS)
    assert built["prefix"] == "pergola-test"
    assert built["fleet"]["fleets"][0]["apps"] == ["portal", "wine"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"regoin": "us-east-1"}, "pergola_cloud/regoin: unknown key, did you mean 'region'?"),
        ({"network": {"ciddr": "10.0.0.0/16"}}, "pergola_cloud/network/ciddr: unknown key, did you mean 'cidr'?"),
        ({"cidr": "10.0.0.0/16"}, "pergola_cloud/cidr: unknown key, did you mean 'network/cidr'?"),
        ({"zones": []}, "pergola_cloud/zones: expected at least one entry such as ['a', 'b'], got 0 of them"),
        ({"zones": ["a"]}, "pergola_cloud/zones: a balancer and a database need two zones"),
        ({"network": {"cidr": "8.8.0.0/16"}}, "pergola_cloud/network/cidr: 8.8.0.0/16 is not private"),
        ({"network": {"cidr": "10.0.0.1/16"}}, "pergola_cloud/network/cidr: 10.0.0.1/16 has host bits set"),
        (
            {"fleets": [{"name": "main", "min": 1}]},
            "pergola_cloud/fleets/0/min: expected at least 2 behind a balancer, got 1",
        ),
        ({"fleets": [{"name": "main", "max": 11}]}, "pergola_cloud/fleets/0/max: expected at most 10"),
        ({"fleets": [{"name": "a", "apps": ["wines"]}]}, "'wines' is not in pergola_apps, did you mean 'wine'?"),
        ({"fleets": [{"name": "a", "apps": ["wine"]}]}, "pergola_cloud/fleets: no fleet serves portal"),
        (
            {"fleets": [{"name": "main", "instance_type": "t3.nano"}]},
            (
                "pergola_cloud/fleets/0/instance_type: a t3.nano has 512 MiB, its apps' limits and the system come to 1024;"
                " take a larger one, such as t3.micro,"
            ),
        ),
        ({"entry": "address"}, "pergola_cloud/network/way_out: entry: address needs public"),
        (
            {"domain": {"certificate": "request"}},
            "pergola_cloud/domain: certificate: request needs a name and the zone",
        ),
    ],
)
def test_a_wrong_inventory_says_what_is_wrong(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(cloud.CloudError) as error:
        plan(settings)
    assert sentence in str(error.value)


def test_one_host_with_an_address_has_no_balancer() -> None:
    built = plan(ONE_HOST)
    assert not built["balancer"]["enabled"]
    assert [row["key"] for row in built["network"]["security_groups"]] == ["hosts"]


def with_drawings(**settings: Any) -> dict[str, Any]:
    apps = manifest.load_all(ROOT, ["portal", "wine", "drawings"])
    return cloud.build(settings, apps, environment="test", account="123456789012")


def test_an_apps_own_backups_go_to_glacier_and_end_as_its_manifest_says() -> None:
    rows = {row["purpose"]: row for row in with_drawings()["storage"]["buckets"]}
    rules = {rule["ID"]: rule for rule in rows["data"]["lifecycle"]}
    assert rules["drawings-backups"]["Filter"] == {"Prefix": "drawings/backups/"}
    assert rules["drawings-backups"]["Transitions"] == [{"Days": 30, "StorageClass": "GLACIER"}]
    assert rules["drawings-backups"]["Expiration"] == {"Days": 365}
    assert "portal-backups" not in rules
    assert [rule["ID"] for rule in rows["backups"]["lifecycle"]] == ["keep"]


def test_nothing_of_a_repository_goes_away_by_its_age_or_where_a_read_takes_hours() -> None:
    """Its oldest files, such as its key, are needed for its newest snapshot."""
    rows = {row["purpose"]: row for row in with_drawings(storage={"archive_days": 45})["storage"]["buckets"]}
    (rule,) = rows["backups"]["lifecycle"]
    assert rule["Transitions"] == [{"Days": 45, "StorageClass": "STANDARD_IA"}]
    assert "Expiration" not in rule


def test_hosts_that_back_up_have_one_password_and_only_they() -> None:
    name = "pergola-test/backup/password"
    built = with_drawings(database={"enabled": False})
    release = built["fleet"]["fleets"][0]["release"]
    assert release["secrets"][".backup"] == {"password": name}
    assert release["variables"]["backup_password_file"] == "/etc/pergola/secrets/.backup/password"
    assert release["variables"]["backup_bucket"] == "pergola-test-123456789012-backups"
    assert name in {row["name"] for row in built["secrets"]["secrets"]}
    assert f"secret:{name}" in str(sids(built)["Secrets"]["Resource"])
    assert "/wine/*" in str(sids(built)["Backups"]["Resource"])
    kept_by_aws = with_drawings(database={"enabled": True})
    assert name not in str(kept_by_aws)
    assert "Backups" not in sids(kept_by_aws)


def sids(built: dict[str, Any]) -> dict[str, Any]:
    """Return what the hosts may do, by name."""
    (host,) = built["identity"]["hosts"]
    return {row["Sid"]: row for row in host["policy"]["Statement"]}


@pytest.mark.parametrize(
    ("apps", "settings", "expected"),
    [
        (["portal", "ava"], {}, ["https://data.example.org"]),  # its manifest asks for it
        (["portal", "wine"], {}, []),
        (["portal", "wine"], {"storage": {"browser_uploads": True}}, ["https://data.example.org"]),
    ],
)
def test_pages_may_send_files_to_the_data_bucket_where_an_app_or_the_inventory_says_so(
    apps: list[str], settings: dict[str, Any], expected: list[str]
) -> None:
    domain = {"domain": {"name": "data.example.org", "zone": "example.org", "certificate": "request"}}
    manifests = manifest.load_all(ROOT, apps)
    built = cloud.build({**domain, **settings}, manifests, environment="test", account="123456789012")
    origins = {row["purpose"]: row["cors_origins"] for row in built["storage"]["buckets"]}
    assert origins == {"logs": [], "artefacts": [], "data": expected, "backups": []}


def test_an_app_with_sqlite_has_its_database_on_the_server_of_a_fleet() -> None:
    built = with_drawings(database={"enabled": True})
    release = built["fleet"]["fleets"][0]["release"]
    assert release["database"] == {
        "endpoint": "pergola-test/database/endpoint",
        "master": "pergola-test/database/master",
        "user": "pergola",
        "database": "pergola",
        "apps": {app: f"pergola-test/{app}/database_password" for app in ("drawings", "wine")},
    }
    apps = {app["name"]: app for app in release["variables"]["pergola_plan"]["apps"]}
    assert apps["drawings"]["environment"]["PERGOLA_DATABASE_URL"] == ""
    assert "database_url" in apps["drawings"]["manifest"]["secrets"]
    assert apps["drawings"]["private_network"] is False
    assert "database_url" not in apps["portal"]["manifest"]["secrets"]
    assert "database_password" not in str(release["secrets"]), "a host makes the URL of it; the app needs no more"
    names = {row["name"] for row in built["secrets"]["secrets"]}
    assert {"pergola-test/drawings/database_password", "pergola-test/database/master"} <= names
    (host,) = built["identity"]["hosts"]
    (readable,) = [row["Resource"] for row in host["policy"]["Statement"] if row["Sid"] == "Secrets"]
    assert any("drawings/database_password" in arn for arn in readable)
    assert any("database/endpoint" in arn for arn in readable)


def test_without_a_server_nothing_of_one_is_asked_for() -> None:
    built = with_drawings(database={"enabled": False})
    release = built["fleet"]["fleets"][0]["release"]
    assert release["database"] == {}
    apps = {app["name"]: app for app in release["variables"]["pergola_plan"]["apps"]}
    assert apps["drawings"]["environment"]["PERGOLA_DATABASE_URL"].startswith("sqlite:")
    assert "database" not in "".join(row["name"] for row in built["secrets"]["secrets"])


@pytest.mark.parametrize(
    ("given", "who"),
    [
        ({}, "ref:refs/heads/main"),
        ({"branch": "live"}, "ref:refs/heads/live"),
        ({"github_environment": "production"}, "environment:production"),
    ],
)
def test_ci_is_one_branch_or_one_environment_of_one_repository(given: dict[str, str], who: str) -> None:
    role = plan({"identity": {"repository": "example/apps", **given}})["identity"]["deployer"]
    (trust,) = role["trust"]["Statement"]
    assert trust["Condition"]["StringEquals"]["token.actions.githubusercontent.com:sub"] == f"repo:example/apps:{who}"


def test_ci_may_do_what_a_deploy_does_and_launch_only_as_the_hosts_it_knows() -> None:
    statements = plan({"identity": {"repository": "example/apps"}})["identity"]["deployer"]["policy"]["Statement"]
    allowed = {action for row in statements for action in row["Action"]}
    assert {
        "s3:DeleteObject", "elasticloadbalancing:ModifyRule", "autoscaling:UpdateAutoScalingGroup",
        "autoscaling:PutScheduledUpdateGroupAction", "ec2:CreateLaunchTemplateVersion", "cloudwatch:GetMetricData",
    } <= allowed  # fmt: skip
    (passing,) = (row for row in statements if "iam:PassRole" in row["Action"])
    assert passing["Resource"] == ["arn:aws:iam::123456789012:role/pergola-test-host-main"]


def test_an_app_may_have_a_name_of_its_own() -> None:
    domain = {
        "name": "apps.example.org",
        "zone": "example.org",
        "certificate": "request",
        "apps": {"wine": "wine.example.org"},
    }
    built = plan({"domain": domain})
    first, then = built["balancer"]["rules"]
    assert (first["hosts"], first["paths"], first["to"]) == (["wine.example.org"], ["/"], "/wine/")
    assert (then["hosts"], then["paths"], then["to"], then["fleet"]) == (["wine.example.org"], [], "", "main")
    assert first["priority"] < then["priority"]
    assert built["balancer"]["app_domains"] == ["wine.example.org"]
    assert ("DNS record", "wine.example.org A") in {(thing.kind, thing.name) for thing in preview.wanted(built)}
    (data,) = (row for row in with_drawings(domain=domain)["storage"]["buckets"] if row["purpose"] == "data")
    assert set(data["cors_origins"]) <= {"https://apps.example.org", "https://wine.example.org"}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"domain": {"apps": {"beer": "beer.example.org"}}}, "domain/apps: 'beer' is not in pergola_apps"),
        ({"domain": {"apps": {"wine": "x"}}}, "domain/apps/wine"),
        ({"domain": {"name": "a.example.org", "apps": {"wine": "a.example.org"}}}, "'a.example.org' is a name of something else too"),
        (
            {"domain": {"name": "a.example.org", "zone": "example.org", "apps": {"wine": "wine.example.net"}}},
            "domain/apps/wine: 'wine.example.net' is not in the zone 'example.org'",
        ),
        ({**ONE_HOST, "domain": {"apps": {"wine": "wine.example.org"}}}, "names of apps need a balancer"),
    ],
)  # fmt: skip
def test_a_wrong_name_of_an_app_is_told(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(cloud.CloudError) as error:
        plan(settings)
    assert sentence in str(error.value)


def test_one_host_has_an_address_and_changes_in_place() -> None:
    built = plan(ONE_HOST)
    (fleet,) = built["fleet"]["fleets"]
    assert fleet["address"] == "pergola-test-main"
    assert built["fleet"]["refresh"] is False, "its data is on its disk"
    assert built["deploy"]["in_place"] is True
    wanted = {(thing.kind, thing.name) for thing in preview.wanted(built)}
    assert ("public address", "pergola-test-main") in wanted
    assert ("scaling group", "pergola-test-main-blue") in wanted
    statements = built["identity"]["hosts"][0]["policy"]["Statement"]
    (take,) = (row for row in statements if row["Sid"] == "TakeAddress")
    assert take["Condition"]["StringEquals"]["aws:ResourceTag/Environment"] == "test"
    behind = plan({})
    assert behind["fleet"]["fleets"][0]["address"] == ""
    assert (behind["fleet"]["refresh"], behind["deploy"]["in_place"]) == (True, False)
    assert "Address" not in json.dumps(behind["identity"]["hosts"])


@pytest.mark.parametrize(("given", "grace"), [({}, (300, 60)), ({"grace_seconds": 120}, (120, 120))])
def test_a_host_of_a_baked_image_needs_less_grace(given: dict[str, Any], grace: tuple[int, int]) -> None:
    (fleet,) = plan({"fleets": [{"name": "main", **given}]})["fleet"]["fleets"]
    assert (fleet["grace_seconds"], fleet["grace_seconds_baked"]) == grace


def test_where_hosts_become_images() -> None:
    with_a_way_out = plan({"network": {"way_out": "nat"}})
    assert with_a_way_out["fleet"]["builder"]["security_groups"] == ["pergola-test-hosts"]
    closed = plan({"network": {"way_out": "endpoints"}})
    assert closed["fleet"]["builder"] == {
        "subnets": ["pergola-test-public-a", "pergola-test-public-b"],
        "security_groups": ["pergola-test-hosts", "pergola-test-builder"],
        "address": True,
    }
    (group,) = (row for row in closed["network"]["security_groups"] if row["key"] == "builder")
    assert group["ingress"] == []
    assert [rule["ports"] for rule in group["egress"]] == [[80]]


def test_each_fleet_needs_memory_for_its_own_apps_only() -> None:
    small = [
        {"name": "front", "instance_type": "t3.nano", "apps": ["portal"]},
        {"name": "main", "instance_type": "c7g.medium"},
    ]
    assert [row["apps"] for row in plan({"fleets": small})["fleet"]["fleets"]] == [["portal"], ["wine"]]
    with pytest.raises(
        cloud.CloudError, match=r"fleets/1/instance_type: a t4g.nano has 512 MiB.* come to 768; .*t4g.micro"
    ):
        plan({"fleets": [small[0], {"name": "main", "instance_type": "t4g.nano"}]})
    plan({"fleets": [{"name": "main", "instance_type": "z9.tiny"}]})
