"""Releases in the artefact bucket: recorded once, found by name, pruned with care."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from deploys import releases
from deploys.spec import DeployError
from deploys.store import CURRENT, HISTORY, Store


def site(store: Store, name: str, *, shared: str = "releases/layer-one.tar.gz") -> dict[str, Any]:
    """Put the index of a site release, and the files it names, into the bucket; return what building it returned."""
    archive = f"releases/wine-{name}.tar.gz"
    files = ["releases/host-one.tar.gz", "releases/self-one.tar.gz", shared, archive]
    host, tool, env, code = ({"key": key, "sha256": "0" * 64, "size": 1} for key in files)
    index = {
        "host": host,
        "self": tool,
        "bundles": [{"app": "wine", "archive": code, "layers": [{"id": "one", **env}]}],
        "vars": {},
    }
    sha256 = hashlib.sha256(json.dumps(index).encode()).hexdigest()
    key = f"releases/site-{sha256[:12]}.json"
    store.write(key, index)
    for file in files:
        store.write(file, {"of": file})
    return {"key": key, "sha256": sha256, "size": 4}


def recorded(store: Store, name: str) -> dict[str, Any]:
    made, new = releases.record(store, {"main": site(store, name)}, version_text=name, by="ana")
    assert new
    # the order of records is the order in which they were built; the clock has seconds
    made["built"] = f"2026-01-01T00:00:{len(list(store.keys('releases/release-'))):02d}Z"
    store.write(f"releases/release-{made['id']}.json", made)
    return made


@pytest.fixture
def store(environment: Any) -> Store:
    return environment.quiet().store


def test_the_same_release_is_recorded_once(store: Store) -> None:
    one, new = releases.record(store, {"main": site(store, "a")}, version_text="v1", by="ana")
    again, newer = releases.record(store, {"main": site(store, "a")}, version_text="v2", by="bea")
    assert (new, newer) == (True, False)
    assert again == one
    assert one["version"] == "v1"


def test_a_release_is_found_by_how_it_begins(store: Store) -> None:
    one, two = recorded(store, "first"), recorded(store, "second")
    assert releases.find(store, one["id"][:6])["id"] == one["id"]
    assert releases.find(store, "sec")["id"] == two["id"]
    with pytest.raises(DeployError, match=f"0 releases begin with 'zz'; there are: {two['id']}"):
        releases.find(store, "zz")
    with pytest.raises(DeployError, match="2 releases begin with ''"):
        releases.find(store, "")


def test_an_empty_bucket_says_so(store: Store) -> None:
    with pytest.raises(DeployError, match="there are: none yet"):
        releases.find(store, "x")
    assert releases.prune(store, 0) == []


def test_old_releases_go_with_the_files_that_only_they_had(store: Store) -> None:
    made = [recorded(store, name) for name in "abcd"]
    assert releases.prune(store, 2) == [made[1]["id"], made[0]["id"]]
    left = set(store.keys("releases/"))
    assert {
        "releases/wine-c.tar.gz",
        "releases/wine-d.tar.gz",
        "releases/layer-one.tar.gz",
        "releases/host-one.tar.gz",
    } <= left
    assert not {"releases/wine-a.tar.gz", "releases/wine-b.tar.gz", made[0]["fleets"]["main"]["key"]} & left
    assert releases.prune(store, 2) == []


def test_what_is_live_was_live_is_deployed_now_or_pinned_stays(store: Store) -> None:
    made = [recorded(store, name) for name in "abcdefg"]
    old, live, moving, pinned, running = (row["fleets"]["main"] for row in made[:5])
    store.write(f"{HISTORY}1.json", {"id": "1", "ended": "live", "fleets": {"main": {"old": old, "new": live}}})
    store.write(CURRENT, {"fleets": {"main": {"old": live, "new": moving}}})
    store.write(releases.PINS, {"releases": [made[3]["id"]]})
    assert releases.prune(store, 1, [running["key"]]) == [made[5]["id"]]
    assert pinned["key"] in set(store.keys("releases/site-"))
    assert len(releases.listed(store)) == 6


def test_the_live_release_is_found_by_that_word(store: Store) -> None:
    with pytest.raises(DeployError, match="none is live"):
        releases.find(store, "live")
    made = [recorded(store, name) for name in "abc"]
    rows = [row["fleets"]["main"] for row in made]
    store.write(f"{HISTORY}1.json", {"id": "1", "ended": "live", "fleets": {"main": {"old": None, "new": rows[0]}}})
    store.write(f"{HISTORY}2.json", {"id": "2", "ended": "live", "fleets": {"main": {"old": rows[0], "new": rows[1]}}})
    store.write(
        f"{HISTORY}3.json", {"id": "3", "ended": "taken back", "fleets": {"main": {"old": rows[1], "new": rows[2]}}}
    )
    assert releases.find(store, "live")["id"] == made[1]["id"]


def repository(folder: Path) -> Path:
    for words in (["init", "-q"], ["config", "user.email", "a@example.org"], ["config", "user.name", "a"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True)
    (folder / "file").write_text("one")
    subprocess.run(["git", "-C", str(folder), "add", "."], check=True)
    subprocess.run(["git", "-C", str(folder), "commit", "-qm", "one"], check=True)
    return folder


def test_the_version_is_the_commit(tmp_path: Path) -> None:
    root = repository(tmp_path)
    clean = releases.version(root, allow_dirty=False)
    assert len(clean) == 12
    (root / "file").write_text("two")
    (root / "new").write_text("three")
    with pytest.raises(DeployError, match=r"not committed: file, new\. Commit first, or .*allow_dirty=true"):
        releases.version(root, allow_dirty=False)
    assert releases.version(root, allow_dirty=True) == f"{clean}-dirty"


def test_no_checkout_has_no_version(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="git status in"):
        releases.version(tmp_path, allow_dirty=True)


def test_a_rollback_without_a_name_goes_to_what_was_live_before(environment: Any, release_named: Any) -> None:
    environment.engine(environment.spec("two")).deploy()
    time.sleep(1)  # the history is ordered by seconds
    spec = environment.spec("one")
    nameless = [
        fleet.__class__(**{**fleet.__dict__, "release": fleet.release.__class__("", "0" * 64)}) for fleet in spec.fleets
    ]
    engine = environment.engine(environment.spec("one", fleets=tuple(nameless)))
    assert engine.rollback() is True
    assert environment.live_release() == release_named("one")


def test_nothing_to_go_back_to(environment: Any) -> None:
    spec = environment.spec("one")
    nameless = [
        fleet.__class__(**{**fleet.__dict__, "release": fleet.release.__class__("", "0" * 64)}) for fleet in spec.fleets
    ]
    with pytest.raises(DeployError, match="main has had one release only"):
        environment.engine(environment.spec("one", fleets=tuple(nameless))).rollback()


def test_a_migration_that_breaks_the_live_release_is_refused(environment: Any, release_named: Any) -> None:
    engine = environment.engine(environment.spec("two"))
    store = engine.store
    bad = {"wine": {"0001": [], "0002": ["line 9: drop_table('note') takes away a table"]}}
    for name, schema in (("one", {"wine": {"0001": []}}), ("two", bad)):
        fleets = {"main": release_named(name).__dict__}
        releases.record(store, fleets, version_text=name, by="ana", schema=schema)
    with pytest.raises(
        DeployError, match=r"not begun: .* survive these migrations: wine/0002: line 9: drop_table\('note'\)"
    ):
        engine.deploy()
    assert environment.states("green") == []
    assert environment.engine(environment.spec("two", options={"accept_migrations": True})).deploy() is True
