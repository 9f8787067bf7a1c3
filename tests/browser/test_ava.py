"""Every screen of AVA Dataset Management in a real browser, through nginx, at desktop and phone width; all but the way in behind a login."""

from __future__ import annotations

import io
import re
import time
import zipfile
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import LocalHost

from .test_pages import PATIENCE, SIZES, Visit, browser, settled  # noqa: F401 - a fixture

pytestmark = [pytest.mark.browser, pytest.mark.host, pytest.mark.timeout(600)]
HOME = "/ava/"
CLIPS = ("walk_clip_000", "walk_clip_001", "walk_clip_002")


@pytest.fixture(scope="module")
def logged_in(browser: Browser, local_host: LocalHost) -> object:  # noqa: F811 - the fixture
    """Log in once by the login page; its cookie serves every later visit."""
    password = local_host.sh("cat /etc/pergola/secrets/ava/admin_password").strip()
    context = browser.new_context(ignore_https_errors=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(f"{local_host.url}{HOME}progress")
    expect(page).to_have_url(re.compile(r"/ava/api/auth/login\?redirect=/ava/progress"))
    page.get_by_label("Admin password").fill(password)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(re.compile(r"/ava/progress$"))
    state = context.storage_state()
    context.close()
    return state


def visit_of(browser: Browser, local_host: LocalHost, size: str, state: object = None) -> Visit:  # noqa: F811 - the fixture
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, ignore_https_errors=True, storage_state=state
    )  # type: ignore[arg-type]
    return Visit(context, local_host.url, size)


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


def open_page(visit: Visit, name: str) -> Page:
    """Open a page by the navigation, as a visitor does."""
    page = visit.go(HOME)
    settled(page)
    if visit.size == "phone":  # there the pages are behind a button
        page.get_by_test_id("stExpandSidebarButton").click()
    page.get_by_role("link", name=name).first.click()
    expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()
    if visit.size == "phone":
        page.get_by_test_id("stSidebarCollapseButton").get_by_role("button").click()
    settled(page)
    return page


def archive() -> bytes:
    """An archive of small clips."""
    picture = cv2.imencode(".jpg", np.full((120, 160, 3), 120, np.uint8))[1].tobytes()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as whole:
        for clip in CLIPS:
            for frame in range(3):
                whole.writestr(f"{clip}_frame_{frame:04d}.jpg", picture)
    return out.getvalue()


def test_a_stranger_sees_the_way_in_and_nothing_else(browser: Browser, local_host: LocalHost) -> None:  # noqa: F811 - the fixture
    visit = visit_of(browser, local_host, "desktop")
    page = visit.go(HOME)
    expect(page.get_by_role("heading", name="Log in", level=1)).to_be_visible()
    expect(page.get_by_role("link", name="Go to the login page")).to_be_visible()
    settled(page)
    visit.shot("ava-login")
    visit.is_clean()
    page.context.close()
    for screen in ("tasks", "quality", "progress", "anything"):
        assert local_host.get(f"/ava/{screen}").status_code == 401, screen
    for path in ("projects", "clips", "uploads", "quality-control/projects", "datasets?project_id=1", "nothing"):
        answer = local_host.get(f"/ava/api/{path}")
        assert answer.status_code == 401, path
        assert {"error", "message", "login_url", "type"} <= set(answer.json())
    assert local_host.post("/ava/api/webhooks/cvat", {"event": "ping"}).status_code == 401  # it is not signed
    assert local_host.get("/ava/api/health/ready").status_code == 200


def test_large_files_go_up_in_parts(inside: Visit) -> None:
    page = inside.page
    page.goto(f"{inside.base}/ava/api/uploads/page")
    expect(page.get_by_role("heading", name="Upload clips")).to_be_visible()
    page.locator("#files").set_input_files({"name": "street.zip", "mimeType": "application/zip", "buffer": archive()})
    expect(page.get_by_text(re.compile(r"new clips?[.,]"))).to_be_visible()
    inside.shot("ava-upload")
    inside.is_clean(
        "asks another host: http://127.0.0.1:"
    )  # parts go into the bucket, where there is one: in a rehearsal


def test_a_plan_is_made(inside: Visit) -> None:
    page = inside.go(HOME)
    expect(page.get_by_role("heading", name="Task Creation", level=1)).to_be_visible()
    settled(page)
    page.get_by_label("Project name").fill(f"round {inside.size} {time.time():.0f}")
    page.get_by_role("textbox", name="Annotators, one a line").fill("anna\nben")
    page.get_by_role("button", name="Preview the plan").click()
    expect(page.get_by_role("heading", name="The plan")).to_be_visible()
    settled(page)
    inside.shot("ava-plan")
    page.get_by_role("button", name="Create the project").click()
    expect(page.get_by_text("was stored")).to_be_visible()
    inside.is_clean()


@pytest.mark.parametrize(
    ("name", "shown"), [("Quality Control", "Nothing was annotated yet"), ("Progress", "Finished over time")]
)
def test_the_other_screens(inside: Visit, name: str, shown: str) -> None:
    page = open_page(inside, name)
    expect(page.get_by_text(shown).first).to_be_visible()
    inside.shot(f"ava-{name.lower().replace(' ', '-')}")
    inside.is_clean()
