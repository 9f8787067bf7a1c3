"""The cost estimate: complete, monotonous, and exactly the sum of its lines."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core import cloud, manifest, prices
from tests.modules import loaded

ROOT = Path(__file__).resolve().parents[3]
MANIFESTS = manifest.load_all(ROOT, ["portal", "wine"])
TABLE = prices.PriceTable.load()
BUDGETS = {"demo": (26, 36), "staging": (54, 60), "production": (150, 470)}  # USD a month
INSTANCES = sorted(key.removeprefix("instance.") for key in TABLE.prices if key.startswith("instance."))
DATABASES = sorted(key.removeprefix("database.") for key in TABLE.prices if key.startswith("database.db."))


def plan(inventory: dict[str, Any]) -> dict[str, Any]:
    return cloud.build(inventory, MANIFESTS, environment="test", account="123456789012")


@st.composite
def inventories(draw: st.DrawFn) -> dict[str, Any]:
    """Valid inventories of every shape that changes the bill."""
    balanced = draw(st.booleans())
    desired = draw(st.integers(2, 9)) if balanced else 1
    row = {"name": "main", "instance_type": draw(st.sampled_from(INSTANCES)), "disk_gb": draw(st.integers(8, 1000))}
    return {
        "entry": "balancer" if balanced else "address",
        "network": {"way_out": draw(st.sampled_from(["public", "nat", "endpoints"])) if balanced else "public"},
        "fleets": [{**row, "min": desired, "desired": desired, "max": 10 if balanced else 1}],
        "database": {
            "enabled": draw(st.booleans()),
            "class": draw(st.sampled_from(DATABASES)),
            "two_zones": draw(st.booleans()),
        },
        "edge": {key: balanced and draw(st.booleans()) for key in ("cdn", "firewall", "trail")},
        "storage": {"replica_region": "eu-west-1"} if draw(st.booleans()) else {},
        "usage": {"visitors_gb": draw(st.integers(0, 5000)), "log_gb": draw(st.integers(0, 100))},
    }


@settings(max_examples=60, deadline=None)
@given(inventories())
def test_the_total_is_the_sum_and_every_line_is_its_quantity_times_its_price(inventory: dict[str, Any]) -> None:
    lines = prices.monthly(plan(inventory))
    assert prices.total(lines) == sum((line.usd for line in lines), Decimal(0))
    for line in lines:
        assert abs(line.quantity * line.each - line.usd) <= Decimal("0.005")
        assert line.usd == line.usd.quantize(prices.CENT)


@settings(max_examples=40, deadline=None)
@given(
    inventories(), st.sampled_from(["host", "disk", "database", "standby", "visitors", "logs", "firewall", "replica"])
)
def test_more_of_anything_never_costs_less(inventory: dict[str, Any], more: str) -> None:
    larger = copy.deepcopy(inventory)
    fleet = larger["fleets"][0]
    if more == "host" and larger["entry"] == "balancer":
        fleet["desired"] += 1
    elif more == "disk":
        fleet["disk_gb"] = min(1000, fleet["disk_gb"] + 10)
    elif more == "database":
        larger["database"]["enabled"] = True
    elif more == "standby":
        larger["database"]["two_zones"] = True
    elif more in ("visitors", "logs"):
        larger["usage"][{"visitors": "visitors_gb", "logs": "log_gb"}[more]] += 100
    elif more == "firewall" and larger["entry"] == "balancer":
        larger["edge"]["firewall"] = True
    elif more == "replica":
        larger["storage"] = {"replica_region": "eu-west-1"}
    before, after = (prices.total(prices.monthly(plan(each))) for each in (inventory, larger))
    assert after >= before


def test_each_part_of_an_inventory_has_its_line() -> None:
    whole = {
        "network": {"way_out": "nat"},
        "domain": {"name": "apps.example.org", "zone": "example.org"},
        "database": {"enabled": True},
        "edge": {"cdn": True, "firewall": True, "trail": True},
        "storage": {"replica_region": "eu-west-1"},
    }
    keys = {line.price for line in prices.monthly(plan(whole))}
    assert keys >= {
        "instance.t3.small", "disk.gp3", "balancer", "balancer.lcu", "public_ipv4", "nat", "nat.data", "data_out", "zone",
        "database.db.t4g.micro", "database.storage", "storage.standard", "storage.standard_ia", "storage.replication", "secret",
        "logs.ingest", "metric", "alarm", "dashboard", "firewall", "firewall.rule", "cdn.data",
    }  # fmt: skip
    ends = {line.price for line in prices.monthly(plan({"network": {"way_out": "endpoints"}}))}
    assert "endpoint" in ends
    assert "nat" not in ends


def test_a_standby_costs_the_database_again() -> None:
    one = plan({"database": {"enabled": True, "storage_gb": 100}})
    two = plan({"database": {"enabled": True, "storage_gb": 100, "two_zones": True}})
    cost = [prices.total(x for x in prices.monthly(each) if x.price.startswith("database.")) for each in (one, two)]
    assert cost[1] == 2 * cost[0]


def test_what_is_free_is_counted_once_and_listed() -> None:
    lines = prices.monthly(plan({"usage": {"visitors_gb": 100}}))
    assert next(line.usd for line in lines if line.price == "data_out") == 0
    listed = {line.what.split(" ", 1)[1].rstrip("s") for line in lines if not line.price}
    assert {"vpc", "subnet", "security group", "launch template", "certificate", "budget"} <= listed


def test_an_alarm_on_metric_maths_is_charged_for_each_metric() -> None:
    maths = {"Metrics": [{"MetricStat": {}}, {"MetricStat": {}}, {"Expression": "a + b"}]}
    assert prices.alarm_metrics([maths, {"MetricName": "x"}]) == 3


def test_a_metric_that_two_alarms_look_at_is_paid_once() -> None:
    one = {"Namespace": "own", "MetricName": "m", "Dimensions": [{"Name": "App", "Value": "wine"}]}
    other = {**one, "Dimensions": [{"Name": "App", "Value": "ava"}]}
    assert prices.own_metrics([one, dict(one), other, {**one, "Namespace": "AWS/EC2"}], "own") == 2


def test_an_unknown_instance_type_names_those_that_have_a_price() -> None:
    odd = plan({"fleets": [{"name": "main", "instance_type": "x9.tiny"}]})
    with pytest.raises(
        prices.PriceError, match=r"no price for instance\.x9\.tiny; of that kind it has: .*instance\.t3\.small"
    ):
        prices.monthly(odd)


def test_every_price_has_a_public_page_of_aws_and_every_page_is_used() -> None:
    assert all(url.startswith("https://aws.amazon.com/") for url in TABLE.sources.values())
    used = {price.source for price in TABLE.prices.values()} | set(TABLE.free.values())
    assert used == set(TABLE.sources)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("prices", "nat", "usd"), "cheap", "prices.nat.usd: expected a number, got 'cheap'"),
        (("prices", "nat", "usd"), 0, "prices.nat: a price is more than 0"),
        (("prices", "nat", "unit"), "day", "prices.nat.unit: expected one of hour"),
        (("prices", "nat", "source"), "ebay", "prices.nat.source: no source is called ebay"),
        (("prices", "nat", "eur"), 1, "prices.nat: unknown key eur"),
        (("free", "vpc"), "nobody", "free: no source is called nobody"),
        (("hours",), True, "hours: expected a number, got True"),
    ],
)
def test_a_wrong_table_names_the_key(tmp_path: Path, path: tuple[str, ...], value: Any, sentence: str) -> None:
    data = yaml.safe_load(prices.PRICE_FILE.read_text(encoding="utf-8"))
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (tmp_path / "prices.yml").write_text(yaml.safe_dump(data))
    with pytest.raises(prices.PriceError) as error:
        prices.PriceTable.load(tmp_path / "prices.yml")
    assert sentence in str(error.value)


DOC = loaded("scripts/cost_doc.py")


def test_the_page_is_that_of_the_inventories_and_prices() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/cost_doc.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", DOC.inventories())
def test_a_profile_stays_within_what_it_may_cost(name: str) -> None:
    lines, budget = DOC.estimate(name)
    least, most = BUDGETS.get(name, (0, 10_000))
    assert least <= prices.total(lines) <= most
    assert name not in BUDGETS or prices.total(lines) <= budget, "its own budget would cry at once"


def test_the_table_on_the_screen_has_every_line_and_ends_with_the_total() -> None:
    built = plan({"database": {"enabled": True}})
    lines = prices.monthly(built)
    shown = prices.text(lines, TABLE, budget=100)
    assert all(any(line.what in row and f"{line.usd:,.2f}" in row for row in shown) for line in lines if line.price)
    assert f"{prices.total(lines):,.2f}" in next(row for row in shown if row.startswith("USD a month"))
    assert "more than the budget of 100 USD" in shown
    assert "within the budget of 1,000 USD" in prices.text(lines, TABLE, budget=1000)
    assert TABLE.date in shown[-1]


def test_the_playbook_prints_the_estimate_and_asks_aws_nothing(tmp_path: Path) -> None:
    """No credentials, and an endpoint where nobody answers: a single call would fail."""
    inventory = shutil.copytree(ROOT / "inventories" / "rehearsal", tmp_path / "costs")  # another may be using it
    command = [sys.executable, "-m", "ansible", "playbook", "-i", str(inventory), "playbooks/cost.yml"]
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path), "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_EC2_METADATA_DISABLED": "true", "ANSIBLE_LOCAL_TEMP": str(tmp_path), "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8",
    }  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{prices.total(DOC.estimate('rehearsal')[0]):,.2f}" in done.stdout
