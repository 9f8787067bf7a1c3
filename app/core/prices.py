"""What an environment costs a month, line by line, before anything is made.

The prices stand in ``files/prices.yml`` with their date and public source. A line is a quantity of one of them. What is used rather
than made (traffic, logs, objects) is an assumption that the inventory states under ``usage``. Amounts are decimals: a total is
exactly the sum of what is shown.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import yaml

from app.core.cloud.secrets import secret_names

PRICE_FILE = Path(__file__).resolve().parents[2] / "files" / "prices.yml"
CENT = Decimal("0.01")
DETAILED_METRICS = (
    7  # of each host in a scaling group: detailed monitoring, as scaling by five minutes would come too late
)
UNITS = {
    "hour": "hours",
    "GB-month": "GB",
    "GB": "GB",
    "LCU-hour": "LCU-hours",
    "month": "",  # so many of them
    "thousand": "thousand",
    "million": "million",
}
"""The units of the price table, and what a quantity of each is called."""


class PriceError(ValueError):
    """The price table is wrong, or has no price for something; says which."""


@dataclass(frozen=True)
class Price:
    """What one unit costs."""

    key: str
    usd: Decimal
    unit: str
    free: Decimal
    source: str


@dataclass(frozen=True)
class Line:
    """One line of an estimate.

    Attributes:
        what: What is paid for, in words.
        price: Key in the price table; empty for what is free.
        quantity: Units charged a month, after what is free of them.
        unit: One of ``UNITS``.
        each: USD for a unit.
        usd: USD a month, in whole cents.
    """

    what: str
    price: str
    quantity: Decimal
    unit: str
    each: Decimal
    usd: Decimal

    def as_dict(self) -> dict[str, Any]:
        """Return the line as plain data."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


@dataclass(frozen=True)
class PriceTable:
    """A dated list of prices of one region."""

    date: str
    region: str
    hours: Decimal
    prices: Mapping[str, Price]
    free: Mapping[str, str]
    sources: Mapping[str, str]

    @classmethod
    def load(cls, path: Path = PRICE_FILE) -> PriceTable:
        """Read the table from ``path``.

        Raises:
            PriceError: Something is missing or no number; names the key.
        """
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        try:
            sources = {str(key): str(value) for key, value in data["sources"].items()}
            prices = {str(key): _price(str(key), entry, sources) for key, entry in data["prices"].items()}
            free = {str(key): str(value) for key, value in data["free"].items()}
            table = cls(str(data["date"]), str(data["region"]), _number("hours", data["hours"]), prices, free, sources)
        except (KeyError, TypeError, AttributeError) as error:
            raise PriceError(f"{path.name}: {error} is missing or has the wrong form") from error
        if unknown := sorted(set(free.values()) - set(sources)):
            raise PriceError(f"{path.name}: free: no source is called {unknown[0]}")
        return table

    def price(self, key: str) -> Price:
        """Return the price under ``key``.

        Raises:
            PriceError: There is none; names those of the same kind.
        """
        if found := self.prices.get(key):
            return found
        kind = key.split(".", 1)[0]
        known = ", ".join(sorted(name for name in self.prices if name.startswith(f"{kind}."))) or "none"
        raise PriceError(
            f"files/prices.yml has no price for {key}; of that kind it has: {known}. Add it, with its source."
        )

    def line(self, what: str, key: str, amount: float | Decimal = 1) -> Line:
        """Return the line for ``amount`` of a price a month.

        Args:
            what: What is paid for, in words.
            key: Key of the price.
            amount: How many there are: machines for a price by the hour (a month has ``hours`` of them), else units.
        """
        price, number = self.price(key), _number(key, amount)
        if number < 0:
            raise PriceError(f"{what}: the amount cannot be negative, got {number}")
        units = number * self.hours if price.unit.endswith("hour") else number
        charged = max(Decimal(0), units - price.free)
        usd = (charged * price.usd).quantize(CENT, ROUND_HALF_UP)
        return Line(what, key, charged, UNITS[price.unit], price.usd, usd)

    def nothing(self, kind: str, what: str) -> Line:
        """Return the line of something that AWS gives without charge.

        Raises:
            PriceError: ``kind`` is not in the table's list of those.
        """
        if kind not in self.free:
            raise PriceError(f"files/prices.yml has neither a price for {kind} nor lists it under free")
        return Line(what, "", Decimal(0), "", Decimal(0), Decimal(0))


