"""The index of a site's release: what it names, and how large that is. Apart from what builds it, which takes long to import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def named_files(index: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the files that an index names: ``key``, ``sha256`` and ``size`` (bytes) of each, without repetition."""
    entries = [index["host"], index["self"], *([index["sbom"]] if "sbom" in index else [])]  # older ones have none
    for one in index["bundles"]:
        entries += [
            one["archive"],
            *({key: layer[key] for key in ("key", "sha256", "size")} for layer in one["layers"]),
        ]
    return list({entry["key"]: entry for entry in entries}.values())


def sizes(index: Mapping[str, Any], own: int) -> dict[str, int]:
    """Return the bytes of a release by kind; ``own`` is the size of the index itself. A layer that apps share counts once."""
    layers_of = {layer["key"]: int(layer["size"]) for one in index["bundles"] for layer in one["layers"]}
    return {
        "packages": sum(layers_of.values()),
        "apps": sum(int(one["archive"]["size"]) for one in index["bundles"]),
        "host plane": int(index["host"]["size"]),
        "what runs it": int(index["self"]["size"]),
        "lists": int(index["sbom"]["size"]) + own,
    }
