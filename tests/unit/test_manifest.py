"""Manifests: what is right is filled in, what is wrong is named with its path and the nearest right name."""

import copy
import difflib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from app.core import checking, manifest
from app.core.manifest import Manifest, ManifestError

ROOT = Path(__file__).resolve().parents[2]

SMALLEST: dict[str, Any] = {
    "name": "wine",
    "title": "VinoVoyant",
    "summary": "Where does this wine come from?",
    "api": {"app": "app.wine.api:app"},
}
FULL: dict[str, Any] = {
    "name": "wine",
    "title": "VinoVoyant",
    "summary": "Where does this wine come from?",
    "icon": "🍷",
    "path": "/wine/",
    "api": {"app": "app.wine.api:app", "workers": 2, "health": "/health"},
    "ui": {"script": "app/wine/ui.py", "theme": "dark"},
    "worker": {"module": "app.wine.worker"},
    "prepare": ["app.core.migrate", "app.wine.prepare"],
    "assets": ["encoder-lite0"],
    "database": "sqlite",
    "buckets": ["data"],
    "browser_uploads": True,
    "secrets": ["admin_password"],
    "network": "outbound",
    "packages": ["git"],
    "env": {"WINE_MODEL": "large"},
    "limits": {"memory": "1G", "cpu": 1.5, "tasks": 64, "upload": "20M", "request_seconds": 60},
    "backup": [{"what": "database", "schedule": "0 */6 * * *", "keep_days": 7}],
    "metrics": ["AnalysisCount"],
    "alarms": [{"metric": "PredictionLatency", "above": 2000, "seconds": 300, "periods": 2}],
    "access": "protected",
    "public_paths": ["api/v1/demo/"],
}


def check(raw: Any) -> Manifest:
    return manifest.check(raw, folder=Path("/apps/wine"))


def refused(raw: Any) -> list[str]:
    """Return the findings of a manifest that must be refused."""
    with pytest.raises(ManifestError) as caught:
        check(raw)
    lines = str(caught.value).splitlines()
    assert all(re.match(r"apps/wine[:/]", line) for line in lines), lines
    return lines


def changed(*path: str | int, to: Any) -> dict[str, Any]:
    """Return the full manifest with one value changed."""
    raw: Any = copy.deepcopy(FULL)
    node = raw
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = to
    return raw  # type: ignore[no-any-return]


def without(*path: str | int) -> dict[str, Any]:
    raw: Any = copy.deepcopy(FULL)
    node = raw
    for part in path[:-1]:
        node = node[part]
    del node[path[-1]]
    return raw  # type: ignore[no-any-return]


