"""The API: drawings, analyses, explanations, files, configuration, models, usage."""

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageDraw

from app.core import artefacts, database, job
from app.core.storage import FolderStorage
from app.drawings import generate
from app.drawings.store import ARTEFACT
from app.drawings.subjects import NAMES
from app.drawings.tables import Embedding, Export

from .conftest import V1, counted, encoded, picture, upload


def analyse(api: TestClient, identity: str, **options: Any) -> dict[str, Any]:
    answer = api.post(f"{V1}/analysis/analyze/{identity}", json=options or None)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_a_drawing_is_uploaded_and_found_again(admin: TestClient) -> None:
    answer = admin.post(
        f"{V1}/drawings/upload",
        files={"file": ("../my cat.png", picture(), "text/plain")},
        data={
            "age_years": "5.5",
            "subject": "CAT",
            "expert_label": "normal",
            "drawing_tool": "crayon",
            "prompt": "Draw a cat",
        },
    )
    assert answer.status_code == 201
    told = answer.json()
    assert told["filename"] == "my cat.png"
    assert (told["age_years"], told["subject"], told["subject_index"]) == (5.5, "cat", 32)
    assert (told["expert_label"], told["drawing_tool"], told["prompt"]) == ("normal", "crayon", "Draw a cat")
    assert (told["format"], told["width"], told["height"], told["source"]) == ("PNG", 224, 224, "upload")
    assert admin.get(f"{V1}/drawings/{told['id']}").json() == told
    file = admin.get(f"{V1}/drawings/{told['id']}/file")
    assert (file.content, file.headers["content-type"]) == (picture(), "image/png")
    assert admin.delete(f"{V1}/drawings/{told['id']}").status_code == 204
    assert admin.get(f"{V1}/drawings/{told['id']}").status_code == 404
    assert admin.delete(f"{V1}/drawings/{told['id']}").status_code == 404


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "WEBP"])
def test_every_format_is_taken(api: TestClient, form: str) -> None:
    assert upload(api, picture(form=form))


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "1"])
def test_every_mode_is_taken(api: TestClient, mode: str) -> None:
    assert upload(api, encoded(generate.drawing(1, 6.0, "house").convert(mode)))


@pytest.mark.parametrize(
    ("data", "status", "word"),
    [
        (b"", 400, "empty"),
        (b"not a picture", 400, "not an image"),
        (picture()[:2000], 400, "damaged"),
        (encoded(Image.new("RGB", (31, 400))), 400, "at least 32 x 32"),
        (encoded(Image.new("RGB", (40, 40)), "GIF"), 400, "not an image"),
        (b"\x89PNG" + b"0" * (10 * 1024 * 1024), 413, "larger than 10 MB"),
    ],
    ids=["empty", "text", "torn", "small", "gif", "large"],
)
def test_what_is_no_drawing_is_refused(api: TestClient, data: bytes, status: int, word: str) -> None:
    answer = api.post(f"{V1}/drawings/upload", files={"file": ("a.png", data)}, data={"age_years": "5"})
    assert answer.status_code == status
    assert word in answer.json()["detail"]


@pytest.mark.parametrize(
    ("age", "status"), [("1.9", 422), ("2", 201), ("18", 201), ("18.1", 422), ("five", 422), ("nan", 422)]
)
def test_ages_are_from_2_to_18(api: TestClient, age: str, status: int) -> None:
    answer = api.post(f"{V1}/drawings/upload", files={"file": ("a.png", picture())}, data={"age_years": age})
    assert answer.status_code == status
    if status == 422:
        assert answer.json()["errors"][0]["field"] == "age_years"


def test_transparency_is_white(api: TestClient) -> None:
    clear = Image.new("RGBA", (200, 200), (0, 0, 0, 0))
    ImageDraw.Draw(clear).ellipse((60, 60, 140, 140), outline=(200, 0, 0, 255), width=6)
    solid = Image.new("RGB", (200, 200), "white")
    ImageDraw.Draw(solid).ellipse((60, 60, 140, 140), outline=(200, 0, 0), width=6)
    one, other = (analyse(api, upload(api, encoded(image))) for image in (clear, solid))
    assert one["analysis"]["anomaly_score"] == pytest.approx(other["analysis"]["anomaly_score"])


