"""The buckets of the cloud plan."""

from __future__ import annotations

from typing import Any

from app.core.cloud.site import Site

REPLICATED = ("data", "backups")


def section(site: Site) -> dict[str, Any]:
    """Return the variables of the role ``aws_storage``."""
    settings = site.settings["storage"]
    return {
        "buckets": [bucket(site, purpose) for purpose in ("artefacts", "data", "backups", "logs")],
        "replica_region": settings.get("replica_region", ""),
        "replica_role": site.name("replication", limit=64),
        "boundary": site.settings["identity"].get("boundary", ""),
    }


def bucket(site: Site, purpose: str) -> dict[str, Any]:
    """Return one bucket: its name, lifecycle, CORS and what it is for."""
    settings = site.settings["storage"]
    domain = site.settings["domain"].get("name")
    replicated = bool(settings.get("replica_region")) and purpose in REPLICATED
    origins = [f"https://{domain}"] if domain and settings["browser_uploads"] and purpose == "data" else []
    return {
        "purpose": purpose,
        "name": site.bucket(purpose),
        "lifecycle": lifecycle(site, purpose),
        "cors_origins": origins,
        "replica": site.bucket(f"{purpose}-replica") if replicated else "",
        "tags": site.tags(Purpose=purpose),
    }


def lifecycle(site: Site, purpose: str) -> list[dict[str, Any]]:
    """Return a bucket's lifecycle rules as S3 takes them."""
    settings = site.settings["storage"]
    archive = settings["archive_days"]
    moves = {
        "data": [{"Days": archive, "StorageClass": "STANDARD_IA"}],
        "backups": [{"Days": archive, "StorageClass": "STANDARD_IA"}, {"Days": archive * 2, "StorageClass": "GLACIER"}],
    }.get(purpose, [])
    expiry = {"backups": max(settings["backup_days"], archive * 2 + 90), "logs": settings["log_days"]}.get(purpose)
    rule: dict[str, Any] = {
        "ID": "keep",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "NoncurrentVersionExpiration": {"NoncurrentDays": settings["keep_versions_days"]},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    }
    if moves:
        rule["Transitions"] = moves
    if expiry:
        rule["Expiration"] = {"Days": expiry}
    return [rule]
