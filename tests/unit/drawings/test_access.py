"""Deny by default: every route without a login, in the API and behind a real nginx; and the limits."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.core import access, manifest, plan
from app.drawings.settings import DrawingsSettings

from .conftest import PASSWORD, V1, picture, upload

ROOT = Path(__file__).resolve().parents[3]
ABOUT = manifest.load(ROOT / "app" / "drawings")

# the table of the specification: demo, upload and documentation are public, nothing else
PUBLIC = {
    ("GET", f"{V1}/demo/samples"),
    ("GET", f"{V1}/demo/samples/{{sample_id}}/{{picture}}.png"),
    ("GET", f"{V1}/demo/reference/{{seed}}.png"),
    ("GET", f"{V1}/demo/project-info"),
    ("GET", f"{V1}/demo/disclaimer"),
    ("GET", f"{V1}/demo/technical-links"),
    ("GET", f"{V1}/demo/statistics"),
    ("POST", f"{V1}/drawings/upload"),
    ("POST", f"{V1}/analysis/analyze/{{drawing_id}}"),
    ("GET", f"{V1}/interpretability/{{analysis_id}}/interactive"),
    ("GET", f"{V1}/interpretability/{{analysis_id}}/simplified"),
    ("GET", f"{V1}/interpretability/{{analysis_id}}/confidence"),
    ("GET", f"{V1}/interpretability/{{analysis_id}}/attribution"),
    ("GET", f"{V1}/interpretability/{{analysis_id}}/image.png"),
    ("GET", f"{V1}/interpretability/{{analysis_id}}/saliency.png"),
    ("GET", f"{V1}/interpretability/{{analysis_id}}/overlay.png"),
    ("POST", f"{V1}/interpretability/{{analysis_id}}/export"),
    ("GET", f"{V1}/interpretability/exports/{{export_id}}"),
    ("GET", f"{V1}/config/subjects"),
    ("POST", f"{V1}/metrics/page-view"),
    ("POST", "/auth/login"),
    ("POST", "/auth/api/login"),
    ("POST", "/auth/logout"),
    ("GET", "/auth/status"),
    ("GET", "/health"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/health/status"),
}


def routes(api: TestClient) -> Iterator[tuple[str, str, str]]:
    """Method, template and a path of every route of the API."""
    described = api.app.openapi()["paths"]
    for template, operations in described.items():
        for method in operations:
            filled = re.sub(r"\{(\w+)\}", lambda match: {"seed": "7", "name": "5-6"}.get(match[1], "0" * 32), template)
            yield method.upper(), template, filled


def test_every_route_needs_a_login_unless_it_is_listed(api: TestClient) -> None:
    walked = set()
    for method, template, path in routes(api):
        answer = api.request(method, path)
        walked.add((method, template))
        if (method, template) in PUBLIC:
            assert answer.status_code != 401 or template.startswith("/auth/"), (method, template)
            continue
        assert answer.status_code == 401, (method, template)
        told = answer.json()
        assert {"error", "message", "login_url", "type"} <= set(told)
        assert told["type"] == "authentication_required"
    assert walked >= PUBLIC
    assert len(walked - PUBLIC) > 25
    for hidden in (
        "/nothing",
        f"{V1}/",
        f"{V1}/backup",
        f"{V1}/demo/../backup/",
        f"{V1}//demo/samples",
        f"{V1}/drawings/upload/",
    ):
        assert api.get(hidden).status_code in {401, 404}, hidden
        assert api.get(hidden).status_code == 401 or "demo" in hidden


def test_the_manifest_opens_no_more_than_the_table(api: TestClient) -> None:
    """The list that nginx enforces: what it leaves open is in the table, or the route itself asks for a login."""
    rules = access.rules_of(ABOUT, api_prefix="/drawings/api", base_path="/drawings/")
    guarded_by_route = {
        ("POST", f"{V1}/interpretability/{{analysis_id}}/annotate"),
        ("GET", f"{V1}/interpretability/{{analysis_id}}/annotations"),
    }
    opened = {(method, template) for method, template, path in routes(api) if rules.is_open(f"api{path}")}
    assert opened == PUBLIC | guarded_by_route
    for screen in ("dashboard", "history", "batch", "configuration", "models", "usage"):
        assert not rules.is_open(screen)
    for screen in ("", "upload", "documentation", "login"):
        assert rules.is_open(screen)


def test_nginx_guards_everything_that_is_not_public() -> None:
    locations = {one["path"]: one for one in plan.build([ABOUT])["locations"]}
    for path in ("/drawings/", "/drawings/api/"):
        assert locations[path]["access"] == "protected"
    assert "/drawings/api/api/v1/drawings/upload" in locations["/drawings/api/"]["public"]
    assert "/drawings/upload" in locations["/drawings/"]["public"]


def test_after_a_login_every_route_answers(admin: TestClient) -> None:
    for method, template, path in routes(admin):
        if template == "/auth/logout" or "restore" in template or "models/train" in template:
            continue
        assert admin.request(method, path).status_code != 401, (method, template)


def test_drawings_of_others_are_not_shown_to_visitors(make_api: Callable[[], TestClient]) -> None:
    api = make_api()
    identity = upload(api)
    assert api.get(f"{V1}/drawings/{identity}").status_code == 401
    assert api.get(f"{V1}/drawings/{identity}/file").status_code == 401
    told = api.post(f"{V1}/analysis/analyze/{identity}").json()
    assert all(example["generated"] for example in told["comparison_examples"])


def limited(make_api: Callable[[], TestClient], monkeypatch: pytest.MonkeyPatch) -> TestClient:
    for name in ("DEFAULT", "UPLOAD", "ANALYSIS", "AUTH"):
        monkeypatch.delenv(f"DRAWINGS_RATE_{name}")
    return make_api()


def test_the_limits_of_the_specification() -> None:
    fields = DrawingsSettings.model_fields
    told = {name: fields[f"rate_{name}"].default for name in ("default", "upload", "analysis", "auth")}
    assert told == {"default": 60, "upload": 10, "analysis": 30, "auth": 5}


def test_limits_are_for_each_visitor_and_kind(
    make_api: Callable[[], TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    api = limited(make_api, monkeypatch)
    monkeypatch.setattr("app.core.ratelimit.time.time", lambda: 1_800_000_030.0)  # in the middle of a minute
    bot = {"User-Agent": "GoogleHC/1.0 ELB-HealthChecker/2.0"}
    first = api.post(
        f"{V1}/drawings/upload", files={"file": ("a.png", picture())}, data={"age_years": "5"}, headers=bot
    )
    assert (first.status_code, first.headers["x-ratelimit-limit"]) == (201, "10")
    again = [
        api.post(
            f"{V1}/drawings/upload", files={"file": ("a.png", b"bad")}, data={"age_years": "5"}, headers=bot
        ).status_code
        for _ in range(11)
    ]
    assert again == [400] * 9 + [429] * 2
    refused = api.post(f"{V1}/drawings/upload", files={"file": ("a.png", b"bad")}, data={"age_years": "5"})
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) <= 60
    tries = [api.post("/auth/api/login", json={"password": f"wrong {n}"}).status_code for n in range(7)]
    assert tries == [401] * 5 + [429] * 2
    told = [api.get(f"{V1}/config/subjects").status_code for _ in range(60)]
    assert told[0] == 200
    assert told[-1] == 429
    assert told.count(200) == 60 - 13 - 7
    assert api.get("/health").status_code == 200


def test_five_wrong_passwords_close_the_door(make_api: Callable[[], TestClient]) -> None:
    api = make_api()
    assert [api.post("/auth/api/login", json={"password": "wrong"}).status_code for _ in range(6)] == [401] * 5 + [429]
    assert api.post("/auth/api/login", json={"password": PASSWORD}).status_code == 429


def test_there_is_no_default_password(make_api: Callable[[], TestClient], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PERGOLA_SECRET_ADMIN_PASSWORD")
    api = make_api()
    for guess in ("admin", "password", "changeme", "drawings"):
        assert api.post("/auth/api/login", json={"password": guess}).status_code == 503


def test_the_session_is_on_the_server_and_good_for_every_instance(make_api: Callable[[], TestClient]) -> None:
    first = make_api()
    answer = first.post("/auth/login", data={"password": PASSWORD, "redirect": "/drawings/dashboard"})
    assert answer.headers["location"] == "/drawings/dashboard"
    cookie = answer.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("httponly", "secure", "samesite=lax"))
    name, _, token = answer.headers["set-cookie"].partition(";")[0].partition("=")
    assert len(token) >= 43  # 256 bits in base64
    second = make_api()
    assert second.get(f"{V1}/config/", headers={"Cookie": f"{name}={token}"}).status_code == 200
    assert second.get("/auth/status", headers={"Cookie": f"{name}={token}"}).json()["expires_in"] > 3500
