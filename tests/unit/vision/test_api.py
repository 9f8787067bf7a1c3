"""The API, status by status."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fastapi.testclient import TestClient
from PIL import Image

from app.core import artefacts, metrics
from app.core.storage import FolderStorage
from app.vision import store
from app.vision.model import MODEL_TYPES
from app.vision.store import artefact, read_starter

from .conftest import Picture
from .test_store import another, fast

SINGLE = "/api/v1/classify/single"
JSON = "/api/v1/classify/json"
BATCH = "/api/v1/batch/classify"


def single(api: TestClient, data: bytes, name: str = "dish.jpg", **form: Any) -> httpx.Response:
    return api.post(SINGLE, files={"image": (name, data)}, data={key: str(value) for key, value in form.items()})


def refused(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    return str(answer.json()["detail"])


def png(size: tuple[int, int] = (60, 40), mode: str = "RGB", colour: Any = "white") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, colour).save(stream, "PNG")
    return stream.getvalue()


# ---------------------------------------------------------------- one picture


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_picture_is_classified(api: TestClient, clean: bytes, dirty: bytes, model_type: str) -> None:
    for data, expected in ((clean, "clean"), (dirty, "dirty")):
        answer = single(api, data, model_type=model_type)
        assert answer.status_code == 200
        told = answer.json()
        assert set(told) == {"success", "result", "error", "model_type", "model_version", "timestamp"}
        assert (told["success"], told["error"], told["model_type"]) == (True, None, model_type)
        result = told["result"]
        assert result["predicted_class"] == expected
        assert result["confidence"] == result["probabilities"][expected] > 0.5
        assert sum(result["probabilities"].values()) == pytest.approx(1)
        assert result["processing_time_ms"] > 0
        assert result["warning"] is None
        assert result["explanation"] is None


def test_balanced_is_the_default(api: TestClient, clean: bytes) -> None:
    assert single(api, clean).json()["model_type"] == "balanced"


def test_confidence_is_left_out_on_request(api: TestClient, clean: bytes) -> None:
    result = single(api, clean, return_confidence=False).json()["result"]
    assert (result["predicted_class"], result["confidence"], result["probabilities"]) == ("clean", None, None)


def test_an_answer_that_is_less_sure_than_asked_is_422(api: TestClient, clean: bytes) -> None:
    answer = single(api, clean, min_confidence=1.0)
    assert "less than min_confidence 1" in refused(answer, 422)
    told = answer.json()
    assert told["predicted_class"] == "clean"
    assert 0.5 <= told["confidence"] < 1
    assert single(api, clean, min_confidence=told["confidence"] - 0.001).status_code == 200


@pytest.mark.parametrize("threshold", [-0.01, 1.01, 5])
def test_a_threshold_outside_is_400(api: TestClient, clean: bytes, threshold: float) -> None:
    assert "number from 0 to 1" in refused(single(api, clean, min_confidence=threshold), 400)


@pytest.mark.parametrize("threshold", ["nan", "inf", "high"])
def test_a_threshold_that_is_no_number_is_422(api: TestClient, clean: bytes, threshold: str) -> None:
    assert "min_confidence" in refused(single(api, clean, min_confidence=threshold), 422)


def test_an_unknown_model_type_is_400(api: TestClient, clean: bytes) -> None:
    assert "fast, balanced, accurate" in refused(single(api, clean, model_type="best"), 400)


def test_a_missing_picture_is_422_and_named(api: TestClient) -> None:
    answer = api.post(SINGLE, data={"model_type": "fast"})
    refused(answer, 422)
    assert answer.json()["errors"][0]["field"] == "image"


def test_an_empty_file_is_400(api: TestClient) -> None:
    assert refused(single(api, b""), 400) == "The file is empty."


@pytest.mark.parametrize("data", [b"hello", b"\xff\xd8\xff\xe0 not a jpeg", b"GIF89a" + bytes(50), b"%PDF-1.7"])
def test_what_is_no_picture_is_400(api: TestClient, data: bytes) -> None:
    refused(single(api, data), 400)


def test_a_corrupt_file_is_400(api: TestClient, clean: bytes) -> None:
    assert "damaged" in refused(single(api, clean[: len(clean) // 2]), 400)


def test_a_pixel_bomb_is_400(api: TestClient) -> None:
    assert "40 million pixels" in refused(single(api, png((8000, 5001), "1", 1)), 400)


def test_a_picture_over_ten_megabytes_is_413(api: TestClient, clean: bytes) -> None:
    assert "10 MB" in refused(single(api, clean + bytes(10 * 1024 * 1024)), 413)
    assert "10 MB" in refused(single(api, clean + bytes(11 * 1024 * 1024)), 413)


def test_the_bytes_say_what_it_is(api: TestClient, picture: Picture) -> None:
    data = picture(form="PNG")
    assert single(api, data, "dish.jpg").status_code == 200
    assert single(api, data, "no extension").status_code == 200
    body = (
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="dish"\r\n\r\n' + data + b"\r\n--x--\r\n"
    )  # a part without a Content-Type
    answer = api.post(SINGLE, content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.status_code == 200
    assert single(api, picture(form="WEBP"), "dish.txt").status_code == 200


def test_transparency_lies_on_white(api: TestClient, picture: Picture) -> None:
    opaque = Image.open(io.BytesIO(picture(form="PNG")))
    clear = opaque.convert("RGBA")
    clear.putalpha(Image.new("L", clear.size, 0))
    white = Image.new("RGB", clear.size, "white")
    found = []
    for image in (clear, white):
        stream = io.BytesIO()
        image.save(stream, "PNG")
        found.append(single(api, stream.getvalue()).json()["result"]["probabilities"])
    assert found[0] == found[1]


def test_a_picture_is_turned_as_the_camera_says(api: TestClient, picture: Picture) -> None:
    upright = Image.open(io.BytesIO(picture(5_000_000_024, "heavy", "PNG"))).crop((0, 40, 256, 200))
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    found = []
    for image, options in ((upright, {}), (lying, {"exif": exif})):
        stream = io.BytesIO()
        image.save(stream, "PNG", **options)
        found.append(single(api, stream.getvalue()).json()["result"]["probabilities"])
    assert found[0] == found[1]


def test_a_picture_without_a_dish_gets_a_warning(api: TestClient, scenery: bytes) -> None:
    result = single(api, scenery).json()["result"]
    assert result["warning"] == "not_a_dish"
    assert result["looks_like"]


def test_the_heat_map_shows_where(api: TestClient, dirty: bytes) -> None:
    told = single(api, dirty, explain=True).json()["result"]["explanation"]
    assert re.fullmatch(r"What looks dirty is mostly (in|on) the .*\.", told["sentence"])
    assert len(told["cells"]) == len(told["cells"][0]) == 8
    assert max(max(row) for row in told["cells"]) > 0
    assert told["picture"] == [0, 0, 1, 1]
    kind, _, data = told["overlay"].partition(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (256, 256)


# ---------------------------------------------------------------- as JSON


@pytest.mark.parametrize("prefix", ["", "data:image/jpeg;base64,"])
def test_base64_gets_the_same_answer(api: TestClient, clean: bytes, prefix: str) -> None:
    body = {"image": prefix + base64.b64encode(clean).decode(), "model_type": "fast"}
    answer = api.post(JSON, json=body)
    assert answer.status_code == 200
    expected = single(api, clean, model_type="fast").json()["result"]["probabilities"]
    assert answer.json()["result"]["probabilities"] == expected


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"image": "!!"}, 400),
        ({"image": base64.b64encode(b"no picture").decode()}, 400),
        ({"image": ""}, 422),
        ({"image": None}, 422),
        ({"model_type": "best"}, 400),
        ({"min_confidence": 2}, 400),
        ({"min_confidence": 1.0}, 422),
    ],
)
def test_what_is_wrong_in_json(api: TestClient, clean: bytes, change: dict[str, Any], status: int) -> None:
    refused(api.post(JSON, json={"image": base64.b64encode(clean).decode(), **change}), status)


def test_json_over_ten_megabytes_is_413(api: TestClient) -> None:
    refused(api.post(JSON, json={"image": "A" * (10 * 1024 * 1024 * 4 // 3 + 16)}), 413)
    refused(api.post(JSON, json={"image": "A" * 15 * 1024 * 1024}), 413)


# ---------------------------------------------------------------- validate


def test_a_file_is_described(api: TestClient) -> None:
    answer = api.post("/api/v1/classify/validate", files={"image": ("x", png((30, 20), "RGBA", (0, 0, 0, 0)))})
    assert answer.json()["valid"]
    assert answer.json()["info"]["format"] == "PNG"
    assert (answer.json()["info"]["mode"], answer.json()["info"]["size"]) == ("RGBA", [30, 20])
    assert answer.json()["info"]["file_size_mb"] < 0.01


def test_a_file_that_cannot_be_read_is_invalid_with_the_reason(api: TestClient) -> None:
    answer = api.post("/api/v1/classify/validate", files={"image": ("x", b"nothing")})
    assert answer.status_code == 200
    assert not answer.json()["valid"]
    assert "send JPEG, PNG or WebP" in answer.json()["reason"]


# ---------------------------------------------------------------- batches


def batch(api: TestClient, files: list[tuple[str, bytes]], path: str = BATCH, **form: Any) -> httpx.Response:
    parts = [("images", (name, data)) for name, data in files]
    return api.post(path, files=parts, data={key: str(value) for key, value in form.items()})


def test_one_bad_picture_never_fails_the_batch(api: TestClient, clean: bytes, dirty: bytes) -> None:
    answer = batch(api, [("a.jpg", clean), ("b.jpg", b"broken"), ("c.jpg", dirty)])
    assert answer.status_code == 200
    told = answer.json()
    assert (told["total_images"], told["successful_classifications"], told["failed_classifications"]) == (3, 2, 1)
    assert told["success"]
    assert told["total_processing_time_ms"] > 0
    rows = told["results"]
    assert [row["image_id"] for row in rows] == ["image_1", "image_2", "image_3"]
    assert [row["filename"] for row in rows] == ["a.jpg", "b.jpg", "c.jpg"]
    assert [row["predicted_class"] for row in rows] == ["clean", None, "dirty"]
    assert [row["error"] is None for row in rows] == [True, False, True]
    assert rows[0]["probabilities"] == single(api, clean).json()["result"]["probabilities"]


def test_a_batch_of_bad_pictures_is_answered_too(api: TestClient) -> None:
    told = batch(api, [("a", b"x"), ("b", b"")]).json()
    assert (told["success"], told["failed_classifications"]) == (False, 2)


def test_a_picture_of_a_batch_below_the_threshold_has_an_error(api: TestClient, clean: bytes) -> None:
    row = batch(api, [("a.jpg", clean)], min_confidence=1.0).json()["results"][0]
    assert "less than min_confidence" in row["error"]


@pytest.mark.parametrize(("count", "form"), [(11, {}), (3, {"max_batch_size": 2}), (51, {"max_batch_size": 50})])
def test_more_pictures_than_the_limit_are_400(api: TestClient, count: int, form: dict[str, Any]) -> None:
    assert f"{count} images are more" in refused(batch(api, [("x", b"x")] * count, **form), 400)


@pytest.mark.parametrize("most", [0, -1, 51])
def test_the_servers_ceiling_is_fifty(api: TestClient, most: int) -> None:
    assert "1 to 50" in refused(batch(api, [("x", b"x")], max_batch_size=most), 400)
    assert batch(api, [("x", b"x")] * 50, max_batch_size=50).status_code == 200


def test_a_batch_without_pictures_is_422(api: TestClient) -> None:
    refused(api.post(BATCH, data={"model_type": "fast"}), 422)


def test_files_of_a_batch_are_described(api: TestClient) -> None:
    told = batch(api, [("a", png()), ("b", b"x")], "/api/v1/batch/validate").json()
    assert (told["total_images"], told["valid_images"], told["invalid_images"]) == (2, 1, 1)
    assert [row["valid"] for row in told["results"]] == [True, False]


def test_the_limits_are_told(api: TestClient) -> None:
    told = api.get("/api/v1/batch/limits").json()
    assert (told["max_batch_size"], told["default_batch_size"], told["timeout_seconds"]) == (50, 10, 300)


# ---------------------------------------------------------------- what it tells of itself


@pytest.mark.parametrize("path", ["/", "/api/v1/info"])
def test_the_api_tells_about_itself(api: TestClient, path: str) -> None:
    told = api.get(path).json()
    assert told["name"] == "Vision Object Classifier"
    assert told["max_file_size"] == "10MB"
    assert told["classes"] == ["clean", "dirty"]
    assert told["model_types"] == ["fast", "balanced", "accurate"]
    assert told["formats"] == ["JPEG", "PNG", "WebP"]
    assert told["features"]
    known = api.get("/openapi.json").json()["paths"]
    assert {endpoint for endpoint in told["endpoints"].values() if endpoint != "/docs"} <= set(known)


def test_the_models_are_described(api: TestClient) -> None:
    told = api.get("/api/v1/classify/model-info").json()
    assert told["available_models"] == list(MODEL_TYPES)
    assert told["default_model"] == "balanced"
    assert told["max_file_size_mb"] == 10
    for details in told["model_details"].values():
        assert {"speed", "accuracy", "memory_usage", "file_size_mb"} <= set(details)
        assert details["metrics"]["balanced_accuracy"] >= 0.90


def test_health(api: TestClient) -> None:
    status = api.get("/health/status").json()
    assert {"status", "version", "timestamp", "uptime_seconds", "model_status"} <= set(status)
    assert status["model_status"] == dict.fromkeys(MODEL_TYPES, "available")
    assert api.get("/health/live").status_code == api.get("/health/ready").status_code == 200
    assert set(api.get("/health/ready").json()["checks"]) == set(MODEL_TYPES)
    figures = api.get("/health/detailed").json()
    assert figures["process"]["memory_mb"] > 10
    assert figures["host"]["cpus"] >= 1
    models = api.get("/health/models")
    assert models.status_code == 200
    assert all(len(row["sha256"]) == 64 for row in models.json()["models"].values())


def test_headers(api: TestClient, clean: bytes) -> None:
    answer = single(api, clean)
    assert re.fullmatch(r"\d+\.\d\d", answer.headers["x-processing-time"])
    assert answer.headers["x-request-id"]
    assert answer.headers["x-ratelimit-limit"] == "1000"
    assert answer.headers["x-ratelimit-remaining"] == "999"
    assert 1 <= int(answer.headers["x-ratelimit-reset"]) <= 60
    assert "x-ratelimit-limit" not in api.get("/health/ready").headers
    assert single(api, b"").headers["x-processing-time"]


def test_a_hundred_requests_a_minute_and_no_more(state: Path, starter: list[str], monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    import importlib
    import sys

    from app.core.settings import clear_settings

    monkeypatch.delenv("VISION_RATE_LIMIT")
    clear_settings()
    monkeypatch.setattr("app.core.ratelimit.time.time", lambda: 1_800_000_000.0)
    sys.modules.pop("app.vision.api", None)
    module = importlib.import_module("app.vision.api")
    asking = TestClient(module.app)
    answers = [asking.get("/api/v1/batch/limits") for _ in range(101)]
    assert [answer.status_code for answer in answers[:100]] == [200] * 100
    assert answers[100].status_code == 429
    assert answers[100].headers["retry-after"] == "60"
    assert asking.get("/health/live").status_code == 200


# ---------------------------------------------------------------- models come and go


def test_without_models_it_is_503(state: Path, monkeypatch: pytest.MonkeyPatch, clean: bytes) -> None:
    import importlib
    import sys

    from app.core.settings import clear_settings

    monkeypatch.setenv("PERGOLA_SLOT", "a")  # as on a host: nothing is unpacked by itself
    clear_settings()
    sys.modules.pop("app.vision.api", None)
    module = importlib.import_module("app.vision.api")
    with TestClient(module.app) as api:
        answer = single(api, clean)
        assert "no balanced model" in refused(answer, 503)
        assert answer.headers["retry-after"] == "10"
        assert refused(batch(api, [("a", clean)]), 503)
        assert api.get("/health/ready").status_code == 503
        assert api.get("/health/models").status_code == 503
        status = api.get("/health/status").json()
        assert status["model_status"] == dict.fromkeys(MODEL_TYPES, "missing")
        assert api.get("/health/live").status_code == 200
        assert api.get("/api/v1/classify/model-info").json()["available_models"] == []


def test_a_fresh_install_on_a_laptop_unpacks_its_models(state: Path, storage: FolderStorage) -> None:
    import importlib
    import sys

    sys.modules.pop("app.vision.api", None)
    module = importlib.import_module("app.vision.api")
    with TestClient(module.app) as api:
        assert api.get("/health/ready").status_code == 200
    assert len(artefacts.versions(storage, artefact("accurate"))) == 1


def test_a_model_is_swapped_while_serving(api: TestClient, storage: FolderStorage, clean: bytes) -> None:
    from app.vision import api as module

    before = single(api, clean, model_type="fast").json()
    version = store.save(storage, another(fast()), read_starter("fast")[1], keep_days=30)
    assert module.store.refresh() == 1
    after = single(api, clean, model_type="fast").json()
    assert after["model_version"] == version.id != before["model_version"]
    assert after["result"]["probabilities"]["dirty"] > before["result"]["probabilities"]["dirty"]


# ---------------------------------------------------------------- numbers


def counted(name: str, **labels: str) -> float:
    return metrics.total(name, lambda found: all(found.get(key) == value for key, value in labels.items()))


def test_what_happened_is_counted(api: TestClient, clean: bytes, dirty: bytes) -> None:
    before = [
        counted("vision_classifications", model_type="fast", predicted_class="clean"),
        counted("vision_classifications", model_type="fast", predicted_class="dirty"),
        counted("vision_refusals", reason="not_an_image"),
    ]
    batch(api, [("a", clean), ("b", dirty), ("c", b"?")], model_type="fast")
    single(api, clean, model_type="fast")
    after = [
        counted("vision_classifications", model_type="fast", predicted_class="clean"),
        counted("vision_classifications", model_type="fast", predicted_class="dirty"),
        counted("vision_refusals", reason="not_an_image"),
    ]
    assert [one - two for one, two in zip(after, before, strict=True)] == [2, 1, 1]
    assert 'ClassificationLatency_bucket{le="60.0"}' in api.get("/metrics").text


def test_the_manifest_has_an_alarm_and_a_backup() -> None:
    manifest = yaml.safe_load((Path(__file__).resolve().parents[3] / "app/vision/app.yml").read_text())
    assert manifest["alarms"][0]["metric"] == "ClassificationLatency"
    assert manifest["backup"][0]["what"] == "storage"
    assert manifest["assets"] == ["encoder-lite0", "encoder-lite1", "encoder-lite2"]