def test_transparent_drawings_have_distinct_embeddings(api: TestClient) -> None:
    """32 drawings on a transparent ground: flattened on black, or by dropping alpha, they would be alike."""
    for number in range(32):
        strokes = np.asarray(generate.drawing(number, 4.0 + number / 8, generate.DRAWN[number % 40]).convert("L"))
        clear = np.zeros((*strokes.shape, 4), np.uint8)
        clear[..., 3] = np.where(strokes < 200, 255, 0)
        analyse(api, upload(api, encoded(Image.fromarray(clear, "RGBA"))))
    with database.session(read_only=True) as db:
        rows = [(row.visual, row.subject) for row in db.query(Embedding)]
    assert len({visual for visual, _ in rows}) == 32
    vectors = np.array([np.frombuffer(visual, np.float32) for visual, _ in rows])
    assert vectors.shape == (32, 1280)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = unit @ unit.T
    np.fill_diagonal(alike, 0)
    assert alike.max() < 0.999
    assert all(np.frombuffer(subject, np.float32).sum() == 1 for _, subject in rows)


def test_an_analysis_says_everything(admin: TestClient) -> None:
    identity = upload(admin)
    told = analyse(admin, identity)
    analysis = told["analysis"]
    assert set(told) == {"drawing", "analysis", "interpretability", "comparison_examples", "disclaimer"}
    assert told["drawing"]["id"] == identity
    assert "not a diagnosis" in told["disclaimer"]
    assert analysis["is_anomaly"] == (analysis["anomaly_score"] > analysis["threshold"])
    assert 0 <= analysis["normalized_score"] <= 100
    assert analysis["age_group"] == "5-6"
    assert analysis["anomaly_attribution"] in {"visual", "subject", "both", "age"}
    assert analysis["method_used"] in {"PCA(16)", "autoencoder(16)"}
    assert analysis["vision_model"].startswith("EfficientNet-Lite0")
    assert 0.1 <= analysis["confidence"] <= 0.95
    why = told["interpretability"]
    assert why["explanation_text"]
    for region in why["importance_regions"]:
        left, top, width, height = region["bounding_box"]
        assert left >= 0
        assert top >= 0
        assert left + width <= 224
        assert top + height <= 224
        assert 0 < region["importance_score"] <= 1
        assert region["spatial_location"]
    examples = told["comparison_examples"]
    assert len(examples) == 3
    assert [one["similarity_score"] for one in examples] == sorted(
        (one["similarity_score"] for one in examples), reverse=True
    )
    for one in examples:
        assert 5 <= one["age_years"] < 6
        picture_ = admin.get(one["image_url"])
        assert picture_.headers["content-type"] == "image/png"
    assert admin.get(f"{V1}/analysis/{analysis['id']}").json() == told
    assert admin.get(f"{V1}/analysis/drawing/{identity}").json() == [told]
    assert admin.get(f"{V1}/analysis/{'0' * 32}").status_code == 404
    assert admin.get(f"{V1}/analysis/drawing/{'0' * 32}").status_code == 404


def test_an_analysis_is_given_again_unless_forced(api: TestClient) -> None:
    identity = upload(api)
    before = counted("AnalysisCount")
    first = analyse(api, identity)
    again = analyse(api, identity)
    assert again == first
    forced = analyse(api, identity, force_reanalysis=True)
    assert forced["analysis"]["id"] != first["analysis"]["id"]
    assert forced["analysis"]["anomaly_score"] == first["analysis"]["anomaly_score"]
    assert counted("AnalysisCount") - before == 2
    assert api.post(f"{V1}/analysis/analyze/{'0' * 32}").status_code == 404


