"""The vision API keeps its own description: schemathesis asks, nothing breaks, every answer is of the shape that was promised."""

import importlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.core.settings import clear_settings

V1 = "/api/v1"
WITH_INPUT = [
    (f"{V1}/classify/single", "post"),
    (f"{V1}/classify/json", "post"),
    (f"{V1}/classify/validate", "post"),
    (f"{V1}/batch/classify", "post"),
    (f"{V1}/batch/validate", "post"),
]
WITHOUT = [
    ("/", "get"),
    (f"{V1}/info", "get"),
    (f"{V1}/classify/model-info", "get"),
    (f"{V1}/batch/limits", "get"),
    ("/health", "get"),
    ("/health/live", "get"),
    ("/health/ready", "get"),
    ("/health/status", "get"),
    ("/health/detailed", "get"),
    ("/health/models", "get"),
]
EXAMPLES = 40
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The API with its starter models in service, in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("PERGOLA_", "VISION_")):
                patch.delenv(name)
        patch.setenv("PERGOLA_APP", "vision")
        patch.setenv("PERGOLA_STATE_DIR", str(tmp_path_factory.mktemp("vision")))
        patch.setenv("PERGOLA_BASE_PATH", "/")
        patch.setenv("VISION_RATE_LIMIT", "1000000")
        clear_settings()
        sys.modules.pop("app.vision.api", None)
        module = importlib.import_module("app.vision.api")
        with TestClient(module.app, base_url="https://vision.example") as asking:
            yield asking
    clear_settings()


@pytest.fixture(scope="module")
def description(api: TestClient) -> schemathesis.BaseSchema:
    """What the API says about itself."""
    return schemathesis.openapi.from_asgi("/openapi.json", api.app)


def ask(
    description: schemathesis.BaseSchema, path: str, method: str, mode: GenerationMode, checks: list[Any], examples: int
) -> None:
    """Ask one route many times, and judge every answer."""

    @given(case=description[path][method].as_strategy(generation_mode=mode))
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def every(case: schemathesis.Case) -> None:
        case.validate_response(case.call(), checks=checks)

    every()


@pytest.mark.parametrize(("path", "method"), [*WITH_INPUT, *WITHOUT])
def test_what_fits_the_description_is_answered_as_described(
    description: schemathesis.BaseSchema, path: str, method: str
) -> None:
    ask(description, path, method, GenerationMode.POSITIVE, CHECKS, EXAMPLES if method == "post" else 5)


@pytest.mark.parametrize(("path", "method"), WITH_INPUT)
def test_what_does_not_fit_is_refused_as_described(
    description: schemathesis.BaseSchema, path: str, method: str
) -> None:
    # a number in a form is text on the wire: only of a JSON body can be said that it must be refused
    checks = [*CHECKS, negative_data_rejection] if path.endswith("json") else CHECKS
    ask(description, path, method, GenerationMode.NEGATIVE, checks, EXAMPLES)


def test_every_route_is_asked(description: schemathesis.BaseSchema) -> None:
    told = {(path, method) for path, operations in description.raw_schema["paths"].items() for method in operations}
    assert told == {*WITH_INPUT, *WITHOUT}


def picture() -> bytes:
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((40, 30)).convert("RGB").save(stream, "PNG")
    return stream.getvalue()


@given(
    cut=st.integers(0, 400),
    changes=st.lists(st.tuples(st.integers(0, 1 << 12), st.integers(0, 255)), max_size=4),
    model_type=st.sampled_from(["fast", "balanced", "accurate", "other"]),
    least=st.floats(-0.5, 1.5) | st.sampled_from([0.0, 0.5, 1.0]),
    flags=st.tuples(st.booleans(), st.booleans()),
)
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_damaged_pictures_with_any_settings_are_answered_as_described(
    api: TestClient,
    description: schemathesis.BaseSchema,
    cut: int,
    changes: list[tuple[int, int]],
    model_type: str,
    least: float,
    flags: tuple[bool, bool],
) -> None:
    data = bytearray(picture())
    for where, value in changes:
        data[where % len(data)] = value
    form = {"model_type": model_type, "min_confidence": least, "return_confidence": flags[0], "explain": flags[1]}
    files = {"image": ("dish", bytes(data[: max(0, len(data) - cut)]))}
    answer = api.post(f"{V1}/classify/single", files=files, data=form)
    assert answer.status_code in {200, 400, 422}, answer.text
    description[f"{V1}/classify/single"]["post"].validate_response(answer)
