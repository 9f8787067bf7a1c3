"""What holds for the plan of any valid inventory."""

from __future__ import annotations

import ipaddress
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core import cloud, manifest, prices
from app.core.cloud import preview

ROOT = Path(__file__).resolve().parents[3]
MANIFESTS = manifest.load_all(ROOT, ["portal", "wine"])
TAGS = {"Project", "Environment", "App", "ManagedBy"}
WORLD = "0.0.0.0/0"
# what S3's replication and IAM's own services write into policies is no public bucket
ACCOUNT = "123456789012"


@st.composite
def inventories(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a valid inventory."""
    balanced = draw(st.booleans())
    low = draw(st.integers(2, 10)) if balanced else 1
    desired = draw(st.integers(low, 10)) if balanced else 1
    high = draw(st.integers(desired, 10)) if balanced else 1
    prefix = draw(st.integers(16, 22))
    start = ipaddress.ip_address("10.0.0.0") + draw(st.integers(0, 2 ** (prefix - 8) - 1)) * 2 ** (32 - prefix)
    size = {
        "min": low,
        "max": high,
        "desired": desired,
        "instance_type": draw(st.sampled_from(["t3.small", "m7g.large"])),
        "spot_percent": draw(st.sampled_from([0, 50])) if balanced else 0,
        "schedule": draw(st.sampled_from([[], [{"name": "evening", "at": "0 18 * * *", "min": 2, "desired": 2}]]))
        if balanced
        else [],
    }
    named = {"name": "apps.example.org", "zone": "example.org", "certificate": "request"}
    split = balanced and draw(st.booleans())
    names = draw(st.lists(st.from_regex(r"[a-z][a-z0-9]{0,7}", fullmatch=True), min_size=2, max_size=2, unique=True))
    fleets = [{"name": names[0], **size, **({"apps": ["wine"]} if split else {})}]
    if split:
        fleets.append({"name": names[1], **size})
    days = st.sampled_from([1, 14, 365])
    return {
        "project": draw(st.from_regex(r"[a-z][a-z0-9]{1,11}", fullmatch=True)),
        "region": draw(st.sampled_from(["us-east-1", "eu-central-1", "cn-north-1", "us-gov-west-1"])),
        "zones": draw(st.lists(st.sampled_from("abcd"), min_size=2, max_size=4, unique=True)),
        "entry": "balancer" if balanced else "address",
        "network": {
            "cidr": f"{start}/{prefix}",
            "way_out": draw(st.sampled_from(["public", "nat", "endpoints"])) if balanced else "public",
            "flow_log_days": draw(st.sampled_from([0, 14])),
        },
        "fleets": fleets,
        "domain": draw(st.sampled_from([{}, named, {**named, "apps": {"wine": "wine.example.org"}}]))
        if balanced
        else {},
        "storage": {
            "archive_days": draw(st.integers(30, 3650)),
            **draw(st.sampled_from([{}, {"replica_region": "eu-west-1"}])),
        },
        "database": {"enabled": draw(st.booleans()), "two_zones": draw(st.booleans())},
        "identity": draw(st.sampled_from([{}, {"repository": "example/apps"}])),
        "logs": {"days": draw(days)},
        "edge": {"firewall": balanced and draw(st.booleans()), "trail": draw(st.booleans())},
    }


def build(inventory: dict[str, Any], environment: str = "production") -> dict[str, Any]:
    return cloud.build(inventory, MANIFESTS, environment=environment, account=ACCOUNT)


def everything(value: Any, path: str = "") -> Any:
    """Give each mapping of a plan with its path."""
    if isinstance(value, dict):
        yield path, value
        for key, child in value.items():
            yield from everything(child, f"{path}/{key}")
    elif isinstance(value, list):
        for position, child in enumerate(value):
            yield from everything(child, f"{path}/{position}")


any_inventory = given(inventories())
profile = settings(max_examples=25, deadline=None)


@profile
@any_inventory
def test_subnets_lie_in_the_vpc_and_never_overlap(inventory: dict[str, Any]) -> None:
    network = build(inventory)["network"]
    vpc = ipaddress.ip_network(network["cidr"])
    blocks = [ipaddress.ip_network(row["cidr"]) for row in network["subnets"]]
    assert all(block.subnet_of(vpc) for block in blocks)
    assert not any(first.overlaps(second) for first, second in itertools.combinations(blocks, 2))
    assert len({row["name"] for row in network["subnets"]}) == len(blocks)


@profile
@any_inventory
def test_the_world_comes_in_by_80_and_443_of_what_visitors_meet(inventory: dict[str, Any]) -> None:
    built = build(inventory)
    front = "balancer" if built["balancer"]["enabled"] else "hosts"
    for group in built["network"]["security_groups"]:
        open_ports = [port for rule in group["ingress"] if rule.get("cidr_ip") == WORLD for port in rule["ports"]]
        assert open_ports == ([80, 443] if group["key"] == front else [])
        assert all(rule["proto"] == "tcp" for rule in group["ingress"] + group["egress"])


@profile
@any_inventory
def test_fleets_have_two_to_ten_hosts_as_set(inventory: dict[str, Any]) -> None:
    built = build(inventory)
    for wanted, fleet in zip(inventory["fleets"], built["fleet"]["fleets"], strict=True):
        assert {key: fleet[key] for key in ("min", "max", "desired")} == {
            key: wanted[key] for key in ("min", "max", "desired")
        }
        assert (2 if built["balancer"]["enabled"] else 1) <= fleet["min"] <= fleet["desired"] <= fleet["max"] <= 10
    served = [app for fleet in built["fleet"]["fleets"] for app in fleet["apps"]]
    assert sorted(served) == ["portal", "wine"]


@profile
@any_inventory
def test_everything_is_tagged(inventory: dict[str, Any]) -> None:
    built = build(inventory)
    tagged = [tags for _, row in everything(built) if isinstance(tags := row.get("tags"), dict)]
    assert len(tagged) > 10
    assert all(set(tags) >= TAGS and tags["ManagedBy"] == "pergola" for tags in tagged)
    # every section that makes something says with which tags; deploys move what is there
    making = set(cloud.SECTIONS) - {"deploy", "secrets"}
    assert all("tags" in built[name] for name in making)
    assert all("tags" in row for row in built["secrets"]["secrets"])


@profile
@any_inventory
def test_iam_names_its_resources(inventory: dict[str, Any]) -> None:
    identity = build(inventory)["identity"]
    roles = identity["hosts"] + ([identity["deployer"]] if identity["deployer"] else [])
    for role in roles:
        statements = role["policy"]["Statement"]
        assert len({row["Sid"] for row in statements}) == len(statements)
        for row in statements:
            assert row["Effect"] == "Allow"
            assert not any("*" in action for action in row["Action"])
            named = all(resource != "*" and not resource.endswith(":::*") for resource in row["Resource"])
            # what AWS knows no resource for: metrics (by namespace), the session's channels, and listing
            unnamed = all(
                re.match(
                    r"(cloudwatch:Put|cloudwatch:GetMetricData|ssm:Update|ssmmessages:|\w+:Describe|\w+:List)", each
                )
                for each in row["Action"]
            )
            assert named or unnamed, row
        assert len(json.dumps(role["policy"])) < 10_240  # IAM's limit for an inline policy of a role


@profile
@any_inventory
def test_every_bucket_refuses_what_is_not_tls_and_keeps_what_it_must(inventory: dict[str, Any]) -> None:
    for row in build(inventory)["storage"]["buckets"]:
        first = row["policy"]["Statement"][0]
        assert (first["Effect"], first["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", row["name"])
        for rule in row["lifecycle"]:
            days = [move["Days"] for move in rule.get("Transitions", [])]
            assert days == sorted(days)
            assert rule.get("Expiration", {"Days": 10**6})["Days"] > max(days, default=0)


@profile
@any_inventory
def test_names_fit_what_aws_takes_and_are_this_environments(inventory: dict[str, Any]) -> None:
    built, other = build(inventory), build(inventory, "staging")
    assert len(built["balancer"]["name"]) <= 32
    assert all(len(row["name"]) <= 32 for row in built["balancer"]["target_groups"])
    assert all(len(row["name"]) <= 64 for row in built["identity"]["hosts"])
    ours, theirs = ({(thing.kind, thing.name) for thing in preview.wanted(plan)} for plan in (built, other))
    assert not {pair for pair in ours & theirs if pair[0] not in {"DNS record", "certificate"}}


@profile
@any_inventory
def test_the_plan_is_plain_data_and_the_same_each_time(inventory: dict[str, Any]) -> None:
    first, second = build(inventory), build(inventory)
    assert json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


@profile
@any_inventory
def test_a_preview_of_an_empty_account_makes_everything_and_of_a_right_one_nothing(inventory: dict[str, Any]) -> None:
    built = build(inventory)
    things = list(preview.wanted(built))
    assert len({(thing.kind, thing.name) for thing in things}) == len(things)
    assert {step.action for step in preview.compare(built, [])} == {"make"}
    assert {step.action for step in preview.compare(built, things)} == {"keep"}
    assert {step.action for step in preview.compare(built, [*things, preview.Thing("bucket", "other")])} == {
        "keep",
        "remove",
    }


@pytest.mark.parametrize("name", ["rehearsal", "demo", "staging", "production"])
def test_each_inventory_is_valid_short_and_within_its_budget(name: str) -> None:
    file = ROOT / "inventories" / name / "group_vars" / "all.yml"
    lines = [
        *file.read_text(encoding="utf-8").splitlines(),
        *(ROOT / "inventories" / name / "hosts.yml").read_text().splitlines(),
    ]
    assert len(lines) < 60
    given_ = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert given_["pergola_environment"] == name
    built = cloud.build(given_["pergola_cloud"], MANIFESTS, environment=name, account=ACCOUNT)
    if name != "rehearsal":  # where it costs nothing
        assert prices.total(prices.monthly(built)) < built["budget"]["usd"]


def test_the_page_of_inventories_is_what_the_schema_says() -> None:
    command = [sys.executable, ROOT / "scripts" / "inventory_doc.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