@pytest.mark.parametrize(
    ("kind", "attributions"),
    [
        ("blank", {"visual"}),
        ("noise", {"both", "visual"}),
        ("photograph", {"both", "visual"}),
        ("age-shifted", {"age"}),
    ],
)
def test_what_does_not_belong_is_noticed(api: TestClient, kind: str, attributions: set[str]) -> None:
    data = encoded(generate.planted(kind, 5, 8.5, "person"))
    told = analyse(api, upload(api, data, age=8.5, subject="person"))["analysis"]
    assert told["is_anomaly"], told
    assert told["anomaly_attribution"] in attributions
    if kind == "blank":
        assert told["method_used"] == "ink coverage"


def test_pictures_and_words_of_an_analysis(api: TestClient) -> None:
    told = analyse(
        api, upload(api, encoded(generate.drawing(3, 7.0, "house").resize((900, 500))), age=7.0, subject="house")
    )
    base = f"{V1}/interpretability/{told['analysis']['id']}"
    for name, mode in (("overlay", "RGB"), ("image", "RGB"), ("saliency", "RGBA")):
        shown = Image.open(io.BytesIO(api.get(f"{base}/{name}.png").content))
        assert (shown.size, shown.mode) == ((640, 356), mode)
    interactive = api.get(f"{base}/interactive").json()
    cells = np.array(interactive["cells"])
    assert cells.shape == (7, 7)
    assert cells.sum() == pytest.approx(told["analysis"]["visual_anomaly_score"], rel=1e-3)
    simplified = api.get(f"{base}/simplified").json()
    assert simplified["headline"]
    assert simplified["key_points"]
    assert "not a diagnosis" in simplified["disclaimer"]
    confidence = api.get(f"{base}/confidence").json()
    assert confidence["confidence"] == told["analysis"]["confidence"]
    assert confidence["band"] in {"very low", "low", "moderate", "high"}
    attribution = api.get(f"{base}/attribution").json()
    assert [part["part"] for part in attribution["parts"]] == ["visual", "subject", "age"]
    assert attribution["attribution"] == told["analysis"]["anomaly_attribution"]
    assert api.get(f"{V1}/interpretability/{'0' * 32}/interactive").status_code == 404


def heat_of(api: TestClient, image: Image.Image) -> np.ndarray[Any, Any]:
    told = analyse(api, upload(api, encoded(image), age=6.5, subject="house"))
    cells = np.array(api.get(f"{V1}/interpretability/{told['analysis']['id']}/interactive").json()["cells"])
    positive = np.clip(cells, 0, None)
    return positive / positive.sum()


def test_the_heat_moves_with_the_image(api: TestClient) -> None:
    """What does not belong draws the heat to where it is, wherever it is; and when all moves, all of the heat moves."""
    patch = generate.planted("photograph", 17, 6.5).crop((60, 60, 140, 140))
    places = {(0, 0): (10, 10), (0, 1): (134, 10), (1, 0): (10, 134), (1, 1): (134, 134)}
    heats = {}
    for place, at in places.items():
        image = generate.drawing(12, 6.5, "house")
        image.paste(patch, at)
        heats[place] = heat_of(api, image)

    def share(heat: np.ndarray[Any, Any], row: int, column: int) -> float:
        return float(heat[row * 4 : row * 4 + 3, column * 4 : column * 4 + 3].sum())

    for row, column in places:
        here = share(heats[row, column], row, column)
        assert all(here > 2 * share(heats[other], row, column) for other in places if other != (row, column))

    small = generate.drawing(12, 6.5, "house").resize((112, 112))
    centres = []
    for left, top in ((0, 0), (112, 112)):
        paper = Image.new("RGB", (224, 224), small.getpixel((0, 0)))
        paper.paste(small, (left, top))
        heat = heat_of(api, paper)
        centres.append((float(heat.sum(axis=1) @ np.arange(7)), float(heat.sum(axis=0) @ np.arange(7))))
    assert centres[1][0] > centres[0][0] + 1.5
    assert centres[1][1] > centres[0][1] + 1.5


