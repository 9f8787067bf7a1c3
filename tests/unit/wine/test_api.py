"""The API: answers, batches, the model, analytics, training; and what it says when something is wrong."""

import csv
import importlib
import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.core import artefacts, job
from app.core.manifest import load
from app.core.storage import FolderStorage
from app.wine.model import to_bytes
from app.wine.store import ARTEFACT
from app.wine.training import Trained

NOTE = "White pepper, green lentil and lime. Lean and stony, with a zesty finish."
ROOT = Path(__file__).resolve().parents[3]


def ask(api: TestClient, **body: Any) -> dict[str, Any]:
    answer = api.post("/predict", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_note_gets_country_probabilities_and_terms(api: TestClient, saved: artefacts.Version) -> None:
    told = ask(api, description=NOTE, variety="Grüner Veltliner")
    assert told["predicted_country"] == "Austria"
    assert told["reason"] is None
    assert len(told["top"]) == 3
    assert told["top"][0] == {"country": "Austria", "probability": told["confidence"]}
    assert told["terms"][0]["term"] == "variety: Grüner Veltliner"
    assert {"term", "weight"} == set(told["terms"][1])
    assert told["model_version"] == saved.id
    assert 0 < told["latency_ms"] < 5000
    assert len(ask(api, description=NOTE, top_k=1)["top"]) == 1
    assert len(ask(api, description=NOTE, top_k=50)["top"]) == 4


@pytest.mark.parametrize("description", [" ", "\n", "asdf qwer zxcv", "葡萄酒 非常 好喝", "12 34", "the of and"])
def test_gibberish_gets_a_reason_and_no_country(api: TestClient, description: str) -> None:
    told = ask(api, description=description)
    assert told["predicted_country"] is None
    assert told["reason"]
    assert (told["confidence"], told["top"], told["terms"]) == (0, [], [])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "description"),
        ({"description": ""}, "description"),
        ({"description": "x" * 5001}, "description"),
        ({"description": 7}, "description"),
        ({"description": None}, "description"),
        ({"description": ["plum"]}, "description"),
        ({"description": NOTE, "variety": 3}, "variety"),
        ({"description": NOTE, "variety": "x" * 101}, "variety"),
        ({"description": NOTE, "top_k": 0}, "top_k"),
        ({"description": NOTE, "top_k": "3"}, "top_k"),
    ],
)
def test_what_is_wrong_is_named(api: TestClient, body: dict[str, Any], field: str) -> None:
    answer = api.post("/predict", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert field in answer.json()["detail"]


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[]", b'"text"', b'{"description": "\\ud800"}', b"\xff"])
def test_a_body_that_is_no_note_is_422(api: TestClient, content: bytes) -> None:
    answer = api.post("/predict", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in {400, 422}
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_longest_note_is_answered(api: TestClient) -> None:
    assert ask(api, description=("ripe plum and oak " * 300)[:5000])["predicted_country"]


def test_the_latency_is_measured(api: TestClient) -> None:
    def count() -> float:
        text = api.get("/metrics").text
        return float(next(line.split()[1] for line in text.splitlines() if line.startswith("PredictionLatency_count")))

    before = count()
    ask(api, description=NOTE)
    api.post("/predict/batch", json={"items": [{"description": NOTE}] * 3})
    assert count() == before + 4
    assert 'PredictionLatency_bucket{le="15.0"}' in api.get("/metrics").text


def test_the_manifest_has_an_alarm_on_it() -> None:
    (alarm,) = load(ROOT / "app" / "wine").data["alarms"]
    assert (alarm["metric"], alarm["above"]) == ("PredictionLatency", 2000)


def test_the_manifest_has_a_daily_backup() -> None:
    (storage,) = [job for job in load(ROOT / "app" / "wine").data["backup"] if job["what"] == "storage"]
    minute, hour, *days = storage["schedule"].split()
    assert minute.isdigit()
    assert hour.isdigit()
    assert days == ["*", "*", "*"]
    assert storage["keep_days"] == 30


def test_a_batch_of_items_comes_back_in_order(api: TestClient) -> None:
    items = [{"description": f"{NOTE} {number}", "top_k": 1} for number in range(5)] + [{"description": "qwertz uiop"}]
    answer = api.post("/predict/batch", json={"items": items})
    told = answer.json()
    assert answer.headers["x-total-count"] == "6"
    assert [row["predicted_country"] for row in told["results"]] == ["Austria"] * 5 + [None]
    single = ask(api, **items[0])
    assert {**told["results"][0], "latency_ms": 0} == {**single, "latency_ms": 0}


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/x-ndjson", "application/x-ndjson"),
        ("text/csv", "text/csv; charset=utf-8"),
        ("*/*", "application/json"),
    ],
)
def test_accept_chooses_the_form(api: TestClient, accept: str, kind: str) -> None:
    answer = api.post("/predict/batch", json={"items": [{"description": NOTE}] * 2}, headers={"Accept": accept})
    assert answer.headers["content-type"] == kind
    if "ndjson" in kind:
        assert [json.loads(line)["predicted_country"] for line in answer.text.splitlines()] == ["Austria"] * 2
    elif "csv" in kind:
        rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
        assert [row["description"] for row in rows] == [NOTE] * 2