def monthly(plan: Mapping[str, Any], prices: PriceTable | None = None) -> list[Line]:
    """Return what the cloud plan costs a month.

    Args:
        plan: From ``app.core.cloud.build``.
        prices: Another table than the one that comes with Pergola.

    Returns:
        A line for each thing that AWS charges for, and one of 0 USD for each kind of thing that it gives.

    Raises:
        PriceError: There is no price for something, such as an instance type that is not in the table.
    """
    known = prices or table()
    parts = (_hosts, _ways, _database, _storage, _names, _watching, _edge, _given)
    return [line for part in parts for line in part(plan, known)]


def _hosts(plan: Mapping[str, Any], prices: PriceTable) -> Iterator[Line]:
    for fleet in plan["fleet"]["fleets"]:
        number, kind = fleet["desired"], fleet["instance_type"]
        yield prices.line(f"{_count(number, 'host')} {kind} ({fleet['fleet']})", f"instance.{kind}", number)
        yield prices.line(f"{_count(number, 'disk')} of {fleet['disk_gb']} GB", "disk.gp3", number * fleet["disk_gb"])
    if image := plan["usage"]["image_gb"]:
        yield prices.line(f"baked image of {image} GB", "disk.snapshot", image)


def _ways(plan: Mapping[str, Any], prices: PriceTable) -> Iterator[Line]:
    hosts, zones = sum(fleet["desired"] for fleet in plan["fleet"]["fleets"]), len(plan["zones"])
    usage, network = plan["usage"], plan["network"]
    if plan["balancer"]["enabled"]:
        yield prices.line("load balancer", "balancer")
        yield prices.line("its work", "balancer.lcu", usage["balancer_units"])
        yield prices.line(f"its {zones} public addresses", "public_ipv4", zones)
    if network["way_out"] == "public":
        yield prices.line(_count(hosts, "public address", "public addresses") + " of hosts", "public_ipv4", hosts)
    elif network["way_out"] == "nat":
        yield prices.line("NAT gateway", "nat")
        yield prices.line("its data", "nat.data", usage["way_out_gb"])
        yield prices.line("its public address", "public_ipv4")
    if names := network["interface_endpoints"]:
        yield prices.line(
            f"{len(names)} interface endpoints in {_count(zones, 'zone')}", "endpoint", len(names) * zones
        )
        yield prices.line("their data", "endpoint.data", usage["way_out_gb"])
    yield prices.line("data to visitors", "data_out", 0 if plan["edge"]["cdn"] else usage["visitors_gb"])


def _database(plan: Mapping[str, Any], prices: PriceTable) -> Iterator[Line]:
    database = plan["database"]
    if database["enabled"]:
        copies = 2 if database["two_zones"] else 1
        where = ", with a standby in another zone" if copies == 2 else ""
        yield prices.line(f"database {database['class']}{where}", f"database.{database['class']}", copies)
        size = database["storage_gb"]
        yield prices.line(f"its storage of {size} GB", "database.storage", copies * size)


def _storage(plan: Mapping[str, Any], prices: PriceTable) -> Iterator[Line]:
    usage, storage = plan["usage"], plan["storage"]
    yield prices.line(f"{usage['storage_gb']} GB of releases, data and logs", "storage.standard", usage["storage_gb"])
    yield prices.line(f"{usage['backup_gb']} GB of backups", "storage.standard_ia", usage["backup_gb"])
    yield prices.line("writing objects", "storage.writes", usage["storage_thousands"])
    yield prices.line("reading objects", "storage.reads", 10 * usage["storage_thousands"])
    if storage["replica_region"]:
        copied = usage["storage_gb"] + usage["backup_gb"]
        yield prices.line(f"copy of {copied} GB in {storage['replica_region']}", "storage.standard_ia", copied)
        yield prices.line(
            "bringing it there, a tenth of it new each month", "storage.replication", Decimal(copied) / 10
        )
    if secrets := secret_names(plan):
        yield prices.line(_count(len(secrets), "secret"), "secret", len(secrets))