def test_exports_of_every_format_and_their_end(api: TestClient, storage: FolderStorage) -> None:
    told = analyse(api, upload(api))
    base = f"{V1}/interpretability/{told['analysis']['id']}"
    beginnings = {"png": b"\x89PNG", "pdf": b"%PDF", "csv": b"drawing_id,", "json": b"{", "html": b"<!doctype html>"}
    for form, beginning in beginnings.items():
        made = api.post(f"{base}/export", json={"format": form})
        assert made.status_code == 201
        file = api.get(made.json()["url"])
        assert file.content.startswith(beginning)
        assert len(file.content) == made.json()["size_bytes"]
        assert f".{form}" in file.headers["content-disposition"]
    assert (
        json.loads(api.get(api.post(f"{base}/export", json={"format": "json"}).json()["url"]).content)["analysis"]
        == told["analysis"]
    )
    assert api.post(f"{base}/export", json={"format": "docx"}).status_code == 422
    last = made.json()
    gone = time.time() - 1
    with database.session() as db:
        row = db.get(Export, last["export_id"])
        assert row is not None
        assert row.expires_at - row.created_at == pytest.approx(24 * 3600)
        row.expires_at = gone
    assert api.get(last["url"]).status_code == 410
    from app.drawings import exports

    assert exports.sweep(storage) == 1
    assert api.get(last["url"]).status_code == 404
    assert len(list(storage.list("exports/"))) == 5


def test_a_formula_in_a_name_stays_a_text(api: TestClient) -> None:
    answer = api.post(f"{V1}/drawings/upload", files={"file": ("=cmd()", picture())}, data={"age_years": "5"})
    told = analyse(api, answer.json()["id"])
    made = api.post(f"{V1}/interpretability/{told['analysis']['id']}/export", json={"format": "csv"}).json()
    assert ",'=cmd()," in api.get(made["url"]).text


def test_remarks(admin: TestClient) -> None:
    told = analyse(admin, upload(admin))
    base = f"{V1}/interpretability/{told['analysis']['id']}"
    region = told["interpretability"]["importance_regions"][0]["region_id"]
    made = admin.post(f"{base}/annotate", json={"text": "the ears", "region_id": region})
    assert made.status_code == 201
    assert admin.get(f"{base}/annotations").json() == [made.json()]
    assert admin.post(f"{base}/annotate", json={"text": "x", "region_id": "region_99"}).status_code == 400
    assert admin.post(f"{base}/annotate", json={"text": ""}).status_code == 422


def test_lists_filter_and_turn_pages(admin: TestClient) -> None:
    for number in range(7):
        upload(admin, picture(number), age=3 + number, subject="cat" if number % 2 else "house")
    first = admin.get(f"{V1}/drawings/", params={"page_size": 3}).json()
    assert (first["total"], first["pages"], len(first["items"])) == (7, 3, 3)
    last = admin.get(f"{V1}/drawings/", params={"page_size": 3, "page": 3}).json()
    assert len(last["items"]) == 1
    assert admin.get(f"{V1}/drawings/", params={"subject": "Cat"}).json()["total"] == 3
    assert admin.get(f"{V1}/drawings/", params={"age_min": 5, "age_max": 6}).json()["total"] == 2
    assert admin.get(f"{V1}/drawings/", params={"q": "%"}).json()["total"] == 0
    assert admin.get(f"{V1}/drawings/", params={"q": "CAT.p"}).json()["total"] == 7
    unusual = analyse(admin, first["items"][0]["id"])["analysis"]["is_anomaly"]
    found = admin.get(f"{V1}/drawings/history", params={"is_anomaly": unusual}).json()
    assert [row["drawing"]["id"] for row in found["items"]] == [first["items"][0]["id"]]
    assert found["items"][0]["analysis"]["is_anomaly"] is unusual
    stats = admin.get(f"{V1}/drawings/stats").json()
    assert (stats["total"], stats["analyzed"]) == (7, 1)
    assert {row["name"]: row["count"] for row in stats["by_subject"]} == {"house": 4, "cat": 3}


