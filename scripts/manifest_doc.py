#!/usr/bin/env python3
"""Write docs/MANIFEST.md from the manifest's JSON Schema; with --check only say whether it is up to date."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from app.core import checking, manifest  # noqa: E402 - the project's folder must be on the path first

INTRODUCTION = """\
<!-- Made from app/core/manifest.schema.json by `make docs`; a test compares. Change it there. -->
# The manifest

`app/<name>/app.yml` is the one place that describes an app. Units, sockets, nginx locations, timeouts, limits, users, backups and
the portal's card are derived from it. A wrong, unknown or missing key fails before anything is touched, with its path and the nearest
right name:

```text
apps/wine/limits/memory: '512' is not allowed here; expected MemoryMax of each service such as 512M
apps/wine/databse: unknown key, did you mean 'database'?; known keys: …
```

The smallest manifest:

```yaml
"""

RULES = """\
## Rules that no single key shows

- `name` is the name of the folder. Pergola keeps {names} for itself.
- At least one of `api` and `ui` is there. An app with a `ui` cannot be served at `/`.
- The paths {paths} belong to the host.
- Two apps of a host have different names and different paths.
- `public_paths` only mean something with `access: protected`; an app at `/` cannot be protected. A public path that ends with `/`
  opens everything below it, any other opens exactly itself (`""` is the app's first page). Login, health checks and Streamlit's own
  parts are always open; [nginx](NGINX.md#protected-apps) and the app itself refuse everything else without a login.
- A backup of the database needs a `database`. Cron fields are numbers, `a-b`, `*` and `*/n`.
- Values are plain: no YAML aliases, tags or duplicate keys, no line breaks in a text (`>-` instead of `>`), at most {items} entries in
  a list, {depth} levels, {kib} KiB, UTF-8.
"""

TYPES = {
    "object": "mapping",
    "array": "list",
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
}
HEAD = "| key | type | default | example | what it is |\n| --- | --- | --- | --- | --- |"


def shown(value: Any) -> str:
    """Return a value as one would write it in YAML, in a table's cell."""
    text = yaml.safe_dump(value, allow_unicode=True, default_flow_style=True, width=1000).removesuffix("\n")
    return f"`{text.removesuffix('...').strip()}`".replace("|", "\\|")


def kind(node: Mapping[str, Any]) -> str:
    """Return the type of a key with what limits it."""
    if "enum" in node:
        return "one of " + ", ".join(f"`{option}`" for option in node["enum"])
    name = TYPES[node["type"]]
    if node["type"] == "array":
        name = f"list of {TYPES[node['items']['type']]}s"
    if isinstance(node.get("additionalProperties"), Mapping):
        name = f"mapping of {TYPES[node['additionalProperties']['type']]}s"
    bounds = {
        "minimum": "from {}",
        "exclusiveMinimum": "more than {}",
        "maximum": "to {}",
        "maxLength": "at most {} characters",
    }
    limits = [text.format(node[key]) for key, text in bounds.items() if key in node]
    return f"{name}, {' '.join(limits)}" if limits else name


def example(node: Mapping[str, Any]) -> Any:
    """Return an example of a key, put together from those of the keys below it."""
    if "examples" in node:
        return node["examples"][0]
    if "properties" in node:
        return {key: example(child) for key, child in node["properties"].items()}
    if "items" in node:
        return [example(node["items"])]
    return {node["propertyNames"]["examples"][0]: example(node["additionalProperties"])}


def escaped(text: str) -> str:
    """Return a sentence in which Markdown sees no HTML."""
    return text.replace("<", "&lt;").replace(">", "&gt;")


def row(key: str, node: Mapping[str, Any], *, required: bool) -> str:
    """Return a key's line of a table."""
    default = "required" if required else shown(node["default"]) if "default" in node else ""
    about = escaped(node["description"]).replace("|", "\\|")
    own = example(node) if "properties" not in node.get("items", node) else None
    return f"| `{key}` | {kind(node)} | {default} | {shown(own) if own is not None else 'below'} | {about} |"


def sections(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the page, part by part."""
    smallest: dict[str, Any] = {key: example(schema["properties"][key]) for key in schema["required"]}
    smallest["api"] = {"app": example(schema["properties"]["api"]["properties"]["app"])}
    yield INTRODUCTION + written(smallest) + "```"
    yield "## All keys\n"
    yield "\n".join(
        [HEAD, *(row(key, node, required=key in schema["required"]) for key, node in schema["properties"].items())]
    )
    for key, node in schema["properties"].items():
        below = node.get("items", node)
        if "properties" not in below:
            continue
        yield f"### `{key}`\n\n{escaped(node['description'])}{' A list of such entries.' if 'items' in node else ''}\n"
        rows = (
            row(f"{key}.{name}", child, required=name in below.get("required", []))
            for name, child in below["properties"].items()
        )
        yield "\n".join([HEAD, *rows])
    yield RULES.format(
        names=", ".join(f"`{name}`" for name in sorted(manifest.RESERVED_NAMES)),
        paths=", ".join(f"`{path}`" for path in sorted(manifest.RESERVED_PATHS)),
        items=checking.MAX_ITEMS,
        depth=checking.MAX_DEPTH,
        kib=manifest.MAX_BYTES // 1024,
    )
    full = {key: example(node) for key, node in schema["properties"].items()}
    full["access"] = "protected"
    manifest.check(full, folder=Path("/") / full["name"])
    yield f"## Every key at once\n\n```yaml\n{written(full)}```"


def written(data: Mapping[str, Any]) -> str:
    """Return a manifest as YAML, in the schema's order."""
    return yaml.safe_dump(data, allow_unicode=True, sort_keys=False, width=120)


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the page is out of date")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "MANIFEST.md")
    options = parser.parse_args()
    text = "\n\n".join(part.strip("\n") for part in sections(manifest.schema())) + "\n"
    current = options.out.read_text(encoding="utf-8") if options.out.is_file() else ""
    if options.check:
        if text != current:
            print(f"{options.out} is not what {manifest.SCHEMA_PATH.name} says; run `make docs`", file=sys.stderr)
            return 1
    elif text != current:
        options.out.write_text(text, encoding="utf-8")
        print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
