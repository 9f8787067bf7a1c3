"""What a screen remembers of a visitor: sealed, for the app alone, for a time, against a ticket that is good once."""

import json
import time
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from app.core import remembering
from app.core.settings import clear_settings


async def served(scope: Scope, receive: Receive, send: Send) -> None:
    await remembering.answer("demo", "/demo/", scope, receive, send)


@pytest.fixture
def browser() -> Iterator[TestClient]:
    yield TestClient(served, base_url="https://demo.example")
    assert Starlette


def exchange(browser: TestClient, ticket: str, **headers: str) -> int:
    body = json.dumps({"ticket": ticket})
    return browser.post(
        "/demo/session", content=body, headers={"Content-Type": "application/json", **headers}
    ).status_code


def test_a_ticket_becomes_a_cookie_once(browser: TestClient) -> None:
    ticket = remembering.ticket("who it is", 7)
    answer = browser.post("/demo/session", json={"ticket": ticket})
    assert answer.status_code == 204
    told = answer.headers["set-cookie"]
    for part in ("pergola_session_demo=", "HttpOnly", "Secure", "SameSite=strict", "Path=/demo/", "Max-Age=604800"):
        assert part in told
    assert "who" not in told
    assert remembering.unseal(told.split("=", 1)[1].split(";")[0]) == "who it is"
    assert exchange(browser, ticket) == 410


def test_a_ticket_of_nothing_takes_the_cookie_away(browser: TestClient) -> None:
    answer = browser.post("/demo/session", json={"ticket": remembering.ticket("", 0)})
    assert 'pergola_session_demo=""' in answer.headers["set-cookie"]
    assert "Max-Age=0" in answer.headers["set-cookie"]


def test_other_sites_and_nonsense_get_nothing(browser: TestClient) -> None:
    ticket = remembering.ticket("x", 1)
    assert browser.get("/demo/session").status_code == 404
    assert browser.post("/demo/session", content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 404
    assert exchange(browser, ticket, **{"Sec-Fetch-Site": "cross-site"}) == 403
    for body in (b"", b"[]", b'"x"', b"{}", b"\xff"):
        assert (
            browser.post("/demo/session", content=body, headers={"Content-Type": "application/json"}).status_code == 400
        )
    assert exchange(browser, "x" * 2000) == 413
    assert exchange(browser, "unknown") == 410
    assert exchange(browser, ticket) == 204


def test_a_ticket_lives_for_a_minute(browser: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    ticket = remembering.ticket("x", 1)
    later = time.monotonic() + 61
    monkeypatch.setattr(remembering.time, "monotonic", lambda: later)
    assert exchange(browser, ticket) == 410


def test_what_was_changed_is_old_or_is_anothers_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = remembering.seal("text", time.time() + 60)
    assert remembering.unseal(sealed) == "text"
    assert remembering.seal("text", time.time() + 60) != sealed
    for number in (0, 20, len(sealed) - 2):
        changed = sealed[:number] + ("A" if sealed[number] != "A" else "B") + sealed[number + 1 :]
        assert remembering.unseal(changed) == ""
    for nonsense in ("", "x", "é", "A" * 100, sealed[:-5]):
        assert remembering.unseal(nonsense) == ""
    assert remembering.unseal(remembering.seal("text", time.time() - 1)) == ""
    monkeypatch.setenv("PERGOLA_APP", "other")
    clear_settings()
    assert remembering.unseal(sealed) == ""
    monkeypatch.setenv("PERGOLA_APP", "demo")
    monkeypatch.setenv("PERGOLA_SECRET_SESSION_KEY", "another key")
    clear_settings()
    assert remembering.unseal(sealed) == ""


def test_too_much_is_not_remembered() -> None:
    with pytest.raises(ValueError, match="2000"):
        remembering.remember("x" * 2001, 1)