def test_a_thousand_items_are_enough(api: TestClient) -> None:
    items = [{"description": "plum and oak", "top_k": 1}] * 1001
    answer = api.post("/predict/batch", json={"items": items})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "items"
    assert len(api.post("/predict/batch", json={"items": items[:1000]}).json()["results"]) == 1000


def test_a_wrong_item_is_named_with_its_place(api: TestClient) -> None:
    answer = api.post("/predict/batch", json={"items": [{"description": NOTE}, {"description": ""}, {"variety": "x"}]})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["items.1.description", "items.2.description"]


CSV = f'id,description,variety\n1,"{NOTE}",\n2,,\n3,asdf qwer,\n'.encode()


@pytest.mark.parametrize("form", ["body", "upload"])
def test_a_csv_is_answered_with_a_csv(api: TestClient, form: str) -> None:
    if form == "body":
        answer = api.post("/predict/batch", content=CSV, headers={"Content-Type": "text/csv"})
    else:
        answer = api.post("/predict/batch", files={"file": ("notes.csv", CSV, "text/csv")})
    assert answer.status_code == 200, answer.text
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert [(row["id"], row["predicted_country"]) for row in rows] == [("1", "Austria"), ("2", ""), ("3", "")]
    assert rows[1]["reason"] == "The description is empty."