def _names(plan: Mapping[str, Any], prices: PriceTable) -> Iterator[Line]:
    if zone := plan["domain"].get("zone"):
        yield prices.line(f"Route 53 zone {zone}", "zone")


def _watching(plan: Mapping[str, Any], prices: PriceTable) -> Iterator[Line]:
    usage, monitoring = plan["usage"], plan["monitoring"]
    yield prices.line("logs that come in", "logs.ingest", usage["log_gb"])
    # a day's logs are kept for `days`; compressed to about a fifth
    stored = Decimal(usage["log_gb"]) * monitoring["days"] / 30 / 5
    yield prices.line(f"logs kept for {monitoring['days']} days", "logs.stored", stored)
    own, watched = own_metrics(monitoring["alarms"], monitoring["namespace"]), alarm_metrics(monitoring["alarms"])
    scaling = 4 * len(plan["fleet"]["fleets"]) if plan["balancer"]["enabled"] else 0
    hosts = sum(fleet["desired"] for fleet in plan["fleet"]["fleets"])
    detailed = DETAILED_METRICS * hosts if plan["balancer"]["enabled"] else 0
    own += len(monitoring["metrics"])  # kept without an alarm
    own += hosts if plan["balancer"]["enabled"] else 0  # each tells its live sessions
    yield prices.line(f"{own} metrics of our own, {detailed} of hosts by the minute", "metric", own + detailed)
    yield prices.line(
        f"alarms on {watched + scaling} metrics, {scaling} of them for scaling", "alarm", watched + scaling
    )
    yield prices.line("dashboard", "dashboard")
    yield prices.line("notices", "notice", Decimal("0.1"))


def _edge(plan: Mapping[str, Any], prices: PriceTable) -> Iterator[Line]:
    usage, edge = plan["usage"], plan["edge"]
    if edge["cdn"]:
        yield prices.line("data to visitors through CloudFront", "cdn.data", usage["visitors_gb"])
        yield prices.line("requests through CloudFront", "cdn.requests", usage["requests_millions"])
    if edge["firewall"]:
        yield prices.line("web firewall", "firewall")
        yield prices.line(f"its {len(edge['rules'])} rules", "firewall.rule", len(edge["rules"]))
        yield prices.line("requests through it", "firewall.requests", usage["requests_millions"])


def _given(plan: Mapping[str, Any], prices: PriceTable) -> Iterator[Line]:
    """Return a line for each kind of thing in the plan that costs nothing by itself."""
    network, balanced = plan["network"], plan["balancer"]["enabled"]
    fleets, groups = plan["fleet"]["fleets"], len(plan["balancer"]["target_groups"]) if balanced else 0
    kinds = {
        "vpc": 1,
        "subnet": len(network["subnets"]),
        "route_table": len({row["kind"] for row in network["subnets"]}),
        "internet_gateway": 1,
        "security_group": len(network["security_groups"]),
        "endpoint_gateway": len(network["gateway_endpoints"]),
        "flow_log": 1 if network["flow_log_group"] else 0,
        "role": len(fleets),
        "instance_profile": len(fleets),
        "launch_template": len(fleets) if balanced else 0,
        "fleet": len(fleets) if balanced else 0,
        "target_group": groups,
        "listener": 2 if balanced else 0,
        "certificate": 1 if balanced else 0,
        "log_group": len(plan["monitoring"]["log_groups"]),
        "metric_filter": len(plan["monitoring"]["filters"]),
        "topic": len(plan["monitoring"]["topics"]),
        "cloudtrail": 1 if plan["edge"]["trail"] else 0,
        "budget": 1,
    }
    for kind, number in kinds.items():
        if number:
            yield prices.nothing(kind, f"{number} {kind.replace('_', ' ')}{'s' if number > 1 else ''}")


