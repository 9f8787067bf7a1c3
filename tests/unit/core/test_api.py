"""The base of every API: ids, problems, health, documents."""

import asyncio
import functools
import json
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.types import Message, Scope

from app.core import api
from app.core.api import create_api
from app.core.settings import clear_settings


class Note(BaseModel):
    description: str = Field(min_length=1, max_length=10)
    items: list[int] = []


def make(**options: Any) -> FastAPI:
    app = create_api("Demo", **options)

    @app.post("/predict")
    def predict(note: Note) -> dict[str, int]:
        return {"length": len(note.description)}

    @app.get("/boom")
    def boom() -> None:
        raise RuntimeError("the password is hunter2")

    @app.get("/half")
    def half() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"first"
            raise RuntimeError("after the first part")

        return StreamingResponse(parts())

    return app


def client(app: FastAPI, **options: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, **options)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


def ask(app: FastAPI, method: str, path: str, **options: Any) -> httpx.Response:
    async def go() -> httpx.Response:
        async with client(app) as asking:
            return await asking.request(method, path, **options)

    return asyncio.run(go())


def over_unix_socket(app: FastAPI, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
    """Ask as nginx does: a server with a path and no port."""
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in {"Host": "t", **headers}.items()],
        "client": None,
        "server": ("/run/x.sock", None),
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], told, b"".join(message.get("body", b"") for message in sent[1:])


def test_a_good_answer_carries_an_id_and_safe_headers() -> None:
    answer = ask(make(), "POST", "/predict", json={"description": "red"})
    assert answer.json() == {"length": 3}
    assert len(answer.headers["x-request-id"]) == 32
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-123_X.y", True), ("short", False), ("x" * 65, False), ("a b c d e", False)]
)
def test_a_sane_request_id_is_kept(given: str, kept: bool) -> None:
    answer = ask(make(), "GET", "/health", headers={"X-Request-ID": given})
    assert (answer.headers["x-request-id"] == given) is kept


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"json": {"description": "x" * 11}}, "description"),
        ({"json": {"description": ""}}, "description"),
        ({"json": {}}, "description"),
        ({"json": {"description": "x", "items": [1, "two"]}}, "items.1"),
        ({"json": {"description": 5}}, "description"),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, "body"),
        ({"content": b"\xff\xfe", "headers": {"Content-Type": "application/json"}}, "body"),
    ],
)
def test_a_wrong_request_names_the_field_and_repeats_nothing(body: dict[str, Any], field: str) -> None:
    answer = ask(make(), "POST", "/predict", **body)
    told = answer.json()
    if field == "body" and body["content"] == b"\xff\xfe":
        assert answer.status_code in {400, 422}
        return
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert told["errors"][0]["field"] == field
    assert told["detail"].startswith(f"{field}: ")
    assert told["request_id"] == answer.headers["x-request-id"]
    assert "input" not in told["errors"][0]
    assert "xxxxxxxxxxx" not in answer.text


def test_an_exception_is_logged_and_never_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        answer = ask(make(), "GET", "/boom")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "hunter2" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "hunter2" in caplog.text


def test_an_answer_that_breaks_in_the_middle_breaks_the_connection() -> None:
    with pytest.raises(RuntimeError, match="after the first part"):
        ask(make(), "GET", "/half")


def test_middleware_of_the_app_is_inside_ours() -> None:
    app = make()

    @app.middleware("http")
    async def breaks(request: Any, call_next: Any) -> Any:
        raise RuntimeError("in the app's own middleware")

    answer = ask(app, "GET", "/health")
    assert answer.status_code == 500
    assert answer.headers["x-request-id"]
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/predict", 405)])
def test_other_errors_are_problems_too(method: str, path: str, status: int) -> None:
    answer = ask(make(), method, path)
    assert answer.status_code == status
    assert answer.json()["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_live_says_who() -> None:
    for path in ("/health", "/health/live"):
        assert ask(make(), "GET", path).json() == {"status": "ok", "app": "demo", "release": "dev"}


def test_ready_asks_the_app() -> None:
    async def good() -> dict[str, int]:
        return {"rows": 3}

    assert ask(make(), "GET", "/health/ready").json()["checks"] == {}
    assert ask(make(ready=lambda: {"rows": 2}), "GET", "/health/ready").json()["checks"] == {"rows": 2}
    assert ask(make(ready=good), "GET", "/health/ready").json()["checks"] == {"rows": 3}
    assert ask(make(ready=functools.partial(good)), "GET", "/health/ready").json()["checks"] == {"rows": 3}


def test_not_ready_tells_the_reason_on_the_host_only() -> None:
    def bad() -> dict[str, str]:
        raise RuntimeError("no model at s3://secret-bucket")

    app = make(ready=bad)
    status, _, body = over_unix_socket(app, "/health/ready", {})
    assert status == 503
    assert b"no model at s3://secret-bucket" in body
    for path in ("/health/ready", "/health/status"):
        _, _, body = over_unix_socket(app, path, {"X-Forwarded-For": "192.0.2.1"})
        assert b"secret-bucket" not in body
        assert b"its log says why" in body


def test_a_readiness_that_hangs_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "READY_SECONDS", 0.05)

    async def hangs() -> dict[str, str]:
        await asyncio.sleep(5)
        return {}

    answer = ask(make(ready=hangs), "GET", "/health/ready")
    assert answer.status_code == 503
    assert "no answer within" in answer.json()["detail"]


