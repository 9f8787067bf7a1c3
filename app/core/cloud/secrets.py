"""The secrets of the cloud plan: which there are and who may read each. Their values are nowhere in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.core.cloud import backup
from app.core.cloud.site import Site
from app.core.manifest import Manifest

MASTER = ("database", "master")
ENDPOINT = ("database", "endpoint")  # where the server is; written when it is made
DATABASE_PASSWORD = "database_password"  # noqa: S105 - a name
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
        for name in app_secrets(site, manifest)
    ]
    if site.settings["database"]["enabled"]:
        rows.append({"name": site.secret(*MASTER), "app": "shared", "length": LENGTH, "tags": site.tags()})
    if password := backup.password(site, site.manifests):
        rows.append({"name": password, "app": "shared", "length": LENGTH, "tags": site.tags()})
    return {"secrets": rows, "recovery_days": site.settings["secrets"]["recovery_days"]}


def app_secrets(site: Site, manifest: Manifest) -> list[str]:
    """Return the names of an app's secrets: its manifest's, and the password of its user on the environment's database server."""
    served = site.settings["database"]["enabled"] and manifest.data["database"] != "none"
    return [*manifest.data["secrets"], *([DATABASE_PASSWORD] if served else [])]


def secret_names(plan: Mapping[str, Any]) -> list[str]:
    """Return the names of all secrets of a cloud plan: those with a value made at random, and the one that says where the database is."""
    made = [str(row["name"]) for row in plan["secrets"]["secrets"]]
    return [*made, *([str(plan["database"]["endpoint_secret"])] if plan["database"]["enabled"] else [])]
