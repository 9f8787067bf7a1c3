"""Prints what Prowler and checkov found in a folder, and fails on what bench/explained.yml does not explain."""

from __future__ import annotations

import csv
import fnmatch
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

EXPLAINED: dict[str, dict[str, str]] = yaml.safe_load(
    Path(__file__).with_name("explained.yml").read_text(encoding="utf-8")
)
# what moto brings along is nobody's
FURNITURE = ("ec2_ebs_snapshots_encrypted", "ec2_ami_public")
Findings = dict[str, list[str]]


def prowler(path: Path) -> tuple[int, Findings]:
    """Return how many checks passed, and what failed by check, from Prowler's table."""
    csv.field_size_limit(sys.maxsize)
    passed, failed = 0, defaultdict(list)
    with path.open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table, delimiter=";"):
            if row["CHECK_ID"] in FURNITURE:
                continue
            if row["STATUS"] == "PASS":
                passed += 1
            elif row["STATUS"] == "FAIL":
                failed[row["CHECK_ID"]].append(f"{row['SEVERITY']}: {row['STATUS_EXTENDED']}")
    return passed, dict(failed)


def checkov(path: Path) -> tuple[int, Findings]:
    """Return the same from checkov's report."""
    data = json.loads(path.read_text(encoding="utf-8"))
    passed, failed = 0, defaultdict(list)
    for report in data if isinstance(data, list) else [data]:
        passed += report["summary"]["passed"]
        for row in report["results"]["failed_checks"]:
            failed[row["check_id"]].append(f"{row['file_path']}: {row['resource']}")
    return passed, dict(failed)


def reason(check: str, known: Mapping[str, str]) -> str:
    """Return why a finding is left, or nothing."""
    return next((why for pattern, why in known.items() if fnmatch.fnmatchcase(check, pattern)), "")


def show(name: str, passed: int, failed: Findings) -> int:
    """Print what one of them found; returns how many checks nobody explained."""
    count = sum(len(rows) for rows in failed.values())
    left = {check: rows for check, rows in failed.items() if not reason(check, EXPLAINED[name])}
    rate = 100 * passed / (passed + count) if passed + count else 0
    print(
        f"{name}: {passed} of {passed + count} passed ({rate:.1f} %), {count - sum(map(len, left.values()))} explained, {len(left)} not"
    )
    for check, rows in sorted(failed.items()):
        why = reason(check, EXPLAINED[name])
        print(f"  {check} ({len(rows)}): {why or 'NOT EXPLAINED: ' + rows[0]}")
    return len(left)


def main(arguments: Iterable[str]) -> int:
    """Print all that a folder holds; returns the exit status."""
    (folder,) = arguments
    left, seen = 0, False
    for name, file, read in (("checkov", "checkov.json", checkov), ("prowler", "prowler.csv", prowler)):
        path = Path(folder) / file
        if path.exists():
            seen, left = True, left + show(name, *read(path))
    if not seen:
        print(f"nothing to read in {folder}: bench/outside_opinions.sh makes it", file=sys.stderr)
    return 1 if left or not seen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
