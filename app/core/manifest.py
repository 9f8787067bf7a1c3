"""Load and check app manifests (``app/<name>/app.yml``), the one place that describes an app.

The manifest is checked against ``manifest.schema.json``; every finding carries the path of the key and, for an unknown key,
the nearest right name. Nothing here imports an app or a web framework, so both planes can use it.
"""

from __future__ import annotations

import copy
import difflib
import functools
import json
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
_UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3}
_RESERVED_NAMES = frozenset({"core"})
_RESERVED_PATHS = frozenset({"/health/", "/api/", "/static/", "/status/"})


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
    file = path / MANIFEST_NAME if path.is_dir() else path
    where = f"apps/{file.parent.name}"
    try:
        if file.stat().st_size > MAX_BYTES:
            msg = f"{where}: {file} is larger than {MAX_BYTES} bytes; a manifest is a page, not a data file"
            raise ManifestError(msg)
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        msg = f"{where}: no manifest at {file}; create it (docs/ADD-AN-APP.md shows the smallest one)"
        raise ManifestError(msg) from None
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{where}: cannot read {file}: {error}"
        raise ManifestError(msg) from error
    try:
        raw = _load_yaml(text)
    except (yaml.YAMLError, RecursionError) as error:
        msg = f"{where}: {file} is not valid YAML: {' '.join(str(error).split())}"
        raise ManifestError(msg) from None
    return check(raw, folder=file.parent)


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases (an alias bomb grows without bound) and without duplicate keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed in a manifest; write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's own signature
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise yaml.YAMLError(f"the key {key!r} stands twice{key_node.start_mark}")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _load_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader


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
    findings = sorted(
        {line for error in Draft202012Validator(schema()).iter_errors(raw) for line in _explain(error, where)}
    )
    if findings:
        raise ManifestError("\n".join(findings))
    data = _with_defaults(schema(), copy.deepcopy(dict(raw)))
    name = str(data["name"])
    data.setdefault("path", f"/{name}/")
    findings = list(_beyond_schema(data, where, folder))
    if findings:
        raise ManifestError("\n".join(findings))
    return Manifest(name=name, path=data["path"], folder=folder, data=data)


def load_all(root: Path, names: Iterable[str | Mapping[str, str]]) -> list[Manifest]:
    """Load the manifests of several apps and check that they can live on one host.

    Args:
        root: Project folder; the app ``wine`` is ``root/app/wine``.
        names: App names, or mappings with ``path`` for an app that lives elsewhere.

    Raises:
        ManifestError: For any wrong manifest, and when two apps share a name or a path.
    """
    manifests: list[Manifest] = []
    findings: list[str] = []
    for entry in names:
        try:
            if isinstance(entry, Mapping):
                manifests.append(load(Path(entry["path"])))
                continue
            folder = root / "app" / entry
            if not folder.is_dir():
                known = sorted(found.parent.name for found in (root / "app").glob(f"*/{MANIFEST_NAME}"))
                findings.append(
                    f"apps/{entry}: there is no such app{_nearest(entry, known)}; known apps: {', '.join(known)}"
                )
                continue
            manifests.append(load(folder))
        except ManifestError as error:
            findings.extend(str(error).splitlines())
    findings.extend(_clashes(manifests))
    if findings:
        raise ManifestError("\n".join(findings))
    return manifests


def _clashes(manifests: list[Manifest]) -> Iterable[str]:
    owners: dict[tuple[str, str], str] = {}
    for manifest in manifests:
        for kind, value in (("name", manifest.name), ("path", manifest.path)):
            first = owners.setdefault((kind, value), manifest.name)
            if first != manifest.name or (kind == "name" and sum(m.name == manifest.name for m in manifests) > 1):
                yield f"apps/{manifest.name}/{kind}: {value!r} is taken by app {first}; give one of them another {kind}"


def _beyond_schema(data: Mapping[str, Any], where: str, folder: Path) -> Iterable[str]:
    if data["name"] in _RESERVED_NAMES:
        yield f"{where}/name: {data['name']!r} is reserved; choose another name"
    if data["name"] != folder.name:
        yield f"{where}/name: expected {folder.name!r} (the folder's name), got {data['name']!r}"
    if data["path"] in _RESERVED_PATHS:
        yield f"{where}/path: {data['path']} is used by the host itself; choose another path"
    if data["path"] == "/" and "ui" in data:
        yield f"{where}/path: an app with a ui cannot be served at /; remove path (default /{data['name']}/) or the ui"
    if data["public_paths"] and data["access"] != "protected":
        yield f"{where}/public_paths: has no effect while access is public; set access: protected or remove it"
    if any(entry["what"] == "database" for entry in data["backup"]) and data["database"] == "none":
        yield f"{where}/backup: asks for the database, but database is none; expected sqlite or postgresql"


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
    return value


def _explain(error: ValidationError, where: str) -> Iterable[str]:
    path = "/".join([where, *(str(part) for part in error.absolute_path)])
    node: Mapping[str, Any] = error.schema if isinstance(error.schema, Mapping) else {}
    if (
        error.validator == "additionalProperties"
        and isinstance(error.instance, Mapping)
        and node.get("additionalProperties") is False
    ):
        known = sorted(node.get("properties", {}))
        for key in error.instance:
            if key not in known:
                yield f"{path}/{key}: unknown key{_nearest(str(key), known)}; known keys: {', '.join(known)}"
        return
    if error.validator == "required" and isinstance(error.instance, Mapping):
        for key in node.get("required", []):
            if key not in error.instance:
                hint = node.get("properties", {}).get(key, {})
                typo = difflib.get_close_matches(
                    key, [str(k) for k in error.instance if k not in node.get("properties", {})], n=1, cutoff=0.6
                )
                yield f"{path}/{key}: missing; {hint.get('description', 'required')}{_example(hint)}" + (
                    f" (is {typo[0]!r} meant?)" if typo else ""
                )
        return
    if error.validator == "anyOf":
        yield f"{path}: needs api, ui or both; for example api: {{app: app.{where.rpartition('/')[2]}.api:app}}"
        return
    if error.validator == "enum":
        options = [str(option) for option in node.get("enum", [])]
        yield f"{path}: expected one of {', '.join(options)}, got {error.instance!r}{_nearest(str(error.instance), options)}"
        return
    if error.validator == "type":
        yield f"{path}: expected {_article(str(error.validator_value))}{_example(node)}, got {_kind(error.instance)}"
        return
    if error.validator in {"pattern", "not"}:
        wanted = node.get("description", "another form").rstrip(".")
        yield f"{path}: {_short(error.instance)} is not allowed here; expected {wanted}{_example(node)}"
        return
    yield f"{path}: {error.message}{_example(node)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _nearest(word: str, options: Iterable[str]) -> str:
    match = difflib.get_close_matches(word, list(options), n=1, cutoff=0.5)
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
