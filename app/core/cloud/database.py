"""The database of the cloud plan: RDS PostgreSQL for the fleets."""

from __future__ import annotations

from typing import Any

from app.core.cloud import secrets
from app.core.cloud.site import Site


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
        "master_user": "pergola",
        "subnets": [site.name("private", zone[-1]) for zone in site.zones],
        "security_group": site.name("database"),
        "tags": site.tags(),
    }
