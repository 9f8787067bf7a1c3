#!/usr/bin/env python3
"""Write the tables of docs/SECURITY.md and docs/MAINTENANCE.md (outside opinions, ports, calendar); with --check only compare."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from app.core import maintenance  # noqa: E402 - the project's folder must be on the path first


def table(head: str, rows: list[str]) -> str:
    """Return a Markdown table."""
    return "\n".join([head, "|---" * (head.count("|") - 1) + "|", *rows])


def explained() -> str:
    """Return what outside opinions find and we leave."""
    known = yaml.safe_load((ROOT / "bench" / "explained.yml").read_text(encoding="utf-8"))
    rows = [f"| {tool} | `{check}` | {why} |" for tool, checks in known.items() for check, why in checks.items()]
    return table("| Who | What it finds | Why it is left |", rows)


def ports() -> str:
    """Return what may listen on a host."""
    known = yaml.safe_load((ROOT / "files" / "ports.yml").read_text(encoding="utf-8"))
    rows = [
        f"| {row['port']}/{row['protocol']} | {row['address']} | {row['program']} | {row['why']} |" for row in known
    ]
    return table("| Port | Addresses | Program | Why |", rows)


def calendar() -> str:
    """Return the maintenance calendar."""
    rows = [
        f"| `{job.name}` | {job.title} | `{job.schedule}` | {'every host' if job.where == maintenance.HOST else 'control node'}"
        f"{' that backs up' if job.backups else ''} | {job.purpose} |"
        for job in maintenance.CALENDAR
    ]
    return table("| Job | On the status page | Cron, UTC | Where | What it does |", rows)


# page, name of the part, where it comes from, how
PARTS: tuple[tuple[str, str, str, Callable[[], str]], ...] = (
    ("SECURITY.md", "ports", "files/ports.yml", ports),
    ("SECURITY.md", "explained", "bench/explained.yml", explained),
    ("MAINTENANCE.md", "calendar", "app/core/maintenance.py", calendar),
)


def render(page: str, name: str, source: str, text: str) -> str:
    """Return a page with one of its tables anew."""
    begin, end = f"<!-- {name}: made from {source} by `make docs` -->\n", f"<!-- /{name} -->"
    before, found, rest = page.partition(begin)
    if not found or end not in rest:
        raise SystemExit(f"the page has no place for {name}: {begin}{end}")
    return f"{before}{begin}\n{text}\n\n{end}{rest.partition(end)[2]}"


def main() -> int:
    """Write or check the pages; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when a page is out of date, and write nothing")
    check, stale = parser.parse_args().check, set()
    for name, part, source, make in PARTS:
        path = ROOT / "docs" / name
        page = path.read_text(encoding="utf-8")
        text = render(page, part, source, make())
        if text != page:
            stale.add(f"docs/{name}")
            if not check:
                path.write_text(text, encoding="utf-8")
    if stale and check:
        print(f"out of date: {', '.join(sorted(stale))}\nWrite them anew with `make docs`.", file=sys.stderr)
        return 1
    print(f"{', '.join(sorted(stale))} written" if stale else "docs/SECURITY.md and docs/MAINTENANCE.md are up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
