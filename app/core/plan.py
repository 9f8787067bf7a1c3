"""Derive everything a host needs from the manifests: users, units, sockets, routes, nginx locations, timeouts.

The data flows one way, manifest -> plan -> resources. Roles render the plan; they decide nothing that stands here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.core import agent as telling
from app.core import ladder as timeouts
from app.core import maintenance, schedules
from app.core.manifest import Manifest, parse_size

SLOTS = ("a", "b")
KINDS = ("api", "ui", "worker")
SOCKET_DIR = "/run/pergola/sock"
ROUTE_DIR = "/run/pergola/route"
STATE_DIR = "/var/lib/pergola"
OPT_DIR = "/opt/pergola"
DATABASE_URL = "database_url"  # the secret with which app.core.settings finds a database on a server
SERVER = "server"  # what the plan says of a database that the manifest left to the environment
# Open in every protected app: without these nobody could log in, and no balancer could look.
ALWAYS_OPEN = ("api/auth/", "api/health", "api/health/")
# Streamlit's own parts. What a script shows it decides itself; media/ holds files under names that nobody can guess.
SCREEN_OPEN = ("_stcore/", "static/", "media/", "component/", "favicon.png", "health/ready")


class PlanError(ValueError):
    """The manifests are fine one by one but cannot be served together; one line a finding."""


def build(  # noqa: PLR0913 - keywords, each something that another plan decides
    manifests: Sequence[Manifest],
    *,
    environment: str = "local",
    drain_seconds: int | str = 900,
    balancer_idle_seconds: int | str | None = None,
    deregistration_seconds: int | str | None = None,
    storage: str | None = None,
    region: str | None = None,
    database_server: bool = False,
    agent: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Derive the plan of one host.

    Args:
        manifests: The host's apps; names and paths are already known to be distinct (``manifest.load_all``).
        environment: Name of the environment, given to the apps as ``PERGOLA_ENV``.
        drain_seconds: How long an old Streamlit session may live on after a release switch.
        balancer_idle_seconds: Idle timeout of the balancer in front, when there is one with a value of its own.
        deregistration_seconds: Deregistration delay of the balancer in front, likewise. Seconds may be text, as
            ``--extra-vars`` gives them.
        storage: Where apps with buckets keep their files, for example ``s3://bucket``: each below its own name. A folder of the host
            otherwise.
        region: The AWS region of a host in the cloud.
        database_server: Whether apps with a database have it on a server that all hosts share, at the URL in their secret ``database_url``.
        agent: How the host tells CloudWatch: what ``app.core.agent.build`` takes besides apps and environment. Nothing, or kind
            ``none``, tells nothing.

    Returns:
        Plain data (str, int, list, dict), ready for a template or JSON.

    Raises:
        PlanError: A timeout is out of order or no number, or two locations are the same.
    """
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", str(environment)):
        raise PlanError(f"environment: expected a name such as production, got {environment!r}")
    ordered = sorted(manifests, key=lambda manifest: manifest.name)
    if database_server:
        ordered = [_on_server(manifest) for manifest in ordered]
    rungs = timeouts.compute(
        (manifest.data["limits"]["request_seconds"] for manifest in ordered),
        drain_seconds=_seconds("drain_seconds", drain_seconds, 900),
        balancer_idle_seconds=_optional("balancer_idle_seconds", balancer_idle_seconds, 60),
        deregistration_seconds=_optional("deregistration_seconds", deregistration_seconds, 30),
    )
    locations = sorted(
        (entry for manifest in ordered for entry in _locations(manifest, rungs)),
        key=lambda entry: (-len(entry["path"]), entry["path"]),
    )
    findings = [*(f"timeouts: {finding}" for finding in timeouts.broken_rungs(rungs)), *_same_paths(locations)]
    if findings:
        raise PlanError("\n".join(findings))
    apps = [_app(manifest, environment, rungs, storage, region) for manifest in ordered]
    return {
        "environment": environment,
        "apps": apps,
        **_told(apps, environment, agent),
        "calendar": maintenance.for_host(backups=any(app["backups"] for app in apps), cloud=region is not None),
        "locations": locations,
        "upstreams": [upstream for manifest in ordered for upstream in _upstreams(manifest)],
        "maps": [entry for manifest in ordered for entry in _maps(manifest)],
        "ladder": rungs.as_dict(),
    }


