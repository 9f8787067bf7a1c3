"""What `cloud.yml` would make, change or leave behind: the plan compared with the account, with each thing's monthly price."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from app.core import prices
from app.core.cloud.account import Thing, proof
from app.core.cloud.secrets import secret_names

MARKS = {"make": "+", "change": "~", "remove": "-", "keep": " "}
WORDS = {"make": "to make", "change": "to change", "remove": "to remove", "keep": "as wanted"}
Plan = Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """What would happen to one thing.

    Attributes:
        action: One of ``MARKS``; ``remove`` is for what is there but not in the plan: `destroy.yml` removes it, or a person.
        thing: The thing, as wanted or, to be removed, as it is.
        changes: What would be changed, in words.
        usd: What it costs a month by being there, as wanted.
    """

    action: str
    thing: Thing
    changes: tuple[str, ...]
    usd: Decimal


def wanted(plan: Plan) -> Iterator[Thing]:
    """Give everything that the plan wants in the account."""
    for part in (_network, _hosts, _entry, _data, _watching):
        yield from part(plan)


def _network(plan: Plan) -> Iterator[Thing]:
    network, name = plan["network"], plan["network"]["name"]
    kinds = list(dict.fromkeys(row["kind"] for row in network["subnets"]))
    private = sum(row["kind"] == "private" for row in network["subnets"])
    yield Thing("VPC", name, {"cidr": network["cidr"]})
    for row in network["subnets"]:
        yield Thing("subnet", row["name"], {"cidr": row["cidr"], "zone": row["zone"]})
    yield Thing("internet gateway", name)
    if network["way_out"] == "nat":
        yield Thing("NAT gateway", name)
        yield Thing("public address", f"{name}-nat")
    for kind in kinds:
        yield Thing("route table", f"{name}-{kind}")
    for row in network["security_groups"]:
        details = {key: sorted(_rules(row[key])) for key in ("ingress", "egress")}
        yield Thing("security group", row["name"], details)
    for service in network["gateway_endpoints"]:
        yield Thing("endpoint", f"{name}-{service}", {"type": "gateway"})
    for service in network["interface_endpoints"]:
        yield Thing("endpoint", f"{name}-{service}", {"type": "interface", "zones": private})
    if network["flow_log_group"]:
        yield Thing("log group", network["flow_log_group"], {"days": network["flow_log_days"]})
        yield Thing("role", network["flow_log_role"])
        yield Thing("flow log", network["flow_log_group"])


def _rules(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        for port in row["ports"]:
            yield f"{row['proto']} {port} {row.get('cidr_ip') or row['group_name']}"


def _hosts(plan: Plan) -> Iterator[Thing]:
    identity = plan["identity"]
    for row in identity["hosts"]:
        yield Thing("role", row["name"], {"may": row["policy"]["Statement"]})
        yield Thing("instance profile", row["name"])
    if row := identity["deployer"]:
        yield Thing("role", row["name"], {"may": row["policy"]["Statement"]})
    for fleet in plan["fleet"]["fleets"]:
        if fleet["address"]:
            yield Thing("public address", fleet["address"])
        for number, colour in enumerate(fleet.get("colours", [])):
            yield Thing("launch template", colour["name"])
            # only one colour has hosts between deploys
            hosts = {} if number else {"fleet": fleet["fleet"]}
            yield Thing("scaling group", colour["name"], hosts)


def _entry(plan: Plan) -> Iterator[Thing]:
    balancer, edge, domain = plan["balancer"], plan["edge"], plan["domain"]
    if balancer["enabled"]:
        details = {"idle_seconds": balancer["idle_seconds"], "zones": len(plan["zones"])}
        yield Thing("load balancer", balancer["name"], details)
        for row in balancer["target_groups"]:
            yield Thing(
                "target group", row["name"], {"health_path": row["health_path"]} if "health_path" in row else {}
            )
        if not balancer["certificate"].startswith("arn:"):  # then somebody else made it
            yield Thing("certificate", balancer["certificate_domain"])
        if domain.get("zone"):
            for name in (domain["name"], *balancer["app_domains"]):
                yield Thing("DNS record", f"{name} A")
                if balancer["certificate"] == "request":
                    yield Thing("DNS record", proof(name))
    if edge["cdn"]:
        yield Thing("distribution", edge["name"])
    if edge["firewall"]:
        yield Thing("web firewall", edge["name"], {"rules": len(edge["rules"])})
    if edge["trail"]:
        yield Thing("trail", edge["name"])


def _data(plan: Plan) -> Iterator[Thing]:
    database, storage = plan["database"], plan["storage"]
    for row in storage["buckets"]:
        yield Thing("bucket", row["name"], {"versions": "Enabled"})
        if row["replica"]:
            yield Thing("bucket", row["replica"]["name"], {"versions": "Enabled"})
    if storage["replica_region"]:
        yield Thing("role", storage["replica_role"])
    for name in secret_names(plan):
        yield Thing("secret", name)
    if database["enabled"]:
        keys = ("class", "storage_gb", "two_zones", "backup_days", "deletion_protection")
        yield Thing("database subnet group", database["name"])
        yield Thing("database parameter group", database["name"], {"family": database["family"]})
        yield Thing("database", database["name"], {key: database[key] for key in keys})


def _watching(plan: Plan) -> Iterator[Thing]:
    watching = plan["monitoring"]
    for row in watching["log_groups"]:
        yield Thing("log group", row["name"], {"days": row["days"]})
    for name in watching["topics"].values():
        yield Thing("topic", name)
    for row in watching["alarms"]:
        metrics = sum("MetricStat" in query for query in row.get("Metrics", ())) or 1
        yield Thing("alarm", row["AlarmName"], {"threshold": float(row["Threshold"]), "metrics": metrics})
    for row in watching["queries"]:
        yield Thing("log query", row["name"])
    if watching["dashboard"]:
        yield Thing("dashboard", watching["dashboard_name"])
    yield Thing("budget", plan["budget"]["name"], {"usd": float(plan["budget"]["usd"])})


# what only the plan or only the account knows of a thing: for its price, not to be compared
UNCOMPARED = {"fleet", "metrics", "rules", "zones"}
# what comes and goes by itself, or belongs to something that is named
UNNAMED = {"host of a group", "image", "snapshot", "parameter"}


def compare(plan: Plan, found: Iterable[Thing], table: prices.PriceTable | None = None) -> list[Step]:
    """Return what would happen to each thing of the plan and of the account.

    Args:
        plan: The cloud plan.
        found: What the account holds, from ``app.core.cloud.account.found``.
        table: Another price table than the one that comes with Pergola.
    """
    known = table or prices.table()
    there = {(thing.kind, thing.name): thing for thing in found if not thing.leaving}
    steps = []
    for thing in wanted(plan):
        now = there.pop((thing.kind, thing.name), None)
        changes = tuple(_changes(thing, now)) if now else ()
        action = "make" if now is None else "change" if changes else "keep"
        steps.append(Step(action, thing, changes, price(plan, thing, known)))
    extra = [thing for thing in there.values() if thing.kind not in UNNAMED and not _by_scaling(thing)]
    return [*steps, *(Step("remove", thing, (), price(plan, thing, known)) for thing in extra)]


def _by_scaling(thing: Thing) -> bool:
    """Return whether an alarm belongs to a scaling policy, which makes and removes it."""
    return thing.kind == "alarm" and "TargetTracking" in thing.name


def _changes(thing: Thing, now: Thing) -> Iterator[str]:
    for key, value in thing.details.items():
        have = now.details.get(key)
        if key in UNCOMPARED or _plain(have) == _plain(value):
            continue
        short = all(len(str(each)) <= 30 for each in (have, value))
        yield f"{key}: {have} -> {value}" if short else key


def _plain(value: Any) -> str:
    """Return a value as text in which the order of keys, of statements and of what a statement lists does not matter."""
    if isinstance(value, Mapping):
        return json.dumps({key: _plain(child) for key, child in value.items()}, sort_keys=True)
    if isinstance(value, list):
        return json.dumps(sorted(_plain(child) for child in value))
    return str(float(value)) if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def price(plan: Plan, thing: Thing, table: prices.PriceTable) -> Decimal:
    """Return what a thing costs a month by being there; what depends on use is in `cost.yml`.

    Args:
        plan: The cloud plan, for sizes that AWS does not tell.
        thing: From the plan or from the account.
        table: The prices.

    Raises:
        PriceError: There is no price for it.
    """
    details = thing.details
    fleets = {row["fleet"]: row for row in plan["fleet"]["fleets"]}
    lines: list[tuple[str, float]] = []
    if thing.kind == "scaling group" and "fleet" in details:
        row = fleets[details["fleet"]]
        lines = [(f"instance.{row['instance_type']}", row["desired"]), ("disk.gp3", row["desired"] * row["disk_gb"])]
    elif thing.kind in {"scaling group", "host"} and details.get("instance_type"):
        size = next(iter(fleets.values()))["disk_gb"]
        number = details.get("hosts", 1)
        lines = [(f"instance.{details['instance_type']}", number), ("disk.gp3", number * size)]
    elif thing.kind == "load balancer":
        lines = [("balancer", 1), ("public_ipv4", details["zones"])]
    elif thing.kind == "NAT gateway":
        lines = [("nat", 1)]
    elif thing.kind == "public address":
        lines = [("public_ipv4", 1)]
    elif thing.kind == "endpoint" and details["type"] == "interface":
        lines = [("endpoint", details["zones"])]
    elif thing.kind == "database":
        copies = 2 if details["two_zones"] else 1
        lines = [(f"database.{details['class']}", copies), ("database.storage", copies * details["storage_gb"])]
    elif thing.kind == "secret":
        lines = [("secret", 1)]
    elif thing.kind == "web firewall":
        lines = [("firewall", 1), ("firewall.rule", details.get("rules", len(plan["edge"]["rules"])))]
    elif thing.kind == "alarm":
        # the first ten are free, of all alarms together: what one costs is its full price
        return (table.price("alarm").usd * Decimal(details.get("metrics", 1))).quantize(prices.CENT)
    return prices.total(table.line(thing.name, key, amount) for key, amount in lines)


def text(steps: Sequence[Step], *, environment: str) -> list[str]:
    """Return the preview as lines for a screen; things that stay as they are are counted only."""
    shown = [step for step in steps if step.action != "keep"]
    kind = max((len(step.thing.kind) for step in shown), default=0)
    name = max((len(step.thing.name) for step in shown), default=0)
    rows = [_row(step, kind, name) for step in shown]
    counts = ", ".join(
        f"{sum(step.action == action for step in steps)} {word}" for action, word in WORDS.items()
    )  # fmt: skip
    after = sum((step.usd for step in steps if step.action != "remove"), Decimal(0))
    extra = sum((step.usd for step in steps if step.action == "remove"), Decimal(0))
    now = sum((step.usd for step in steps if step.action != "make"), Decimal(0))
    end = [f"{environment}: {counts}", f"by being there it costs {now:,.2f} USD a month now, {after:,.2f} as planned"]
    if extra:
        end.append(
            f"what is not in the plan (-) costs {extra:,.2f} USD a month; cloud.yml leaves it, remove it by hand"
        )
    return [*rows, *([""] if rows else []), *end, "traffic, logs and storage come on top: playbooks/cost.yml"]


def _row(step: Step, kind: int, name: int) -> str:
    usd = f"{step.usd:8,.2f}" if step.usd else "    free"
    row = f"{MARKS[step.action]} {step.thing.kind:<{kind}}  {step.thing.name:<{name}}  {usd}"
    return f"{row}  {'; '.join(step.changes)}" if step.changes else row
