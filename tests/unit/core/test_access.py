"""Deny by default: what a protected app's manifest does not open needs a login, in the API and on the screen."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from app.core import access, api, auth, manifest
from app.core.api import create_api
from app.core.settings import clear_settings

PASSWORD = "correct horse battery"
RAW: dict[str, Any] = {
    "name": "demo",
    "title": "Demo",
    "summary": "A protected app",
    "api": {"app": "app.demo.api:app"},
    "ui": {"script": "app/demo/ui.py"},
    "access": "protected",
    "public_paths": ["", "about", "api/v1/open/", "api/v1/only"],
}


@pytest.fixture
def rules() -> access.Rules:
    about = manifest.check(RAW, folder=Path("demo"))
    return access.rules_of(about, api_prefix="/demo/api", base_path="/demo/")


@pytest.fixture
def client(rules: access.Rules, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.setenv("PERGOLA_SECRET_ADMIN_PASSWORD", PASSWORD)
    monkeypatch.setenv("PERGOLA_API_PREFIX", "/demo/api")
    monkeypatch.setenv("PERGOLA_BASE_PATH", "/")
    clear_settings()
    monkeypatch.setattr(api.access, "rules_for", lambda *_, **__: rules)
    made: FastAPI = create_api("Demo")
    made.include_router(auth.router())

    @made.get("/v1/open/x")
    @made.get("/v1/only")
    @made.get("/v1/forgotten")
    @made.post("/v1/forgotten")
    def seen() -> str:
        return "seen"

    return TestClient(made, base_url="https://demo.example", follow_redirects=False)


@pytest.mark.parametrize(
    ("below", "is_open"),
    [
        ("", True),
        ("about", True),
        ("about/", False),
        ("aboutx", False),
        ("dashboard", False),
        ("api/v1/open/", True),
        ("api/v1/open/x", True),
        ("api/v1/open", False),
        ("api/v1/open/../forgotten", False),
        ("api/v1/open//x", False),
        ("api/v1/open/./x", False),
        ("api/v1/open\\x", False),
        ("api/auth/login", True),
        ("api/health", True),
        ("api/healthy", False),
        ("_stcore/stream", True),
        ("api/", False),
    ],
)
def test_only_what_is_listed_is_open(rules: access.Rules, below: str, is_open: bool) -> None:
    assert rules.is_open(below) is is_open


@given(st.text(max_size=40))
def test_whatever_is_asked_is_closed_unless_a_listed_path_begins_it(below: str) -> None:
    listed = ["", "about", "api/v1/open/"]
    made = access.make_rules(listed, login_url="/login", base_path="/demo/")
    assert made.is_open(below) <= (below in listed or below.startswith("api/v1/open/"))


def test_an_unlisted_route_is_closed_in_the_api(client: TestClient) -> None:
    assert client.get("/v1/open/x").json() == "seen"
    assert client.get("/v1/only").json() == "seen"
    for path in ("/v1/forgotten", "/no/such/route", "/docs", "/openapi.json", "/demo/api/v1/forgotten"):
        refused = client.get(path, headers={"Accept": "text/html"})
        assert refused.status_code == 401, path
        told = refused.json()
        assert told["error"] == "unauthorized"
        assert told["type"] == "authentication_required"
        assert told["login_url"] == "/demo/api/auth/login"
        assert told["message"]
        assert refused.headers["x-frame-options"] == "DENY"
    assert client.get("/health").status_code == 200
    assert client.get("/metrics").status_code == 200  # on the host itself
    assert client.get("/metrics", headers={"X-Forwarded-For": "192.0.2.1"}).status_code == 401


def test_an_admin_passes_by_cookie_and_by_bearer_but_not_from_another_site(client: TestClient) -> None:
    token = client.post("/auth/api/login", json={"password": PASSWORD}).json()["session_token"]
    assert client.get("/v1/forgotten", headers={"Authorization": f"Bearer {token}"}).json() == "seen"
    assert client.get("/v1/forgotten", headers={"Authorization": "Bearer wrong"}).status_code == 401
    client.post("/auth/login", data={"password": PASSWORD})
    assert client.get("/v1/forgotten").json() == "seen"
    assert client.get("/auth/check").status_code == 204
    assert client.post("/v1/forgotten", headers={"Origin": "https://evil.example"}).status_code == 403
    assert client.post("/v1/forgotten", headers={"Origin": "https://demo.example"}).json() == "seen"
    client.post("/auth/logout")
    assert client.get("/v1/forgotten").status_code == 401
    assert client.get("/auth/check").status_code == 401


def test_a_page_is_sent_to_the_login_and_anything_else_is_told(rules: access.Rules) -> None:
    inner = Starlette(routes=[Route("/{rest:path}", lambda _: PlainTextResponse("a page"))])
    screen = TestClient(access.AccessMiddleware(inner, rules, "ui"), follow_redirects=False)
    page = {"Accept": "text/html,application/xhtml+xml"}
    assert screen.get("/demo/", headers=page).text == "a page"
    assert screen.get("/demo/_stcore/health").text == "a page"
    refused = screen.get("/demo/dashboard", headers=page)
    assert refused.status_code == 302
    assert refused.headers["location"] == "/demo/api/auth/login?redirect=/demo/dashboard"
    # Streamlit's own client looks for its server below each page's address: it must hear "no", not see a login page
    assert screen.get("/demo/dashboard/_stcore/health").status_code == 401
    assert screen.get("/elsewhere", headers=page).status_code == 302


def test_the_login_page_goes_back_where_the_visitor_came_from(client: TestClient) -> None:
    page = client.get("/auth/login", params={"redirect": "/demo/dashboard"})
    assert page.status_code == 200
    assert 'value="/demo/dashboard"' in page.text
    assert 'action="/demo/api/auth/login"' in page.text
    assert "script" not in page.headers["content-security-policy"].replace("default-src 'none'", "")
    browser = {"Accept": "text/html"}
    form = {"password": "wrong", "redirect": "/demo/dashboard"}
    again = client.post("/auth/login", data=form, headers=browser)
    assert again.status_code == 401
    assert "The password is not right." in again.text
    assert 'value="/demo/dashboard"' in again.text
    assert client.post("/auth/login", data=form).headers["content-type"] == "application/problem+json"
    form["password"] = PASSWORD
    there = client.post("/auth/login", data=form, headers=browser)
    assert there.status_code == 303
    assert there.headers["location"] == "/demo/dashboard"


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example/", '"><script>', "/\\evil.example"])
def test_the_login_page_leads_to_this_site_only(client: TestClient, target: str) -> None:
    page = client.get("/auth/login", params={"redirect": target})
    assert "evil" not in page.text
    assert "<script" not in page.text
    there = client.post("/auth/login", data={"password": PASSWORD, "redirect": target})
    assert there.headers["location"] == "/"


def test_the_root_app_cannot_be_protected() -> None:
    raw = {key: value for key, value in RAW.items() if key != "ui"} | {"path": "/"}
    with pytest.raises(manifest.ManifestError, match="an app at / answers the host's health checks"):
        manifest.check(raw, folder=Path("demo"))