def places(node: dict[str, Any], path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every named key of the schema: where it stands in the full manifest, and its name."""
    for key, child in node.get("properties", {}).items():
        yield path, key
        if child["type"] == "object":
            yield from places(child, (*path, key))
        elif child["type"] == "array" and child["items"].get("type") == "object":
            yield from places(child["items"], (*path, key, 0))


PLACES = list(places(manifest.schema()))


def place_id(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, tuple) else str(value)


# ---------------------------------------------------------------- what is right


def test_the_schema_is_a_schema_and_each_key_is_documented() -> None:
    Draft202012Validator.check_schema(manifest.schema())
    for path, key in PLACES:
        node = manifest.schema()
        for part in path:
            node = node["items"] if isinstance(part, int) else node["properties"][part]
        entry = node["properties"][key]
        assert entry["description"], key
        assert entry["type"], key
        if entry["type"] not in {"object", "array"}:
            assert entry["examples"], f"{key} has no example"
            assert not list(Draft202012Validator(entry).iter_errors(entry["examples"][0])), (
                f"{key}: its own example is wrong"
            )


def test_the_smallest_manifest_gets_every_default() -> None:
    found = check(SMALLEST)
    assert (found.name, found.path) == ("wine", "/wine/")
    assert found.data == {
        **SMALLEST,
        "api": {"app": "app.wine.api:app", "workers": 1, "health": "/health"},
        "icon": "🧩",
        "path": "/wine/",
        "prepare": [],
        "assets": [],
        "database": "none",
        "buckets": [],
        "browser_uploads": False,
        "secrets": [],
        "network": "none",
        "packages": [],
        "env": {},
        "limits": {"memory": "512M", "cpu": 1.0, "tasks": 256, "upload": "10M", "request_seconds": 30},
        "backup": [],
        "metrics": [],
        "alarms": [],
        "access": "public",
        "public_paths": [],
    }


def test_what_is_given_stays_as_it_is() -> None:
    assert check(FULL).data == FULL


def test_defaults_are_not_shared_between_manifests() -> None:
    check(SMALLEST).data["limits"]["memory"] = "1M"
    check(SMALLEST).data["prepare"].append("x")
    assert check(SMALLEST).data["limits"]["memory"] == "512M"
    assert check(SMALLEST).data["prepare"] == []


def test_checking_leaves_the_input_alone() -> None:
    raw = copy.deepcopy(SMALLEST)
    check(raw)
    assert raw == SMALLEST


@pytest.mark.parametrize("path", [("api", "workers"), ("limits", "tasks"), ("limits", "request_seconds")])
def test_a_whole_number_is_kept_as_an_integer(path: tuple[str, str]) -> None:
    """``workers: 2.0`` is a whole number to JSON Schema; gunicorn's ``--workers=2.0`` is none."""
    value = check(changed(*path, to=20.0)).data[path[0]][path[1]]
    assert value == 20
    assert isinstance(value, int)


@pytest.mark.parametrize(("text", "size"), [("1K", 1024), ("512M", 512 * 2**20), ("2G", 2 * 2**30)])
def test_sizes(text: str, size: int) -> None:
    assert manifest.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "512", "0M", "1.5G", "512m", "512 M", "512M\n", "-1M", "1T", "٣M", "9999999K"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size such as 512M"):
        manifest.parse_size(text)


# ---------------------------------------------------------------- each key: unknown, wrong, missing


@pytest.mark.parametrize(("path", "key"), PLACES, ids=place_id)
@pytest.mark.parametrize("typo", ["doubled", "upper"])
def test_a_misspelt_key_is_named_with_its_path_and_the_right_name(
    path: tuple[str | int, ...], key: str, typo: str
) -> None:
    wrong = f"{key}{key[-1]}" if typo == "doubled" else key.upper()
    raw = without(*path, key)
    node: Any = raw
    for part in path:
        node = node[part]
    node[wrong] = 1
    where = "/".join(map(str, ("apps/wine", *path, wrong)))
    lines = [line for line in refused(raw) if line.startswith(f"{where}: unknown key")]
    assert len(lines) == 1, lines
    assert f"did you mean {key!r}?" in lines[0]


RIGHT = {
    (("limits",), "cpu", "3.5"),
    (("alarms", 0), "above", "3.5"),
    (("alarms", 0), "above", "-1"),
    ((), "browser_uploads", "True"),
}
WRONG = [
    pytest.param(path, key, value, id=f"{'/'.join(map(str, (*path, key)))}-{ascii(value)[:20]}")
    for path, key in PLACES
    for value in (None, {"x": {"y": 1}}, [[1]], 3.5, True, "", "\0", -1, "x" * 5000)
    if (path, key, repr(value)) not in RIGHT
]


@pytest.mark.parametrize(("path", "key", "value"), WRONG)
def test_a_wrong_value_is_named_with_its_path(path: tuple[str | int, ...], key: str, value: Any) -> None:
    lines = refused(changed(*path, key, to=value))
    where = "/".join(map(str, ("apps/wine", *path, key)))
    assert any(line.startswith(where) for line in lines), lines
    assert all(len(line) < 400 for line in lines), "a line must fit a screen, however long the value is"


@pytest.mark.parametrize(
    ("path", "key"),
    [
        place
        for place in PLACES
        if place[1] in {"name", "title", "summary", "app", "script", "module", "what", "schedule", "metric", "above"}
    ],
    ids=place_id,
)
def test_a_missing_key_is_named_with_what_it_is_for(path: tuple[str | int, ...], key: str) -> None:
    lines = refused(without(*path, key))
    where = "/".join(map(str, ("apps/wine", *path, key)))
    assert any(line.startswith(f"{where}: missing; expected ") and "such as" in line for line in lines), lines


def test_a_missing_key_that_was_misspelt_is_suggested() -> None:
    raw = without("title")
    raw["titel"] = "x"
    assert any("title: missing" in line and "is 'titel' meant?" in line for line in refused(raw))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (changed("memory", to="1G"), "apps/wine/memory: unknown key, did you mean 'limits/memory'?"),
        (
            changed("limits", "database", to="sqlite"),
            "apps/wine/limits/database: unknown key, did you mean 'database'?",
        ),
        (
            changed("limits", "memory", to=512),
            "apps/wine/limits/memory: expected text such as 512M, got a whole number (512)",
        ),
        (
            changed("limits", "memory", to="512"),
            "apps/wine/limits/memory: '512' is not allowed here; expected MemoryMax of each service such as 512M",
        ),
        (changed("limits", to=None), "apps/wine/limits: expected a mapping, got nothing"),
        (
            changed("database", to="sqllite"),
            "apps/wine/database: expected one of none, sqlite, postgresql, got 'sqllite', did you mean 'sqlite'?",
        ),
        (
            changed("api", "workers", to=0),
            "apps/wine/api/workers: expected at least 1 such as 2, got a whole number (0)",
        ),
        (
            changed("api", "workers", to=33),
            "apps/wine/api/workers: expected at most 32 such as 2, got a whole number (33)",
        ),
        (
            changed("limits", "cpu", to=0),
            "apps/wine/limits/cpu: expected more than 0 such as 1.0, got a whole number (0)",
        ),
        (
            changed("title", to="x" * 61),
            "apps/wine/title: expected at most 60 characters such as VinoVoyant, got 61 of them",
        ),
        (changed("secrets", to=["one", "two", "one"]), "apps/wine/secrets: 'one' stands twice; remove one"),
        (
            changed("ui", "script", to="app/../../etc/x.py"),
            "apps/wine/ui/script: 'app/../../etc/x.py' is not allowed here",
        ),
        (changed("ui", "script", to="/etc/x.py"), "apps/wine/ui/script: '/etc/x.py' is not allowed here"),
        (
            changed("env", to={"wine_model": "x"}),
            "apps/wine/env/wine_model: 'wine_model' is not allowed here; expected a name of capital letters",
        ),
        (
            changed("env", to={"PERGOLA_SLOT": "x"}),
            "apps/wine/env/PERGOLA_SLOT: 'PERGOLA_SLOT' is not allowed here; expected a name",
        ),
        (
            changed("env", to={"GUNICORN_CMD_ARGS": "--bind=:80"}),
            "apps/wine/env/GUNICORN_CMD_ARGS: 'GUNICORN_CMD_ARGS' is not allowed",
        ),
        (changed("env", to={"X": 1}), "apps/wine/env/X: expected text such as 1, got a whole number (1)"),
        (changed("name", to="Wine"), "apps/wine/name: 'Wine' is not allowed here; expected Folder name under app/"),
        (changed("name", to="port"), "apps/wine/name: expected 'wine' (the folder's name), got 'port'"),
        (changed("path", to="/"), "apps/wine/path: an app with a ui cannot be served at /"),
        (changed("path", to="/health/"), "apps/wine/path: /health/ is used by the host itself"),
        (changed("path", to="/wine"), "apps/wine/path: '/wine' is not allowed here"),
        (changed("path", to="/a/b/"), "apps/wine/path: '/a/b/' is not allowed here"),
        (changed("access", to="public"), "apps/wine/public_paths: has no effect while access is public"),
        (changed("database", to="none"), "apps/wine/backup: asks for the database, but database is none"),
        (changed("backup", 0, "schedule", to="0 24 * * *"), "apps/wine/backup/0/schedule: '24' is no hour (0-23"),
        (
            changed("backup", 0, "schedule", to="0 0 0 * *"),
            "apps/wine/backup/0/schedule: '0' is no day of the month (1-31",
        ),
        (changed("backup", 0, "schedule", to="9-5 * * * *"), "apps/wine/backup/0/schedule: '9-5' is no minute"),
        (changed("backup", 0, "schedule", to="*/0 * * * *"), "apps/wine/backup/0/schedule: '*/0' is no minute"),
        (
            changed("backup", 0, "schedule", to="@daily"),
            "apps/wine/backup/0/schedule: '@daily' is not allowed here; expected Five cron fields",
        ),
        (
            {"name": "wine", "title": "x", "summary": "x"},
            "apps/wine: needs api, ui or both; for example api: {app: app.wine.api:app}",
        ),
        (
            {"name": "wine", "title": "x", "summary": "x", "worker": {"module": "app.wine.w"}},
            "apps/wine: needs api, ui or both",
        ),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_what_the_message_says(raw: dict[str, Any], expected: str) -> None:
    lines = refused(raw)
    assert any(line.startswith(expected) for line in lines), "\n".join(lines)


def test_every_finding_is_named_at_once() -> None:
    raw = changed("limits", to={"memory": 5, "cpus": 1})
    raw["databse"] = "none"
    starts = {line.split(":")[0] for line in refused(raw)}
    assert starts == {"apps/wine/limits/memory", "apps/wine/limits/cpus", "apps/wine/databse"}


@pytest.mark.parametrize("name", ["core", "layers", "slots", "incoming", "install"])
def test_names_that_pergola_uses_itself_are_reserved(name: str) -> None:
    """An app ``layers`` would live in /opt/pergola/layers, which ``pergola prune`` cleans."""
    with pytest.raises(ManifestError, match="is reserved"):
        manifest.check({**SMALLEST, "name": name}, folder=Path("/apps") / name)


@pytest.mark.parametrize(
    "path",
    [
        ("title",),
        ("path",),
        ("limits", "memory"),
        ("ui", "script"),
        ("api", "health"),
        ("env", "WINE_MODEL"),
        ("secrets", 0),
    ],
)
@pytest.mark.parametrize("bad", ["\n", "\0", "\x7f", "\u2028", "\ud800"], ids=ascii)
def test_no_text_holds_a_control_character(path: tuple[str | int, ...], bad: str) -> None:
    """A pattern's ``$`` also matches before a line break at the end: what is refused here would reach a unit or nginx."""
    value: Any = FULL
    for part in path:
        value = value[part]
    lines = refused(changed(*path, to=f"{value}{bad}"))
    assert lines[0].startswith("/".join(map(str, ("apps/wine", *path))))
    assert "control character" in lines[0]


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), float("-inf"), 10**400, -(2**60), 10**5000],
    ids=lambda v: str(v)[:9] if isinstance(v, float) else "big",
)
@pytest.mark.parametrize("path", [("limits", "cpu"), ("alarms", 0, "above"), ("api", "workers"), ("title",)])
def test_a_number_that_json_or_a_unit_cannot_hold_is_refused(path: tuple[str | int, ...], value: float) -> None:
    where = "/".join(map(str, ("apps/wine", *path)))
    assert refused(changed(*path, to=value))[0].startswith(f"{where}: expected a number within ±2^53")


