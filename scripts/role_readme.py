#!/usr/bin/env python3
"""Writes the README of each role from what Ansible itself checks: meta/argument_specs.yml, and defaults/main.yml.

`scripts/role_readme.py` writes all of them, `--check` writes none and fails when one is out of date.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
NOTE = "<!-- Made by scripts/role_readme.py from meta/argument_specs.yml and defaults/main.yml: change those. -->"
RELEASES = {"bookworm": "Debian 12", "trixie": "Debian 13", "noble": "Ubuntu 24.04"}
# Longer defaults are read where they stand, with their comments.
LONGEST_DEFAULT = 60

# Ansible's own markup for documentation, as ansible-doc reads it.
MARKUP = (
    (re.compile(r"\b[CVOEP]\(([^()]*(?:\([^()]*\)[^()]*)*)\)"), r"`\1`"),
    (re.compile(r"\bB\(([^()]*)\)"), r"**\1**"),
    (re.compile(r"\bI\(([^()]*)\)"), r"*\1*"),
    (re.compile(r"\bL\(([^(),]*),\s*([^()]*)\)"), r"[\1](\2)"),
    (re.compile(r"\bU\(([^()]*)\)"), r"<\1>"),
)


class SpecError(Exception):
    """A role lacks what its README is made from."""


def read(path: Path) -> dict[str, Any]:
    """Return the mapping in the YAML file ``path``."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError(f"{path.relative_to(ROOT)} is missing: every role has one") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{path.relative_to(ROOT)} is not YAML: {error}") from error
    return data or {}


def paragraphs(text: str | list[str] | None) -> list[str]:
    """Return the paragraphs of an Ansible description as Markdown."""
    parts = [text] if isinstance(text, str) else text or []
    result = []
    for part in parts:
        plain = " ".join(str(part).split())
        for pattern, markdown in MARKUP:
            plain = pattern.sub(markdown, plain)
        result.append(plain)
    return result


def prose(text: str | list[str] | None) -> str:
    """Return a description as Markdown blocks; paragraphs that begin with a dash form a list."""
    out = ""
    before = ""
    for part in paragraphs(text):
        if out:
            out += "\n" if part.startswith("- ") and before.startswith("- ") else "\n\n"
        out += part
        before = part
    return out


def cell(text: str) -> str:
    """Return ``text`` fit for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def kind(option: dict[str, Any]) -> str:
    """Return the type of an option in words."""
    name = str(option.get("type", "str"))
    if name == "list" and "elements" in option:
        name = f"list of {option['elements']}"
    if choices := option.get("choices"):
        name += ": " + ", ".join(f"`{choice}`" for choice in choices)
    return name


def default(option: dict[str, Any], value: Any, *, link: bool) -> str:
    """Return the default of an option, ``value``, as a cell."""
    if option.get("required"):
        return "**required**"
    if value is None:
        return ""
    shown = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value or '""'
    if len(shown) > LONGEST_DEFAULT and link:
        return "[see there](defaults/main.yml)"
    return f"`{shown}`"


def table(options: dict[str, Any], defaults: dict[str, Any] | None) -> list[str]:
    """Return the rows of ``options``; ``defaults`` is None for the keys of an entry, whose defaults the spec has."""
    rows = ["| Name | Type | Default | What it is |", "|---|---|---|---|"]
    for name, option in options.items():
        value = option.get("default") if defaults is None else defaults.get(name)
        shown = default(option, value, link=defaults is not None)
        what = " ".join(paragraphs(option.get("description")))
        rows.append(f"| `{name}` | {cell(kind(option))} | {cell(shown)} | {cell(what)} |")
    return rows


def nested(options: dict[str, Any], prefix: str = "") -> list[str]:
    """Return a section for each option that has options of its own."""
    lines: list[str] = []
    for name, option in options.items():
        if inner := option.get("options"):
            path = f"{prefix}{name}" + ("[]" if option.get("type") == "list" else "")
            lines += ["", f"### `{path}`", "", *table(inner, None), *nested(inner, f"{path}.")]
    return lines


def example(role: str, options: dict[str, Any]) -> list[str]:
    """Return the shortest play that uses the role."""
    what, hosts = ("An account", "localhost") if role.startswith("aws_") else ("A host", "all")
    lines = ["```yaml", f"- name: {what} with this role", f"  hosts: {hosts}", "  roles:", f"    - role: {role}"]
    if required := [name for name, option in options.items() if option.get("required")]:
        lines.append("      vars:")
        lines += [f"        {name}: ..." for name in required]
    return [*lines, "```"]


def render(role: Path) -> str:
    """Return the README of the role in the folder ``role``."""
    galaxy = read(role / "meta" / "main.yml").get("galaxy_info") or {}
    spec = (read(role / "meta" / "argument_specs.yml").get("argument_specs") or {}).get("main")
    if not spec:
        raise SpecError(f"roles/{role.name}/meta/argument_specs.yml has no argument_specs.main")
    defaults_file = role / "defaults" / "main.yml"
    defaults = read(defaults_file) if defaults_file.exists() else {}
    options = spec.get("options") or {}
    versions = [RELEASES.get(name, name) for row in galaxy.get("platforms") or [] for name in row.get("versions") or []]
    lines = [
        f"# {role.name}",
        "",
        NOTE,
        "",
        " ".join(paragraphs(spec.get("short_description") or galaxy.get("description"))).rstrip(".") + ".",
        "",
        prose(spec.get("description")),
    ]
    if versions:
        *first, last = sorted(versions)
        lines += ["", f"Runs on {', '.join(first)} and {last}." if first else f"Runs on {last}."]
    lines += ["", "## Example", "", *example(role.name, options), "", "## Variables", ""]
    lines += [*table(options, defaults), *nested(options)] if options else ["None."]
    if role.name.startswith("aws_"):
        lines += [
            "",
            f"`playbooks/vars/{role.name}.yml` gives it the cloud plan's values (see [docs/CLOUD.md](../../docs/CLOUD.md)).",
        ]
    if (ROOT / "molecule" / role.name).is_dir():
        lines += ["", "## Tests", "", f"`molecule test -s {role.name}` (see [molecule/](../../molecule/README.md))"]
    return "\n".join(lines) + "\n"


def roles() -> list[Path]:
    """Return the folders of all roles."""
    return sorted(path.parent.parent for path in (ROOT / "roles").glob("*/meta/main.yml"))


def main() -> int:
    """Write or check the README files; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail when a README is out of date, and write nothing")
    check = parser.parse_args().check
    stale = []
    try:
        for role in roles():
            readme = role / "README.md"
            text = render(role)
            if not readme.exists() or readme.read_text(encoding="utf-8") != text:
                stale.append(str(readme.relative_to(ROOT)))
                if not check:
                    readme.write_text(text, encoding="utf-8")
    except SpecError as error:
        print(error, file=sys.stderr)
        return 1
    if stale and check:
        print(f"out of date: {', '.join(stale)}\nWrite them anew with `make docs`.", file=sys.stderr)
        return 1
    print(f"{len(stale)} of {len(roles())} role READMEs written" if not check else "role READMEs are up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
