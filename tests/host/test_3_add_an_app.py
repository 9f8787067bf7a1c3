"""docs/ADD-AN-APP.md on a real host: its files become a served app, and leave again without a trace in the others."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest

from tests.conftest import LocalHost

pytestmark = [pytest.mark.host, pytest.mark.timeout(900)]
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "ADD-AN-APP.md").read_text(encoding="utf-8")
FILE = re.compile(r"^`app/(?P<path>[^`]+)`:\n\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_two_files_of_the_page_are_served_and_leave_again(local_host: LocalHost, tmp_path: Path) -> None:
    written = []
    for found in FILE.finditer(PAGE.split("## A screen", maxsplit=1)[0]):
        file = tmp_path / found["path"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(found["text"], encoding="utf-8")
        written.append(file.name)
    assert sorted(written) == ["api.py", "app.yml"]

    wine = local_host.app("wine")
    local_host.site(
        "--tags",
        "apps,nginx",
        "-e",
        json.dumps(
            {
                "pergola_apps": [
                    "portal",
                    "wine",
                    "vision",
                    "drawings",
                    "ava",
                    "judge",
                    {"path": str(tmp_path / "survey")},
                ]
            }
        ),
    )
    answer = local_host.post("/survey/api/sample-size", {"margin": 0.05, "population": 1000})
    assert answer.json() == {"answers": 278}
    assert local_host.post("/survey/api/sample-size", {"margin": 7}).status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert "Sample size" in local_host.get("/").text
    assert local_host.app("survey")["state"] == "serving"

    local_host.site("--tags", "apps,nginx")
    assert {row["app"] for row in local_host.pergola("status")["apps"]} == {
        "portal",
        "wine",
        "vision",
        "drawings",
        "ava",
        "judge",
    }
    assert "Sample size" not in local_host.get("/").text
    assert not local_host.sh("systemctl list-units --plain --no-legend 'pergola-*survey*'").strip()
    assert local_host.app("wine")["release"] == wine["release"]
