"""Every page in a real browser, through nginx with TLS, at desktop and phone width; screenshots stay in build/test/screenshots."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.conftest import LocalHost

pytestmark = [pytest.mark.browser, pytest.mark.host, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "build" / "test" / "screenshots"
SIZES = {"desktop": (1280, 800), "phone": (390, 844)}
# the machine that runs all tests is busy: a page may take this long, and no test measures it
PATIENCE = 60_000
expect.set_options(timeout=PATIENCE)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def in_network_of(host: LocalHost, folder: Path) -> Path:
    """Return a command that starts Chromium in the network of the host's container.

    Chromium ends every request when an interface of its machine comes or goes (``ERR_NETWORK_CHANGED``), and each
    container that another test starts or ends is one. The interfaces of this container stay.
    """
    command = folder / "chromium"
    command.write_text(
        f'#!/bin/sh\nexec nsenter --net=/proc/{host.pid()}/ns/net -- {CHROMIUM} "$@"\n', encoding="utf-8"
    )
    command.chmod(0o755)
    return command


@pytest.fixture(scope="module")
def browser(local_host: LocalHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    command, flags = Path(CHROMIUM), ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    if os.geteuid() == 0:
        command = in_network_of(local_host, tmp_path_factory.mktemp("browser"))
        flags.append(f"--host-resolver-rules=MAP 127.0.0.1:{local_host.https} 127.0.0.1:443")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=command, args=flags)
        yield opened
        opened.close()


class Visit:
    """A page with everything that went wrong on it."""

    def __init__(self, context: BrowserContext, base: str, size: str) -> None:
        self.base, self.size = base, size
        self.problems: list[str] = []
        self.failed: list[str] = []
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.on("console", lambda message: self._console(message.type, message.text))
        self.page.on("pageerror", lambda error: self.problems.append(f"page error: {error}"))
        self.page.on("request", lambda request: self._request(request.url))
        self.page.on("requestfailed", lambda request: self._failed(request.url, request.failure))

    def _console(self, kind: str, text: str) -> None:
        if kind == "error":
            self.problems.append(f"console: {text}")

    def _failed(self, url: str, failure: str | None) -> None:
        self.failed.append(f"{url}: {failure}")

    def _request(self, url: str) -> None:
        host = urlsplit(url).netloc
        if host and host != urlsplit(self.base).netloc:
            self.problems.append(f"asks another host: {url}")

    def go(self, path: str) -> Page:
        self.page.goto(f"{self.base}{path}")
        return self.page

    def shot(self, name: str) -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}-{self.size}.png", full_page=True)

    def is_clean(self, *known: str) -> None:
        """Nothing went wrong on the page, and it is no wider than the screen; what begins as ``known`` is none."""
        assert [one for one in self.problems if not one.startswith(known)] == [], (self.problems, self.failed)
        overflow = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0, f"the page is {overflow} px wider than the screen"


@pytest.fixture(params=SIZES)
def visit(request: pytest.FixtureRequest, browser: Browser, local_host: LocalHost) -> Iterator[Visit]:
    width, height = SIZES[request.param]
    context = browser.new_context(viewport={"width": width, "height": height}, ignore_https_errors=True)
    yield Visit(context, local_host.url, request.param)
    context.close()


def settled(page: Page) -> None:
    """Wait until Streamlit has run the page."""
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    expect(page.get_by_test_id("stException")).to_have_count(0)


def test_portal_shows_every_app(visit: Visit) -> None:
    page = visit.go("/")
    expect(page.get_by_role("heading", name="VinoVoyant")).to_be_visible()
    expect(page.get_by_text("Working").first).to_be_visible()
    visit.shot("portal")
    visit.is_clean()
    page.get_by_role("link", name="VinoVoyant").first.click()
    expect(page).to_have_url(f"{visit.base}/wine/")


def test_the_status_page_tells_how_the_host_has_been(visit: Visit, local_host: LocalHost) -> None:
    page = visit.go("/")
    page.get_by_role("link", name="Status").click()
    expect(page.get_by_role("heading", name="Status")).to_be_visible()
    rows = page.locator("li.status-app")
    expect(rows).to_have_count(5)
    if '"wine"' in local_host.sh("cat /etc/pergola/backup.json"):  # not on a fleet, whose database server keeps its own
        expect(rows.filter(has_text="VinoVoyant")).to_contain_text("Backup of the database")
    deadline = time.monotonic() + PATIENCE / 1000
    while {text.strip() for text in rows.locator(".state").all_inner_texts()} != {"Working"}:
        assert time.monotonic() < deadline, rows.all_inner_texts()
        time.sleep(2)  # an app that was busy a moment ago; the page tells what was seen when it was asked for
        page.reload()
    expect(page.get_by_role("region", name="Maintenance")).to_contain_text("og digest")
    visit.shot("status")
    visit.is_clean()


def test_a_missing_page_is_designed(visit: Visit) -> None:
    page = visit.go("/no/such/page")
    expect(page.get_by_role("heading").first).to_be_visible()
    visit.shot("missing")
    assert page.locator("body").inner_text().strip()


def test_prediction_names_a_country_and_shows_why(visit: Visit) -> None:
    page = visit.go("/wine/")
    note = page.get_by_role("textbox", name="Tasting note")
    expect(note).to_be_visible()
    settled(page)
    visit.shot("wine-prediction-empty")
    note.fill("Blackcurrant, cedar and graphite with firm tannins and a long savoury finish, from the left bank.")
    page.get_by_role("button", name=re.compile("Where is it from")).click()
    expect(page.get_by_test_id("stApp")).to_contain_text("%")
    settled(page)
    visit.shot("wine-prediction")
    visit.is_clean()


def test_prediction_abstains_on_gibberish(visit: Visit) -> None:
    page = visit.go("/wine/")
    settled(page)
    page.get_by_role("textbox", name="Tasting note").fill("xqzt vvkk 12345 wrrrpl")
    page.get_by_role("button", name=re.compile("Where is it from")).click()
    settled(page)
    expect(page.get_by_test_id("stApp")).not_to_contain_text("The answer will be here")
    visit.shot("wine-abstains")
    visit.is_clean()


def open_page(visit: Visit, name: str, heading: str) -> Page:
    """Open a page by the navigation, as a visitor does: a deep link makes Streamlit's client try a wrong path first."""
    page = visit.go("/wine/")
    settled(page)
    expand = page.get_by_test_id("stExpandSidebarButton")
    if visit.size == "phone":  # there the pages are behind a button
        expand.click()
    link = page.get_by_role("link", name=name).first
    expect(link).to_be_in_viewport()
    link.click()
    expect(page.get_by_role("heading", name=heading, level=1)).to_be_visible()
    if visit.size == "phone":
        page.get_by_test_id("stSidebarCollapseButton").get_by_role("button").click()
        expect(link).not_to_be_in_viewport()
    settled(page)
    return page


