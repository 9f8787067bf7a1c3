"""CloudFront, WAF and CloudTrail of the cloud plan; each of them optional."""

from __future__ import annotations

from typing import Any

from app.core.cloud.site import Site


def section(site: Site) -> dict[str, Any]:
    """Return the variables of the role ``aws_edge``."""
    return {
        **{key: site.settings["edge"][key] for key in ("cdn", "firewall", "trail")},
        "name": site.prefix,
        "log_bucket": site.bucket("logs"),
        "tags": site.tags(),
    }
