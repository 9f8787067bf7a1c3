"""The screens, run by Streamlit itself against the real API."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi.testclient import TestClient
from sqlalchemy import update
from streamlit.testing.v1 import AppTest

from app.core import client, database
from app.core.settings import clear_settings
from app.judge.screens import common
from app.judge.tables import ApiKey

from .conftest import PASSWORD, V1, make, submit, work_off
from .repositories import good
from .test_api import scored

SECONDS = 60
UI = str(Path(__file__).resolve().parents[3] / "app" / "judge" / "ui.py")
PAGES = (
    "dashboard",
    "results",
    "intelligence",
    "submissions",
    "create",
    "manage",
    "settings",
    "submit",
    "login",
    "register",
)


@pytest.fixture
def served(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The API on a port of its own, and the screens' client pointed at it."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(api.app, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        point_at(url, monkeypatch)
        while not server.started:
            time.sleep(0.01)
        yield url
        server.should_exit = True
        thread.join(10)


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERGOLA_API_URL", url)
    clear_settings()
    client.api_client.cache_clear()
    common.forget()


def page(name: str, key: str = "") -> AppTest:
    """One page for somebody with this key."""
    source = f"from app.judge.screens import {name}\n{name}.page()\n"
    at = AppTest.from_string(source, default_timeout=SECONDS)
    at.session_state["api_key"] = key
    return at


def texts(at: AppTest) -> str:
    """Everything that is written."""
    assert not at.exception, [one.value for one in at.exception]
    parts = [
        *at.markdown,
        *at.title,
        *at.subheader,
        *at.caption,
        *at.info,
        *at.warning,
        *at.error,
        *at.success,
        *at.get("html"),
    ]
    return "\n".join(str(getattr(one, "value", "") or getattr(one, "body", "") or one.proto.body) for one in parts)


def named(elements: Any, label: str) -> Any:
    return next(one for one in elements if one.label == label)


def test_nothing_but_login_register_and_submit_without_a_key(served: str) -> None:
    at = AppTest.from_file(UI, default_timeout=SECONDS).run()
    assert "VibeJudge" in texts(at)
    assert "Live dashboard" not in texts(at)
    assert [tab.label for tab in at.tabs] == ["API key", "E-mail and password"]


def test_a_login_is_checked_by_the_api(served: str, api: TestClient) -> None:
    at = page("login").run()
    at.text_input[1].set_value("vj_live_" + "A" * 32)
    named(at.button, "Log in").click().run()
    assert "This key does not open anything." in texts(at)
    at.text_input[1].set_value(api.headers["X-API-Key"])
    named(at.button, "Log in").click().run()
    assert at.session_state["api_key"] == api.headers["X-API-Key"]
    assert at.session_state["promise"] == "remember"


def test_a_login_by_password(served: str) -> None:
    at = page("login").run()
    named(at.text_input, "E-mail address").set_value("ada@example.org")
    named(at.text_input, "Password").set_value("wrong password")
    named(at.button, "Log in with password").click().run()
    assert "E-mail address or password is not right." in texts(at)
    named(at.text_input, "Password").set_value(PASSWORD)
    named(at.button, "Log in with password").click().run()
    assert str(at.session_state["api_key"]).startswith("vj_live_")


def test_registering_shows_the_key_once(served: str) -> None:
    at = page("register").run()
    for label, value in (("Your name", "Bo"), ("E-mail address", "bo@example.org"), ("Password", "correct horse")):
        named(at.text_input, label).set_value(value)
    named(at.button, "Register").click().run()
    assert at.code[0].value.startswith("vj_live_")
    key = at.code[0].value
    named(at.button, "I have it, take me in").click().run()
    assert at.session_state["api_key"] == key
    assert not at.code


def test_a_hackathon_from_creation_to_its_deletion(served: str, api: TestClient) -> None:
    key = api.headers["X-API-Key"]
    at = page("create", key).run()
    named(at.button, "Create").click().run()
    assert "Give a name" in texts(at)
    named(at.text_input, "Name").set_value("Spring *Hack*")
    at.slider[0].set_value(0.5)
    at.run()
    assert "sum to 1.25; they must sum to 1.00" in texts(at)
    at.slider[1].set_value(0.0)
    at.run()
    named(at.button, "Create").click().run()
    assert "is a draft now" in texts(at)
    (row,) = api.get(f"{V1}/hackathons").json()["hackathons"]
    weights = [one["weight"] for one in api.get(f"{V1}/hackathons/{row['hack_id']}").json()["rubric"]["dimensions"]]
    assert weights == [0.5, 0.0, 0.25, 0.25]

    at = page("manage", key).run()
    named(at.button, "Activate").click().run()
    assert api.get(f"{V1}/hackathons/{row['hack_id']}").json()["status"] == "configured"
    named(at.text_input, "Name").set_value("Autumn")
    named(at.button, "Save").click().run()
    assert api.get(f"{V1}/hackathons/{row['hack_id']}").json()["name"] == "Autumn"
    assert named(at.button, "Delete the hackathon").disabled
    at.checkbox[0].check().run()
    named(at.button, "Delete the hackathon").click().run()
    assert api.get(f"{V1}/hackathons").json()["hackathons"] == []
    assert "no hackathon yet" in texts(at)


def test_submissions_are_added_filtered_and_deleted(served: str, api: TestClient) -> None:
    hack_id = make(api)
    at = page("submissions", api.headers["X-API-Key"]).run()
    assert "No team has submitted yet." in texts(at)
    lines = at.text_area[0]
    lines.set_value("Owls")
    named(at.button, "Add").click().run()
    assert "Line 1 has no repository" in texts(at)
    at.text_area[0].set_value("Owls, https://example.org/x/y")
    named(at.button, "Add").click().run()
    assert at.warning
    at.text_area[0].set_value("Owls, https://github.com/team/owls, Ada, Bo\n\nBats, https://github.com/team/bats")
    named(at.button, "Add").click().run()
    assert "2 added, 2 in total." in texts(at)
    assert "Ada, Bo" in texts(at)
    named(at.text_input, "Search").set_value("bats").run()
    assert "github.com/team/owls" not in texts(at)
    at.checkbox[0].check().run()
    named(at.button, "Delete").click().run()
    assert [row["team_name"] for row in api.get(f"{V1}/hackathons/{hack_id}/submissions").json()["submissions"]] == [
        "Owls"
    ]


def test_judging_is_estimated_confirmed_watched(served: str, api: TestClient, repos: Path) -> None:
    good(repos / "team" / "one")
    hack_id = make(api)
    submit(api, hack_id, "one")
    at = page("dashboard", api.headers["X-API-Key"]).run()
    assert [(one.label, one.value) for one in at.metric] == [
        ("Submissions", "1"),
        ("Verified", "0"),
        ("Pending", "1"),
        ("Participants", "1"),
    ]
    named(at.button, "Estimate the cost").click().run()
    assert "\\$0.008" in texts(at)
    named(at.button, "Start judging").click().run()
    told = at.get("progress")
    assert told
    assert "0 completed, 0 failed, 1 in total" in told[0].proto.text
    assert work_off() == 1
    at.run()
    assert not at.get("progress")
    assert named(at.metric, "Verified").value == "1"
    assert "Nothing is pending." in texts(at)


def test_results_are_searched_sorted_paged_and_kept(served: str, api: TestClient) -> None:
    hack_id = make(api)
    ids = submit(api, hack_id, *(f"r{number:03}" for number in range(60)))
    for number, sub_id in enumerate(ids):
        scored(sub_id, float(number))
    at = page("results", api.headers["X-API-Key"]).run()
    assert "Page of 2" in [one.label for one in at.number_input]
    assert "Team r059" in texts(at)
    assert "<td>Team r009</td>" not in texts(at)
    at.number_input[0].set_value(2).run()
    assert "<td>Team r009</td>" in texts(at)
    named(at.selectbox, "Sort by").set_value("Team").run()
    named(at.text_input, "Search").set_value("R00").run()
    assert "<td>Team r009</td>" in texts(at)
    assert "<td>Team r010</td>" not in texts(at)
    assert at.get("download_button")
    named(at.text_input, "Search").set_value("nobody").run()
    assert "No team is called like that" in texts(at)


def test_a_scorecard_has_its_four_tabs(served: str, api: TestClient, repos: Path) -> None:
    good(repos / "team" / "one")
    hack_id = make(api)
    submit(api, hack_id, "one", members=["Ada", "Bo", "<b>Cy</b>"])
    api.post(f"{V1}/hackathons/{hack_id}/analyze")
    assert work_off() == 1
    key = api.headers["X-API-Key"]
    at = page("results", key).run()
    assert [tab.label for tab in at.tabs] == ["Overview", "Agents", "Repository", "Team"]
    told = texts(at)
    assert "Ghost contributor" in told
    assert "<b>Cy</b>" not in told
    seen = texts(page("intelligence", key).run())
    assert "Technology trends" in seen
    assert "FastAPI" not in seen or "Prize" in seen
    assert "Best code" in seen


def test_keys_are_made_rotated_revoked(served: str, api: TestClient) -> None:
    at = page("settings", api.headers["X-API-Key"]).run()
    assert "ada@example.org" in texts(at)
    named(at.text_input, "Name of a new key").set_value("CI")
    named(at.button, "Create key").click().run()
    assert at.code[0].value.startswith("vj_live_")
    assert "CI" in texts(at)
    named(at.button, "I have it").click().run()
    assert not at.code
    named(at.button, "Rotate: a new one, the old lives 7 more days").click().run()
    assert at.code[0].value.startswith("vj_live_")
    assert len(api.get(f"{V1}/api-keys").json()["api_keys"]) == 3
    at.checkbox[0].check().run()
    named(at.button, "Revoke").click().run()
    assert [row["active"] for row in api.get(f"{V1}/api-keys").json()["api_keys"]].count(False) == 1
    assert at.get("download_button")


def test_a_team_submits_without_a_key(served: str, api: TestClient) -> None:
    at = page("submit").run()
    assert "No hackathon takes submissions" in texts(at)
    hack_id = make(api)
    api.post(f"{V1}/hackathons/{hack_id}/activate")
    at.run()
    named(at.text_input, "Team name").set_value("Owls")
    named(at.text_input, "Repository").set_value("github.com/team/owls")
    named(at.button, "Submit").click().run()
    assert "https://github.com/team/project" in texts(at)
    named(at.text_input, "Repository").set_value("https://github.com/team/owls")
    named(at.button, "Submit").click().run()
    assert "Owls is in." in texts(at)
    named(at.button, "Submit").click().run()
    assert "has a submission already" in texts(at)


def test_a_form_in_progress_is_not_disturbed_by_the_refresh() -> None:
    """What refreshes itself is a fragment alone: Streamlit runs nothing else of the page with it."""
    from app.judge.screens import dashboard

    assert dashboard._live.__wrapped__.__name__ == "_live"  # type: ignore[attr-defined]
    source = Path(dashboard.__file__).read_text()
    assert "@st.fragment(run_every=common.EVERY_SECONDS)\ndef _live(" in source
    assert (common.EVERY_SECONDS, common.FRESH_SECONDS, common.LOGIN_SECONDS, common.PAGE_ROWS) == (5, 30, 5.0, 50)


@pytest.mark.parametrize("name", [one for one in PAGES if one not in {"login", "register", "create"}])
def test_every_page_says_when_the_api_is_away(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        point_at(f"http://127.0.0.1:{taken.getsockname()[1]}", monkeypatch)
        told = texts(page(name, "vj_live_" + "A" * 32).run())
    assert "No connection." in told
    assert "Traceback" not in told


def test_an_ended_key_leads_to_the_login(served: str, api: TestClient) -> None:
    with database.session() as db:
        db.execute(update(ApiKey).values(expires_at=1.0))
    at = page("settings", api.headers["X-API-Key"]).run()
    assert "Please log in again." in texts(at)
    named(at.button, "Log in").click().run()
    assert at.session_state["api_key"] == ""


def test_any_server_with_this_contract_will_do(served: str, api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERGOLA_API_URL", "http://127.0.0.1:9")  # its own API is not there
    monkeypatch.setenv("API_BASE_URL", f"{served}{V1}/")
    clear_settings()
    client.api_client.cache_clear()
    make(api)
    assert "Live dashboard" in texts(page("dashboard", api.headers["X-API-Key"]).run())
    assert common.may_choose(f"{served}{V1}")
    assert common.may_choose("https://other.example/api/v1")
    monkeypatch.setenv("PERGOLA_SLOT", "a")  # on a host only what the operator allows
    clear_settings()
    assert not common.may_choose("https://other.example/api/v1")
    monkeypatch.setenv("JUDGE_API_URLS", "https://other.example/api/v1")
    assert common.may_choose("https://other.example/api/v1")
