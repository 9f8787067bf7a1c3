"""Every screen of the drawings app in a real browser, through nginx, at desktop and phone width; what needs a login is behind one."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from app.drawings import generate
from tests.conftest import LocalHost

from .test_pages import PATIENCE, SIZES, Visit, browser, settled  # noqa: F401 - a fixture

pytestmark = [pytest.mark.browser, pytest.mark.host, pytest.mark.timeout(600)]
HOME = "/drawings/"
ENOUGH = 30  # requests that a test's visit may make


@pytest.fixture(scope="module")
def password(local_host: LocalHost) -> str:
    """The password that the host made for itself."""
    return local_host.sh("cat /etc/pergola/secrets/drawings/admin_password").strip()


@pytest.fixture(scope="module")
def logged_in(browser: Browser, local_host: LocalHost, password: str) -> object:  # noqa: F811 - the fixture
    """Log in once by the login page; its cookie serves every later visit."""
    context = browser.new_context(ignore_https_errors=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(f"{local_host.url}{HOME}dashboard")
    expect(page).to_have_url(re.compile(r"/drawings/api/auth/login\?redirect=/drawings/dashboard"))
    page.get_by_label("Admin password").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("not right")
    page.get_by_label("Admin password").fill(password)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(re.compile(r"/drawings/dashboard$"))
    state = context.storage_state()
    context.close()
    return state


def unhurried(browser: Browser, local_host: LocalHost) -> None:  # noqa: F811 - the fixture
    """Wait until this address has requests left for what a test does: these visits are many for the 60 of a minute."""
    page = browser.new_page(ignore_https_errors=True)
    answer = page.goto(f"{local_host.url}{HOME}api/api/v1/demo/statistics")
    assert answer is not None
    told = answer.all_headers()
    if int(told["x-ratelimit-remaining"]) < ENOUGH:
        page.wait_for_timeout(1000 * (int(told["x-ratelimit-reset"]) + 1))
    page.close()


def visit_of(browser: Browser, local_host: LocalHost, size: str, state: object = None) -> Visit:  # noqa: F811 - the fixture
    unhurried(browser, local_host)
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, ignore_https_errors=True, storage_state=state
    )  # type: ignore[arg-type]
    return Visit(context, local_host.url, size)


@pytest.fixture(params=SIZES)
def visit(request: pytest.FixtureRequest, browser: Browser, local_host: LocalHost) -> Iterator[Visit]:  # noqa: F811 - the fixture
    made = visit_of(browser, local_host, request.param)
    yield made
    made.page.context.close()


@pytest.fixture(params=SIZES)
def inside(
    request: pytest.FixtureRequest,
    browser: Browser,  # noqa: F811 - the fixture
    local_host: LocalHost,
    logged_in: object,
) -> Iterator[Visit]:
    made = visit_of(browser, local_host, request.param, logged_in)
    yield made
    made.page.context.close()


def open_page(visit: Visit, name: str, heading: str) -> Page:
    """Open a page by the navigation, as a visitor does."""
    page = visit.go(HOME)
    settled(page)
    if visit.size == "phone":  # there the pages are behind a button
        page.get_by_test_id("stExpandSidebarButton").click()
    link = page.get_by_role("link", name=name).first
    expect(link).to_be_in_viewport()
    link.click()
    expect(page.get_by_role("heading", name=heading, level=1)).to_be_visible()
    if visit.size == "phone":
        page.get_by_test_id("stSidebarCollapseButton").get_by_role("button").click()
        expect(link).not_to_be_in_viewport()
    settled(page)
    return page


def test_the_demo_shows_three_samples(visit: Visit) -> None:
    page = visit.go(HOME)
    expect(page.get_by_test_id("verdict")).to_have_count(3)
    settled(page)
    expect(page.get_by_text("This is not a diagnosis").first).to_be_visible()
    visit.shot("drawings-demo")
    visit.is_clean()


def test_a_visitors_drawing_is_judged(visit: Visit) -> None:
    page = open_page(visit, "Upload", "Look at a drawing")
    visit.shot("drawings-upload-empty")
    out = io.BytesIO()
    generate.drawing(31, 6.0, "house").save(out, "PNG")
    page.locator('input[type="file"]').first.set_input_files(
        {"name": "house.png", "mimeType": "image/png", "buffer": out.getvalue()}
    )
    page.get_by_role("button", name="Analyse").click()
    expect(page.get_by_test_id("verdict")).to_be_visible()
    expect(page.get_by_role("heading", name="Normal drawings that are alike")).to_be_visible()
    settled(page)
    visit.shot("drawings-upload")
    if visit.size == "desktop":
        page.get_by_role("button", name="Prepare the file").click()
        with page.expect_download() as download:
            page.get_by_role("button", name="Download").click()
        with open(download.value.path(), "rb") as file:  # noqa: PTH123 - where the browser put it
            assert file.read(4) == b"%PDF"
    visit.is_clean()


def test_the_documentation(visit: Visit) -> None:
    page = open_page(visit, "Documentation", "How it works")
    expect(page.get_by_text("What it is not").first).to_be_visible()
    visit.shot("drawings-documentation")
    visit.is_clean()


@pytest.mark.parametrize(
    ("name", "heading", "shown"),
    [
        ("Dashboard", "Dashboard", "By subject"),
        ("History", "History", "house.png"),
        ("Batch", "Many drawings at once", "Choose some drawings"),
        ("Configuration", "Configuration", "Backups"),
        ("Models", "Models", "Your own drawings"),
        ("Usage", "Usage", "Since this release started"),
    ],
)
def test_the_screens_behind_the_login(inside: Visit, name: str, heading: str, shown: str) -> None:
    page = open_page(inside, name, heading)
    expect(page.get_by_test_id("stApp")).to_contain_text(shown)
    inside.shot(f"drawings-{name.lower()}")
    inside.is_clean()


def test_a_batch_shows_its_progress(browser: Browser, local_host: LocalHost, logged_in: object) -> None:  # noqa: F811 - the fixture
    visit = visit_of(browser, local_host, "desktop", logged_in)
    page = open_page(visit, "Batch", "Many drawings at once")
    files = []
    for number in range(4):
        out = io.BytesIO()
        generate.drawing(number, 6.0, "dog").save(out, "PNG")
        files.append({"name": f"dog-{number}.png", "mimeType": "image/png", "buffer": out.getvalue()})
    page.locator('input[type="file"]').first.set_input_files(files)
    page.get_by_role("button", name="Analyse 4 drawings").click()
    expect(page.get_by_text("4 of 4 drawings analysed")).to_be_visible()
    settled(page)
    visit.shot("drawings-batch-done")
    visit.is_clean()
    page.context.close()


def test_every_page_and_route_without_a_login_is_refused_by_nginx(local_host: LocalHost) -> None:
    """Through TLS and nginx, as a stranger: what the manifest does not open leads to the login or is 401."""
    for screen in ("dashboard", "history", "batch", "configuration", "models", "usage", "anything"):
        answer = local_host.get(f"/drawings/{screen}")
        assert answer.status_code == 401, screen
    for path in (
        "drawings/",
        "drawings/stats",
        "analysis/stats",
        "backup/",
        "config/",
        "models/age-groups",
        "metrics/usage",
        "database/migration-info",
        "nothing",
    ):
        answer = local_host.get(f"/drawings/api/api/v1/{path}")
        assert answer.status_code == 401, path
        assert {"error", "message", "login_url", "type"} <= set(answer.json())
    assert local_host.get("/drawings/api/api/v1/demo/statistics").status_code == 200
