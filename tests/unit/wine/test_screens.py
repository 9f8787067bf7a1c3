"""The screens, run by Streamlit itself against the real API."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
import uvicorn
from fastapi.testclient import TestClient
from streamlit.testing.v1 import AppTest

from app.core import artefacts, client, job, panels
from app.core.settings import clear_settings
from app.wine.screens import common, figures, predict

from .conftest import PASSWORD

SECONDS = 60
ROOT = Path(__file__).resolve().parents[3]


def analytics_page() -> None:
    from app.wine.screens import analytics

    analytics.page()


def model_page() -> None:
    from app.wine.screens import model

    model.page()


def predict_page() -> None:
    from app.wine.screens import predict

    predict.page()


def batch_page() -> None:
    from app.wine.screens import batch

    batch.page()


@pytest.fixture(autouse=True)
def _forget_answers() -> None:
    common.get.clear()


@pytest.fixture
def served(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The API on a port of its own, and the screens' client pointed at it."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(api.app, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        _point_at(url, monkeypatch)
        while not server.started:
            time.sleep(0.01)
        yield url
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        _point_at(f"http://127.0.0.1:{taken.getsockname()[1]}", monkeypatch)


def _point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERGOLA_API_URL", url)
    clear_settings()
    client.api_client.cache_clear()


def text_of(screen: AppTest) -> str:
    parts = [element.value for kind in ("title", "subheader", "markdown", "caption", "info", "warning", "error", "success")
             for element in getattr(screen, kind)]  # fmt: skip
    html = [element.proto.body for element in screen.get("html")]
    return "\n".join(str(part) for part in [*parts, *html])


def run(page: Callable[[], None]) -> AppTest:
    screen = AppTest.from_function(page, default_timeout=SECONDS).run()
    assert not screen.exception, screen.exception
    return screen


@pytest.mark.usefixtures("served")
def test_the_first_page_is_the_prediction() -> None:
    screen = AppTest.from_file(str(ROOT / "app/wine/ui.py"), default_timeout=SECONDS).run()
    assert not screen.exception
    assert screen.title[0].value == "Where does this wine come from?"
    assert screen.text_area[0].label == "Tasting note"
    assert "The answer will be here" in text_of(screen)


@pytest.mark.usefixtures("served")
def test_a_note_is_answered_with_bars_marks_and_history() -> None:
    screen = run(predict_page)
    screen.text_area[0].set_value("White pepper, green lentil & lime over <b>stony</b> fruit.")
    screen.button[0].click().run()
    shown = text_of(screen)
    assert 'data-testid="answer">Austria' in shown
    assert shown.count("vv-track") == 3
    assert "<mark" in shown
    assert "<b>" not in shown
    assert "This session" in shown
    screen.text_area[0].set_value("asdf qwer zxcv")
    screen.button[0].click().run()
    assert "I would rather not guess" in text_of(screen)
    assert len(screen.session_state["history"]) == 2


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("name", list(predict.EXAMPLES))
def test_every_example_is_answered_at_once(name: str) -> None:
    screen = run(predict_page)
    screen.button_group[0].set_value(name).run()
    assert 'data-testid="answer"' in text_of(screen)
    assert screen.text_area[0].value == predict.EXAMPLES[name][0]


@pytest.mark.usefixtures("served")
def test_an_empty_note_gets_a_hint() -> None:
    screen = run(predict_page)
    screen.button[0].click().run()
    assert "Write a few words about the wine first." in text_of(screen)


@pytest.mark.usefixtures("served")
def test_the_batch_page_asks_for_a_file() -> None:
    screen = run(batch_page)
    assert "Choose a file" in text_of(screen)


@pytest.mark.usefixtures("served")
def test_a_file_is_answered_with_progress_and_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    from app.wine.screens import batch

    shares: list[float] = []
    progress = st.progress

    def watched(value: float, text: str) -> Any:
        bar = progress(value, text)
        moved = bar.progress
        monkeypatch.setattr(bar, "progress", lambda share, text: (shares.append(share), moved(share, text)))
        return bar

    monkeypatch.setattr(batch.st, "progress", watched)
    screen = run(batch_page)
    screen.file_uploader[0].upload("notes.csv", batch.SAMPLE.encode(), "text/csv").run()
    screen.button[0].click().run()
    assert not screen.exception
    shown = text_of(screen)
    assert "of 5 notes answered" in shown
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    told = screen.session_state["batch"]["csv"].decode()
    assert told.splitlines()[0] == "description,variety,predicted_country,confidence,top,reason,model_version"
    assert len(told.splitlines()) == 6


@pytest.mark.usefixtures("served")
def test_a_file_that_cannot_be_read_is_explained() -> None:
    screen = run(batch_page)
    screen.file_uploader[0].upload("notes.csv", b"note\nplum\n", "text/csv").run()
    screen.button[0].click().run()
    assert "one of them must be description" in text_of(screen)


@pytest.mark.usefixtures("served")
def test_analytics_show_seven_charts_with_their_sentences() -> None:
    screen = run(analytics_page)
    assert len(screen.get("plotly_chart")) == 7
    shown = text_of(screen)
    assert "is rated highest" in shown
    assert "160 of 160 notes" in shown
    screen.multiselect[0].set_value(["Germany"]).run()
    assert not screen.exception
    assert "40 of 160 notes" in text_of(screen)


@pytest.mark.usefixtures("served")
def test_filters_that_nothing_passes_say_so() -> None:
    screen = run(analytics_page)
    screen.multiselect[0].set_value(["Germany"])
    screen.multiselect[1].set_value(["Malbec"]).run()
    assert "No note passes these filters" in text_of(screen)
    assert not screen.get("plotly_chart")


def test_the_model_page_shows_measures_and_versions(served: str, saved: artefacts.Version) -> None:
    screen = run(model_page)
    assert [metric.label for metric in screen.metric] == ["Accuracy", "Macro-F1", "Log-loss", "Calibration error"]
    shown = text_of(screen)
    assert saved.id in shown
    assert "in service" in shown
    assert "The most frequent mistake" in shown
    assert len(screen.get("plotly_chart")) == 2


@pytest.mark.usefixtures("served")
def test_training_is_behind_the_password() -> None:
    screen = run(model_page)
    assert [button.label for button in screen.button] == ["Log in"]
    screen.text_input[0].set_value("wrong")
    screen.button[0].click().run()
    assert "The password is not right." in text_of(screen)
    screen.text_input[0].set_value(PASSWORD)
    screen.button[0].click().run()
    assert "Train now" in [button.label for button in screen.button]
    assert "No training has run yet." in text_of(screen)


@pytest.mark.usefixtures("served")
def test_a_training_is_shown_while_it_runs(state: Path) -> None:
    screen = run(model_page)
    screen.text_input[0].set_value(PASSWORD)
    screen.button[0].click().run()
    with job.exclusive(state):
        job.write_progress(state, job.Progress("running", 0.4, "fold 2 of 5 done", 1.0))
        screen.run()
        assert "Fold 2 of 5 done" in str(screen.get("progress")[0].proto)
        job.write_progress(
            state, job.Progress("failed", 0.4, "The training failed.", 1.0, 2.0, error="no column description")
        )
    screen.run()
    assert "no column description" in text_of(screen)


@pytest.mark.usefixtures("unreachable")
@pytest.mark.parametrize("page", [analytics_page, model_page])
def test_without_the_api_a_page_says_so_and_offers_to_try_again(page: Callable[[], None]) -> None:
    screen = run(page)
    assert "cannot be reached" in text_of(screen)
    assert [button.label for button in screen.button] == ["Try again"]


@pytest.mark.usefixtures("unreachable")
def test_without_the_api_the_first_page_still_stands() -> None:
    screen = run(predict_page)
    screen.text_area[0].set_value("Plum and oak")
    screen.button[0].click().run()
    assert "cannot be reached" in text_of(screen)
    assert screen.text_area[0].value == "Plum and oak"


def test_trying_again_asks_again(served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = run(predict_page)
    _point_at("http://127.0.0.1:9", monkeypatch)
    screen.text_area[0].set_value("White pepper, green lentil and lime over stony fruit.")
    screen.button[0].click().run()
    assert "cannot be reached" in text_of(screen)
    _point_at(served, monkeypatch)
    next(button for button in screen.button if button.label == "Try again").click().run()
    assert 'data-testid="answer">Austria' in text_of(screen)


@pytest.mark.parametrize("palette", [figures.LIGHT, figures.DARK], ids=["light", "dark"])
def test_colours_can_be_told_from_the_page(palette: figures.Palette) -> None:
    """A contrast of at least 3 with the page, as WCAG asks of graphics."""
    page = "#fbfaf7" if palette is figures.LIGHT else "#161a16"
    for colour in (palette.wine, palette.green, palette.gold, palette.text):
        assert _contrast(colour, page) >= 3, colour
    assert len(set(palette.series)) == len(figures.LIGHT.series)


def _contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize(
    ("share", "shown"), [(0.0, "<1%"), (0.004, "<1%"), (0.5, "50%"), (0.999, ">99%"), (0.97, "97%")]
)
def test_probabilities_are_never_a_false_certainty(share: float, shown: str) -> None:
    assert panels.percent(share) == shown


def test_tables_escape_what_they_show(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(common.st, "html", shown.append)
    common.table(("<a>",), [("<script>",)])
    assert "<script>" not in shown[0]
    assert "&lt;script&gt;" in shown[0]


def test_versions_are_drawn_in_their_order() -> None:
    rows = [
        {"version": v, "trained_at": f"2026-01-0{v}", "accuracy": 0.8, "macro_f1": 0.7, "ece": 0.02} for v in ("2", "1")
    ]
    assert list(figures.history(rows).data[0].x) == ["2026-01-01", "2026-01-02"]
