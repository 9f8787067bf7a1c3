"""Every screen of VibeJudge in a real browser, through nginx, at desktop and phone width; a session survives a reload."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import LocalHost
from tests.unit.judge.conftest import PASSWORD, hackathon

from .test_pages import PATIENCE, SIZES, Visit, browser, settled  # noqa: F401 - a fixture

pytestmark = [pytest.mark.browser, pytest.mark.host, pytest.mark.timeout(600)]
HOME = "/judge/"
API = "/judge/api/api/v1"


@pytest.fixture(scope="module")
def organizer(local_host: LocalHost) -> dict[str, str]:
    """An organizer of this run with a hackathon that is open and has a submission."""
    email = f"ada-{time.time_ns()}@example.org"
    with httpx.Client(base_url=f"{local_host.url}{API}", verify=local_host.tls, timeout=60) as client:
        told = client.post("/organizers", json={"email": email, "name": "Ada", "password": PASSWORD})
        assert told.status_code == 201, told.text
        client.headers["X-API-Key"] = told.json()["api_key"]
        hack_id = client.post("/hackathons", json=hackathon(name="Browser Hack")).json()["hack_id"]
        assert client.post(f"/hackathons/{hack_id}/activate").status_code == 200
        row = {"team_name": "Night Owls", "repo_url": "https://github.com/night-owls/not-there"}
        assert client.post(f"/hackathons/{hack_id}/submissions", json={"submissions": [row]}).status_code == 201
    return {"email": email, "key": told.json()["api_key"], "hack_id": hack_id}


@pytest.fixture(params=SIZES)
def visit(request: pytest.FixtureRequest, browser: Browser, local_host: LocalHost) -> Iterator[Visit]:  # noqa: F811 - the fixture
    width, height = SIZES[request.param]
    context = browser.new_context(viewport={"width": width, "height": height}, ignore_https_errors=True)
    made = Visit(context, local_host.url, request.param)
    made.page.set_default_timeout(PATIENCE)
    yield made
    context.close()


def stranger(visit: Visit, name: str) -> Page:
    """Open a page that needs no login by the navigation."""
    page = visit.go(HOME)
    settled(page)
    if visit.size == "phone":  # there the pages are behind a button
        page.get_by_test_id("stExpandSidebarButton").click()
    page.get_by_role("link", name=name, exact=True).first.click()
    if visit.size == "phone":
        page.get_by_test_id("stSidebarCollapseButton").get_by_role("button").click()
    return page


def log_in(visit: Visit, organizer: dict[str, str]) -> Page:
    """Log in with the key, as an organizer does."""
    page = visit.go(HOME)
    page.get_by_role("textbox", name="API key").fill(organizer["key"])
    page.get_by_role("button", name="Log in", exact=True).click()
    expect(page.get_by_role("heading", name="Live dashboard", level=1)).to_be_visible()
    settled(page)
    return page


def test_login_is_refused_given_and_survives_a_reload(visit: Visit, organizer: dict[str, str]) -> None:
    page = visit.go(HOME)
    settled(page)
    visit.shot("judge-login")
    page.get_by_role("textbox", name="API key").fill("vj_live_" + "A" * 32)
    page.get_by_role("button", name="Log in", exact=True).click()
    expect(page.get_by_text("does not open anything")).to_be_visible()
    page.get_by_role("tab", name="E-mail and password").click()
    page.get_by_label("E-mail address").fill(organizer["email"])
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Log in with password").click()
    expect(page.get_by_role("heading", name="Live dashboard", level=1)).to_be_visible()
    settled(page)
    page.wait_for_timeout(1000)  # the cookie is fetched beside the page
    kept = {cookie["name"]: cookie for cookie in page.context.cookies()}["pergola_session_judge"]
    assert kept["httpOnly"]
    assert kept["secure"]
    assert organizer["key"] not in kept["value"]
    page.reload()
    expect(page.get_by_role("heading", name="Live dashboard", level=1)).to_be_visible()
    settled(page)
    if visit.size == "phone":
        page.get_by_test_id("stExpandSidebarButton").click()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="VibeJudge", level=1)).to_be_visible()
    settled(page)
    page.reload()
    expect(page.get_by_role("heading", name="VibeJudge", level=1)).to_be_visible()
    visit.is_clean()


def test_registering(visit: Visit) -> None:
    page = stranger(visit, "Register")
    page.get_by_label("Your name").fill("Bo")
    page.get_by_label("E-mail address").fill(f"bo-{time.time_ns()}@example.org")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Register").click()
    expect(page.get_by_text("shown this once")).to_be_visible()
    settled(page)
    visit.shot("judge-registered")
    page.get_by_role("button", name="take me in").click()
    expect(page.get_by_text("You have no hackathon yet")).to_be_visible()
    visit.is_clean()


def test_submitting_without_an_account(visit: Visit, organizer: dict[str, str]) -> None:
    page = stranger(visit, "Submit")
    expect(page.get_by_role("heading", name="Submit your project", level=1)).to_be_visible()
    settled(page)
    visit.shot("judge-submit")
    page.get_by_role("textbox", name="Team name").fill(f"Team {visit.size}")
    page.get_by_role("textbox", name="Repository").fill(f"https://github.com/team/{visit.size}-{time.time_ns()}")
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.get_by_text("is in.")).to_be_visible()
    visit.is_clean()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Results", "Nothing has been judged yet"),
        ("Intelligence", "Nothing has been judged yet"),
        ("Submissions", "github.com/night-owls/not-there"),
        ("Create hackathon", "The weights sum to 1.00"),
        ("Manage", "Browser Hack"),
        ("Settings", "Organization"),
    ],
)
def test_the_screens_of_an_organizer(visit: Visit, organizer: dict[str, str], name: str, shown: str) -> None:
    page = log_in(visit, organizer)
    if visit.size == "phone":
        page.get_by_test_id("stExpandSidebarButton").click()
    page.get_by_role("link", name=name, exact=True).first.click()
    expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()
    expect(page.get_by_test_id("stApp")).to_contain_text(shown)
    if visit.size == "phone":
        page.get_by_test_id("stSidebarCollapseButton").get_by_role("button").click()
    settled(page)
    visit.shot(f"judge-{name.split(maxsplit=1)[0].lower()}")
    visit.is_clean()


def test_judging_is_watched_to_its_end(visit: Visit, organizer: dict[str, str]) -> None:
    """The host's worker takes it. The repository is not there (or the host has no way out): either is told as a sentence."""
    page = log_in(visit, organizer)
    expect(page.get_by_test_id("stApp")).to_contain_text("Night Owls")
    visit.shot("judge-live")
    page.get_by_role("button", name="Estimate the cost").click()
    page.get_by_role("button", name="Start judging").click()
    expect(page.get_by_test_id("stApp")).to_contain_text("failed", timeout=150_000)
    visit.shot("judge-live-judged")
    visit.is_clean()


def test_streamlit_is_healthy_within_two_seconds(local_host: LocalHost) -> None:
    began = time.monotonic()
    assert local_host.get("/judge/_stcore/health").status_code == 200
    assert time.monotonic() - began < 2
