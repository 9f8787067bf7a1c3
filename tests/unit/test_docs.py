"""The documentation holds: links lead somewhere, `make` targets and named files exist."""

from __future__ import annotations

import re
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)")
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
MAKE = re.compile(r"(?:^|[`($])\s*make ((?:[a-z][a-z-]*)(?: [a-z][a-z-]*)*)", re.MULTILINE)
TARGET = re.compile(r"^([a-z][a-z-]*):(?!=)", re.MULTILINE)
NAMED = re.compile(r"`((?:scripts|playbooks|inventories|files|roles|app/core|plugins|docs|tests|bench)/[\w./-]+)`")


def pages() -> list[Path]:
    """Every Markdown page that git has or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [ROOT / name for name in sorted(set(listed)) if (ROOT / name).is_file()]


PAGES = pages()
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """The page without its code blocks, which may show what is not there."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the page's headings."""
    found: set[str] = set()
    for heading in HEADING.findall(prose(page)):
        plain = (
            re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)).strip().lower().replace(" ", "-")
        )
        anchor, number = plain, 0
        while anchor in found:
            number += 1
            anchor = f"{plain}-{number}"
        found.add(anchor)
    return found


def make_targets() -> set[str]:
    return set(TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")))


def test_the_pages_are_there() -> None:
    names = {str(page.relative_to(ROOT)) for page in PAGES}
    assert {
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "docs/README.md",
        "docs/ARCHITECTURE.md",
        "docs/ADD-AN-APP.md",
    } <= names


@every_page
def test_relative_links_lead_somewhere(page: Path) -> None:
    broken = []
    for found in LINK.finditer(prose(page)):
        target = urlsplit(found["target"])
        if target.scheme or target.netloc:
            continue
        file = (page.parent / unquote(target.path)).resolve() if target.path else page
        if not file.is_relative_to(ROOT):
            broken.append(f"{found['target']} leads out of the project")
        elif not file.exists():
            broken.append(f"{found['target']} is not there")
        elif target.fragment and target.fragment not in anchors(file):
            broken.append(f"{found['target']}: {file.name} has no heading for #{target.fragment}")
    assert not broken


@every_page
def test_links_and_pictures_say_what_they_are(page: Path) -> None:
    assert [found["target"] for found in LINK.finditer(prose(page)) if not found["text"].strip()] == []


@every_page
def test_make_targets_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = {target for found in MAKE.findall(text) for target in found.split()}
    assert named <= make_targets(), f"{page.name} names targets that the Makefile has not"


@every_page
def test_named_files_exist(page: Path) -> None:
    named = set(NAMED.findall(prose(page)))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_page_can_be_found() -> None:
    """From docs/README.md, every page in docs/ is one link away."""
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / urlsplit(found["target"]).path).resolve() for found in LINK.finditer(prose(index))}
    assert [page.name for page in PAGES if page.parent == index.parent and page != index and page not in linked] == []


@pytest.mark.parametrize("picture", sorted((ROOT / "docs" / "img").glob("*.svg")), ids=lambda picture: picture.name)
def test_pictures_are_accessible(picture: Path) -> None:
    svg = ET.parse(picture).getroot()  # noqa: S314 - our own file
    space = {"svg": "http://www.w3.org/2000/svg"}
    assert svg.get("role") == "img"
    names = {
        element.get("id"): element.text for tag in ("title", "desc") for element in svg.findall(f"svg:{tag}", space)
    }
    labels = svg.get("aria-labelledby", "").split()
    assert labels
    assert all(names.get(label) for label in labels)
