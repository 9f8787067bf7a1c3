"""Load and check app manifests (``app/<name>/app.yml``), the one place that describes an app.

The manifest is checked against ``manifest.schema.json``; every finding carries the path of the key and, for an unknown key,
the nearest right name. Nothing here imports an app or a web framework, so both planes can use it.
"""

from __future__ import annotations

import copy
import difflib
import functools
import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

SCHEMA_PATH = Path(__file__).with_name("manifest.schema.json")
MANIFEST_NAME = "app.yml"
MAX_BYTES = 64 * 1024
MAX_DEPTH = 12
MAX_ITEMS = 100
MAX_FINDINGS = 20
_UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3}
# core is Pergola's own; the others stand beside the apps in /opt/pergola and among the locks of the command pergola
RESERVED_NAMES = frozenset({"core", "envs", "incoming", "install", "slots"})
RESERVED_PATHS = frozenset({"/health/", "/api/", "/static/", "/status/"})
# what JSON Schema's patterns let through at the end of a line, and what cannot stand in a unit, a header or a UTF-8 file
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LARGEST_NUMBER = 2**53
_CRON_FIELDS = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of the month", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 7),
)


class ManifestError(ValueError):
    """A manifest is wrong. The message has one line a finding: ``apps/<name>/<key>: what is wrong``."""


@dataclass(frozen=True)
class Manifest:
    """A checked manifest.

    Attributes:
        name: The app's name.
        path: URL path it is served at, with a slash at both ends.
        folder: Folder that holds the manifest and the code.
        data: The whole manifest with every default filled in.
    """

    name: str
    path: str
    folder: Path
    data: dict[str, Any]


@functools.cache
def schema() -> dict[str, Any]:
    """Return the JSON Schema of a manifest."""
    loaded: dict[str, Any] = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    return loaded


def parse_size(text: str) -> int:
    """Turn ``512M`` into bytes (binary units K, M, G).

    Raises:
        ValueError: The text is not a whole number followed by K, M or G.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,5})([KMG])", text)
    if match is None:
        msg = f"expected a size such as 512M, got {text!r}"
        raise ValueError(msg)
    return int(match[1]) * _UNITS[match[2]]


def load(path: Path) -> Manifest:
    """Read and check one manifest.

    Args:
        path: The manifest file, or the folder that holds ``app.yml``.

    Raises:
        ManifestError: The file is missing, is not YAML, or breaks the schema; the message names every finding.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow a linked folder and lose the app's name
    file = path / MANIFEST_NAME if path.is_dir() and path.name != MANIFEST_NAME else path
    where = f"apps/{file.parent.name}"
    text = _read(file, where)
    try:
        raw = yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number of 5,000 digits
        msg = f"{where}: {file} is not valid YAML: {' '.join(str(error).split())}"
        raise ManifestError(msg) from None
    return check(raw, folder=file.parent)


def _read(file: Path, where: str) -> str:
    content = b""
    try:
        if not file.exists():
            finding = f"no manifest at {file}; create it (docs/ADD-AN-APP.md shows the smallest one)"
        elif not file.is_file():
            finding = f"{file} is not a regular file; a manifest is a text file"
        else:
            with file.open("rb") as stream:
                content = stream.read(MAX_BYTES + 1)
            finding = f"{file} is larger than {MAX_BYTES} bytes; a manifest is a page, not a data file"
            if len(content) <= MAX_BYTES:
                return content.decode("utf-8")
    except UnicodeDecodeError as error:
        finding = f"{file} is not UTF-8 text (byte {error.start}); save it as UTF-8"
    except OSError as error:
        finding = f"cannot read {file}: {error.strerror}"
    raise ManifestError(f"{where}: {finding}")


