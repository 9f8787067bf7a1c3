"""Every tab of the vision screens in a real browser, through nginx with TLS, at desktop and phone width."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from app.vision.dishes import draw

from .test_pages import Visit, browser, settled, visit

__all__ = ["browser", "visit"]
pytestmark = [pytest.mark.browser, pytest.mark.host, pytest.mark.timeout(600)]


def dish(folder: Path, number: int, level: str | None = None) -> Path:
    path = folder / f"dish-{number}.jpg"
    draw(5_000_000_000 + number, level=level).image.save(path, "JPEG")  # type: ignore[arg-type]
    return path


def opened(visit: Visit, tab: str = "Upload") -> Page:
    page = visit.go("/vision/")
    expect(page.get_by_role("heading", name="Clean or dirty?")).to_be_visible()
    settled(page)
    if tab != "Upload":
        page.get_by_role("tab", name=tab).click()
        expect(page.get_by_role("tab", name=tab)).to_have_attribute("aria-selected", "true")
        settled(page)
    return page


def chooser(page: Page, label: str) -> Locator:
    """The input behind an uploader; another tab's may still be there for a moment."""
    return page.get_by_test_id("stFileUploader").filter(has_text=label).locator('input[type="file"]')


def answered(page: Page) -> None:
    expect(page.get_by_text("Answered in")).to_be_visible()
    settled(page)
    expect(page.get_by_alt_text("The picture with its dirty parts marked")).to_be_visible()


def test_a_picture_is_answered_with_a_heat_map(visit: Visit, tmp_path: Path) -> None:
    page = opened(visit)
    expect(page.get_by_text("Choose a picture, or drop one")).to_be_visible()
    visit.shot("vision-empty")
    chooser(page, "Picture of a dish").set_input_files(dish(tmp_path, 24, "heavy"))
    answered(page)
    expect(page.get_by_text("Dirty", exact=True).first).to_be_visible()
    visit.shot("vision-answer")
    chooser(page, "Picture of a dish").set_input_files(
        {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b"this is no picture"}
    )
    expect(page.get_by_text("This picture cannot be used.")).to_be_visible()
    visit.shot("vision-error")
    visit.is_clean()


def test_the_gallery_works(visit: Visit) -> None:
    page = opened(visit, "Demo images")
    expect(page.get_by_role("button", name="A little dirty", exact=True)).to_be_visible()
    visit.shot("vision-demo")
    page.get_by_role("button", name="Bowl with leftovers", exact=True).click()
    answered(page)
    visit.shot("vision-demo-answer")
    page.get_by_role("button", name="All pictures").click()
    expect(page.get_by_role("button", name="Patterned plate", exact=True)).to_be_visible()
    visit.is_clean()


def test_many_pictures_become_a_table_and_a_csv(visit: Visit, tmp_path: Path) -> None:
    page = opened(visit, "Batch")
    files = [dish(tmp_path, 24, "heavy"), dish(tmp_path, 27), dish(tmp_path, 39), tmp_path / "broken.jpg"]
    files[-1].write_bytes(b"no picture")
    chooser(page, "Pictures of dishes").set_input_files(files)
    page.get_by_role("button", name=re.compile("Classify 4")).click()
    link = page.get_by_role("button", name="Download as CSV")
    expect(link).to_be_visible()
    settled(page)
    visit.shot("vision-batch")
    with page.expect_download() as download:
        link.click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
    assert [row["filename"] for row in rows] == [path.name for path in files]
    assert [row["prediction"] for row in rows] == ["dirty", "clean", "clean", "error"]
    visit.is_clean()


@pytest.mark.parametrize(
    ("tab", "text"), [("Camera", "The camera starts when you say so"), ("About", "What to expect")]
)
def test_camera_and_about(visit: Visit, tab: str, text: str) -> None:
    page = opened(visit, tab)
    expect(page.get_by_text(text)).to_be_visible()
    visit.shot(f"vision-{tab.lower()}")
    visit.is_clean()
