"""A protected app behind a real nginx: what its manifest does not open never reaches the app without a login."""

from __future__ import annotations

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

from .test_template import NGINX, Sandbox, apps, needs_nginx, render, sandbox  # noqa: F401 - a fixture

pytestmark = needs_nginx
PROTECTED = {
    "name": "demo",
    "api": {"app": "app.demo.api:app"},
    "ui": {"script": "app/demo/ui.py"},
    "access": "protected",
    "public_paths": ["", "about", "api/v1/open/", "api/v1/only"],
}
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
    text = render(
        apps(PROTECTED),
        version="1.22.1",
        inet6=False,
        nginx_brotli=False,
        nginx_https_port=https,
        nginx_http_port=http,
        nginx_rate_general="10000r/s",
    )
    for name in ("api", "ui", "ui-a", "ui-b"):
        text = text.replace(f"/run/pergola/route/demo/{name} ", f"{sandbox.folder}/app.sock ")
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