class _Loader(yaml.SafeLoader):
    """YAML of plain values: no aliases (an alias bomb grows without bound), tags, dates, duplicate keys or deep nesting."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own form: a class attribute
        start: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for start, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call] # the stubs leave it out
        problem = ""
        if isinstance(event, yaml.AliasEvent):
            problem = "aliases are not allowed; write the value out"
        elif getattr(event, "tag", None) is not None:
            problem = f"the tag {event.tag} is not allowed; write a plain value"
        elif self._depth > MAX_DEPTH:
            problem = f"nested more than {MAX_DEPTH} levels deep"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's own signature
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {_short(key)} stands twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def check(raw: Any, *, folder: Path) -> Manifest:
    """Check a manifest that is already parsed.

    Args:
        raw: The parsed YAML.
        folder: Folder of the app; its name must be the app's name.

    Raises:
        ManifestError: With one line a finding.
    """
    where = f"apps/{folder.name}"
    if not isinstance(raw, Mapping):
        msg = f"{where}: expected a mapping with name, title and summary, got {_kind(raw)}"
        raise ManifestError(msg)
    _refuse(_unfit(raw, where), where)
    errors = Draft202012Validator(schema()).iter_errors(raw)
    _refuse((line for error in errors for line in _explain(error, where)), where)
    data = _with_defaults(schema(), copy.deepcopy(dict(raw)))
    name = str(data["name"])
    data.setdefault("path", f"/{name}/")
    _refuse(_beyond_schema(data, where, folder), where)
    return Manifest(name=name, path=data["path"], folder=folder, data=data)


def _refuse(findings: Iterable[str], where: str) -> None:
    """Raise what was found, one line each, a screen of them at most."""
    lines = sorted(set(findings))
    if len(lines) > MAX_FINDINGS:
        lines[MAX_FINDINGS:] = [f"{where}: and {len(lines) - MAX_FINDINGS} more findings"]
    if lines:
        raise ManifestError("\n".join(lines))


def _unfit(value: Any, path: str, depth: int = 0) -> Iterable[str]:
    """Find what no manifest may hold anywhere, whatever the schema says of the key."""
    if depth > MAX_DEPTH:
        yield f"{path}: nested more than {MAX_DEPTH} levels deep"
    elif isinstance(value, (Mapping, list)):
        if len(value) > MAX_ITEMS:
            yield f"{path}: expected at most {MAX_ITEMS} entries, got {len(value)}"
            return
        children: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, child in children:
            if isinstance(value, Mapping) and not isinstance(key, str):
                yield f"{path}: the key {_short(key)} is not text; put it in quotes"
            elif isinstance(key, str) and _UNPRINTABLE.search(key):
                yield f"{path}: the key {_short(key)} has a line break or another control character; remove it"
            else:
                yield from _unfit(child, f"{path}/{_clip(key)}", depth + 1)
    elif isinstance(value, str):
        if _UNPRINTABLE.search(value):
            yield f"{path}: {_short(value)} has a line break or another control character; write it on one line (>- instead of > or |)"
    elif isinstance(value, (int, float)):
        if not abs(value) <= _LARGEST_NUMBER:  # NaN is not <= anything
            yield f"{path}: expected a number within ±2^53, got {_short(value)}"
    elif value is not None:
        yield f"{path}: expected text, a number, a list or a mapping, got {type(value).__name__}"


def load_all(root: Path, names: Iterable[str | Mapping[str, str]]) -> list[Manifest]:
    """Load the manifests of several apps and check that they can live on one host.

    Args:
        root: Project folder; the app ``wine`` is ``root/app/wine``.
        names: App names, or mappings with ``path`` (from ``root``, or absolute) for an app that lives elsewhere.

    Raises:
        ManifestError: For any wrong manifest, and when two apps share a name or a path.
    """
    manifests: list[Manifest] = []
    findings: list[str] = []
    if isinstance(names, (str, Mapping)) or not isinstance(names, Iterable):
        msg = f"apps: expected a list such as [portal, wine], got {_kind(names)}"
        raise ManifestError(msg)
    for entry in names:
        try:
            manifests.append(load(_folder(root, entry)))
        except ManifestError as error:
            findings.extend(str(error).splitlines())
    findings.extend(_clashes(manifests))
    if findings:
        raise ManifestError("\n".join(findings))
    return manifests


def _folder(root: Path, entry: Any) -> Path:
    """Return the folder of one app of a list."""
    if isinstance(entry, Mapping):
        if set(entry) != {"path"} or not isinstance(entry["path"], str) or "\0" in entry["path"]:
            msg = f"apps: expected a name or {{path: /folder/of/the/app}}, got {_short(dict(entry))}"
            raise ManifestError(msg)
        return root / entry["path"]
    if not isinstance(entry, str):
        msg = f"apps: expected a name such as wine, got {_kind(entry)}"
        raise ManifestError(msg)
    if not re.fullmatch(r"[a-z][a-z0-9]*", entry) or not (root / "app" / entry).is_dir():
        known = sorted(found.parent.name for found in (root / "app").glob(f"*/{MANIFEST_NAME}"))
        msg = f"apps/{_clip(entry)}: there is no such app{_nearest(entry, known)}; known apps: {', '.join(known) or 'none'}"
        raise ManifestError(msg)
    return root / "app" / entry


def _clashes(manifests: list[Manifest]) -> Iterable[str]:
    ordered = sorted(manifests, key=lambda manifest: (manifest.name, str(manifest.folder)))
    for first, second in itertools.combinations(ordered, 2):
        if first.folder == second.folder:
            yield f"apps/{first.name}: is listed twice; remove one"
        elif first.name == second.name:
            yield (
                f"apps/{first.name}/name: {first.name!r} is the name of both {first.folder} and {second.folder}; "
                "give one of them another name"
            )
        elif first.path == second.path:
            yield (
                f"apps/{second.name}/path: {first.path!r} is the path of both {first.name} and {second.name}; "
                "give one of them another path"
            )


def _beyond_schema(data: Mapping[str, Any], where: str, folder: Path) -> Iterable[str]:
    if data["name"] in RESERVED_NAMES:
        yield f"{where}/name: {data['name']!r} is reserved; choose another name"
    if data["name"] != folder.name:
        yield f"{where}/name: expected {folder.name!r} (the folder's name), got {data['name']!r}"
    if data["path"] in RESERVED_PATHS:
        yield f"{where}/path: {data['path']} is used by the host itself; choose another path"
    if data["path"] == "/" and "ui" in data:
        yield f"{where}/path: an app with a ui cannot be served at /; remove path (default /{data['name']}/) or the ui"
    if data["public_paths"] and data["access"] != "protected":
        yield f"{where}/public_paths: has no effect while access is public; set access: protected or remove it"
    if any(entry["what"] == "database" for entry in data["backup"]) and data["database"] == "none":
        yield f"{where}/backup: asks for the database, but database is none; expected sqlite or postgresql"
    for position, entry in enumerate(data["backup"]):
        for field, (unit, lowest, highest) in zip(entry["schedule"].split(), _CRON_FIELDS, strict=True):
            if not all(_is_cron(part, lowest, highest) for part in field.split(",")):
                yield (
                    f"{where}/backup/{position}/schedule: {field!r} is no {unit} ({lowest}-{highest}, *, a-b, */n); "
                    "expected five cron fields such as 0 */6 * * *"
                )


def _is_cron(part: str, lowest: int, highest: int) -> bool:
    """Return whether one part of a cron field can be: ``*``, a number or a range, each with a step or without."""
    match = re.fullmatch(r"(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:/([1-9]\d?))?", part)
    if match is None or (match[3] and match[1] and not match[2]):  # cron knows no step after a single number
        return False
    first = int(match[1] or lowest)
    return lowest <= first <= int(match[2] or first) <= highest


def _with_defaults(node: Mapping[str, Any], value: Any) -> Any:
    """Fill in the schema's defaults, depth first."""
    if node.get("type") == "object" and isinstance(value, dict):
        for key, child in node.get("properties", {}).items():
            if key not in value and "default" in child:
                value[key] = copy.deepcopy(child["default"])
            if key in value:
                value[key] = _with_defaults(child, value[key])
    elif node.get("type") == "array" and isinstance(value, list):
        value = [_with_defaults(node["items"], item) for item in value]
    elif node.get("type") == "integer" and isinstance(value, float):
        value = int(value)  # 2.0 is a whole number to JSON Schema, but not to gunicorn's command line
    return value