def test_what_is_wrong_with_an_upload_is_named(api: TestClient) -> None:
    for call, status, field in (
        ({"files": {"file": ("n.csv", b"note\nplum\n")}}, 422, "file"),
        ({"files": {"other": ("n.csv", CSV)}}, 422, "file"),
        ({"data": {"file": "text"}, "files": {"other": ("n.csv", CSV)}}, 422, "file"),
        ({"content": b"note\n", "headers": {"Content-Type": "text/csv"}}, 422, "body"),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 422, "body"),
        ({"content": b"<x/>", "headers": {"Content-Type": "text/xml"}}, 415, None),
        ({"content": b"x" * (10 * 1024 * 1024 + 1), "headers": {"Content-Type": "text/csv"}}, 413, None),
        ({"files": {"file": ("n.csv", b"x" * (11 * 1024 * 1024))}}, 413, None),
        ({"content": b"--x\r\n", "headers": {"Content-Type": "multipart/form-data"}}, 400, None),
    ):
        answer = api.post("/predict/batch", **call)  # type: ignore[arg-type]  # keyword arguments of every kind
        assert answer.status_code == status, (call, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        if field:
            assert answer.json()["errors"][0]["field"] == field


def test_the_model_tells_about_itself(api: TestClient, saved: artefacts.Version) -> None:
    told = api.get("/model").json()
    assert told["version"] == saved.id
    assert told["sha256"] == saved.sha256
    assert told["classes"] == ["Argentina", "Austria", "Germany", "New Zealand"]
    assert told["metrics"]["with_variety"]["accuracy"] > 0.7
    assert told["trained_at"].startswith("20")


def test_a_newer_model_goes_into_service_without_a_restart(
    api: TestClient, saved: artefacts.Version, storage: FolderStorage, trained: Trained
) -> None:
    module = sys.modules["app.wine.api"]
    newer = artefacts.save(storage, ARTEFACT, to_bytes(trained.model), trained.report)
    module.store.refresh()
    assert ask(api, description=NOTE)["model_version"] == newer.id
    bad = artefacts.save(storage, ARTEFACT, b"torn", trained.report)
    module.store.refresh()
    assert ask(api, description=NOTE)["model_version"] == newer.id
    rows = api.get("/model/versions").json()
    assert [(row["version"], row["serving"], bool(row["refused"])) for row in rows] == [
        (bad.id, False, True),
        (newer.id, True, False),
        (saved.id, False, False),
    ]


def test_the_workers_look_by_themselves(
    saved: artefacts.Version, storage: FolderStorage, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WINE_POLL_SECONDS", "0.05")
    from app.core.settings import clear_settings

    clear_settings()
    sys.modules.pop("app.wine.api", None)
    module = importlib.import_module("app.wine.api")
    with TestClient(module.app) as api:
        assert api.get("/model").json()["version"] == saved.id
        newer = artefacts.save(storage, ARTEFACT, to_bytes(trained.model), trained.report)
        until = time.monotonic() + 20
        while api.get("/model").json()["version"] != newer.id and time.monotonic() < until:
            time.sleep(0.05)
        assert api.get("/model").json()["version"] == newer.id


def test_ready_means_a_right_test_prediction(api: TestClient, saved: artefacts.Version) -> None:
    answer = api.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json()["checks"] == {"model": saved.id, "classes": 4, "test_predictions": 8}
    assert api.get("/health").json()["status"] == "ok"
    module = sys.modules["app.wine.api"]
    module.store.current.model.bias[0] += 5
    try:
        answer = api.get("/health/ready")
        assert answer.status_code == 503
        assert "test prediction is wrong" in answer.text
    finally:
        module.store.current.model.bias[0] -= 5


def test_without_a_model_it_lives_but_is_not_ready(state: Path) -> None:
    sys.modules.pop("app.wine.api", None)
    module = importlib.import_module("app.wine.api")
    with TestClient(module.app) as api:
        assert api.get("/health").status_code == 200
        assert api.get("/health/ready").status_code == 503
        answer = api.post("/predict", json={"description": NOTE})
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "10"
        assert "being trained" in answer.json()["detail"]
        assert api.get("/model/versions").json() == []


def test_analytics_answer_filters(api: TestClient) -> None:
    told = api.get("/analytics").json()
    assert told["reviews"] == told["of"] == 160
    assert set(told["charts"]) == {
        "ratings", "price_points", "mean_price", "varieties", "variety_prices", "correlations", "tone",
    }  # fmt: skip
    some = api.get("/analytics", params={"country": ["Austria", "Germany"], "min_points": 90}).json()
    assert 0 < some["reviews"] < 80
    assert {row["name"] for row in some["charts"]["ratings"]["rows"]} == {"Austria", "Germany"}
    none = api.get("/analytics", params={"country": "Nowhere"}).json()
    assert (none["reviews"], none["charts"]) == (0, {})
    assert api.get("/analytics", params={"min_points": "many"}).json()["errors"][0]["field"] == "min_points"


def test_training_is_for_admins(api: TestClient) -> None:
    assert api.post("/admin/retrain").status_code == 401
    assert api.get("/admin/retrain").status_code == 401


def test_an_admin_trains_and_sees_the_progress(
    api: TestClient, admin: dict[str, str], state: Path, storage: FolderStorage, saved: artefacts.Version
) -> None:
    from app.wine.corpus.generate import NOTES

    lines = NOTES.read_text(encoding="utf-8").splitlines(keepends=True)
    storage.put("data/reviews.csv", "".join(lines[:200]).encode())
    assert api.get("/admin/retrain", headers=admin).json()["state"] == "idle"
    answer = api.post("/admin/retrain", headers=admin)
    assert answer.status_code == 202, answer.text
    assert answer.json()["state"] in {"running", "done"}
    again = api.post("/admin/retrain", headers=admin)
    assert again.status_code in {202, 409}
    seen = set()
    until = time.monotonic() + 120
    while (told := api.get("/admin/retrain", headers=admin).json())["state"] == "running" and time.monotonic() < until:
        seen.add(told["share"])
        time.sleep(0.1)
    assert told["state"] == "done", (state / "training.log").read_text(encoding="utf-8")
    assert told["share"] == 1
    assert len(seen) > 2
    sys.modules["app.wine.api"].store.refresh()
    assert api.get("/model").json()["version"] == told["version"] != saved.id


def test_two_trainings_at_once_are_refused(api: TestClient, admin: dict[str, str], state: Path) -> None:
    with job.exclusive(state):
        answer = api.post("/admin/retrain", headers=admin)
    assert answer.status_code == 409
    assert "running already" in answer.json()["detail"]


def test_serving_needs_none_of_the_libraries_of_training() -> None:
    """Two workers and 512 MB: scikit-learn, SciPy, pandas and NLTK stay out."""
    code = (
        "import sys, app.wine.api\n"
        "heavy = {'sklearn', 'scipy', 'pandas', 'nltk', 'streamlit'} & set(sys.modules); assert not heavy, heavy\n"
        "import app.wine.screens.analytics, app.wine.screens.batch, app.wine.screens.model, app.wine.screens.predict\n"
        "heavy = {'sklearn', 'scipy', 'pandas', 'nltk'} & set(sys.modules); assert not heavy, heavy\n"
        "assert 'app.wine.model' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=120)


def test_the_screens_do_not_load_the_model() -> None:
    code = (
        "import sys, app.wine.screens.analytics, app.wine.screens.batch, app.wine.screens.model, app.wine.screens.predict\n"
        "assert not {'app.wine.model', 'app.wine.features', 'app.wine.store'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=120)