def test_nginx_is_believed_on_a_unix_socket_only(caplog: pytest.LogCaptureFixture) -> None:
    app = make()
    claims = {"X-Real-IP": "203.0.113.9", "X-Forwarded-For": "10.0.0.1, 203.0.113.9", "X-Forwarded-Proto": "https"}
    with caplog.at_level(logging.INFO):
        over_unix_socket(app, "/nowhere", claims)
        ask(app, "GET", "/nowhere", headers=claims)
    told = [record.__dict__["client"] for record in caplog.records if record.__dict__.get("event") == "access"]
    assert told == ["203.0.113.9", "127.0.0.1"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1"}, 200),
        ({"X-Forwarded-For": "192.0.2.1", "X-Real-IP": "192.0.2.1"}, 404),
        ({"X-Forwarded-For": "127.0.0.1"}, 404),
    ],
)
def test_metrics_are_for_those_on_the_host(headers: dict[str, str], status: int) -> None:
    assert over_unix_socket(make(), "/metrics", headers)[0] == status


def test_links_know_the_prefix_that_nginx_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERGOLA_API_PREFIX", "/demo/api")
    clear_settings()
    app = make()
    _, _, page = over_unix_socket(app, "/docs", {})
    assert b'data-openapi="/demo/api/openapi.json"' in page
    _, _, schema = over_unix_socket(app, "/openapi.json", {})
    assert json.loads(schema)["servers"] == [{"url": "/demo/api"}]


def test_the_description_tells_of_problems() -> None:
    schema = ask(make(), "GET", "/openapi.json").json()
    answers = schema["paths"]["/predict"]["post"]["responses"]
    assert answers["422"] == answers["default"] == {"$ref": "#/components/responses/Problem"}
    assert "HTTPValidationError" not in json.dumps(schema)
    assert "FieldError" in schema["components"]["schemas"]


def test_the_documents_load_nothing_from_elsewhere() -> None:
    app = make()
    page = ask(app, "GET", "/docs")
    assert "script-src 'self';" in page.headers["content-security-policy"]
    assert "http://" not in page.text
    assert "https://" not in page.text
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "docs.js"):
        assert f"/docs/{name}" in page.text
        assert ask(app, "GET", f"/docs/{name}").is_success
    assert ask(app, "GET", "/docs/..%2fdocs.py").status_code == 404


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    caplog.clear()


def test_a_database_that_does_not_answer_is_503_and_says_when_to_try_again() -> None:
    from fastapi.testclient import TestClient
    from sqlalchemy.exc import DatabaseError, InterfaceError, OperationalError
    from sqlalchemy.exc import TimeoutError as PoolTimeout

    app = create_api("Demo")
    errors = {
        "operational": OperationalError("SELECT secret", {}, Exception("password=secret")),
        "interface": InterfaceError("SELECT secret", {}, Exception("gone")),
        "pool": PoolTimeout("QueuePool limit"),
        "cut": DatabaseError(
            "SELECT secret", {}, Exception("server closed the connection"), connection_invalidated=True
        ),
    }
    mistake = DatabaseError("SELECT secret", {}, Exception("no such column"))

    @app.get("/{name}")
    def broken(name: str) -> None:
        raise errors.get(name, mistake)

    client = TestClient(app, raise_server_exceptions=False)
    for name in errors:
        answer = client.get(f"/{name}")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert answer.headers["content-type"] == "application/problem+json"
        assert "nothing was saved" in answer.json()["detail"]
        assert "secret" not in answer.text
    wrong = client.get("/mistake")
    assert wrong.status_code == 500
    assert "secret" not in wrong.text


def test_more_requests_than_a_worker_takes_are_sent_away_and_it_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MOST_AT_ONCE", 3)
    app = make()
    held: asyncio.Event

    @app.get("/slow")
    async def slow() -> str:
        await held.wait()
        return "done"

    async def go() -> None:
        nonlocal held
        held = asyncio.Event()
        async with client(app, raise_app_exceptions=False) as asking:
            for _ in range(5):  # what failed gives its place back
                assert (await asking.get("/boom")).status_code == 500
            waiting = [asyncio.create_task(asking.get("/slow")) for _ in range(3)]
            await asyncio.sleep(0.05)
            refused = await asking.post("/predict", json={"description": "good"})
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
            assert refused.headers["Content-Type"] == "application/problem+json"
            assert refused.json()["detail"] == api.TOO_MANY
            assert refused.headers[api.REQUEST_ID_HEADER]
            # who watches the app is answered in any case, or a busy app would be taken for a dead one
            assert (await asking.get("/health/ready")).status_code == 200
            held.set()
            assert [answer.json() for answer in await asyncio.gather(*waiting)] == ["done"] * 3
            assert (await asking.post("/predict", json={"description": "good"})).status_code == 200

    asyncio.run(go())
