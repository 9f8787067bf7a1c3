"""The screens, run by Streamlit itself, against the real API over HTTP."""

import pickle
import socket
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from streamlit.testing.v1 import AppTest

from app.ava import post_annotation_service
from app.ava.attributes import Profile
from app.ava.cvat_xml import write
from app.ava.screens import common, figures
from app.core.settings import clear_settings
from app.core.storage import FolderStorage

from .conftest import PASSWORD, SIZE, box, frame_zip, give_clips

ROOT = Path(__file__).resolve().parents[3]
CLIPS = [f"walk_clip_{number:03d}" for number in range(4)]


@pytest.fixture
def served(reachable: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The screens pointed at the API on its port."""
    monkeypatch.setenv("PERGOLA_API_URL", reachable)
    clear_settings()
    from app.core import asking, client

    client.api_client.cache_clear()
    for cached in (asking._get, asking._content, asking._logged_in):
        cached.clear()
    return reachable


def opened(api: TestClient | None) -> AppTest:
    """All of it, at its first page."""
    screen = AppTest.from_file(str(ROOT / "app/ava/ui.py"), default_timeout=60)
    if api is not None:
        screen.session_state["token"] = api.headers["Authorization"].removeprefix("Bearer ")
    screen.run()
    assert not screen.exception, screen.exception
    return screen


def shown(screen: AppTest) -> str:
    kinds = ("title", "subheader", "markdown", "caption", "info", "warning", "error", "success")
    parts = [element.value for kind in kinds for element in getattr(screen, kind)]
    return "\n".join(str(part) for part in [*parts, *(f"{one.label}: {one.value}" for one in screen.metric)])


def run(page: str, api: TestClient, **state: Any) -> AppTest:
    """One page by itself."""

    def script(page: str) -> None:
        import importlib

        importlib.import_module(f"app.ava.screens.{page}").page()

    screen = AppTest.from_function(script, kwargs={"page": page}, default_timeout=60)
    screen.session_state["token"] = api.headers["Authorization"].removeprefix("Bearer ")
    for key, value in state.items():
        screen.session_state[key] = value
    screen.run()
    assert not screen.exception, screen.exception
    return screen


def click(screen: AppTest, label: str) -> AppTest:
    found = next(button for button in screen.button if button.label == label)
    found.click().run()
    assert not screen.exception, screen.exception
    return screen


@pytest.fixture
def project(api: TestClient, storage: FolderStorage, tmp_path: Path) -> int:
    give_clips(storage, tmp_path / "in", *CLIPS, frames=3)
    asked = {"project_name": "street *1*", "annotators": ["ann", "bob"], "overlap_percentage": 50, "clips": CLIPS}
    return int(api.post("/projects", json=asked).json()["project"]["id"])


def annotate(api: TestClient, project: int, profile: Profile) -> None:
    for task in api.get(f"/quality-control/projects/{project}/tasks").json()["tasks"]:
        off = 30.0 if task["role"] == "overlap" else 0.0
        boxes = [box(0, frame, 100 + off, phone_usage=("texting", "no_phone")[frame % 2]) for frame in range(3)]
        post_annotation_service.keep(task["id"], write(task["clip"], boxes, profile, frames=3, size=SIZE), 1.0)


def test_without_a_login_there_is_the_way_in_and_nothing_else(api: TestClient, served: str) -> None:
    screen = opened(None)
    assert screen.title[0].value == "Log in"
    screen.text_input[0].set_value("wrong")
    click(screen, "Log in")
    assert "not right" in shown(screen)
    screen.text_input[0].set_value(PASSWORD)
    click(screen, "Log in")
    assert screen.title[0].value == "Task Creation"


def test_an_empty_start_says_what_to_do(api: TestClient, served: str) -> None:
    assert "No clips yet" in shown(opened(api))
    assert "There is no project yet" in shown(run("quality_control", api))
    assert "There is no project yet" in shown(run("progress", api))


def test_a_plan_is_previewed_and_created(api: TestClient, served: str, project: int) -> None:
    screen = opened(api)
    click(screen, "Preview the plan")
    assert "Give a project name and at least one annotator" in shown(screen)
    next(one for one in screen.text_input if one.label == "Project name").set_value("second")
    screen.text_area[0].set_value("ann\n\n bob ")
    next(one for one in screen.slider if one.label == "Overlap").set_value(25)
    click(screen, "Preview the plan")
    assert "**5 tasks** of 4 clips, 1 of them" in shown(screen)
    click(screen, "Create the project")
    assert "second was stored" in shown(screen)
    assert [row["name"] for row in api.get("/quality-control/projects").json()["projects"]] == ["second", "street *1*"]


def test_a_plan_that_cannot_be_is_said(api: TestClient, served: str, project: int) -> None:
    screen = opened(api)
    next(one for one in screen.text_input if one.label == "Project name").set_value("third")
    screen.text_area[0].set_value("ann")
    click(screen, "Preview the plan")
    assert "needs a second annotator" in screen.error[0].value


def test_proposals_and_clips_are_sent(api: TestClient, served: str, project: int, tmp_path: Path) -> None:
    screen = opened(api)
    data = pickle.dumps({CLIPS[0]: {f"{CLIPS[0]}_frame_0001.jpg": [[10.0, 10, 60, 90, 0.9, 1]]}})
    files = {one.label: one for one in screen.get("file_uploader")}
    files["Proposals: a pickle of boxes"].set_value(("p.pkl", data, "application/octet-stream")).run()
    click(screen, "Read the proposals")
    assert "1 boxes of 1 clips" in screen.success[0].value
    files = {one.label: one for one in screen.get("file_uploader")}
    clip = frame_zip(tmp_path / "run_clip_000.zip", "run_clip_000", 2).read_bytes()
    files["Clips: archives of frames, or videos"].set_value([("run_clip_000.zip", clip, "application/zip")]).run()
    click(screen, "Send 1 files")
    assert api.get("/uploads").json()["uploads"][0]["filename"] == "run_clip_000.zip"


def test_quality_control(api: TestClient, served: str, project: int, profile: Profile) -> None:
    assert "Nothing was annotated yet" in shown(run("quality_control", api))
    annotate(api, project, profile)
    from app.core import asking

    asking.forget()  # what was asked is remembered for some seconds
    screen = run("quality_control", api, project=project)
    click(screen, "Compare all 2 pairs")
    assert "Krippendorff's alpha over all: **1.00**" in shown(screen)
    click(screen, "Compare these two")
    text = shown(screen)
    assert "Mean IoU: 0.54" in text
    assert "Mean kappa: 1.00" in text
    assert "Frame 0, IoU **0.54**" in text
    assert "Nothing is approved yet" in text


def test_the_dataset_is_made(api: TestClient, served: str, project: int, profile: Profile) -> None:
    annotate(api, project, profile)
    ids = [task["id"] for task in api.get(f"/quality-control/projects/{project}/tasks").json()["tasks"]]
    api.post("/quality-control/update-task-status", json={"task_ids": ids, "new_status": "approved"})
    screen = run("quality_control", api, project=project)
    click(screen, "Make the dataset of 6 tasks")
    assert "4 clips, 12 boxes, 12 rows" in shown(screen)
    assert {one.label for one in screen.get("download_button")} >= {"annotations.csv", "actions.pbtxt", "manifest.json"}


def test_progress(api: TestClient, served: str, project: int, profile: Profile) -> None:
    assert "Nothing is finished yet" in shown(run("progress", api, project=project))
    annotate(api, project, profile)
    from app.core import asking

    asking.forget()
    screen = run("progress", api, project=project)
    assert "Finished tasks: 6 of 6" in shown(screen)
    click(screen, "Ask CVAT now")


def test_an_api_that_is_away_is_said(api: TestClient, served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = run("progress", api)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PERGOLA_API_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
    clear_settings()
    from app.core import asking, client

    client.api_client.cache_clear()
    asking.forget()
    screen.run()
    assert "No connection" in shown(screen)
    assert any(button.label == "Try again" for button in screen.button)


def test_the_page_for_large_files_is_open_and_its_routes_are_not(api: TestClient) -> None:
    api.headers.pop("Authorization")
    assert api.get("/uploads").status_code == 401
    page = api.get("/uploads/page")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    for name in ("upload.js", "upload.css"):
        assert f"page/{name}" in page.text
        assert api.get(f"/uploads/page/{name}").status_code == 200
    assert api.get("/uploads/page/api.py").status_code == 422


def test_words_for_reading() -> None:
    assert [common.duration(one) for one in (None, 5, 600, 7200, 900_000)] == [
        "n/a",
        "5 s",
        "10 min",
        "2.0 h",
        "10.4 d",
    ]
    assert common.number(None) == "n/a"
    assert common.plain("a_b*c") == r"a\_b\*c"
    assert common.as_csv([{"a": "=1+1", "b": 2}]) == b"a,b\r\n'=1+1,2\r\n"
    assert common.as_csv([]) == b""


def test_charts_hold_what_they_are_given() -> None:
    figure = figures.frame(b"\xff\xd8", (640, 480), [("ann", (1, 2, 3, 4), "red"), ("bob", None, "blue")])
    assert [trace.name for trace in figure.data] == ["ann"]
    assert list(figure.data[0].x) == [1, 3, 3, 1, 1]
    details = {"a": {"value": 0.5, "low": None, "high": None}, "b": {"value": None, "low": None, "high": None}}
    assert list(figures.kappas(details).data[0].y) == ["a"]
