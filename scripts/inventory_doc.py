#!/usr/bin/env python3
"""Write docs/INVENTORY.md from the JSON Schema of the cloud settings; with --check only say whether it is up to date."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from app.core import cloud  # noqa: E402 - the project's folder must be on the path first
from scripts.manifest_doc import HEAD, escaped, row  # noqa: E402

OUT = ROOT / "docs" / "INVENTORY.md"
INTRODUCTION = """\
<!-- Made from app/core/cloud/inventory.schema.json by `make docs`; a test compares. Change it there. -->
# Inventories

An inventory is a folder below `inventories/` and says what an environment is. Its `group_vars/all.yml` has:

| variable | what it is |
| --- | --- |
| `pergola_apps` | What runs there: an app of this project by its name, any other as `{path: /folder/with/app.yml}`. |
| `pergola_environment` | Its name, 2 to 12 small letters and digits; in the name of everything on AWS. |
| `pergola_cloud` | What its AWS account should hold: below. |
| `pergola_drain_seconds` | How long old Streamlit sessions may live after a release; 900. |
| `pergola_agent` | Tells CloudWatch of a host that is in no fleet: `{project: shop, region: eu-central-1}` (docs/MONITORING.md). |
| `pergola_aws_environment` | More environment variables for everything that speaks to AWS: the rehearsal's `AWS_ENDPOINT_URL`, a profile. |

An empty `pergola_cloud` is a whole environment: a load balancer, two hosts in two zones, buckets, secrets, log groups, a budget.
Everything not said has the default below. A wrong, unknown or contradictory key fails before anything is touched:

```text
pergola_cloud/regoin: unknown key, did you mean 'region'?; known keys: …
pergola_cloud/fleets/0/min: expected at least 2 behind a balancer, got 1
```

| inventory | for |
| --- | --- |
| `rehearsal` | the rehearsal on this machine |
| `local`, `vagrant` | one host without a cloud |
| `demo` | one host with an Elastic IP, no load balancer |
| `staging` | two small hosts behind a load balancer, as cheap as that can be |
| `production` | larger hosts, a database in two zones, a copy in another region, web firewall, trail of API calls |

What each costs: [COST.md](COST.md). What each makes: [CLOUD.md](CLOUD.md).
"""


def sections() -> Iterator[str]:
    """Yield the page, part by part."""
    schema = cloud.schema()
    yield INTRODUCTION
    yield f"## `pergola_cloud`\n\n{escaped(schema['description'])}\n"
    yield table("", schema)
    yield from nested("", schema)


def table(path: str, node: Mapping[str, Any]) -> str:
    """Return the table of a mapping's keys."""
    needed = node.get("required", [])
    rows = (row(f"{path}{key}", child, required=key in needed) for key, child in node["properties"].items())
    return "\n".join([HEAD, *rows])


def nested(path: str, node: Mapping[str, Any]) -> Iterator[str]:
    """Yield a section for each key that has keys of its own."""
    for key, child in node["properties"].items():
        below = child.get("items", child)
        if "properties" in below:
            many = " A list of such entries." if "items" in child else ""
            yield f"### `{path}{key}`\n\n{escaped(child['description'])}{many}\n"
            yield table(f"{path}{key}.", below)
            yield from nested(f"{path}{key}.", below)


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the page is out of date")
    check = parser.parse_args().check
    text = "\n\n".join(part.strip("\n") for part in sections()) + "\n"
    current = OUT.read_text(encoding="utf-8") if OUT.is_file() else ""
    if text == current:
        return 0
    if check:
        print(f"{OUT.name} is not what {cloud.SCHEMA_PATH.name} says; run `make docs`", file=sys.stderr)
        return 1
    OUT.write_text(text, encoding="utf-8")
    print(f"wrote {OUT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
