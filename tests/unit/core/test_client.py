"""The client that screens use: every failure is a sentence."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import Request

from app.core import logs
from app.core.api import create_api
from app.core.client import ApiClient, ApiError, api_client
from app.core.settings import clear_settings


def answering(handler: Callable[[httpx.Request], httpx.Response]) -> ApiClient:
    return ApiClient(base_url="http://api", transport=httpx.MockTransport(handler))


@pytest.fixture
def socket(tmp_path: Path) -> Iterator[Path]:
    app = create_api("Demo")

    @app.get("/who")
    def who(request: Request) -> dict[str, str]:
        assert request.client
        return {"client": request.client.host, "id": logs.request_id.get()}

    path = tmp_path / "api.sock"
    server = uvicorn.Server(uvicorn.Config(app, uds=str(path), log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield path
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


def test_it_talks_to_the_socket_of_this_slot(socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERGOLA_API_SOCKET", str(socket))
    clear_settings()
    answer = api_client().get("/who", headers={"X-Real-IP": "192.0.2.5"})
    assert answer.json()["client"] == "192.0.2.5"
    assert answer.json()["id"] == answer.headers["x-request-id"]
    assert api_client() is api_client()


def test_without_a_socket_it_uses_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERGOLA_API_URL", "http://127.0.0.1:9")
    clear_settings()
    with pytest.raises(ApiError, match="cannot be reached") as caught:
        api_client().get("/health")
    assert caught.value.status == 0
    assert caught.value.request_id


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (httpx.Response(422, json={"detail": "description: too long"}), "description: too long"),
        (httpx.Response(404, json={"detail": "There is no such model."}), "There is no such model."),
        (httpx.Response(429, headers={"Retry-After": "17"}), "Please wait 17 seconds."),
        (httpx.Response(429, headers={"Retry-After": "<b>"}), "Too many requests. Please wait."),
        (httpx.Response(503, json={"detail": "internal name of a bucket"}), "starting or busy"),
        (httpx.Response(500, json={"detail": "Something broke"}), "reported an error (500)"),
        (httpx.Response(502, html="<h1>Bad Gateway</h1>"), "reported an error (502)"),
        (httpx.Response(400, json=["not", "an", "object"]), "reported an error (400)"),
        (httpx.Response(400, content=b"{", headers={"Content-Type": "application/json"}), "reported an error (400)"),
    ],
)
def test_every_refusal_is_a_sentence(answer: httpx.Response, told: str) -> None:
    with pytest.raises(ApiError) as caught:
        answering(lambda _request: answer).post("/predict", json={})
    assert told in str(caught.value)
    assert caught.value.status == answer.status_code


def test_slow_and_broken_answers_are_sentences_too() -> None:
    def slow(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow", request=request)

    def cut(request: httpx.Request) -> httpx.Response:
        raise httpx.RemoteProtocolError("cut", request=request)

    with pytest.raises(ApiError, match="took too long"):
        answering(slow).get("/")
    with pytest.raises(ApiError, match="cannot be reached"):
        answering(cut).get("/")


def test_a_stream_that_is_refused_is_read_first() -> None:
    refused = answering(lambda _request: httpx.Response(422, json={"detail": "file: not a CSV"}))
    with pytest.raises(ApiError, match="file: not a CSV"), refused.stream("POST", "/predict/batch"):
        pytest.fail("the block must not begin")


def test_the_id_of_the_request_goes_along() -> None:
    seen: list[str] = []

    def note(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["x-request-id"])
        return httpx.Response(200)

    token = logs.request_id.set("abc12345")
    answering(note).get("/")
    logs.request_id.reset(token)
    answering(note).get("/")
    answering(note).get("/", headers={"X-Request-ID": "mine"})
    assert seen[0] == "abc12345"
    assert len(seen[1]) == 32
    assert seen[2] == "mine"
