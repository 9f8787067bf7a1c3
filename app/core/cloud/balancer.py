"""The load balancer of the cloud plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.core.cloud.site import COLOURS, Site
from app.core.manifest import Manifest
from app.core.plan import api_prefix

# TLS 1.2 with forward secrecy, and 1.3; the portal's own page needs nothing older
TLS_POLICY = "ELBSecurityPolicy-TLS13-1-2-2021-06"

HEALTH = {"interval": 30, "timeout": 5, "healthy": 2, "unhealthy": 3}
STICKINESS_SECONDS = 86400  # a Streamlit session lives in one process: its visitor stays with one host


def section(site: Site) -> dict[str, Any]:
    """Return the variables of the role ``aws_balancer``."""
    settings, domain = site.settings, site.settings["domain"]
    return {
        "enabled": site.balanced,
        "name": site.name(limit=32),
        "idle_seconds": site.ladder.balancer_idle_seconds,
        "target_groups": [
            {
                "name": target_group(site, row, colour),
                "fleet": row["name"],
                "colour": colour,
                "health_path": health_path(site.apps_of(row)),
                "deregistration_seconds": site.ladder.deregistration_seconds,
                "tags": site.tags(Fleet=row["name"], Colour=colour),
            }
            for row in settings["fleets"]
            for colour in COLOURS
        ],
        "front": front(site)["name"],
        "rules": list(rules(site)),
        "subnets": [site.name("public", zone[-1]) for zone in site.zones],
        "security_group": site.name("balancer"),
        "certificate": domain["certificate"],
        "certificate_domain": domain.get("name") or f"{site.name(limit=32)}.invalid",
        "domain": domain.get("name", ""),
        "app_domains": sorted(domain["apps"].values()),
        "zone": domain.get("zone", ""),
        "tls_policy": TLS_POLICY,
        "health": HEALTH,
        "stickiness_seconds": STICKINESS_SECONDS,
        "log_bucket": site.bucket("logs"),
        "tags": site.tags(),
    }


def target_group(site: Site, row: Mapping[str, Any], colour: str) -> str:
    """Return the name of a fleet's target group."""
    return site.name(row["name"], colour, limit=32)


def front(site: Site) -> Mapping[str, Any]:
    """Return the fleet that gets what no rule names: the one with the app at ``/``, else the first."""
    rows: list[Mapping[str, Any]] = site.settings["fleets"]
    return next((row for row in rows if any(app.path == "/" for app in site.apps_of(row))), rows[0])


def rules(site: Site) -> Iterable[dict[str, Any]]:
    """Give the rules for each app with a name of its own, and one for each app that another fleet than the front serves."""
    names, number = site.settings["domain"]["apps"], 0
    for row in site.settings["fleets"]:
        for app in site.apps_of(row):
            if name := names.get(app.name):
                if app.path != "/":
                    number += 1
                    yield {"priority": number, "fleet": row["name"], "hosts": [name], "paths": ["/"], "to": app.path}
                number += 1
                yield {"priority": number, "fleet": row["name"], "hosts": [name], "paths": [], "to": ""}
    apps = [
        (row["name"], app) for row in site.settings["fleets"] if row is not front(site) for app in site.apps_of(row)
    ]
    # the longest path first, as on a host
    for place, (fleet, app) in enumerate(sorted(apps, key=lambda both: (-len(both[1].path), both[1].path)), 1):
        paths = [app.path.rstrip("/"), f"{app.path}*"]
        yield {"priority": 100 + 10 * place, "fleet": fleet, "hosts": [], "paths": paths, "to": ""}


def health_path(apps: Iterable[Manifest]) -> str:
    """Return where a host says whether it serves: the host's own page, or that of an app where nothing is at ``/``."""
    known = sorted(apps, key=lambda app: (app.path != "/", "api" not in app.data, app.name))
    return "/health" if known[0].path == "/" else f"{api_prefix(known[0])}/health"
