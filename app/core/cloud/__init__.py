"""The cloud plan: everything that an environment needs on AWS, computed once from its inventory and the manifests.

``build`` is pure: plain data in, plain data out, no AWS. Each section is a module of this package with ``section(site)``, which
returns the variables of one role without the role's prefix: ``plan["network"]["cidr"]`` becomes ``aws_network_cidr`` in
``playbooks/vars/aws_network.yml``. The sections share a ``Site``: names, tags, ARNs, settings, timeouts.

=============  ==================================================================================
``network``    VPC, subnets, ways out, endpoints, security groups (a group's name is ``site.name(key)``)
``identity``   a role and profile for each fleet's hosts, the role of CI; asks ``fleet`` for its statements
``storage``    buckets: ``site.bucket("artefacts" | "data" | "backups" | "logs")``
``secrets``    secrets: ``site.secret(app, name)``; ``site.secret("database", "master")``
``database``   RDS PostgreSQL
``balancer``   load balancer, target groups, rules, certificate, names
``fleet``      launch templates and scaling groups, or the one host with an Elastic IP
``monitoring`` log groups (``site.log_group(part)``), topics, alarms, dashboard
``edge``       CloudFront, WAF, CloudTrail
``budget``     the monthly budget
``deploy``     what a deploy moves, watches and asks; no role of its own
=============  ==================================================================================

The settings' keys, types, defaults and limits stand in ``inventory.schema.json``, from which ``docs/INVENTORY.md`` is made.
"""

from __future__ import annotations

import copy
import functools
import ipaddress
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from app.core import checking
from app.core import ladder as timeouts
from app.core.cloud import (
    balancer,
    budget,
    database,
    deploy,
    edge,
    fleet,
    identity,
    monitoring,
    network,
    secrets,
    storage,
)
from app.core.cloud.site import CloudError, Site
from app.core.manifest import Manifest, parse_size

__all__ = ["SECTIONS", "CloudError", "Site", "build", "schema", "site_of"]

SCHEMA_PATH = Path(__file__).with_name("inventory.schema.json")
WHERE = "pergola_cloud"
SYSTEM_MIB = 256  # of a host's memory that Debian, nginx and the agents take
SECTIONS = {
    "network": network.section,
    "identity": identity.section,
    "storage": storage.section,
    "secrets": secrets.section,
    "database": database.section,
    "balancer": balancer.section,
    "fleet": fleet.section,
    "monitoring": monitoring.section,
    "edge": edge.section,
    "budget": budget.section,
    "deploy": deploy.section,
}
NO_ACCOUNT = "000000000000"


@functools.cache
def schema() -> dict[str, Any]:
    """Return the JSON Schema of ``pergola_cloud``."""
    loaded: dict[str, Any] = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    return loaded


def build(
    settings: Mapping[str, Any],
    manifests: Iterable[Manifest],
    *,
    environment: str = "rehearsal",
    account: str = NO_ACCOUNT,
    drain_seconds: int = 900,
) -> dict[str, Any]:
    """Return the cloud plan.

    Args:
        settings: The inventory's ``pergola_cloud``.
        manifests: The checked manifests of the inventory's ``pergola_apps``.
        environment: The inventory's ``pergola_environment``.
        account: The AWS account's twelve digits; they are part of bucket names and ARNs.
        drain_seconds: Ceiling for old Streamlit sessions after a release.

    Returns:
        ``project``, ``environment``, ``region``, ``prefix``, ``account``, ``tags``, ``zones``, ``entry``, ``apps``, ``ladder``,
        ``domain``, ``usage`` and a mapping for each section.

    Raises:
        CloudError: The settings are wrong, or do not fit the apps; one line a finding.
    """
    site = site_of(settings, manifests, environment=environment, account=account, drain_seconds=drain_seconds)
    return {
        "project": site.project,
        "environment": site.environment,
        "region": site.region,
        "account": site.account,
        "prefix": site.prefix,
        "tags": site.tags(),
        "zones": site.zones,
        "entry": site.settings["entry"],
        "apps": [manifest.name for manifest in site.manifests],
        "ladder": site.ladder.as_dict(),
        "domain": site.settings["domain"],
        "usage": site.settings["usage"],
        **{name: section(site) for name, section in SECTIONS.items()},
    }


def site_of(
    settings: Mapping[str, Any],
    manifests: Iterable[Manifest],
    *,
    environment: str,
    account: str = NO_ACCOUNT,
    drain_seconds: int = 900,
) -> Site:
    """Check the settings against the schema and the apps, and return them with what every section shares.

    Raises:
        CloudError: See ``build``.
    """
    if not isinstance(settings, Mapping):
        raise CloudError(f"{WHERE}: expected a mapping, got {checking.kind(settings)}")
    ordered = tuple(sorted(manifests, key=lambda manifest: manifest.name))
    _refuse(checking.findings(schema(), settings, WHERE))
    data = checking.with_defaults(schema(), copy.deepcopy(dict(settings)))
    data["database"].setdefault("enabled", any(m.data["database"] == "postgresql" for m in ordered))
    rungs = timeouts.compute((m.data["limits"]["request_seconds"] for m in ordered), drain_seconds=drain_seconds)
    site = Site(environment, account, data, ordered, rungs)
    findings = [
        *_names(environment, account),
        *_addresses(data),
        *_fleets(data, [m.name for m in ordered]),
        *_memory(site),
        *_beyond_schema(data),
        *(f"timeouts: {line}" for line in timeouts.broken_rungs(rungs)),
    ]
    _refuse(findings)
    return site


def _refuse(findings: Iterable[str]) -> None:
    if lines := checking.page(findings, WHERE):
        raise CloudError("\n".join(lines))


