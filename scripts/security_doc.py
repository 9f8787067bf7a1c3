#!/usr/bin/env python3
"""Write the table of outside opinions in docs/SECURITY.md from bench/explained.yml; with --check only compare."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "SECURITY.md"
BEGIN, END = "<!-- explained: made from bench/explained.yml by `make docs` -->\n", "<!-- /explained -->"


def render(page: str) -> str:
    """Return the page with the table anew."""
    known = yaml.safe_load((ROOT / "bench" / "explained.yml").read_text(encoding="utf-8"))
    rows = [f"| {tool} | `{check}` | {why} |" for tool, checks in known.items() for check, why in checks.items()]
    table = "\n".join(["| Who | What it finds | Why it is left |", "|---|---|---|", *rows])
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{table}\n\n{END}{rest.partition(END)[2]}"


def main() -> int:
    """Write or check the page; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when the page is out of date, and write nothing")
    check = parser.parse_args().check
    page = PAGE.read_text(encoding="utf-8")
    text = render(page)
    if text != page and check:
        print("out of date: docs/SECURITY.md\nWrite it anew with `make docs`.", file=sys.stderr)
        return 1
    if text != page:
        PAGE.write_text(text, encoding="utf-8")
    print(f"docs/SECURITY.md {'written' if text != page else 'is up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
