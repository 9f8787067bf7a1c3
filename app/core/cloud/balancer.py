"""The load balancer of the cloud plan."""

from __future__ import annotations

from typing import Any

from app.core.cloud.site import Site

COLOURS = ("blue", "green")


def section(site: Site) -> dict[str, Any]:
    """Return the variables of the role ``aws_balancer``."""
    return {
        "enabled": site.balanced,
        "name": site.name(limit=32),
        "idle_seconds": site.ladder.balancer_idle_seconds,
        "target_groups": [
            {
                "name": site.name(row["name"], colour, limit=32),
                "fleet": row["name"],
                "colour": colour,
                "deregistration_seconds": site.ladder.deregistration_seconds,
            }
            for row in site.settings["fleets"]
            for colour in COLOURS
        ],
        "subnets": [site.name("public", zone[-1]) for zone in site.zones],
        "security_group": site.name("balancer"),
        "log_bucket": site.bucket("logs"),
        "tags": site.tags(),
    }
