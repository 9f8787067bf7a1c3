"""What a deploy in two colours moves, watches and asks (``deploys``, ``playbooks/deploy.yml``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.core.cloud import monitoring
from app.core.cloud.site import COLOURS, Site
from app.core.manifest import Manifest
from app.core.plan import api_prefix

# Alarms that a release can set off; a full disk or an old certificate is nobody's release.
BLAMED = ("-response-time", "-failed-requests", "-healthy", "-errors", "-restarts")


def section(site: Site) -> dict[str, Any]:
    """Return the description of a deploy without its releases."""
    wish = site.settings["deploy"]
    return {
        "environment": site.environment,
        "region": site.region,
        "bucket": site.bucket("artefacts"),
        "balancer": site.name(limit=32),
        "fleets": [_fleet(site, row) for row in site.settings["fleets"]],
        "alarms": list(_alarms(site)),
        "probe": _probe(site),
        "metrics": site.prefix,
        "in_place": not site.balanced,
        "log_group": site.log_group("host"),
        **{key: wish[key] for key in ("weights", "bake_seconds", "ready_seconds", "keep_old_seconds")},
    }


def _fleet(site: Site, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": row["name"],
        "groups": {colour: site.name(row["name"], colour) for colour in COLOURS},
        "targets": {colour: site.name(row["name"], colour, limit=32) for colour in COLOURS},
        "low": row["min"],
        "high": row["max"],
        "desired": row["desired"],
    }


def _alarms(site: Site) -> Iterable[str]:
    own = {alarm["metric"] for manifest in site.manifests for alarm in manifest.data["alarms"]}
    for alarm in monitoring.alarms_of(site):
        if alarm["AlarmName"].endswith(BLAMED) or alarm.get("MetricName") in own:
            yield alarm["AlarmName"]


def _probe(site: Site) -> dict[str, Any] | None:
    """Return what the prober does; None where the inventory names no address."""
    wish, domain = site.settings["deploy"], site.settings["domain"].get("name", "")
    url = wish["url"] or (f"https://{domain}" if domain else "")
    if not url:
        return None
    screens = [manifest for manifest in site.manifests if "ui" in manifest.data]
    return {
        "url": url,
        "rate": wish["requests_per_second"],
        "sessions": wish["sessions"] if screens else 0,
        "failures": wish["failures"],
        "flags": [f"--get={_health(site.manifests)}", "--post=", *(f"--ui={screen.path}" for screen in screens[:1])],
    }


def _health(manifests: Iterable[Manifest]) -> str:
    """Return the path that is asked: the health of an app that does some work, else of the page at ``/``."""
    apis = sorted((m for m in manifests if "api" in m.data), key=lambda m: (m.path == "/", m.name))
    return f"{api_prefix(apis[0])}{apis[0].data['api']['health']}" if apis else "/"