def test_a_batch_upload_takes_what_is_good(admin: TestClient) -> None:
    files = [("files", (f"{number}.png", picture(number))) for number in range(3)] + [("files", ("bad.png", b"bad"))]
    told = admin.post(f"{V1}/drawings/batch/upload", files=files, data={"age_years": "6"}).json()
    assert (told["uploaded"], told["failed"]) == (3, 1)
    assert "not an image" in told["results"][3]["error"]
    many = [("files", (f"{number}.png", b"x")) for number in range(51)]
    assert admin.post(f"{V1}/drawings/batch/upload", files=many, data={"age_years": "6"}).status_code == 400


def test_a_batch_is_analysed_with_progress(admin: TestClient) -> None:
    wanted = [upload(admin, picture(number), age=6) for number in range(5)]
    begun = admin.post(f"{V1}/analysis/batch", json={"drawing_ids": [*wanted, wanted[0]]})
    assert begun.status_code == 202
    assert begun.json()["total"] == 5
    until = time.monotonic() + 60
    while (told := admin.get(f"{V1}/analysis/batch/{begun.json()['batch_id']}/progress").json())["state"] == "running":
        assert time.monotonic() < until
        time.sleep(0.05)
    assert (told["done"], told["failed"], told["progress"]) == (5, 0, 1.0)
    assert [item["drawing_id"] for item in told["items"]] == wanted
    assert all(item["normalized_score"] is not None for item in told["items"])
    assert admin.post(f"{V1}/analysis/batch", json={"drawing_ids": ["0" * 32]}).status_code == 404
    assert admin.post(f"{V1}/analysis/batch", json={"drawing_ids": []}).status_code == 422
    assert admin.get(f"{V1}/analysis/batch/{'0' * 32}/progress").status_code == 404


def test_the_threshold_changes_verdicts_but_no_score(admin: TestClient) -> None:
    told = [analyse(admin, upload(admin, picture(number, 6.5, "dog"), age=6.5, subject="dog")) for number in range(6)]
    scores = {one["analysis"]["id"]: one["analysis"]["anomaly_score"] for one in told}
    before = admin.get(f"{V1}/config/threshold").json()
    preview = admin.get(f"{V1}/config/threshold", params={"percentile": 50}).json()
    assert preview["analyses"] == before["analyses"] == 6
    assert preview["anomalies"] >= before["anomalies"]
    assert admin.get(f"{V1}/config/threshold").json() == before
    assert admin.put(f"{V1}/config/threshold", json={"percentile": 50}).json() == preview
    after = [admin.get(f"{V1}/analysis/{identity}").json()["analysis"] for identity in scores]
    assert {one["id"]: one["anomaly_score"] for one in after} == scores
    assert sum(one["is_anomaly"] for one in after) == preview["anomalies"]
    assert all(one["is_anomaly"] == (one["anomaly_score"] > one["threshold"]) for one in after)
    assert admin.get(f"{V1}/config/").json() == {"threshold_percentile": 50.0, "group_percentiles": {}}
    admin.put(f"{V1}/config/threshold", json={"percentile": 99.9, "age_group": "6-7"})
    assert admin.put(f"{V1}/config/", json={"threshold_percentile": 90}).json() == {
        "threshold_percentile": 90.0,
        "group_percentiles": {"6-7": 99.9},
    }
    for wrong in ({"percentile": 49.9}, {"percentile": 99.95}, {}):
        assert admin.put(f"{V1}/config/threshold", json=wrong).status_code == 422
    assert admin.put(f"{V1}/config/threshold", json={"percentile": 90, "age_group": "1-2"}).status_code == 404


def test_age_groups_can_be_switched_off(admin: TestClient) -> None:
    identity = upload(admin, age=5.5)
    groups = admin.get(f"{V1}/models/age-groups").json()["groups"]
    assert [group["name"] for group in groups] == ["2-3", "3-4", "4-5", "5-6", "6-7", "7-8", "8-9", "9-12"]
    assert all(group["active"] and group["samples"] >= 50 for group in groups)
    assert admin.put(f"{V1}/models/age-groups/5-6", json={"active": False}).status_code == 200
    assert analyse(admin, identity, force_reanalysis=True)["analysis"]["age_group"] in {"4-5", "6-7"}
    for group in groups:
        admin.put(f"{V1}/models/age-groups/{group['name']}", json={"active": False})
    refused = admin.post(f"{V1}/analysis/analyze/{identity}", json={"force_reanalysis": True})
    assert refused.status_code == 400
    assert "No age group is active" in refused.json()["detail"]
    assert admin.put(f"{V1}/models/age-groups/1-2", json={"active": False}).status_code == 404


