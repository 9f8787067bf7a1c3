"""The secrets of the cloud plan: which there are and who may read each. Their values are nowhere in it."""

from __future__ import annotations

from typing import Any

from app.core.cloud.site import Site

MASTER = ("database", "master")
LENGTH = 40


def section(site: Site) -> dict[str, Any]:
    """Return the variables of the role ``aws_secrets``."""
    rows = [
        {
            "name": site.secret(manifest.name, name),
            "app": manifest.name,
            "length": LENGTH,
            "tags": site.tags(manifest.name),
        }
        for manifest in site.manifests
        for name in manifest.data["secrets"]
    ]
    if site.settings["database"]["enabled"]:
        rows.append({"name": site.secret(*MASTER), "app": "shared", "length": LENGTH, "tags": site.tags()})
    return {"secrets": rows, "recovery_days": site.settings["secrets"]["recovery_days"]}
