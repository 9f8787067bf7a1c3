"""Admin login: sessions, cookies, and the door that closes."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from argon2 import PasswordHasher
from fastapi import Depends, FastAPI, HTTPException
from fastapi.testclient import TestClient
from sqlalchemy import select

from app.core import auth
from app.core.api import create_api
from app.core.auth import AdminSession, LoginAttempt, log_in
from app.core.database import session
from app.core.settings import clear_settings

PASSWORD = "correct horse battery"


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    monkeypatch.setenv("PERGOLA_SECRET_ADMIN_PASSWORD", PASSWORD)
    monkeypatch.setenv("PERGOLA_BASE_PATH", "/")  # the cookie's path: the test client asks without nginx
    clear_settings()
    made = create_api("Demo")
    made.include_router(auth.router())

    @made.post("/retrain", dependencies=[Depends(auth.require_admin)])
    def retrain() -> str:
        return "done"

    @made.get("/secret", dependencies=[Depends(auth.require_admin)])
    def secret() -> str:
        return "seen"

    return made


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    return TestClient(app, base_url="https://demo.example", follow_redirects=False)


def token_of(client: TestClient) -> str:
    return str(client.post("/auth/api/login", json={"password": PASSWORD}).json()["session_token"])


def test_a_program_logs_in_and_out(client: TestClient) -> None:
    assert client.post("/retrain").status_code == 401
    answer = client.post("/auth/api/login", json={"password": PASSWORD})
    assert answer.json()["expires_in"] == 3600
    assert answer.headers["cache-control"] == "no-store"
    bearer = {"Authorization": f"Bearer {answer.json()['session_token']}"}
    assert client.post("/retrain", headers=bearer).json() == "done"
    told = client.get("/auth/status", headers=bearer).json()
    assert told["logged_in"]
    assert 3500 < told["expires_in"] <= 3600
    assert client.post("/auth/logout", headers=bearer).status_code == 204
    refused = client.post("/retrain", headers=bearer)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert client.get("/auth/status", headers=bearer).json() == {"logged_in": False, "expires_in": None}


def test_a_browser_gets_a_cookie_that_scripts_and_other_sites_cannot_use(client: TestClient) -> None:
    answer = client.post("/auth/login", data={"password": PASSWORD})
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"].lower()
    assert cookie.startswith("pergola_admin_demo=")
    for attribute in ("httponly", "secure", "samesite=lax", "path=/"):
        assert attribute in cookie
    assert client.get("/secret").json() == "seen"
    assert client.post("/retrain").json() == "done"
    assert client.post("/retrain", headers={"Origin": "https://demo.example"}).status_code == 200
    assert client.post("/retrain", headers={"Origin": "https://evil.example"}).status_code == 403
    assert client.post("/retrain", headers={"Origin": "null"}).status_code == 403
    client.post("/auth/logout")
    assert client.get("/secret").status_code == 401


def test_without_tls_the_cookie_still_works_on_a_laptop(app: FastAPI) -> None:
    client = TestClient(app, base_url="http://127.0.0.1:8000", follow_redirects=False)
    assert "secure" not in client.post("/auth/login", data={"password": PASSWORD}).headers["set-cookie"].lower()
    assert client.get("/secret").json() == "seen"


@pytest.mark.parametrize(
    ("target", "goes_to"),
    [
        ("/wine/?page=model", "/wine/?page=model"),
        ("", "/"),
        ("https://evil.example", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/a\r\nSet-Cookie: x=1", "/"),
    ],
)
def test_nobody_is_sent_elsewhere_after_a_login(client: TestClient, target: str, goes_to: str) -> None:
    answer = client.post("/auth/login", data={"password": PASSWORD, "next": target})
    assert answer.headers["location"] == goes_to


def test_the_database_never_holds_a_token_or_the_password(client: TestClient) -> None:
    token = token_of(client)
    with session(read_only=True) as db:
        (row,) = db.scalars(select(AdminSession)).all()
        connection = db.connection().connection.driver_connection
        assert connection is not None
        dump = "\n".join(connection.iterdump())
    assert len(row.token_sha256) == 64
    assert row.token_sha256 in dump
    assert token not in dump
    assert PASSWORD not in dump


def test_tokens_are_long_and_never_the_same(client: TestClient) -> None:
    tokens = {token_of(client) for _ in range(5)}
    assert len(tokens) == 5
    assert all(len(token) == 43 for token in tokens)  # 256 bits in base64


def test_a_session_slides_and_ends(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    bearer = {"Authorization": f"Bearer {token_of(client)}"}
    began, real = time.time(), time.time
    for minutes in (50, 100, 150):  # each within an hour of the one before
        monkeypatch.setattr(time, "time", lambda minutes=minutes: began + 60 * minutes)
        assert client.get("/secret", headers=bearer).status_code == 200
    monkeypatch.setattr(time, "time", lambda: began + 60 * 150 + 3601)
    assert client.get("/secret", headers=bearer).status_code == 401
    monkeypatch.setattr(time, "time", real)


@pytest.mark.parametrize(
    "given", ["", "x", "Bearer", "Bearer ", "Basic abc", "Bearer " + "x" * 5000, "Bearer ' OR 1=1 --"]
)
def test_a_made_up_token_is_nobody(client: TestClient, given: str) -> None:
    assert client.get("/secret", headers={"Authorization": given}).status_code == 401


def test_five_wrong_passwords_close_the_door_even_to_the_right_one(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = [client.post("/auth/api/login", json={"password": f"guess {n}"}).status_code for n in range(5)]
    assert wrong == [401] * 5
    refused = client.post("/auth/api/login", json={"password": PASSWORD})
    assert refused.status_code == 429
    assert 290 <= int(refused.headers["retry-after"]) <= 300
    assert refused.headers["content-type"] == "application/problem+json"
    assert client.post("/auth/login", data={"password": PASSWORD}).status_code == 429
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 301)
    assert client.post("/auth/api/login", json={"password": PASSWORD}).status_code == 200


def test_the_right_password_forgets_the_wrong_ones(client: TestClient) -> None:
    for _ in range(3):
        for _ in range(4):
            assert client.post("/auth/api/login", json={"password": "wrong"}).status_code == 401
        assert client.post("/auth/api/login", json={"password": PASSWORD}).status_code == 200
    with session(read_only=True) as db:
        assert db.scalars(select(LoginAttempt)).all() == []


def test_guessing_in_parallel_gains_nothing(app: FastAPI) -> None:
    def guess(n: int) -> int:
        try:
            log_in(f"guess {n}", "192.0.2.9")
        except HTTPException as error:
            return error.status_code
        return 200

    with ThreadPoolExecutor(12) as pool:
        told = list(pool.map(guess, range(24)))
    assert sorted(told) == [401] * 5 + [429] * 19


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),  # a customer has the whole /64
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("", "not an address", False),
    ],
)
def test_an_address_is_what_one_visitor_has(one: str, other: str, same: bool) -> None:
    assert (auth._network(one) == auth._network(other)) is same


def test_without_a_password_nobody_gets_in(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PERGOLA_SECRET_ADMIN_PASSWORD")
    answer = client.post("/auth/api/login", json={"password": "x"})
    assert answer.status_code == 503
    assert "secret admin_password" in answer.json()["detail"]


def test_the_secret_may_be_a_hash(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERGOLA_SECRET_ADMIN_PASSWORD", PasswordHasher(time_cost=1, memory_cost=64).hash("other"))
    assert client.post("/auth/api/login", json={"password": PASSWORD}).status_code == 401
    assert client.post("/auth/api/login", json={"password": "other"}).status_code == 200
    monkeypatch.setenv("PERGOLA_SECRET_ADMIN_PASSWORD", "$argon2id$nonsense")
    assert client.post("/auth/api/login", json={"password": "other"}).status_code == 503


@pytest.mark.parametrize("body", [{}, {"password": ""}, {"password": 5}, {"password": "x" * 1025}])
def test_a_password_that_is_none_is_422(client: TestClient, body: dict[str, object]) -> None:
    assert client.post("/auth/api/login", json=body).status_code == 422