def test_the_oldest_are_judged_by_the_nearest_group(api: TestClient) -> None:
    assert analyse(api, upload(api, age=17))["analysis"]["age_group"] == "9-12"


def test_a_model_is_swapped_without_a_restart_and_a_bad_one_is_refused(
    admin: TestClient, storage: FolderStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = admin.app.state.context
    (first,) = admin.get(f"{V1}/models/versions").json()
    assert first["serving"]
    good = storage.get(f"{ARTEFACT}/{first['version']}")
    meta = artefacts.versions(storage, ARTEFACT)[0].meta
    identity = upload(admin)
    analyse(admin, identity)

    torn = artefacts.save(storage, ARTEFACT, good + b"x", meta)
    storage.put(torn.key, good[:1000])
    foreign = artefacts.save(storage, ARTEFACT, b"PK not a model", meta)
    other = artefacts.save(storage, ARTEFACT, good, {**meta, "kind": "wine-model"})
    assert not parts.store.refresh()
    assert parts.store.current.version == first["version"]
    refused = {row["version"]: row["refused"] for row in admin.get(f"{V1}/models/versions").json()}
    assert "torn" in refused[torn.id]
    assert "not a drawings model" in refused[foreign.id]
    assert other.id not in refused

    newer = artefacts.save(storage, ARTEFACT, good, meta)
    assert parts.store.refresh()
    assert analyse(admin, identity)["analysis"]["model_version"] == newer.id
    assert admin.get("/health/ready").json()["checks"]["model"] == newer.id


def test_data_sufficiency(admin: TestClient) -> None:
    for number in range(2):
        identity = upload(admin, picture(number, 4.5), age=4.5, expert_label="normal")
        analyse(admin, identity)
    rows = {row["age_group"]: row for row in admin.get(f"{V1}/models/data-sufficiency").json()["groups"]}
    assert rows["4-5"]["own_drawings"] == 2
    assert not rows["4-5"]["sufficient"]
    assert "48 more" in rows["4-5"]["advice"]
    assert admin.get(f"{V1}/models/data-sufficiency/4-5").json() == rows["4-5"]
    assert admin.get(f"{V1}/models/data-sufficiency/1-2").status_code == 404


def test_only_one_training_at_a_time(admin: TestClient, state: Path) -> None:
    assert admin.get(f"{V1}/models/train").json()["state"] == "idle"
    with job.exclusive(state):
        assert admin.post(f"{V1}/models/train", json={"generated_only": True}).status_code == 409


def test_the_demo(api: TestClient) -> None:
    told = api.get(f"{V1}/demo/samples").json()
    assert [one["id"] for one in told["samples"]] == ["usual", "younger", "photograph"]
    assert [one["is_anomaly"] for one in told["samples"]] == [False, True, True]
    for one in told["samples"]:
        assert one["importance_regions"]
        for key in ("image_url", "overlay_image_url"):
            assert Image.open(io.BytesIO(api.get(one[key]).content)).size == (224, 224)
    assert api.get(f"{V1}/demo/samples/usual/other.png").status_code == 422
    assert api.get(f"{V1}/demo/samples/nothing/image.png").status_code == 404
    assert "not a diagnosis" in api.get(f"{V1}/demo/disclaimer").json()["disclaimer"]
    assert api.get(f"{V1}/demo/project-info").json()["trained_on"] == "generated drawings"
    assert api.get(f"{V1}/demo/technical-links").json()
    assert api.get(f"{V1}/demo/statistics").json()["subjects"] == 52
    assert api.get(f"{V1}/demo/reference/12345678.png").status_code == 404


def test_subjects(api: TestClient) -> None:
    told = api.get(f"{V1}/config/subjects").json()
    assert [one["name"] for one in told] == list(NAMES)
    assert len(told) == 52
    assert (told[0]["name"], told[17]["name"], told[18]["name"], told[28]["name"], told[51]["name"]) == (
        "unspecified",
        "house",
        "ice cream",
        "bear",
        "other",
    )


def test_usage_is_counted_by_day_page_and_country(admin: TestClient) -> None:
    for session, country in (
        ("session-one", "DE"),
        ("session-one", "DE"),
        ("session-two", "fr"),
        ("session-six", "<b>"),
    ):
        answer = admin.post(
            f"{V1}/metrics/page-view",
            json={"page": "demo", "session": session},
            headers={"CloudFront-Viewer-Country": country},
        )
        assert answer.status_code == 204
    analyse(admin, upload(admin))
    told = admin.get(f"{V1}/metrics/usage", params={"days": 7}).json()
    assert (told["page_views"], told["sessions"], told["analyses"]) == (4, 3, 1)
    assert told["pages"] == [{"name": "demo", "count": 4}]
    assert {row["name"]: row["count"] for row in told["countries"]} == {"DE": 2, "FR": 1, "ZZ": 1}
    assert len(told["days"]) == 7
    assert (
        admin.post(f"{V1}/metrics/page-view", json={"page": "elsewhere", "session": "session-one"}).status_code == 422
    )


def test_sessions_cannot_be_found_again(admin: TestClient, state: Path) -> None:
    admin.post(f"{V1}/metrics/page-view", json={"page": "demo", "session": "a-secret-session"})
    from app.drawings.tables import Setting, Visit

    with database.session(read_only=True) as db:
        (visit,) = db.query(Visit)
        keys = [row.name for row in db.query(Setting) if row.name.startswith("visit_key")]
    assert "a-secret-session" not in visit.session_hash
    assert len(visit.session_hash) == 64
    assert keys == [f"visit_key:{visit.day}"]


def test_stats_of_analyses(admin: TestClient) -> None:
    empty = admin.get(f"{V1}/analysis/stats").json()
    assert (empty["total"], empty["anomaly_rate"], empty["mean_seconds"]) == (0, 0.0, None)
    for kind in ("noise", "photograph"):
        analyse(admin, upload(admin, encoded(generate.planted(kind, 1, 5.5)), age=5.5, subject="cat"))
    told = admin.get(f"{V1}/analysis/stats").json()
    assert (told["total"], told["anomalies"], told["anomaly_rate"]) == (2, 2, 1.0)
    assert told["by_age_group"][0]["age_group"] == "5-6"
    assert len(told["by_day"]) == 30
    assert told["by_day"][-1]["analyses"] == 2


def test_migration_info(admin: TestClient) -> None:
    told = admin.get(f"{V1}/database/migration-info").json()
    assert told["up_to_date"]
    assert told["dialect"] == "sqlite"
    assert {line["name"]: line["current"] for line in told["lines"]} == {"core": "0001", "drawings": "0001"}


def test_correlation_ids_are_in_errors_and_logs(api: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        answer = api.get(f"{V1}/interpretability/{'0' * 32}/interactive", headers={"X-Request-ID": "correlation-1"})
    assert answer.json()["request_id"] == answer.headers["x-request-id"] == "correlation-1"
    assert any(record.__dict__.get("path", "").endswith("/interactive") for record in caplog.records)


def test_a_fresh_process_finds_what_another_stored(make_api: Callable[[], TestClient]) -> None:
    first = make_api()
    told = analyse(first, upload(first))
    second = make_api()
    assert second.get(f"{V1}/interpretability/{told['analysis']['id']}/confidence").status_code == 200


def test_a_failure_on_our_side_is_counted_and_tells_nothing(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    before = counted("ErrorCount")

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(type(api.app.state.context.drawings), "analyse", broken)
    identity = upload(api)
    answer = TestClient(api.app, base_url="https://demo.example", raise_server_exceptions=False).post(
        f"{V1}/analysis/analyze/{identity}"
    )
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["request_id"]
    assert counted("ErrorCount") - before == 1
