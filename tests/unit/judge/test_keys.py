"""Keys, tiers, rates, quotas."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from app.core import database
from app.judge import accounts, keys
from app.judge.schemas import KEY_PATTERN
from app.judge.tables import ApiKey, Organizer, UsageDay

from .conftest import PASSWORD, V1, make, register


def tier(name: str) -> None:
    with database.session() as db:
        db.execute(update(Organizer).values(tier=name))


def test_a_key_is_shown_once_and_kept_as_a_hash(api: TestClient) -> None:
    made = api.post(f"{V1}/api-keys", json={"name": "CI", "environment": "test", "expires_in_days": 3}).json()
    assert re.fullmatch(KEY_PATTERN, made["api_key"])
    assert made["api_key"].startswith("vj_test_")
    listed = api.get(f"{V1}/api-keys").json()["api_keys"]
    assert [row["name"] for row in listed] == ["CI", "First key"]
    assert "api_key" not in listed[0]
    with database.session(read_only=True) as db:
        for row in db.scalars(select(ApiKey)):
            stored = " ".join(str(value) for value in vars(row).values())
            assert made["api_key"] not in stored
            assert made["api_key"][9:] not in stored
        assert keys.digest(made["api_key"]) in set(db.scalars(select(ApiKey.key_sha256)))


def test_a_thousand_keys_are_of_the_form_and_distinct(api: TestClient) -> None:
    with database.session() as db:
        org_id = db.scalars(select(Organizer.id)).one()
        made = [keys.make_key(db, org_id, "k", "created")[1] for _ in range(1000)]
        assert all(re.fullmatch(KEY_PATTERN, key) for key in made)
        assert len(set(made)) == 1000
        db.rollback()


def test_the_four_refusals(api: TestClient) -> None:
    def refused(key: str | None) -> str:
        headers = {} if key is None else {"X-API-Key": key}
        api.headers.pop("X-API-Key", None)
        answer = api.get(f"{V1}/hackathons", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"]
        return str(answer.json()["error"])

    mine = api.headers["X-API-Key"]
    made = api.post(f"{V1}/api-keys", json={"name": "x"}).json()
    gone = api.post(f"{V1}/api-keys", json={"name": "y"}).json()
    assert api.delete(f"{V1}/api-keys/{gone['api_key_id']}").status_code == 204
    with database.session() as db:
        db.execute(update(ApiKey).where(ApiKey.id == made["api_key_id"]).values(expires_at=time.time() - 1))
    assert refused(None) == refused("") == "Missing X-API-Key header"
    assert refused("vj_live_" + "A" * 32) == refused("nonsense") == "Invalid API key"
    assert refused(made["api_key"]) == "API key expired"
    assert refused(gone["api_key"]) == "API key inactive"
    assert api.get(f"{V1}/hackathons", headers={"X-API-Key": mine}).status_code == 200


def test_a_rotated_key_lives_seven_more_days(api: TestClient) -> None:
    old = api.post(f"{V1}/api-keys", json={"name": "CI"}).json()
    told = api.post(f"{V1}/api-keys/{old['api_key_id']}/rotate")
    assert told.status_code == 201
    new = told.json()
    assert new["api_key"] != old["api_key"]
    for key in (old["api_key"], new["api_key"]):
        assert api.get(f"{V1}/organizers/me", headers={"X-API-Key": key}).status_code == 200
    with database.session() as db:
        end = db.scalars(select(ApiKey.expires_at).where(ApiKey.id == old["api_key_id"])).one()
        assert end == pytest.approx(time.time() + 7 * 86400, abs=60)
        db.execute(update(ApiKey).where(ApiKey.id == old["api_key_id"]).values(expires_at=end - 7 * 86400 - 60))
    answer = api.get(f"{V1}/organizers/me", headers={"X-API-Key": old["api_key"]})
    assert answer.json()["error"] == "API key expired"
    assert api.get(f"{V1}/organizers/me", headers={"X-API-Key": new["api_key"]}).status_code == 200


def test_keys_are_renamed_switched_and_ended(api: TestClient) -> None:
    made = api.post(f"{V1}/api-keys", json={"name": "CI"}).json()
    path = f"{V1}/api-keys/{made['api_key_id']}"
    assert api.patch(path, json={"name": "Bot"}).json()["name"] == "Bot"
    assert api.patch(path, json={"active": False}).json()["active"] is False
    assert api.get(f"{V1}/organizers/me", headers={"X-API-Key": made["api_key"]}).json()["error"] == "API key inactive"
    assert (
        api.patch(path, json={"active": True, "expires_at": "2099-01-01"}).json()["expires_at"]
        == "2099-01-01T00:00:00.000Z"
    )
    assert api.patch(f"{V1}/api-keys/nothing", json={}).status_code == 404
    assert api.delete(f"{V1}/api-keys/nothing").status_code == 404
    assert api.post(f"{V1}/api-keys/nothing/rotate").status_code == 404


def test_the_tiers_of_the_specification() -> None:
    assert {name: (t.per_second, t.per_day, t.usd) for name, t in keys.TIERS.items()} == {
        "free": (10, 100, 10.0), "starter": (20, 500, 50.0), "pro": (50, 2500, 250.0), "enterprise": (100, 999_999, 10_000.0)}  # fmt: skip


def test_more_than_ten_a_second_are_too_many(api: TestClient) -> None:
    tier("free")
    while time.time() % 1 > 0.2:  # the window is a whole second: begin at its start
        time.sleep(0.01)
    answers = [api.get(f"{V1}/usage/summary") for _ in range(40)]
    refused = [one for one in answers if one.status_code == 429]
    assert refused
    told = refused[0]
    assert told.json()["error"] == "Rate limit exceeded"
    assert told.json()["retry_after"] == int(told.headers["Retry-After"]) >= 1
    assert (told.headers["X-RateLimit-Limit"], told.headers["X-RateLimit-Remaining"]) == ("10", "0")
    assert sum(one.status_code == 200 for one in answers) >= 10
    for name in (
        "X-RateLimit-Limit",
        "X-RateLimit-Remaining",
        "X-RateLimit-Reset",
        "X-Quota-Limit",
        "X-Quota-Remaining",
        "X-Quota-Reset",
    ):
        assert answers[0].headers[name].isdigit()


def test_the_days_quota_holds_among_parallel_requests(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    tier("free")
    monkeypatch.setitem(keys.TIERS, "free", keys.Tier(100_000, 100, 10.0))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: api.get(f"{V1}/hackathons"), range(130)))
    assert sum(one.status_code == 200 for one in answers) == 100
    told = next(one for one in answers if one.status_code == 429)
    assert told.json()["error"] == "Daily quota exceeded"
    assert 0 < told.json()["retry_after"] <= 86400
    assert (told.headers["X-Quota-Limit"], told.headers["X-Quota-Remaining"]) == ("100", "0")
    status = api.get(f"{V1}/usage/summary")  # reading how much is used is still possible
    assert status.status_code == 200
    assert status.json()["total_requests"] == 100
    with database.session() as db:
        db.execute(update(UsageDay).values(day="2020-01-01"))
    assert api.get(f"{V1}/hackathons").status_code == 200  # the next day


def test_organizers_do_not_share_their_limits(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(keys.TIERS, "enterprise", keys.Tier(100_000, 3, 10.0))
    for _ in range(3):
        assert api.get(f"{V1}/hackathons").status_code == 200
    assert api.get(f"{V1}/hackathons").status_code == 429
    second = api.post(f"{V1}/api-keys", json={"name": "another"})
    assert second.status_code == 429
    assert (
        api.get(f"{V1}/hackathons", headers={"X-API-Key": register(api, "bo@example.org")["api_key"]}).status_code
        == 200
    )


def test_logins_are_limited_by_address_and_by_account(monkeypatch: pytest.MonkeyPatch, make_api: object) -> None:
    monkeypatch.setenv("JUDGE_LOGIN_PER_MINUTE", "3")
    client = make_api()  # type: ignore[operator]
    register(client)
    while time.time() % 60 > 55:
        time.sleep(0.2)
    codes = [
        client.post(f"{V1}/organizers/login", json={"email": "ada@example.org", "password": "no"}).status_code
        for _ in range(4)
    ]
    assert codes == [401, 401, 401, 429]


def test_expired_login_keys_are_swept_and_no_other(api: TestClient) -> None:
    body = {"email": "ada@example.org", "password": PASSWORD}
    api.post(f"{V1}/organizers/login", json=body)
    with database.session() as db:
        db.execute(update(ApiKey).where(ApiKey.source == "login").values(expires_at=1.0))
    api.post(f"{V1}/organizers/login", json=body)
    assert sorted(row["source"] for row in api.get(f"{V1}/api-keys").json()["api_keys"]) == ["login", "registration"]


def test_an_operator_changes_a_tier(api: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    assert accounts.main(["Ada@example.org", "pro"]) == 0
    assert api.get(f"{V1}/organizers/me").json()["limits"] == {
        "requests_per_second": 50,
        "requests_per_day": 2500,
        "budget_usd": 250.0,
    }
    assert accounts.main([]) == 0
    assert "ada@example.org\tpro" in capsys.readouterr().out
    assert accounts.main(["nobody@example.org", "pro"]) == 1
    assert make(api)
