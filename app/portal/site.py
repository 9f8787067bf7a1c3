"""The apps of this host, as the derived plan describes them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.core import manifest, plan

ROOT: Final = Path(__file__).resolve().parents[2]


class SiteError(Exception):
    """The plan cannot be read; the message says what to do."""


@dataclass(frozen=True)
class App:
    """One app as the portal sees it. `api` and `ui` are the unix sockets of its live slot, None where it has no such service."""

    name: str
    title: str
    summary: str
    icon: str
    path: str
    api_prefix: str
    health: str
    api: Path | None
    ui: Path | None
    backups: tuple[tuple[str, float], ...] = ()
    """What is backed up on this host, and the hours after which its last backup is too old."""

    @property
    def is_portal(self) -> bool:
        """The app at `/` is this page itself."""
        return self.path == "/"

    @property
    def open_url(self) -> str:
        """Where a visitor begins."""
        return self.path if self.ui else self.docs_url

    @property
    def docs_url(self) -> str:
        """The API's description; empty without an API."""
        return f"{self.api_prefix}/docs" if self.api else ""

    @property
    def health_url(self) -> str:
        """What the app says of itself."""
        return f"{self.api_prefix}/health/status" if self.api else f"{self.path}health/ready"


@dataclass(frozen=True)
class Site:
    """A host: the name of its environment and its apps."""

    environment: str
    apps: tuple[App, ...]
    calendar: tuple[tuple[str, str, float], ...] = ()
    """The maintenance jobs: name, title, and the hours after which the last run is too old."""

    @property
    def shown(self) -> tuple[App, ...]:
        """The apps that get a card, by title."""
        return tuple(sorted((app for app in self.apps if not app.is_portal), key=lambda app: app.title.casefold()))


def load(path: Path, *, root: Path = ROOT) -> Site:
    """Read the plan at `path`; on a machine without one, derive it from the manifests below `root`.

    Raises:
        SiteError: The plan is unreadable, or a manifest is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return _from_manifests(root)
    except OSError as error:
        raise SiteError(
            f"{path} cannot be read: {error.strerror}. It must be readable by the portal's user."
        ) from error
    try:
        told = json.loads(text)
        return _site(told)
    except (ValueError, KeyError, TypeError) as error:
        raise SiteError(f"{path} is not a plan ({type(error).__name__}: {error}). Provision the host again.") from error


def _from_manifests(root: Path) -> Site:
    names = sorted(file.parent.name for file in (root / "app").glob(f"*/{manifest.MANIFEST_NAME}"))
    try:
        told = plan.build(manifest.load_all(root, names))
    except (manifest.ManifestError, plan.PlanError) as error:
        raise SiteError(str(error)) from error
    return _site(told)


def _site(told: Mapping[str, Any]) -> Site:
    environment, rows = str(told["environment"]), told.get("calendar", [])
    calendar = tuple((str(row["name"]), str(row["title"]), float(row["limit_hours"])) for row in rows)
    return Site(environment, tuple(_app(entry) for entry in told["apps"]), calendar)


def _app(entry: Mapping[str, Any]) -> App:
    kinds, routes = entry["kinds"], entry["routes"]
    return App(
        name=entry["name"],
        title=entry["title"],
        summary=entry["summary"],
        icon=entry["icon"],
        path=entry["path"],
        api_prefix=entry["api_prefix"],
        health=entry["manifest"].get("api", {}).get("health", "/health"),
        api=Path(routes["api"]) if "api" in kinds else None,
        ui=Path(routes["ui"]) if "ui" in kinds else None,
        backups=tuple((str(row["what"]), float(row["too_old_hours"])) for row in entry.get("backups", [])),
    )