def _names(environment: str, account: str) -> Iterable[str]:
    if not re.fullmatch(r"[a-z][a-z0-9]{1,11}", str(environment)):
        yield f"pergola_environment: expected 2 to 12 small letters and digits such as production, got {environment!r}"
    if not re.fullmatch(r"[0-9]{12}", str(account)):
        yield f"account: expected the AWS account's twelve digits, got {account!r}"


def _addresses(data: Mapping[str, Any]) -> Iterable[str]:
    where, cidr = f"{WHERE}/network/cidr", data["network"]["cidr"]
    try:
        block = ipaddress.ip_network(cidr)
    except ValueError as error:
        yield f"{where}: {error}; expected such as 10.60.0.0/16"
        return
    private = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
    if not any(block.subnet_of(ipaddress.ip_network(each)) for each in private):  # type: ignore[arg-type]  # both IPv4
        yield f"{where}: {cidr} is not private; take one of {', '.join(private)}"


def _fleets(data: Mapping[str, Any], apps: list[str]) -> Iterable[str]:
    fewest = 2 if data["entry"] == "balancer" else 1
    seen: dict[str, str] = {}
    names: set[str] = set()
    for position, row in enumerate(data["fleets"]):
        where = f"{WHERE}/fleets/{position}"
        if row["name"] in names:
            yield f"{where}/name: {row['name']!r} stands twice; remove one"
        names.add(row["name"])
        if not row["min"] <= row["desired"] <= row["max"]:
            yield f"{where}: expected min <= desired <= max, got {row['min']}, {row['desired']}, {row['max']}"
        if row["min"] < fewest:
            yield f"{where}/min: expected at least {fewest} behind a balancer, got {row['min']}"
        for app in row["apps"]:
            if app not in apps:
                yield f"{where}/apps: {app!r} is not in pergola_apps{checking.nearest(app, apps)}; known: {', '.join(apps)}"
            elif app in seen:
                yield f"{where}/apps: {app!r} belongs to the fleet {seen[app]!r} already; each app has one fleet"
            seen.setdefault(app, row["name"])
    for app in sorted(set(data["domain"]["apps"]) - set(apps)):
        near = checking.nearest(app, apps)
        yield f"{WHERE}/domain/apps: {app!r} is not in pergola_apps{near}; known: {', '.join(apps)}"
    open_fleets = [row["name"] for row in data["fleets"] if not row["apps"]]
    left = [app for app in apps if app not in seen]
    if len(open_fleets) > 1:
        yield f"{WHERE}/fleets: {' and '.join(open_fleets)} both serve what no other fleet names; give one of them its apps"
    elif left and not open_fleets:
        yield f"{WHERE}/fleets: no fleet serves {', '.join(left)}; name them in a fleet's apps"
    elif open_fleets and not left:
        yield f"{WHERE}/fleets: nothing is left for {open_fleets[0]!r} to serve; remove it or name its apps"


def _memory(site: Site) -> Iterable[str]:
    """A host too small for its apps ends in the kernel killing them, one after the other."""
    for position, row in enumerate(site.settings["fleets"]):
        kind, has = row["instance_type"], fleet.memory(row["instance_type"])
        wanted = SYSTEM_MIB + sum(parse_size(app.data["limits"]["memory"]) for app in site.apps_of(row)) / 2**20
        if has is not None and has < wanted:
            yield (
                f"{WHERE}/fleets/{position}/instance_type: a {kind} has {has:g} MiB, its apps' limits and the system"
                f" come to {wanted:g}; take a larger one, such as {fleet.larger(kind, wanted)}, or fewer apps"
            )


def _beyond_schema(data: Mapping[str, Any]) -> Iterable[str]:
    weights = data["deploy"]["weights"]
    if weights != sorted(weights) or weights[-1] != 100:
        yield f"{WHERE}/deploy/weights: expected to grow to 100, such as [10, 50, 100], got {weights}"
    balanced, zones = data["entry"] == "balancer", data["zones"]
    if len(zones) < 2 and (balanced or data["database"]["enabled"]):
        yield f"{WHERE}/zones: a balancer and a database need two zones, such as [a, b], got {zones}"
    if not balanced:
        if len(data["fleets"]) != 1 or any(data["fleets"][0][key] != 1 for key in ("min", "max", "desired")):
            yield f"{WHERE}/fleets: entry: address means one host: one fleet with min, max and desired 1"
        if data["network"]["way_out"] != "public":
            yield f"{WHERE}/network/way_out: entry: address needs public, as the host has the address itself"
        if data["edge"]["cdn"] or data["edge"]["firewall"]:
            yield f"{WHERE}/edge: cdn and firewall need a balancer (entry: balancer)"
    yield from _domain(data["domain"], balanced=balanced)


def _domain(domain: Mapping[str, Any], *, balanced: bool) -> Iterable[str]:
    if domain["certificate"] == "request" and not ("name" in domain and "zone" in domain):
        yield f"{WHERE}/domain: certificate: request needs a name and the zone in which to prove it"
    if (
        "zone" in domain
        and domain.get("name") != domain["zone"]
        and not domain.get("name", "").endswith(f".{domain['zone']}")
    ):
        yield f"{WHERE}/domain/name: {domain.get('name')!r} is not in the zone {domain['zone']!r}"
    names = list(domain["apps"].values())
    if names and not balanced:
        yield f"{WHERE}/domain/apps: names of apps need a balancer (entry: balancer)"
    for app, name in domain["apps"].items():
        if names.count(name) > 1 or name == domain.get("name"):
            yield f"{WHERE}/domain/apps/{app}: {name!r} is a name of something else too"
        if "zone" in domain and not name.endswith(f".{domain['zone']}"):
            yield f"{WHERE}/domain/apps/{app}: {name!r} is not in the zone {domain['zone']!r}"
