"""A protected app behind a real nginx: what its manifest does not open never reaches the app without a login."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

import httpx
import pytest

from app.core import access, manifest, plan

from .test_template import NGINX, Sandbox, needs_nginx, render, sandbox  # noqa: F401 - a fixture

pytestmark = needs_nginx
PROTECTED = {
    "name": "demo",
    "api": {"app": "app.demo.api:app"},
    "ui": {"script": "app/demo/ui.py"},
    "access": "protected",
    "public_paths": ["", "about", "api/v1/open/", "api/v1/only"],
}
DRAWINGS = manifest.load(Path(__file__).resolve().parents[3] / "app" / "drawings")
COOKIE = {"Cookie": "session=right"}
PAGE = {"Accept": "text/html,*/*"}


class Upstream(ThreadingMixIn, UnixStreamServer):
    """Stands for the app: knows one session, answers everything else, and remembers what reached it."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.reached: list[str] = []
        super().__init__(str(path), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Upstream

    def answer(self) -> None:
        if self.path == "/auth/check":
            self.send_response(204 if self.headers.get("Cookie") == COOKIE["Cookie"] else 401)
        else:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.server.reached.append(self.path)
            self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - the names http.server calls

    def log_message(self, *_: Any) -> None: ...

    def address_string(self) -> str:
        return "nginx"


@pytest.fixture(scope="module")
def site(sandbox: Sandbox) -> Iterator[tuple[httpx.Client, Upstream]]:  # noqa: F811 - the fixture
    upstream = Upstream(sandbox.folder / "app.sock")
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        https, http = one.getsockname()[1], two.getsockname()[1]
    demo = manifest.check({"title": "A", "summary": "B", **PROTECTED}, folder=Path("demo"))
    text = render(
        plan.build([demo, DRAWINGS]),
        version="1.22.1",
        inet6=False,
        nginx_brotli=False,
        nginx_https_port=https,
        nginx_http_port=http,
        nginx_rate_general="10000r/s",
    )
    text = re.sub(r"/run/pergola/route/(demo|drawings)/(api|ui|ui-a|ui-b) ", f"{sandbox.folder}/app.sock ", text)
    text = text.replace("user www-data;", "user root;", 1)
    assert sandbox.complaint(text) == ""
    conf = sandbox.folder / "nginx.conf"
    assert NGINX is not None
    process = subprocess.Popen([NGINX, "-c", conf, "-g", "daemon off;"])
    with httpx.Client(base_url=f"https://127.0.0.1:{https}", verify=False) as client:  # noqa: S501 - its own certificate
        deadline = time.monotonic() + 30
        while True:
            try:
                client.get("/demo/")
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.1)
        upstream.reached.clear()
        yield client, upstream
    process.terminate()
    process.wait(20)
    upstream.shutdown()


def test_what_is_open_passes(site: tuple[httpx.Client, Upstream]) -> None:
    client, upstream = site
    for path, seen in {
        "/demo/": "/demo/",
        "/demo/about": "/demo/about",
        "/demo/_stcore/health": "/demo/_stcore/health",
        "/demo/api/v1/open/x?y=1": "/v1/open/x?y=1",
        "/demo/api/v1/only?z": "/v1/only?z",
        "/demo/api/health": "/health",
        "/demo/api/auth/login": "/auth/login",
    }.items():
        upstream.reached.clear()
        assert client.get(path).status_code == 200, path
        assert upstream.reached == [seen]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize(
    "path",
    [
        "/demo/api/",
        "/demo/api/v1/forgotten",
        "/demo/api/v1/only/more",
        "/demo/api/v1/open/../forgotten",
        "/demo/api/v1/open/%2e%2e/forgotten",
        "/demo/api/v1/open/..%2fforgotten",
        "/demo/api/static/x",
        "/demo/dashboard",
        "/demo/about/dashboard",
        "/demo/_stcore/../dashboard",
    ],
)
def test_what_is_not_open_never_reaches_the_app(site: tuple[httpx.Client, Upstream], path: str, method: str) -> None:
    client, upstream = site
    upstream.reached.clear()
    answer = client.request(method, httpx.URL(f"{client.base_url}").copy_with(raw_path=path.encode()))
    assert answer.status_code == 401
    told = answer.json()
    assert {"error": "unauthorized", "type": "authentication_required"}.items() <= told.items()
    assert told["login_url"] == "/demo/api/auth/login"
    assert told["message"]
    assert answer.headers["x-request-id"] == told["request_id"]
    assert upstream.reached == []
    assert client.request(method, path, headers=COOKIE).status_code == 200


def test_a_page_is_sent_to_the_login(site: tuple[httpx.Client, Upstream]) -> None:
    client, upstream = site
    upstream.reached.clear()
    answer = client.get("/demo/dashboard?x=1", headers=PAGE)
    assert answer.status_code == 302
    assert answer.headers["location"] == "/demo/api/auth/login?redirect=/demo/dashboard"
    assert client.get("/demo/a%22b", headers=PAGE).headers["location"] == "/demo/api/auth/login"
    assert client.post("/demo/dashboard", headers=PAGE).status_code == 401
    assert client.get("/demo/api/v1/forgotten", headers=PAGE).status_code == 401
    assert upstream.reached == []


def drawings_routes() -> list[tuple[str, str]]:
    """Every route of the drawings API with an id that could be."""
    from app.drawings.routes import admin, analysis, demo, drawings, interpretability
    from app.drawings.settings import DrawingsSettings

    settings = DrawingsSettings()
    parts = (drawings.router(settings), analysis.router(settings), interpretability.routes, demo.routes, *admin.ROUTERS)
    found = {
        (method, "/api/v1" + re.sub(r"\{\w+\}", "0" * 32, route.path))  # type: ignore[attr-defined]
        for part in parts
        for route in part.routes
        for method in route.methods  # type: ignore[attr-defined]
    }
    return sorted(found)


def test_every_route_of_the_drawings_without_a_login(site: tuple[httpx.Client, Upstream]) -> None:
    """What the manifest does not open never reaches the app; what it opens does."""
    client, upstream = site
    rules = access.rules_of(DRAWINGS, api_prefix="/drawings/api", base_path="/drawings/")
    routes = drawings_routes()
    assert len(routes) > 50
    passed = 0
    for method, path in routes:
        upstream.reached.clear()
        answer = client.request(method, f"/drawings/api{path}")
        if rules.is_open(f"api{path}"):
            passed += 1
            assert (answer.status_code, upstream.reached) == (200, [path])
        else:
            assert (answer.status_code, upstream.reached) == (401, []), (method, path)
            assert answer.json()["login_url"] == "/drawings/api/auth/login"
    assert 15 < passed < 30
    for screen in ("dashboard", "history", "batch", "configuration", "models", "usage", "anything"):
        upstream.reached.clear()
        assert (
            client.get(f"/drawings/{screen}", headers=PAGE)
            .headers["location"]
            .endswith(f"?redirect=/drawings/{screen}")
        )
        assert upstream.reached == []
