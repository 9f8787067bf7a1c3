"""Check what people write (manifests, inventories) against a JSON Schema, and say what is wrong so that it can be put right.

Every finding is one line: the path of the key, what is wrong, what was expected and, for an unknown key, the nearest right name.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

MAX_DEPTH = 12
MAX_ITEMS = 100
MAX_FINDINGS = 20
# what JSON Schema's patterns let through at the end of a line, and what cannot stand in a unit, a header or a UTF-8 file
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LARGEST_NUMBER = 2**53


def findings(schema: Mapping[str, Any], raw: Mapping[str, Any], where: str) -> list[str]:
    """Return what is wrong with a parsed file, one line each; an empty list when nothing is.

    Args:
        schema: JSON Schema of the file, a mapping of keys at its top.
        raw: The parsed file.
        where: What to call the file in a path, for example ``apps/wine``.
    """
    unfitting = list(unfit(raw, where))
    if unfitting:
        return unfitting
    errors = Draft202012Validator(schema).iter_errors(raw)
    return [line for error in errors for line in _explain(error, where, schema)]


def page(lines: Iterable[str], where: str) -> list[str]:
    """Return findings sorted, each once, a screen of them at most."""
    found = sorted(set(lines))
    if len(found) > MAX_FINDINGS:
        found[MAX_FINDINGS:] = [f"{where}: and {len(found) - MAX_FINDINGS} more findings"]
    return found


def unfit(value: Any, path: str, depth: int = 0) -> Iterable[str]:
    """Find what no file of ours may hold anywhere, whatever the schema says of the key."""
    if depth > MAX_DEPTH:
        yield f"{path}: nested more than {MAX_DEPTH} levels deep"
    elif isinstance(value, (Mapping, list)):
        if len(value) > MAX_ITEMS:
            yield f"{path}: expected at most {MAX_ITEMS} entries, got {len(value)}"
            return
        children: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, child in children:
            if isinstance(value, Mapping) and not isinstance(key, str):
                yield f"{path}: the key {short(key)} is not text; put it in quotes"
            elif isinstance(key, str) and _UNPRINTABLE.search(key):
                yield f"{path}: the key {short(key)} has a line break or another control character; remove it"
            else:
                yield from unfit(child, f"{path}/{clip(key)}", depth + 1)
    elif isinstance(value, str):
        if _UNPRINTABLE.search(value):
            yield f"{path}: {short(value)} has a line break or another control character; write it on one line (>- instead of > or |)"
    elif isinstance(value, (int, float)):
        if not abs(value) <= _LARGEST_NUMBER:  # NaN is not <= anything
            yield f"{path}: expected a number within ±2^53, got {short(value)}"
    elif value is not None:
        yield f"{path}: expected text, a number, a list or a mapping, got {type(value).__name__}"


def with_defaults(node: Mapping[str, Any], value: Any) -> Any:
    """Fill in the schema's defaults, depth first."""
    if node.get("type") == "object" and isinstance(value, dict):
        for key, child in node.get("properties", {}).items():
            if key not in value and "default" in child:
                value[key] = copy.deepcopy(child["default"])
            if key in value:
                value[key] = with_defaults(child, value[key])
    elif node.get("type") == "array" and isinstance(value, list):
        value = [with_defaults(node["items"], item) for item in value]
    elif node.get("type") == "integer" and isinstance(value, float):
        value = int(value)  # 2.0 is a whole number to JSON Schema, but not to gunicorn's command line
    return value


def _explain(error: ValidationError, where: str, top: Mapping[str, Any]) -> Iterable[str]:
    path = "/".join([where, *(clip(part) for part in error.absolute_path)])
    node: Mapping[str, Any] = error.schema if isinstance(error.schema, Mapping) else {}
    instance: Any = error.instance
    if error.validator == "additionalProperties":
        yield from _unknown_keys(instance, node, path, top)
    elif error.validator == "required":
        yield from _missing_keys(instance, node, path)
    elif error.validator == "anyOf":
        yield f"{path}: needs api, ui or both; for example api: {{app: app.{where.rpartition('/')[2]}.api:app}}"
    elif "propertyNames" in error.absolute_schema_path:
        yield f"{path}/{clip(instance)}: {_sentence(error, node)}"
    else:
        yield f"{path}: {_sentence(error, node)}"


def _unknown_keys(
    instance: Mapping[str, Any], node: Mapping[str, Any], path: str, top: Mapping[str, Any]
) -> Iterable[str]:
    known = sorted(node["properties"])
    for key in instance:
        if key in known:
            continue
        places = [place for place in _places(top) if place.rpartition("/")[2] == key]
        hint = f", did you mean {' or '.join(map(repr, places))}?" if places else nearest(key, known)
        yield f"{path}/{clip(key)}: unknown key{hint}; known keys: {', '.join(known)}"


def _missing_keys(instance: Mapping[str, Any], node: Mapping[str, Any], path: str) -> Iterable[str]:
    known = node["properties"]
    unknown = [key for key in instance if key not in known]
    for key in node["required"]:
        if key not in instance:
            typo = difflib.get_close_matches(key, unknown, n=1, cutoff=0.6)
            meant = f" (is {short(typo[0])} meant?)" if typo else ""
            yield f"{path}/{key}: missing; expected {_described(known[key])}{meant}"


def _places(top: Mapping[str, Any]) -> Iterable[str]:
    """Every key of a schema with its path, two levels deep."""
    for key, child in top["properties"].items():
        yield key
        below = child.get("items", child)
        yield from (f"{key}/{name}" for name in below.get("properties", {}))


def _sentence(error: ValidationError, node: Mapping[str, Any]) -> str:
    """Say in one sentence what a value should be."""
    value: Any = error.instance
    limit = error.validator_value
    if error.validator == "enum":
        options = [str(option) for option in node["enum"]]
        return f"expected one of {', '.join(options)}, got {short(value)}{nearest(str(value), options)}"
    if error.validator in {"pattern", "not"}:
        return f"{short(value)} is not allowed here; expected {_described(node)}"
    if error.validator == "uniqueItems":
        twice = next(item for position, item in enumerate(value) if item in value[:position])
        return f"{short(twice)} stands twice; remove one"
    wanted = {
        "type": _article(str(limit)),
        "minimum": f"at least {limit}",
        "maximum": f"at most {limit}",
        "exclusiveMinimum": f"more than {limit}",
        "minLength": f"at least {limit} character",
        "maxLength": f"at most {limit} characters",
        "minItems": f"at least {limit} entries" if limit != 1 else "at least one entry",
        "maxItems": f"at most {limit} entries",
    }[str(error.validator)]
    got = (
        f"{len(value)} of them"
        if error.validator in {"minLength", "maxLength", "minItems", "maxItems"}
        else kind(value)
    )
    return f"expected {wanted}{_example(node)}, got {got}"


def _described(node: Mapping[str, Any]) -> str:
    return f"{node['description'].rstrip('.')}{_example(node)}"


def clip(value: Any) -> str:
    """Return a value as text that fits into a line."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def short(value: Any) -> str:
    """Return a value as one would write it in Python, so that it fits into a line."""
    try:
        return clip(repr(value))
    except ValueError:  # an integer too long for Python to print
        return "a huge number"


def nearest(word: str, options: Iterable[str]) -> str:
    """Return the question whether the most similar option was meant; nothing when none is similar."""
    match = difflib.get_close_matches(clip(word).casefold(), list(options), n=1, cutoff=0.5)
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


def kind(value: Any) -> str:
    """Return in words what a value is."""
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
        f" ({short(value)})" if isinstance(value, (str, int, float)) else ""
    )