def _explain(error: ValidationError, where: str) -> Iterable[str]:
    path = "/".join([where, *(_clip(part) for part in error.absolute_path)])
    node: Mapping[str, Any] = error.schema if isinstance(error.schema, Mapping) else {}
    instance: Any = error.instance
    if error.validator == "additionalProperties":
        yield from _unknown_keys(instance, node, path)
    elif error.validator == "required":
        yield from _missing_keys(instance, node, path)
    elif error.validator == "anyOf":
        yield f"{path}: needs api, ui or both; for example api: {{app: app.{where.rpartition('/')[2]}.api:app}}"
    elif "propertyNames" in error.absolute_schema_path:
        yield f"{path}/{_clip(instance)}: {_sentence(error, node)}"
    else:
        yield f"{path}: {_sentence(error, node)}"


def _unknown_keys(instance: Mapping[str, Any], node: Mapping[str, Any], path: str) -> Iterable[str]:
    known = sorted(node["properties"])
    for key in instance:
        if key in known:
            continue
        places = [place for place in _places() if place.rpartition("/")[2] == key]
        hint = f", did you mean {' or '.join(map(repr, places))}?" if places else _nearest(key, known)
        yield f"{path}/{_clip(key)}: unknown key{hint}; known keys: {', '.join(known)}"


