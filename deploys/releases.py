"""Releases of a whole environment in the artefact bucket: one record for each, naming what every fleet's hosts become.

A record is ``releases/release-<id>.json``; its id is a hash of what it names, so the same content has the same id. Records are written
once. Pruning keeps the newest, and whatever is live, was live before, or is pinned.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.core.site_index import named_files
from deploys.spec import DeployError
from deploys.store import CURRENT, Store

PREFIX = "releases/"
PINS = f"{PREFIX}pinned.json"
_RECORD = re.compile(rf"^{PREFIX}release-([0-9a-f]{{12}})\.json$")


def version(root: Path, *, allow_dirty: bool) -> str:
    """Return what git calls the project's state, ending in ``-dirty`` when something is not committed.

    Raises:
        DeployError: Something is not committed and that is not allowed, or this is no git checkout.
    """
    git = shutil.which("git")
    if not git:
        raise DeployError("git is not installed; a release says which commit it is")

    def ask(*words: str) -> str:
        done = subprocess.run([git, "-C", str(root), *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise DeployError(f"git {words[0]} in {root}: {done.stderr.strip()}")
        return done.stdout.rstrip("\n")

    changed = ask("status", "--porcelain").splitlines()
    if changed and not allow_dirty:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        files = ", ".join(line[3:] for line in changed[:5])
        raise DeployError(
            f"not committed: {files}{more}. Commit first, or build it all the same with -e allow_dirty=true"
        )
    return f"{ask('rev-parse', '--short=12', 'HEAD')}{'-dirty' if changed else ''}"


def identity(fleets: Mapping[str, Mapping[str, str]]) -> str:
    """Return the id of a release: twelve hex digits of what it names."""
    named = {name: [row["key"], row["sha256"]] for name, row in sorted(fleets.items())}
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:12]


def record(
    store: Store,
    fleets: Mapping[str, Mapping[str, Any]],
    *,
    version_text: str,
    by: str,
    schema: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], bool]:
    """Write the record of a release; return it and whether it was new.

    Args:
        store: The artefact bucket.
        fleets: By name, what ``pergola_site`` returned for the fleet.
        version_text: What git calls it.
        by: Who built it.
        schema: Its database migrations with what speaks against each (``migrations.survey``).
    """
    rows = {
        name: {"key": row["key"], "sha256": row["sha256"], "size": row.get("size", 0)} for name, row in fleets.items()
    }
    known = store.read(f"{PREFIX}release-{identity(rows)}.json")
    if known:
        return known[0], False
    made = {
        "id": identity(rows),
        "version": version_text,
        "built": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "by": by,
        "fleets": rows,
        "migrations": dict(schema or {}),
    }
    store.write(f"{PREFIX}release-{made['id']}.json", made, new=True)
    return made, True


def listed(store: Store) -> list[dict[str, Any]]:
    """Return all records, the newest first."""
    found = [store.read(key) for key in store.keys(f"{PREFIX}release-") if _RECORD.match(key)]
    return sorted((row[0] for row in found if row), key=lambda row: str(row["built"]), reverse=True)


def find(store: Store, wish: str) -> dict[str, Any]:
    """Return the record with an id, a version, or the beginning of either; ``live`` is what was deployed last.

    Raises:
        DeployError: None, or more than one, begins like that; or nothing was deployed yet.
    """
    known = listed(store)
    if wish == "live":
        last: dict[str, Any] = next((row for row in store.past() if row["ended"] == "live"), {"fleets": {}})
        for fleet in last["fleets"].values():
            if record := of_site(known, fleet["new"]["key"]):
                return dict(record)
        raise DeployError("no release was deployed yet, so none is live; name one: -e release=<id>")
    found = [row for row in known if row["id"].startswith(wish) or row["version"].startswith(wish)]
    if len(found) != 1:
        names = (
            ", ".join(f"{row['id']} ({row['version']}, {row['built']})" for row in (found or known)[:10]) or "none yet"
        )
        raise DeployError(f"{len(found)} releases begin with {wish!r}; there are: {names}")
    return found[0]


def of_site(records: Iterable[Mapping[str, Any]], key: str) -> Mapping[str, Any] | None:
    """Return the first of some records that names a site release."""
    return next((row for row in records if key in {fleet["key"] for fleet in row["fleets"].values()}), None)


def in_use(store: Store) -> set[str]:
    """Return the keys of the site releases that are live, were live before, or are being deployed."""
    rows = list(itertools.islice((row for row in store.past() if row["ended"] == "live"), 2))
    if current := store.read(CURRENT):
        rows.append(current[0])
    sides = [side for row in rows for fleet in row["fleets"].values() for side in (fleet["old"], fleet["new"])]
    return {side["key"] for side in sides if side}


def prune(store: Store, keep: int, also: Iterable[str] = ()) -> list[str]:
    """Remove old records, and the files that no record left names; return the ids that went.

    Args:
        store: The artefact bucket.
        keep: How many records stay, the newest.
        also: Keys of site releases that must stay: what hosts run now.
    """
    known, pins = listed(store), store.read(PINS)
    pinned = set(pins[0].get("releases", [])) if pins else set()
    needed = in_use(store) | set(also)
    gone = [
        row
        for row in known[keep:]
        if row["id"] not in pinned and not needed & {fleet["key"] for fleet in row["fleets"].values()}
    ]
    if not gone:
        return []
    stay = {fleet["key"] for row in known if row not in gone for fleet in row["fleets"].values()} | needed
    files = set(stay)
    for key in stay:
        files |= _named_by(store, key)
    for row in gone:
        for fleet in row["fleets"].values():
            for key in ({fleet["key"]} | _named_by(store, fleet["key"])) - files:
                store.delete(key)
        store.delete(f"{PREFIX}release-{row['id']}.json")  # last: an interrupted prune is found again
    return [str(row["id"]) for row in gone]


def _named_by(store: Store, key: str) -> set[str]:
    """Return the keys of the files that a site release's index names."""
    found = store.read(key)
    if not found:
        return set()
    return {entry["key"] for entry in named_files(found[0])}
