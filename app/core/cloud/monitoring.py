"""Log groups, alarms and the dashboard of the cloud plan."""

from __future__ import annotations

from typing import Any

from app.core.cloud.site import Site


def section(site: Site) -> dict[str, Any]:
    """Return the variables of the role ``aws_monitoring``."""
    parts = [("host", "shared"), *((manifest.name, manifest.name) for manifest in site.manifests)]
    return {
        "log_groups": [
            {"name": site.log_group(part), "days": site.settings["logs"]["days"], "tags": site.tags(app)}
            for part, app in parts
        ],
        "topic": site.name("alerts"),
        "notify": site.settings["logs"]["notify"],
        "tags": site.tags(),
    }
