"""The screens, run by Streamlit itself, against the real API over HTTP and with the models in process."""

import csv
import io
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi.testclient import TestClient
from streamlit.testing.v1 import AppTest

from app.core import client
from app.core.client import ApiError
from app.core.settings import clear_settings
from app.core.storage import FolderStorage
from app.vision.model import MODEL_TYPES
from app.vision.screens import asking, batch, common
from app.vision.screens.asking import Question

ROOT = Path(__file__).resolve().parents[3]
QUESTION = Question("fast", 0.0)


@pytest.fixture(autouse=True)
def _forget() -> None:
    asking.in_process.cache_clear()
    asking._client.cache_clear()
    client.api_client.cache_clear()


@pytest.fixture
def served(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The API on a port of its own, and the screens pointed at it."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(api.app, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setenv("PERGOLA_API_URL", url)
        clear_settings()
        while not server.started:
            time.sleep(0.01)
        yield url
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PERGOLA_API_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
    clear_settings()


def opened(tab: str = "Upload") -> AppTest:
    screen = AppTest.from_file(str(ROOT / "app/vision/ui.py"), default_timeout=90)
    screen.session_state["tab"] = tab
    screen.run()
    assert not screen.exception, screen.exception
    return screen


def text_of(screen: AppTest) -> str:
    kinds = ("title", "subheader", "markdown", "caption", "info", "warning", "error", "success")
    parts = [element.value for kind in kinds for element in getattr(screen, kind)]
    return "\n".join(str(part) for part in [*parts, *(element.proto.body for element in screen.get("html"))])


def test_the_first_tab_says_what_to_do(unreachable: None) -> None:
    screen = opened()
    assert screen.title[0].value == "Clean or dirty?"
    assert "Choose a picture, or drop one" in text_of(screen)


def test_the_sidebar(unreachable: None) -> None:
    screen = opened()
    assert [radio.label for radio in screen.sidebar.radio] == ["Ask", "Model"]
    assert len(screen.sidebar.radio[1].options) == len(MODEL_TYPES)
    assert screen.sidebar.radio[1].value == "balanced"
    assert screen.sidebar.text_input[0].label == "API address"
    assert screen.sidebar.slider[0].label == "Minimum confidence"
    assert screen.sidebar.toggle[0].label == "Show probabilities"


def test_a_demo_picture_is_answered(served: str) -> None:
    screen = opened("Demo images")
    next(button for button in screen.button if button.label == "Plate with leftovers").click().run()
    shown = text_of(screen)
    assert "Dirty" in shown
    assert "High" in shown
    assert shown.count("vs-track") >= 2
    assert "What looks dirty is mostly" in shown
    screen.sidebar.toggle[0].set_value(False).run()
    assert 'class="vs-bar"' not in text_of(screen)


def test_the_minimum_confidence_is_honoured(served: str) -> None:
    screen = opened("Demo images")
    screen.sidebar.slider[0].set_value(100).run()
    next(button for button in screen.button if button.label == "Plate").click().run()
    shown = text_of(screen)
    assert "Not sure enough" in shown
    assert "vs-card" not in shown.split("</style>")[-1]


def test_without_an_api_it_says_so_and_offers_another_try(unreachable: None) -> None:
    screen = opened("Demo images")
    next(button for button in screen.button if button.label == "Plate").click().run()
    assert "No connection" in text_of(screen)
    assert "Try again" in [button.label for button in screen.button]


def test_the_models_in_this_process_need_no_api(unreachable: None, starter: list[str]) -> None:
    screen = opened("Demo images")
    screen.sidebar.radio[0].set_value("In this process").run()
    next(button for button in screen.button if button.label == "Bowl").click().run()
    assert not screen.exception
    assert "Clean" in text_of(screen)


def test_about_shows_measures(served: str) -> None:
    screen = opened("About")
    assert {metric.label for metric in screen.metric} == {
        "Balanced accuracy",
        "Right when certain",
        "Uncertain",
        "Calibration error",
    }
    assert len(screen.get("plotly_chart")) == 2
    assert "What to expect" in text_of(screen)


@pytest.mark.parametrize("tab", ["Camera", "Batch"])
def test_other_tabs_begin_with_what_to_do(served: str, tab: str) -> None:
    shown = text_of(opened(tab))
    assert "The camera starts when you say so" in shown or "Drop several pictures" in shown


def test_the_camera_is_asked_for_only_after_a_click(unreachable: None) -> None:
    screen = opened("Camera")
    assert not screen.get("camera_input")
    next(button for button in screen.button if button.label == "Start the camera").click().run()
    assert screen.get("camera_input")


def test_the_uploads_cap_is_the_apis() -> None:
    from app.vision.service import MAX_MEGABYTES

    assert common.UPLOAD_MB == MAX_MEGABYTES


@pytest.mark.parametrize(("sure", "band"), [(0.8, "High"), (0.799, "Medium"), (0.6, "Medium"), (0.59, "Low")])
def test_bands_of_confidence(sure: float, band: str) -> None:
    assert common.band(sure) == band


def test_both_ways_of_asking_say_the_same(served: str, storage: FolderStorage, clean: bytes, dirty: bytes) -> None:
    over_http, here = asking.over_http(served), asking.in_process()
    for data in (clean, dirty):
        one, two = over_http.classify("x.jpg", data, QUESTION), here.classify("x.jpg", data, QUESTION)
        assert {**one, "processing_time_ms": 0} == {**two, "processing_time_ms": 0}
    files = [("a.jpg", clean), ("b.jpg", b"broken")]
    one_rows, two_rows = over_http.batch(files, QUESTION), here.batch(files, QUESTION)
    for row in (*one_rows, *two_rows):
        row["processing_time_ms"] = 0
    assert one_rows == two_rows
    assert over_http.model_info() == here.model_info()


@pytest.mark.parametrize(("data", "question", "status"), [(b"", QUESTION, 400), (None, Question("fast", 1.0), 422)])
def test_both_ways_refuse_alike(served: str, clean: bytes, data: bytes | None, question: Question, status: int) -> None:
    for way in (asking.over_http(served), asking.in_process()):
        with pytest.raises(ApiError) as caught:
            way.classify("x.jpg", clean if data is None else data, question)
        assert caught.value.status == status


def test_the_csv_has_three_columns_and_no_formula() -> None:
    rows = [
        {"filename": "a.jpg", "predicted_class": "clean", "confidence": 0.91234},
        {"filename": '=cmd|"x"!A1', "predicted_class": "dirty", "confidence": 0.7},
        {"filename": "b, c.jpg", "predicted_class": None, "confidence": None},
    ]
    assert list(csv.reader(io.StringIO(batch.as_csv(rows)))) == [
        ["filename", "prediction", "confidence"],
        ["a.jpg", "clean", "0.9123"],
        ['\'=cmd|"x"!A1', "dirty", "0.7000"],
        ["b, c.jpg", "error", ""],
    ]