def _told(apps: Sequence[dict[str, Any]], environment: str, agent: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what the host tells CloudWatch, when it tells anything."""
    if not agent or agent.get("kind") == "none":
        return {}
    try:
        return {"agent": telling.build(apps, environment=environment, **agent)}
    except (TypeError, ValueError) as error:
        raise PlanError(f"agent: {error}") from error


def _optional(name: str, value: Any, example: int) -> int | None:
    return None if value is None else _seconds(name, value, example)


def _seconds(name: str, value: Any, example: int) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole and not (isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,9}", value)):
        raise PlanError(f"{name}: expected a whole number of seconds such as {example}, got {value!r}")
    return int(value)


def api_prefix(manifest: Manifest) -> str:
    """Return the URL prefix of the app's API, without a slash at its end (empty for the app at ``/``)."""
    return "" if manifest.path == "/" else f"{manifest.path}api"


def kinds(manifest: Manifest) -> list[str]:
    """Return which services the app has, in the order they start."""
    return [kind for kind in KINDS if kind in manifest.data]


def _on_server(manifest: Manifest) -> Manifest:
    """Return an app that has its database on a server: it needs the network and the secret with the URL."""
    data = manifest.data
    if data["database"] == "none":
        return manifest
    secrets = [*data["secrets"], DATABASE_URL]
    return replace(manifest, data={**data, "database": SERVER, "secrets": secrets, "network": "outbound"})


def _app(
    manifest: Manifest, environment: str, rungs: timeouts.Ladder, storage: str | None, region: str | None
) -> dict[str, Any]:
    data, name = manifest.data, manifest.name
    limits = data["limits"]
    return {
        "name": name,
        "title": data["title"],
        "summary": data["summary"],
        "icon": data["icon"],
        "path": manifest.path,
        "api_prefix": api_prefix(manifest),
        "user": f"pergola-{name}",
        "state_dir": f"{STATE_DIR}/{name}",
        "root": f"{OPT_DIR}/{name}",
        "kinds": kinds(manifest),
        "slots": {slot: _slot(manifest, slot) for slot in SLOTS},
        "routes": {
            "api": f"{ROUTE_DIR}/{name}/api",
            "ui": f"{ROUTE_DIR}/{name}/ui",
            **{f"ui_{slot}": f"{ROUTE_DIR}/{name}/ui-{slot}" for slot in SLOTS},
        },
        "environment": {
            **_environment(manifest, environment, rungs),
            **({"PERGOLA_STORAGE": f"{storage}/{name}"} if storage and data["buckets"] else {}),
            **({"AWS_DEFAULT_REGION": region} if region and data["buckets"] else {}),
        },
        "memory_bytes": parse_size(limits["memory"]),
        "upload_bytes": parse_size(limits["upload"]),
        "cpu_percent": max(1, round(limits["cpu"] * 100)),
        "tasks": limits["tasks"],
        "request_seconds": limits["request_seconds"],
        "graceful_seconds": rungs.graceful_seconds,
        "stop_seconds": rungs.stop_seconds,
        # PrivateNetwork hides even loopback; unix sockets (nginx, the app's own API, PostgreSQL) still work
        "private_network": data["network"] == "none" and not data["buckets"],
        # the credentials of the host's role, with which it reaches its bucket
        "asks_metadata": bool(storage and data["buckets"]),
        "packages": data["packages"],
        "backups": backups(manifest, storage=storage),
        # the app at / shows the others' health, so it may open their sockets
        "watches_others": manifest.path == "/",
        "manifest": data,
    }


def backups(manifest: Manifest, *, storage: str | None = None, database_server: bool = False) -> list[dict[str, Any]]:
    """Return what a host backs up of the app; the arguments are those of ``build``.

    A database on a server and a bucket are kept by AWS: with snapshots, and with versions.
    """
    return list(_backups(_on_server(manifest) if database_server else manifest, storage))


def _backups(manifest: Manifest, storage: str | None) -> Iterable[dict[str, Any]]:
    data, name = manifest.data, manifest.name
    limits = schedules.too_old(data["backup"])
    for entry in data["backup"]:
        what = entry["what"]
        where = {
            "sqlite": {"kind": "sqlite", "database": f"{STATE_DIR}/{name}/{name}.db"},
            "postgresql": {"kind": "postgresql", "database": f"pergola_{name}"},
        }.get(data["database"])
        if what == "storage":
            where = (
                None if storage and data["buckets"] else {"kind": "folder", "storage": f"{STATE_DIR}/{name}/storage"}
            )
        if where:
            common = {"app": name, "user": f"pergola-{name}", "too_old_hours": round(limits[what], 3)}
            yield {**common, **where, **entry}


def _slot(manifest: Manifest, slot: str) -> dict[str, str]:
    instance = f"{manifest.name}-{slot}"
    entry = {"link": f"{OPT_DIR}/slots/{instance}"}
    for kind in kinds(manifest):
        entry[f"{kind}_unit"] = f"pergola-{kind}@{instance}.service"
        if kind != "worker":
            entry[f"{kind}_socket_unit"] = f"pergola-{kind}@{instance}.socket"
            entry[f"{kind}_socket"] = f"{SOCKET_DIR}/{instance}.{kind}.sock"
    return entry


def _environment(manifest: Manifest, environment: str, rungs: timeouts.Ladder) -> dict[str, str]:
    """Environment of every service of the app; what depends on the slot is added by the unit."""
    data, name = manifest.data, manifest.name
    state = f"{STATE_DIR}/{name}"
    databases = {
        "none": "",
        "sqlite": f"sqlite:///{state}/{name}.db",
        "postgresql": f"postgresql+psycopg2:///pergola_{name}?host=/run/postgresql",
        SERVER: "",  # it has a password: the secret of that name
    }
    # core's own tables (admin sessions) need a place even where the app asks for no database
    url = databases[data["database"]] if data["database"] != "none" else f"sqlite:///{state}/core.db"
    return {
        "PERGOLA_APP": name,
        "PERGOLA_ENV": environment,
        "APP_ENVIRONMENT": environment,  # for code that follows that convention
        "PERGOLA_BASE_PATH": manifest.path,
        "PERGOLA_API_PREFIX": api_prefix(manifest),
        "PERGOLA_STATE_DIR": state,
        "PERGOLA_STORAGE": f"file://{state}/storage",
        "PERGOLA_DATABASE_URL": url,
        "PERGOLA_SITE": "/etc/pergola/site.json",
        **_commands(manifest, rungs),
        **data["env"],
    }


def _commands(manifest: Manifest, rungs: timeouts.Ladder) -> dict[str, str]:
    """What the unit templates run, as variables."""
    data = manifest.data
    entries: dict[str, str] = {}
    if "api" in data:
        flags = {
            "workers": data["api"]["workers"],
            "timeout": data["limits"]["request_seconds"] + 5,
            "graceful-timeout": rungs.graceful_seconds,
            "keep-alive": rungs.gunicorn_keepalive_seconds,
        }
        entries["PERGOLA_ASGI"] = data["api"]["app"]
        entries["GUNICORN_CMD_ARGS"] = " ".join(f"--{name}={value}" for name, value in flags.items())
    if "worker" in data:
        entries["PERGOLA_WORKER"] = data["worker"]["module"]
    return entries


def _locations(manifest: Manifest, rungs: timeouts.Ladder) -> Iterable[dict[str, Any]]:
    data, name = manifest.data, manifest.name
    common = {
        "app": name,
        "body_bytes": parse_size(data["limits"]["upload"]),
        "access": data["access"],
        "login": f"{api_prefix(manifest)}/auth/login",
    }
    if "api" in data:
        path = f"{api_prefix(manifest)}/"
        yield {
            **common,
            "kind": "api",
            "path": path,
            "public": _public(manifest, path),
            "strip": path if path != "/" else None,
            "upstream": f"{name}_api",
            "cookie": None,
            "websocket": False,
            "read_seconds": data["limits"]["request_seconds"],
        }
    if "ui" in data:
        yield {
            **common,
            "kind": "ui",
            "path": manifest.path,
            "public": _public(manifest, manifest.path, other_than=f"{manifest.path}api/" if "api" in data else None),
            "strip": None,
            "upstream": f"{name}_ui",
            "cookie": f"pergola_slot_{name}",
            "websocket": True,
            "read_seconds": max(rungs.websocket_read_seconds, data["limits"]["request_seconds"]),
        }


def _public(manifest: Manifest, path: str, other_than: str | None = None) -> list[str]:
    """Public paths of a protected app below one of its locations; those that end with a slash open everything below them."""
    if manifest.data["access"] != "protected":
        return []
    found = (f"{manifest.path}{below}" for below in open_paths(manifest.data))
    return [one for one in found if one.startswith(path) and not (other_than and one.startswith(other_than))]


def open_paths(data: Mapping[str, Any]) -> list[str]:
    """Every public path of a protected app, relative to its path: the manifest's own, and those that are always open."""
    always = (*(ALWAYS_OPEN if "api" in data else ()), *(SCREEN_OPEN if "ui" in data else ()))
    return sorted({*always, *data["public_paths"]})


def _upstreams(manifest: Manifest) -> Iterable[dict[str, Any]]:
    name, route = manifest.name, f"{ROUTE_DIR}/{manifest.name}"
    if "api" in manifest.data:
        # the same path twice: a GET that meets a dying worker is tried once more
        yield {"name": f"{name}_api", "servers": [{"socket": f"{route}/api", "backup": False}] * 2}
    if "ui" in manifest.data:
        yield {"name": f"{name}_ui_live", "servers": [{"socket": f"{route}/ui", "backup": False}] * 2}
        for slot in SLOTS:
            yield {
                "name": f"{name}_ui_{slot}",
                "servers": [
                    {"socket": f"{route}/ui-{slot}", "backup": False},
                    {"socket": f"{route}/ui", "backup": True},
                ],
            }


def _maps(manifest: Manifest) -> Iterable[dict[str, Any]]:
    if "ui" in manifest.data:
        name = manifest.name
        yield {
            "variable": f"{name}_ui",
            "cookie": f"pergola_slot_{name}",
            "default": f"{name}_ui_live",
            **{slot: f"{name}_ui_{slot}" for slot in SLOTS},
        }


def _same_paths(locations: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    owners: dict[str, str] = {}
    for entry in locations:
        owner = f"{entry['app']} ({entry['kind']})"
        first = owners.setdefault(entry["path"], owner)
        if first != owner:
            yield f"locations: {entry['path']} belongs to both {first} and {owner}; give one app another path"
