"""The monthly budget of the cloud plan."""

from __future__ import annotations

from typing import Any

from app.core.cloud.site import Site

NOTICES = (("ACTUAL", 80), ("FORECASTED", 100))


def section(site: Site) -> dict[str, Any]:
    """Return the variables of the role ``aws_budget``."""
    emails = site.settings["logs"]["notify"]
    return {
        "name": site.prefix,
        "usd": site.settings["budget"]["usd"],
        "tag": "",
        "notices": [{"type": kind, "percent": percent, "emails": emails} for kind, percent in NOTICES if emails],
        "tags": site.tags(),
    }
