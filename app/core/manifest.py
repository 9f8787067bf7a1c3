"""Load and check app manifests (``app/<name>/app.yml``), the one place that describes an app.

The manifest is checked against ``manifest.schema.json``; every finding carries the path of the key and, for an unknown key,
the nearest right name. Nothing here imports an app or a web framework, so both planes can use it.
"""

from __future__ import annotations

import copy
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

from app.core import checking
from app.core.checking import MAX_DEPTH, clip, kind, nearest, short, with_defaults

SCHEMA_PATH = Path(__file__).with_name("manifest.schema.json")
MANIFEST_NAME = "app.yml"
MAX_BYTES = 64 * 1024
_UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3}
# core is Pergola's own; the others stand beside the apps in /opt/pergola and among the locks of the command pergola
RESERVED_NAMES = frozenset({"core", "incoming", "install", "layers", "slots"})
RESERVED_PATHS = frozenset({"/health/", "/api/", "/static/", "/status/"})
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
                    problem=f"the key {short(key)} stands twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _refuse(findings: Iterable[str], where: str) -> None:
    """Raise what was found, one line each, a screen of them at most."""
    if lines := checking.page(findings, where):
        raise ManifestError("\n".join(lines))


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
        msg = f"{where}: expected a mapping with name, title and summary, got {kind(raw)}"
        raise ManifestError(msg)
    _refuse(checking.findings(schema(), raw, where), where)
    data = with_defaults(schema(), copy.deepcopy(dict(raw)))
    name = str(data["name"])
    data.setdefault("path", f"/{name}/")
    _refuse(_beyond_schema(data, where, folder), where)
    return Manifest(name=name, path=data["path"], folder=folder, data=data)


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
        msg = f"apps: expected a list such as [portal, wine], got {kind(names)}"
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
            msg = f"apps: expected a name or {{path: /folder/of/the/app}}, got {short(dict(entry))}"
            raise ManifestError(msg)
        return root / entry["path"]
    if not isinstance(entry, str):
        msg = f"apps: expected a name such as wine, got {kind(entry)}"
        raise ManifestError(msg)
    if not re.fullmatch(r"[a-z][a-z0-9]*", entry) or not (root / "app" / entry).is_dir():
        known = sorted(found.parent.name for found in (root / "app").glob(f"*/{MANIFEST_NAME}"))
        msg = (
            f"apps/{clip(entry)}: there is no such app{nearest(entry, known)}; known apps: {', '.join(known) or 'none'}"
        )
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
    if data["path"] == "/" and data["access"] == "protected":
        yield f"{where}/access: an app at / answers the host's health checks and cannot be protected; give it another path"
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