def _missing_keys(instance: Mapping[str, Any], node: Mapping[str, Any], path: str) -> Iterable[str]:
    known = node["properties"]
    unknown = [key for key in instance if key not in known]
    for key in node["required"]:
        if key not in instance:
            typo = difflib.get_close_matches(key, unknown, n=1, cutoff=0.6)
            meant = f" (is {_short(typo[0])} meant?)" if typo else ""
            yield f"{path}/{key}: missing; expected {_described(known[key])}{meant}"


def _places() -> Iterable[str]:
    """Every key of a manifest with its path."""
    for key, child in schema()["properties"].items():
        yield key
        below = child.get("items", child)
        yield from (f"{key}/{name}" for name in below.get("properties", {}))


def _sentence(error: ValidationError, node: Mapping[str, Any]) -> str:
    """Say in one sentence what a value should be."""
    value: Any = error.instance
    limit = error.validator_value
    if error.validator == "enum":
        options = [str(option) for option in node["enum"]]
        return f"expected one of {', '.join(options)}, got {_short(value)}{_nearest(str(value), options)}"
    if error.validator in {"pattern", "not"}:
        return f"{_short(value)} is not allowed here; expected {_described(node)}"
    if error.validator == "uniqueItems":
        twice = next(item for position, item in enumerate(value) if item in value[:position])
        return f"{_short(twice)} stands twice; remove one"
    wanted = {
        "type": _article(str(limit)),
        "minimum": f"at least {limit}",
        "maximum": f"at most {limit}",
        "exclusiveMinimum": f"more than {limit}",
        "minLength": f"at least {limit} character",
        "maxLength": f"at most {limit} characters",
    }[str(error.validator)]
    got = f"{len(value)} of them" if error.validator in {"minLength", "maxLength"} else _kind(value)
    return f"expected {wanted}{_example(node)}, got {got}"


def _described(node: Mapping[str, Any]) -> str:
    return f"{node['description'].rstrip('.')}{_example(node)}"


def _clip(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _short(value: Any) -> str:
    try:
        return _clip(repr(value))
    except ValueError:  # an integer too long for Python to print
        return "a huge number"


def _nearest(word: str, options: Iterable[str]) -> str:
    match = difflib.get_close_matches(_clip(word).casefold(), list(options), n=1, cutoff=0.5)
    return f", did you mean {match[0]!r}?" if match else ""


def _example(node: Mapping[str, Any]) -> str:
    examples = node.get("examples") or ([node["default"]] if node.get("default") not in (None, [], {}) else [])
    return f" such as {examples[0]}" if examples else ""


def _article(kind: str) -> str:
    names = {
        "object": "a mapping",
        "array": "a list",
        "string": "text",
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
    }
    return names.get(kind, kind)


def _kind(value: Any) -> str:
    names = {
        dict: "a mapping",
        list: "a list",
        str: "text",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        type(None): "nothing",
    }
    return f"{names.get(type(value), type(value).__name__)}" + (
        f" ({_short(value)})" if isinstance(value, (str, int, float)) else ""
    )