def own_metrics(alarms: Iterable[Mapping[str, Any]], namespace: str) -> int:
    """Return how many custom metrics the alarms look at; each distinct set of dimensions is one."""
    seen = set()
    for alarm in alarms:
        for metric in [alarm, *(query.get("MetricStat", {}).get("Metric", {}) for query in alarm.get("Metrics", ()))]:
            if metric.get("Namespace") == namespace:
                dimensions = tuple(sorted((each["Name"], each["Value"]) for each in metric["Dimensions"]))
                seen.add((metric["MetricName"], dimensions))
    return len(seen)


def alarm_metrics(alarms: Iterable[Mapping[str, Any]]) -> int:
    """Return how many metrics the alarms are charged for: one on metric maths counts once for each metric in it."""
    return sum(sum("MetricStat" in query for query in alarm.get("Metrics", ())) or 1 for alarm in alarms)


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def total(lines: Iterable[Line]) -> Decimal:
    """Return the sum of ``lines`` in USD a month."""
    return sum((line.usd for line in lines), Decimal(0))


def text(lines: Sequence[Line], prices: PriceTable, *, budget: int = 0) -> list[str]:
    """Return an estimate as a table for a screen; what is free stands in one line.

    Args:
        lines: From ``monthly``.
        prices: The table that they were made with.
        budget: USD a month that somebody wants to hear of; 0 says nothing of it.
    """
    paid = [(line.what, amount(line), f"{line.usd:,.2f}") for line in lines if line.price]
    whole = total(lines)
    widths = [max(len(row[column]) for row in paid) for column in range(2)]
    rows = [f"{what:<{widths[0]}}  {many:>{widths[1]}}  {usd:>9}" for what, many, usd in paid]
    width = len(rows[0]) if rows else 0
    given = ", ".join(line.what for line in lines if not line.price)
    end = [f"{'USD a month':<{width - 9}}{whole:>9,.2f}"]
    if budget:
        word = "within" if whole <= budget else "more than"
        end.append(f"{word} the budget of {budget:,} USD")
    said = f"{prices.region}, on demand, as of {prices.date}; an estimate, not a quote: docs/COST.md"
    return [*rows, "-" * width, *end, f"free of charge: {given}", said]


def amount(line: Line) -> str:
    """Return a line's quantity and unit price in words; hours of a whole month are not spelled out."""
    if not line.quantity:
        return "within what is free"
    each = f"{line.each.normalize():f}"
    return " ".join(f"{line.quantity.normalize():,f} {line.unit} x {each}".split())


@functools.cache
def table() -> PriceTable:
    """Return the table that comes with Pergola."""
    return PriceTable.load()


def _price(key: str, entry: Mapping[str, Any], sources: Mapping[str, str]) -> Price:
    if unknown := sorted(set(entry) - {"usd", "unit", "free", "source"}):
        raise PriceError(f"prices.{key}: unknown key {unknown[0]}")
    if entry["unit"] not in UNITS:
        raise PriceError(f"prices.{key}.unit: expected one of {', '.join(UNITS)}, got {entry['unit']!r}")
    if entry["source"] not in sources:
        raise PriceError(f"prices.{key}.source: no source is called {entry['source']}")
    usd, free = _number(f"prices.{key}.usd", entry["usd"]), _number(f"prices.{key}.free", entry.get("free", 0))
    if usd <= 0 or free < 0:
        raise PriceError(f"prices.{key}: a price is more than 0 and what is free of it not less")
    return Price(key, usd, str(entry["unit"]), free, str(entry["source"]))


def _number(name: str, value: Any) -> Decimal:
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        number = Decimal("NaN")
    if isinstance(value, bool) or not number.is_finite():
        raise PriceError(f"{name}: expected a number, got {value!r}")
    return number


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value
