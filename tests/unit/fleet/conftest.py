"""What runs on a host of a fleet, as modules, and a server for what it asks."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.modules import loaded

FOLDER = Path(__file__).resolve().parents[3] / "roles/aws_fleet/files"


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give instance.py as a module, with keys of a role."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("user_data", "instance"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = loaded(FOLDER / "instance.py")
    role = {"AccessKeyId": "a", "SecretAccessKey": "s", "Token": "t"}
    monkeypatch.setattr(sys.modules["user_data"], "keys", lambda: role)
    return module


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[Any, bytes], tuple[int, bytes]]], None]]:
    """Give what serves an API on loopback, where programs look for AWS: a function of a request and its body answers."""
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Callable[[Any, bytes], tuple[int, bytes]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = answer(self, self.rfile.read(int(self.headers.get("Content-Length", 0))))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_HEAD = do_GET  # noqa: N815 - their names in the base class

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        servers.append(server)

    yield start
    for server in servers:
        server.shutdown()