@pytest.mark.parametrize("key", [1, True, None, 1.5, ("a", "b")], ids=repr)
def test_a_key_that_is_not_text_is_refused(key: Any) -> None:
    """YAML makes ``on: x`` the key True."""
    assert refused({**FULL, key: "x"}) == [f"apps/wine: the key {key!r} is not text; put it in quotes"]
    assert refused(changed("env", to={key: "x"})) == [f"apps/wine/env: the key {key!r} is not text; put it in quotes"]


# ---------------------------------------------------------------- how much work a wrong manifest makes


def test_a_manifest_with_very_many_wrong_keys_gives_one_screen() -> None:
    raw = {**FULL, **{f"key{number}": 1 for number in range(60)}}
    lines = refused(raw)
    assert len(lines) == checking.MAX_FINDINGS + 1
    assert lines[-1] == "apps/wine: and 40 more findings"


@pytest.mark.parametrize(
    "value",
    [list(range(5000)), [1, "a"] * 3000, {f"K{n}": "x" for n in range(5000)}],
    ids=["numbers", "mixed", "mapping"],
)
def test_long_lists_are_counted_and_not_compared(monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    """Comparing a long mixed list pairwise takes minutes, so the schema never sees one."""

    def never(*_: Any) -> Any:
        pytest.fail("the schema was asked")

    monkeypatch.setattr(checking, "Draft202012Validator", never)
    assert refused(changed("secrets", to=value)) == [
        f"apps/wine/secrets: expected at most 100 entries, got {len(value)}"
    ]


def test_a_wrong_manifest_costs_one_pass_and_few_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a second, counted rather than timed: one pass of the schema, one comparison of words a wrong key."""
    passes: list[object] = []
    words: list[str] = []
    near = difflib.get_close_matches

    def counted(schema: Any) -> Any:
        passes.append(schema)
        return Draft202012Validator(schema)

    def compared(word: str, *arguments: Any, **named: Any) -> list[str]:
        words.append(word)
        return near(word, *arguments, **named)

    monkeypatch.setattr(checking, "Draft202012Validator", counted)
    monkeypatch.setattr(difflib, "get_close_matches", compared)
    refused({**FULL, "databse": "x", "limmits": {}, "x" * 60_000: 1})
    assert len(passes) == 1
    assert len(words) == 3
    assert max(map(len, words)) <= 60


def test_the_loader_imports_no_framework() -> None:
    """Both planes load manifests before anything else runs; a second must do."""
    heavy = "fastapi starlette streamlit pandas sqlalchemy pydantic boto3 ansible"
    code = f"import sys, app.core.manifest, app.core.plan; print(*({heavy!r}.split() & sys.modules.keys()))"
    code = code.replace(f"{heavy!r}.split()", f"set({heavy!r}.split())")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# ---------------------------------------------------------------- files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "app" / "wine"
    made.mkdir(parents=True)
    return made


GOOD_TEXT = "name: wine\ntitle: VinoVoyant\nsummary: Where?\napi: {app: 'app.wine.api:app'}\n"


def load_refused(path: Path) -> str:
    with pytest.raises(ManifestError) as caught:
        manifest.load(path)
    return str(caught.value)


@pytest.mark.parametrize("how", ["file", "folder", "relative file", "relative folder", "dot", "dots", "linked folder"])
def test_a_manifest_is_found_by_file_and_by_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    (folder / "app.yml").write_text(GOOD_TEXT)
    (folder / "sub").mkdir()
    version = folder.with_name("wine-1.2")
    version.mkdir()
    (version / "app.yml").write_text(GOOD_TEXT)
    linked = folder.parents[1] / "linked" / "wine"
    linked.parent.mkdir()
    linked.symlink_to(version)
    start = {"relative file": folder, "relative folder": folder.parent, "dot": folder, "dots": folder / "sub"}
    monkeypatch.chdir(start.get(how, folder.parent))
    path = {
        "file": folder / "app.yml",
        "folder": folder,
        "relative file": Path("app.yml"),
        "relative folder": Path("wine"),
        "dot": Path(),
        "dots": folder / "sub" / "..",
        "linked folder": linked,
    }[how]
    found = manifest.load(path)
    assert found.name == "wine"
    assert found.folder.is_absolute()
    assert found.folder.name == "wine"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected a mapping with name, title and summary, got nothing"),
        ("# only a comment\n", "got nothing"),
        ("- name: wine\n", "got a list"),
        ("wine\n", "got text ('wine')"),
        ("42\n", "got a whole number (42)"),
        ("a: &x [1]\nb: *x\n", "aliases are not allowed; write the value out"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n", "aliases are not allowed"),
        ("base: &b {title: x}\n<<: *b\n", "aliases are not allowed"),
        ("title: x\ntitle: y\n", "the key 'title' stands twice"),
        ("limits: {cpu: 1, 'cpu': 2}\n", "the key 'cpu' stands twice"),
        (
            "x: !!python/object/apply:os.system ['true']\n",
            "the tag tag:yaml.org,2002:python/object/apply:os.system is not allowed",
        ),
        ("x: !!python/name:os.system\n", "the tag"),
        ("x: !!map [1, 2]\n", "the tag"),
        ("x: !!int abc\n", "the tag"),
        ("x: !!timestamp abc\n", "the tag"),
        ("!custom\nname: wine\n", "the tag !custom is not allowed"),
        ("x: " + "[" * 60_000, "nested more than 12 levels deep"),
        ("x: " + "{a: " * 10_000, "nested more than 12 levels deep"),
        ("- " * 30_000, "nested more than 12 levels deep"),
        ("title: [unclosed\n", "is not valid YAML"),
        ("title: 'unclosed\n", "is not valid YAML"),
        ("\ttitle: x\n", "is not valid YAML"),
        ("a: b: c\n", "is not valid YAML"),
        ("%YAML 9.9\n---\na: b\n", "is not valid YAML"),
        ("a: 1\n---\nb: 2\n", "is not valid YAML"),
        ("? [a, b]\n: c\n", "is not valid YAML"),
        ("a: \0\n", "is not valid YAML"),
        ("workers: 0x_\n", "is not valid YAML"),
        (f"workers: {'9' * 5000}\n", "is not valid YAML"),
        (f"workers: 0x{'f' * 5000}\n", "expected a number within"),
        ("cpu: .nan\n", "expected a number within"),
        ("on: 1\n", "the key True is not text"),
        ("~: 1\n", "the key None is not text"),
        (GOOD_TEXT.replace("Where?", '"\\uD800"'), "control character"),
        (GOOD_TEXT.replace("Where?", ">\n  folded\n"), "write it on one line (>- instead of > or |)"),
    ],
    ids=lambda value: ascii(value[:30]),
)
def test_hostile_yaml_is_refused_with_the_reason(folder: Path, text: str, expected: str) -> None:
    (folder / "app.yml").write_text(text, encoding="utf-8", errors="surrogatepass")
    message = load_refused(folder)
    assert expected in message
    assert message.startswith("apps/wine")
    assert len(message) < 2000


def test_a_place_in_the_file_is_named(folder: Path) -> None:
    (folder / "app.yml").write_text("name: wine\ntitle: x\ntitle: y\n")
    assert "line 3, column 1" in load_refused(folder)


def test_a_date_is_text_like_any_other(folder: Path) -> None:
    (folder / "app.yml").write_text(GOOD_TEXT.replace("Where?", "2024-99-99"))
    assert manifest.load(folder).data["summary"] == "2024-99-99"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x00" * 10_000_000, "is larger than 65536 bytes; a manifest is a page, not a data file"),
        (b"#" * (64 * 1024 + 1), "is larger than 65536 bytes"),
        (bytes(range(256)), "is not UTF-8 text (byte 128); save it as UTF-8"),
        (GOOD_TEXT.replace("Where", "Où").encode("latin-1"), "is not UTF-8 text"),
        (GOOD_TEXT.encode("utf-16"), "is not UTF-8 text (byte 0)"),
        (GOOD_TEXT.encode("utf-16-le"), "is not valid YAML"),
        (b"\x7fELF\x02\x01\x01\x00\x00", "is not valid YAML"),
        (b"\x1f\x8b\x08\x00\x00", "is not UTF-8 text"),
    ],
    ids=["10 MB", "one byte too many", "binary", "latin-1", "utf-16 with BOM", "utf-16", "ELF", "gzip"],
)
def test_a_file_that_is_no_text_is_refused(folder: Path, content: bytes, expected: str) -> None:
    (folder / "app.yml").write_bytes(content)
    assert expected in load_refused(folder)


def test_a_large_file_is_not_read(folder: Path) -> None:
    """A sparse file of 1 TB and /dev/zero are refused as fast as a small one."""
    with (folder / "app.yml").open("wb") as stream:
        stream.truncate(2**40)
    assert "is larger than" in load_refused(folder)


def test_byte_order_mark_and_other_line_ends_are_fine(folder: Path) -> None:
    (folder / "app.yml").write_bytes(b"\xef\xbb\xbf" + GOOD_TEXT.replace("\n", "\r\n").encode())
    assert manifest.load(folder).name == "wine"


def test_things_that_are_no_files(folder: Path) -> None:
    file = folder / "app.yml"
    assert "no manifest at" in load_refused(folder)
    assert "docs/ADD-AN-APP.md" in load_refused(folder)
    file.mkdir()
    assert "is not a regular file" in load_refused(folder)
    assert load_refused(file).startswith("apps/wine: ")
    file.rmdir()
    os.mkfifo(file)  # reading it would wait forever
    assert "is not a regular file" in load_refused(folder)
    file.unlink()
    file.symlink_to("/dev/zero")
    assert "is not a regular file" in load_refused(folder)
    file.unlink()
    file.symlink_to("app.yml")
    assert load_refused(folder).startswith("apps/wine: ")
    assert "no manifest at" in load_refused(folder / "x" / "app.yml")
    (folder / "x").write_text("")
    assert "no manifest at" in load_refused(folder / "x" / "app.yml")
    assert "no manifest at" in load_refused(folder / "a\0b")


def test_a_file_without_permission(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "app.yml").write_text(GOOD_TEXT)

    def refuse(self: Path, *_: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything, so a mode would not do
    assert load_refused(folder) == f"apps/wine: cannot read {folder / 'app.yml'}: Permission denied"


# ---------------------------------------------------------------- several apps


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """Make a project's folder with some apps."""

    def make(**apps: dict[str, Any]) -> Path:
        (tmp_path / "app" / "core").mkdir(parents=True)
        for name, extra in apps.items():
            folder = tmp_path / "app" / name
            folder.mkdir()
            raw = {"name": name, "title": name, "summary": "x", "api": {"app": f"app.{name}.api:app"}, **extra}
            (folder / "app.yml").write_text(yaml.safe_dump(raw))
        return tmp_path

    return make


def all_refused(root: Path, names: Any) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        manifest.load_all(root, names)
    return str(caught.value).splitlines()


def test_apps_are_loaded_in_the_order_of_the_list(project: Callable[..., Path]) -> None:
    root = project(wine={}, portal={"path": "/"})
    assert [one.name for one in manifest.load_all(root, ["wine", "portal"])] == ["wine", "portal"]
    assert [one.name for one in manifest.load_all(root, ["portal", "wine"])] == ["portal", "wine"]
    assert manifest.load_all(root, []) == []


def test_an_app_from_elsewhere_is_found_from_the_project_or_absolutely(
    project: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = project(wine={})
    other = tmp_path_factory.mktemp("other") / "hello"
    other.mkdir()
    (other / "app.yml").write_text(GOOD_TEXT.replace("wine", "hello"))
    relative = os.path.relpath(other, root)
    for path in (str(other), relative):
        found = manifest.load_all(root, ["wine", {"path": path}])
        assert [one.name for one in found] == ["wine", "hello"]
        assert found[1].folder == other


def test_the_findings_of_all_apps_are_named_at_once(project: Callable[..., Path]) -> None:
    root = project(wine={"databse": "x"}, portal={"limits": {"cpu": 0}}, ava={})
    lines = all_refused(root, ["wine", "portal", "avva"])
    assert [line.split(": ")[0] for line in lines] == ["apps/wine/databse", "apps/portal/limits/cpu", "apps/avva"]
    assert lines[2] == "apps/avva: there is no such app, did you mean 'ava'?; known apps: ava, portal, wine"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../wine", "/etc", "wine/", "core/../wine", "WINE", "wine\n", "wi\0ne"], ids=ascii
)
def test_a_name_is_no_path(project: Callable[..., Path], name: str) -> None:
    assert "there is no such app" in "".join(all_refused(project(wine={}), [name]))


@pytest.mark.parametrize("names", ["wine", {"path": "x"}, None, 5], ids=repr)
def test_apps_are_a_list(project: Callable[..., Path], names: Any) -> None:
    assert all_refused(project(wine={}), names)[0].startswith("apps: expected a list such as [portal, wine], got ")


@pytest.mark.parametrize(
    "entry", [{}, {"path": 5}, {"path": "a\0b"}, {"src": "x"}, {"path": "x", "version": "1"}], ids=repr
)
def test_an_entry_is_a_name_or_a_path(project: Callable[..., Path], entry: Any) -> None:
    line = all_refused(project(wine={}), [entry])[0]
    assert line.startswith("apps: expected a name or {path: /folder/of/the/app}, got ")


@pytest.mark.parametrize("entry", [None, 5, ["wine"]], ids=repr)
def test_an_entry_of_another_kind_is_refused(project: Callable[..., Path], entry: Any) -> None:
    assert all_refused(project(wine={}), [entry])[0].startswith("apps: expected a name such as wine, got ")


def test_two_apps_with_one_path_are_both_named(project: Callable[..., Path]) -> None:
    root = project(wine={"path": "/shop/"}, ava={"path": "/shop/"}, portal={})
    expected = ["apps/wine/path: '/shop/' is the path of both ava and wine; give one of them another path"]
    assert all_refused(root, ["wine", "portal", "ava"]) == expected
    assert all_refused(root, ["ava", "wine", "portal"]) == expected


def test_two_apps_with_one_name_are_both_named(
    project: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = project(wine={})
    other = tmp_path_factory.mktemp("other") / "wine"
    other.mkdir()
    (other / "app.yml").write_text(GOOD_TEXT)
    line = "\n".join(all_refused(root, ["wine", {"path": str(other)}]))
    assert str(other) in line
    assert str(root / "app" / "wine") in line
    assert "give one of them another name" in line


def test_one_app_listed_twice_is_named(project: Callable[..., Path]) -> None:
    assert all_refused(project(wine={}), ["wine", "wine"]) == ["apps/wine: is listed twice; remove one"]


def test_the_manifests_of_this_project_are_right() -> None:
    names = sorted(found.parent.name for found in (ROOT / "app").glob("*/app.yml"))
    assert {one.name for one in manifest.load_all(ROOT, names)} == set(names)


# ---------------------------------------------------------------- properties

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)


@st.composite
def near_manifests(draw: st.DrawFn) -> Any:
    """The full manifest with some values put in, taken out or replaced by anything."""
    raw: Any = copy.deepcopy(FULL)
    for path, key in draw(st.lists(st.sampled_from(PLACES), max_size=4)):
        node = raw
        for part in path:
            try:
                node = node[part]
            except (KeyError, IndexError, TypeError):
                node = None
                break
        if isinstance(node, dict):
            what = draw(st.sampled_from(["drop", "replace", "add"]))
            if what == "drop":
                node.pop(key, None)
            elif what == "replace":
                node[key] = draw(json_values)
            else:
                node[draw(st.text(max_size=10))] = draw(json_values)
    return raw


def checked(raw: Any) -> None:
    try:
        found = check(raw)
    except ManifestError as error:
        lines = str(error).splitlines()
        assert lines
        assert len(lines) <= checking.MAX_FINDINGS + 1
        return
    assert check(found.data).data == found.data, "a manifest with its defaults is a manifest"
    json.dumps(found.data, allow_nan=False, ensure_ascii=False).encode()


@given(json_values)
@settings(max_examples=80, deadline=None)
def test_any_value_is_a_manifest_or_a_manifest_error(raw: Any) -> None:
    checked(raw)


@given(near_manifests())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_near_manifest_is_a_manifest_or_a_manifest_error(raw: Any) -> None:
    checked(raw)


@given(st.text(alphabet="abc:-[]{}&*!<>|?#%@'\"\\ \n\t0123_.~xé\x00", max_size=60) | st.text(max_size=30))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_manifest_or_a_manifest_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "app.yml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ManifestError):
        manifest.load(file)


@given(st.binary(max_size=60))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_manifest_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "app.yml"
    file.write_bytes(content)
    with pytest.raises(ManifestError):
        manifest.load(file)


# ---------------------------------------------------------------- its documentation


def test_the_documentation_is_made_from_the_schema() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "manifest_doc.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stale_documentation_is_noticed(tmp_path: Path) -> None:
    stale = tmp_path / "MANIFEST.md"
    stale.write_text("old\n")
    command: list[str | Path] = [sys.executable, ROOT / "scripts" / "manifest_doc.py", "--out", stale]
    done = subprocess.run([*command, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "make docs" in done.stderr
    assert stale.read_text() == "old\n"
    subprocess.run(command, check=True)
    text = stale.read_text()
    for path, key in PLACES:
        assert f"`{'.'.join([*(str(part) for part in path if part != 0), key])}`" in text, key
    assert subprocess.run([*command, "--check"], check=False).returncode == 0
