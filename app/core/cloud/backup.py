"""What the hosts of an environment back up themselves, and how they reach its repositories; AWS keeps the rest (docs/BACKUP.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.core import plan
from app.core.cloud.site import Site
from app.core.manifest import Manifest

PASSWORD = ("backup", "password")
FOLDER = ".backup"  # beside the apps' folders of secrets on a host; no app's name begins with a dot


def jobs(site: Site, app: Manifest) -> list[dict[str, Any]]:
    """Return what hosts back up of an app: nothing of a database on a server, nor of a bucket."""
    storage, server = f"s3://{site.bucket('data')}", site.settings["database"]["enabled"]
    return plan.backups(app, storage=storage, database_server=server)


def password(site: Site, apps: Sequence[Manifest]) -> str:
    """Return the name of the secret that opens the repositories, the same for every host; empty where no host needs it."""
    return site.secret(*PASSWORD) if any(jobs(site, app) for app in apps) else ""


def for_hosts(site: Site) -> dict[str, Any]:
    """Return the variables of the role ``backup``."""
    return {
        "backup_bucket": site.bucket("backups"),
        "backup_region": site.region,
        "backup_password_file": f"/etc/pergola/secrets/{FOLDER}/password",
    }