def test_many_notes_at_once_from_a_csv(visit: Visit, tmp_path: Path) -> None:
    page = open_page(visit, "Many notes", "Many notes at once")
    visit.shot("wine-batch-empty")
    file = tmp_path / "notes.csv"
    rows = [f'"Ripe cherry and cedar, firm tannins and a savoury finish, bottle {number}."' for number in range(30)]
    file.write_text("description\n" + "\n".join(rows) + "\n", encoding="utf-8")
    page.locator('input[type="file"]').first.set_input_files(file)
    page.get_by_role("button", name="Predict all").click()
    result = page.get_by_role("button", name="Download the answers")
    expect(result).to_be_visible()
    settled(page)
    visit.shot("wine-batch")
    with page.expect_download() as download:
        result.click()
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert len(text.strip().splitlines()) == 31
    assert "predicted_country" in text.splitlines()[0]
    visit.is_clean()


def test_analytics_draws_every_chart_with_a_sentence(visit: Visit) -> None:
    page = open_page(visit, "Analytics", "What the reviews say")
    expect(page.get_by_test_id("stPlotlyChart").first).to_be_visible()
    visit.shot("wine-analytics")
    visit.is_clean()


def test_model_page_shows_the_model(visit: Visit) -> None:
    page = open_page(visit, "Model", "The model")
    expect(page.get_by_test_id("stApp")).to_contain_text("Accuracy")
    visit.shot("wine-model")
    visit.is_clean()


def test_the_keyboard_reaches_the_answer(visit: Visit) -> None:
    page = visit.go("/wine/")
    settled(page)
    page.get_by_role("textbox", name="Tasting note").focus()
    page.keyboard.type("Slate, lime and petrol with racy acidity and a whisper of honey.")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_test_id("stApp")).not_to_contain_text("The answer will be here")
    visit.is_clean()
