"""The drawings API keeps its own description: schemathesis asks as an admin, nothing breaks, every answer is as promised."""

import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.core import job
from tests.unit.drawings.conftest import PASSWORD, upload
from tests.unit.processes import forget

EXAMPLES = 5
V1 = "/api/v1"
# what starts a process, ends the session that asks, or replaces the rows that the others need
NOT_ASKED = {
    ("post", f"{V1}/models/train"),
    ("post", f"{V1}/backup/restore"),
    ("post", "/auth/logout"),
    ("post", "/auth/login"),
    ("post", "/auth/api/login"),
}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The API with the starter model, an admin logged in, and a drawing with an analysis."""
    folder = tmp_path_factory.mktemp("drawings")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("PERGOLA_", "DRAWINGS_", "AWS_")) and name != "PERGOLA_SHARED_DATA":
                patch.delenv(name)
        patch.setenv("APP_ENVIRONMENT", "local")
        patch.setenv("PERGOLA_APP", "drawings")
        patch.setenv("PERGOLA_STATE_DIR", str(folder))
        patch.setenv("PERGOLA_BASE_PATH", "/")
        patch.setenv("PERGOLA_SECRET_ADMIN_PASSWORD", PASSWORD)
        for name in ("DEFAULT", "UPLOAD", "ANALYSIS", "AUTH"):
            patch.setenv(f"DRAWINGS_RATE_{name}", "1000000")
        forget()
        sys.modules.pop("app.drawings.api", None)
        module = importlib.import_module("app.drawings.api")
        with TestClient(module.app, base_url="https://drawings.example") as client:
            token = client.post("/auth/api/login", json={"password": PASSWORD}).json()["session_token"]
            client.headers["Authorization"] = f"Bearer {token}"
            yield client
    forget()


@pytest.fixture(scope="module")
def description(api: TestClient) -> schemathesis.BaseSchema:
    raw = api.get("/openapi.json").json()
    made = schemathesis.openapi.from_dict(raw)
    made.app = api.app
    return made


def operations() -> list[tuple[str, str]]:
    """Every route, from the same code that a host serves."""
    from app.drawings.routes import admin, analysis, demo, drawings, interpretability
    from app.drawings.settings import DrawingsSettings

    parts = (
        drawings.router(DrawingsSettings()),
        analysis.router(DrawingsSettings()),
        interpretability.routes,
        demo.routes,
        *admin.ROUTERS,
    )
    found = {
        (method.lower(), f"{V1}{route.path}") for part in parts for route in part.routes for method in route.methods
    }  # type: ignore[attr-defined]
    return sorted(found - NOT_ASKED)


def test_every_route_is_asked(description: schemathesis.BaseSchema) -> None:
    told = {(method, path) for path, methods in description.raw_schema["paths"].items() for method in methods}
    core = {(method, path) for method, path in told if not path.startswith(V1)}
    assert told - core - NOT_ASKED == set(operations())
    assert {path for _, path in core} == {
        "/health", "/health/live", "/health/ready", "/health/status", "/auth/login", "/auth/api/login", "/auth/logout", "/auth/status"}  # fmt: skip


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(("method", "path"), operations())
def test_every_answer_is_as_described(
    api: TestClient, description: schemathesis.BaseSchema, method: str, path: str, mode: GenerationMode
) -> None:
    operation = description[path][method]
    if mode is GenerationMode.NEGATIVE and not (
        operation.definition.raw.get("parameters") or operation.definition.raw.get("requestBody")
    ):
        pytest.skip("takes nothing that could be wrong")

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def every(case: Any) -> None:
        headers = {"Authorization": api.headers["Authorization"]}
        case.headers = {**{k: v for k, v in (case.headers or {}).items() if k.lower() != "authorization"}, **headers}
        case.validate_response(case.call(session=api), checks=CHECKS)

    every()


def test_known_ids_answer_as_described(api: TestClient, description: schemathesis.BaseSchema) -> None:
    identity = upload(api)
    analysis = api.post(f"{V1}/analysis/analyze/{identity}").json()["analysis"]["id"]
    for path, key, value in (
        (f"{V1}/drawings/{{drawing_id}}", "drawing_id", identity),
        (f"{V1}/drawings/{{drawing_id}}/file", "drawing_id", identity),
        (f"{V1}/analysis/drawing/{{drawing_id}}", "drawing_id", identity),
        (f"{V1}/analysis/{{analysis_id}}", "analysis_id", analysis),
        *(
            (f"{V1}/interpretability/{{analysis_id}}/{name}", "analysis_id", analysis)
            for name in (
                "interactive",
                "simplified",
                "confidence",
                "attribution",
                "annotations",
                "image.png",
                "overlay.png",
                "saliency.png",
            )
        ),
    ):
        case = description[path]["get"].Case(
            path_parameters={key: value}, headers={"Authorization": api.headers["Authorization"]}
        )
        response = case.call(session=api)
        assert response.status_code == 200
        case.validate_response(response, checks=CHECKS)


@pytest.mark.parametrize("body", [b"", b"[]", b'"x"', b'{"generated_only": 3}'])
def test_a_training_is_not_started_by_nonsense(api: TestClient, body: bytes) -> None:
    with job.exclusive(api.app.state.context.settings.state_dir):  # type: ignore[attr-defined]
        answer = api.post(f"{V1}/models/train", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {409, 422}
