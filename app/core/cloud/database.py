"""The database of the cloud plan: RDS PostgreSQL for the fleets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.core.cloud import secrets
from app.core.cloud.site import Site
from app.core.manifest import Manifest

MASTER_USER = "pergola"


def section(site: Site) -> dict[str, Any]:
    """Return the variables of the role ``aws_database``."""
    settings = site.settings["database"]
    major = settings["version"].partition(".")[0]
    return {
        "enabled": settings["enabled"],
        "name": site.name("db", limit=63),
        "database": site.project,
        "engine_version": settings["version"],
        "family": f"postgres{major}",
        "class": settings["class"],
        "storage_gb": settings["storage_gb"],
        "two_zones": settings["two_zones"],
        "backup_days": settings["backup_days"],
        "deletion_protection": settings["deletion_protection"],
        "parameters": {"rds.force_ssl": "1", "log_min_duration_statement": "1000"},
        "master_secret": site.secret(*secrets.MASTER),
        "endpoint_secret": site.secret(*secrets.ENDPOINT),
        "master_user": MASTER_USER,
        "subnets": [site.name("private", zone[-1]) for zone in site.zones],
        "security_group": site.name("database"),
        "tags": site.tags(),
    }


def for_hosts(site: Site, apps: Sequence[Manifest]) -> dict[str, Any]:
    """Return what a fleet's hosts need to give each of their apps its database: names of secrets, users and databases; no values."""
    served = [app.name for app in apps if secrets.DATABASE_PASSWORD in secrets.app_secrets(site, app)]
    if not served:
        return {}
    return {
        "endpoint": site.secret(*secrets.ENDPOINT),
        "master": site.secret(*secrets.MASTER),
        "user": MASTER_USER,
        "database": site.project,
        "apps": {name: site.secret(name, secrets.DATABASE_PASSWORD) for name in served},
    }
