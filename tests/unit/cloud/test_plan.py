"""The cloud plan: pure, complete, and clear about what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.core import cloud, manifest

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
