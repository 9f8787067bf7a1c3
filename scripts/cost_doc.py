#!/usr/bin/env python3
"""Write docs/COST.md from the inventories and files/prices.yml; with --check only say whether it is up to date."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from app.core import cloud, manifest, prices  # noqa: E402 - the project's folder must be on the path first

PAGE = ROOT / "docs" / "COST.md"
ORDER = ("demo", "staging", "production", "rehearsal")  # the cheapest first; others after them
PROFILES = {
    "demo": "One host with an Elastic IP address, no balancer.",
    "staging": "Two hosts behind a balancer, small.",
    "production": "Two hosts or more behind a balancer, private, with a database that survives the loss of a zone.",
    "rehearsal": "What the rehearsal's inventory would cost on AWS. In the rehearsal it costs nothing.",
}

INTRODUCTION = """\
<!-- Made from the inventories and files/prices.yml by `make docs`; a test compares. Change it there. -->
# What it costs

Before anything is made, one command says what an inventory costs a month, line by line. It asks AWS nothing:

```
ansible-playbook playbooks/cost.yml -i inventories/staging
```

A budget with notices (80 % spent, forecast over 100 %) is part of every environment (`pergola_cloud.budget.usd`).

"""

LIMITS = """\
## What the estimate is, and is not

- **Prices** are AWS's public on-demand prices of {region} as of {date}, written down in `files/prices.yml` with the page
  of each. They are an estimate's figures, not a quote; AWS may have changed them. Other regions cost up to a third more.
- **Not in it**: tax, credits, savings plans, the first year's free tier. What every account has free each month
  (100 GB out, 10 alarms, 5 GB of logs) is taken off as if nothing else of the account used it.
- **Hours** are {hours} a month. Hosts are counted at `desired`: a fleet that scales out costs more while it does, and a deploy has the
  hosts of two colours for its minutes (billed by the second).
- **What is used** rather than made (traffic, logs, objects, the balancer's work) is what the inventory assumes under `usage`:
  {usage}.
- **Burstable instances** (t3, t4g) above their baseline for long cost 0.04 to 0.05 USD a processor-hour more.
- **Between zones** a GB costs 0.01 USD in each direction; at these sizes that is cents.

## Where the money goes, and what to do about it

| Line | To pay less |
|---|---|
| hosts | a smaller type, `t4g` instead of `t3` (a fifth less), fewer of them; a savings plan for a year is a third less |
| interface endpoints | `way_out: nat` (one gateway for all) or `public` (an address for each host); S3's endpoint is free anyway |
| NAT gateway | `way_out: public` |
| database | a smaller class, no standby (`two_zones: false`), or `sqlite` on one host |
| balancer and its addresses | `entry: address`: one host, no balancer |
| logs | fewer days (`logs.days`), no flow logs (`network.flow_log_days: 0`) |
| web firewall | `edge.firewall: false` |
"""


class CostError(Exception):
    """An inventory cannot be estimated; says which."""


def inventories() -> list[str]:
    """Return the names of the inventories that have cloud settings."""
    found = {path.parents[1].name for path in ROOT.glob("inventories/*/group_vars/all.yml") if settings(path)}
    return sorted(found, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def settings(path: Path) -> dict[str, Any]:
    """Return the variables of an inventory when it has cloud settings, else nothing."""
    data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return data if "pergola_cloud" in data else {}


def estimate(name: str) -> tuple[list[prices.Line], int]:
    """Return the estimate of an inventory, and its budget."""
    data = settings(ROOT / "inventories" / name / "group_vars" / "all.yml")
    try:
        manifests = manifest.load_all(ROOT, data["pergola_apps"])
        built = cloud.build(data["pergola_cloud"], manifests, environment=data["pergola_environment"])
        return prices.monthly(built), built["budget"]["usd"]
    except (KeyError, cloud.CloudError, manifest.ManifestError, prices.PriceError) as error:
        raise CostError(f"inventories/{name}: {error}") from error


def section(name: str) -> list[str]:
    """Return the section of one inventory."""
    lines, budget = estimate(name)
    rows = [f"| {line.what} | {prices.amount(line)} | {line.usd:,.2f} |" for line in lines if line.price]
    given = ", ".join(line.what for line in lines if not line.price)
    return [
        f"## `inventories/{name}`: {prices.total(lines):,.2f} USD a month",
        "",
        PROFILES.get(name, ""),
        f"Its budget is {budget} USD.",
        "",
        "| What | Units x USD | USD a month |",
        "|---|---|---:|",
        *rows,
        f"| **Total** | | **{prices.total(lines):,.2f}** |",
        "",
        f"Free of charge: {given}.",
        "",
    ]


def render() -> str:
    """Return the page."""
    names = inventories()
    summary = ["| Profile | USD a month | What it is |", "|---|---:|---|"]
    for name in names:
        link = f"#inventories{name}-{prices.total(estimate(name)[0]):.2f}-usd-a-month".replace(".", "").replace(",", "")
        summary.append(f"| [{name}]({link}) | {prices.total(estimate(name)[0]):,.2f} | {PROFILES.get(name, '')} |")
    used = cloud.schema()["properties"]["usage"]["properties"]
    usage = ", ".join(f"`{key}` {node['default']:g}" for key, node in used.items())
    known = prices.table()
    end = LIMITS.format(region=known.region, date=known.date, hours=known.hours, usage=usage)
    return INTRODUCTION + "\n".join([*summary, "", *(line for name in names for line in section(name))]) + "\n" + end


def main() -> int:
    """Write or check the page; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when the page is out of date, and write nothing")
    check = parser.parse_args().check
    try:
        text = render()
    except CostError as error:
        print(error, file=sys.stderr)
        return 1
    stale = not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text
    if stale and check:
        print("out of date: docs/COST.md\nWrite it anew with `make docs`.", file=sys.stderr)
        return 1
    if stale:
        PAGE.write_text(text, encoding="utf-8")
    print(f"docs/COST.md {'written' if stale else 'is up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
