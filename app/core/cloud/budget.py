"""The monthly budget of the cloud plan."""

from __future__ import annotations

from typing import Any

from app.core.cloud.site import Site


def section(site: Site) -> dict[str, Any]:
    """Return the variables of the role ``aws_budget``."""
    return {
        "name": site.prefix,
        "usd": site.settings["budget"]["usd"],
        "notify": site.settings["logs"]["notify"],
        "account": site.account,
        "tags": site.tags(),
    }
