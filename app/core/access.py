"""Who may see what: an app with `access: protected` refuses every path that its manifest does not list as public.

The rule is enforced twice, from the same list: nginx asks the API before it passes a request on (`auth_request`), and the API and the
screen refuse by themselves. A route that somebody adds tomorrow is closed until `public_paths` names it.

A public path that ends with a slash opens everything below it; any other opens exactly itself.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core import auth, manifest
from app.core.asgi import through_proxy
from app.core.plan import open_paths

log = logging.getLogger(__name__)

APPS: Final = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Rules:
    """What is open below an app's path. `exact` and `folders` are relative to it; folders end with a slash."""

    protected: bool = False
    base_path: str = "/"
    login_url: str = ""
    exact: frozenset[str] = frozenset()
    folders: tuple[str, ...] = ()

    def is_open(self, below: str) -> bool:
        """Whether everybody may ask for this path (relative to the app's path, without a slash at its start)."""
        if not self.protected:
            return True
        parts = below.split("/")
        if ".." in parts or "." in parts or "" in parts[:-1] or "\\" in below:
            return False  # a path that could mean another one is nobody's
        return below in self.exact or below.startswith(self.folders)


def rules_of(about: manifest.Manifest, *, api_prefix: str, base_path: str) -> Rules:
    """The rules of one app."""
    if about.data["access"] != "protected":
        return Rules()
    return make_rules(open_paths(about.data), login_url=f"{api_prefix}/auth/login", base_path=base_path)


def make_rules(paths: Iterable[str], *, login_url: str, base_path: str) -> Rules:
    """Rules that open these paths and nothing else."""
    listed = list(paths)
    return Rules(
        protected=True,
        base_path=base_path,
        login_url=login_url,
        exact=frozenset(path for path in listed if path == "" or not path.endswith("/")),
        folders=tuple(path for path in listed if path.endswith("/")),
    )


def rules_for(app: str, *, api_prefix: str, base_path: str, apps: Path = APPS) -> Rules:
    """The rules of the app in this folder; an app without a manifest (a test's) is open."""
    if not app or not (apps / app / manifest.MANIFEST_NAME).is_file():
        return Rules()
    return rules_of(manifest.load(apps / app), api_prefix=api_prefix, base_path=base_path)


class AccessMiddleware:
    """Deny by default, in front of an API (`kind` api) or a screen (`kind` ui)."""

    def __init__(self, app: ASGIApp, rules: Rules, kind: str = "api") -> None:
        self._app = app
        self._rules = rules
        self._kind = kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or ask for a login."""
        if scope["type"] != "http" or self._may(scope):
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            admitted = await auth.admitted(request)
        except auth.OtherSite:
            await auth.other_site(request)(scope, receive, send)
            return
        if admitted:
            await self._app(scope, receive, send)
            return
        await self._refuse(scope)(scope, receive, send)

    def _may(self, scope: Scope) -> bool:
        if self._kind == "ui":
            below = scope["path"].removeprefix(self._rules.base_path) if self._inside(scope) else ".."
            return self._rules.is_open(below)
        if scope["path"] == "/metrics" and not through_proxy(scope):
            return True  # those on the host; nginx asks for a login, and the route itself refuses visitors
        # the router takes the prefix off a path that begins with it: what it then sees must be open as well
        routed = scope["path"].removeprefix(scope.get("root_path", ""))
        return self._rules.is_open(f"api{scope['path']}") and self._rules.is_open(f"api{routed}")

    def _inside(self, scope: Scope) -> bool:
        return bool(scope["path"].startswith(self._rules.base_path))

    def _refuse(self, scope: Scope) -> Response:
        page = self._kind == "ui" and "text/html" in Headers(scope=scope).get("accept", "")
        if page and scope["method"] in {"GET", "HEAD"}:
            return to_login(self._rules.login_url, scope["path"])
        return refusal(self._rules.login_url, scope["path"])


def to_login(login_url: str, target: str) -> RedirectResponse:
    """Send a browser to the login page, and back afterwards."""
    where = f"{login_url}?redirect={quote(target, safe='/')}"
    return RedirectResponse(where, 302, {"Cache-Control": "no-store"})


def refusal(login_url: str, path: str) -> JSONResponse:
    """What a program is told that has not logged in."""
    return auth.login_needed(path, login_url)
