"""The AVA API keeps its own description: schemathesis asks as an admin, nothing breaks, every answer is as promised."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
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

from app.ava import post_annotation_service
from app.ava.attributes import load
from app.ava.cvat_xml import write
from app.core.storage import FolderStorage
from tests.unit.ava.conftest import SIZE, box, environment, frame_zip, give_clips, logged_in
from tests.unit.processes import forget

EXAMPLES = 5
ANY_BYTES = {("post", "/proposals")}  # to the description every body is right
NOT_ASKED = {("post", "/auth/logout"), ("post", "/auth/login"), ("post", "/auth/api/login"), ("get", "/auth/status")}
CLIPS = ("a_clip_000", "a_clip_001")
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The API with a project whose tasks are annotated, compared, approved and exported."""
    folder = tmp_path_factory.mktemp("ava")
    with pytest.MonkeyPatch.context() as patch:
        environment(patch, folder / "state")
        sys.modules.pop("app.ava.api", None)
        module = importlib.import_module("app.ava.api")
        with TestClient(module.app, base_url="https://ava.example") as client:
            yield logged_in(client)
    forget()


@pytest.fixture(scope="module")
def known(api: TestClient, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Ids of what is there."""
    folder: Path = tmp_path_factory.mktemp("clips")
    give_clips(FolderStorage(api.app.state.context.settings.state_dir / "storage"), folder, *CLIPS, frames=3)  # type: ignore[attr-defined]
    asked = {"project_name": "street", "annotators": ["ann", "bob"], "overlap_percentage": 100, "clips": list(CLIPS)}
    project = api.post("/projects", json=asked).json()["project"]["id"]
    tasks = api.get(f"/quality-control/projects/{project}/tasks").json()["tasks"]
    for task in tasks:
        xml = write(task["clip"], [box(0, 0, phone_usage="texting")], load(), frames=3, size=SIZE)
        post_annotation_service.keep(task["id"], xml, 1.0)
    ids = [task["id"] for task in tasks]
    api.post("/quality-control/update-task-status", json={"task_ids": ids, "new_status": "approved"})
    dataset = api.post("/datasets", json={"project_id": project}).json()["id"]
    data = frame_zip(folder / "b_clip_000.zip", "b_clip_000", 2).read_bytes()
    upload = api.post("/uploads", json={"filename": "b_clip_000.zip", "size_bytes": len(data)}).json()["id"]
    return {"project_id": project, "pair": ids[:2], "dataset_id": dataset, "upload_id": upload, "data": data}


@pytest.fixture(scope="module")
def description(api: TestClient) -> schemathesis.BaseSchema:
    made = schemathesis.openapi.from_dict(api.get("/openapi.json").json())
    made.app = api.app
    return made


def operations() -> list[tuple[str, str]]:
    """Every route, from the same code that a host serves."""
    from app.ava.routes import control, projects

    return sorted(
        (method.lower(), route.path)  # type: ignore[attr-defined]
        for part in (projects.routes, control.routes)
        for route in part.routes
        if route.include_in_schema  # type: ignore[attr-defined]
        for method in route.methods  # type: ignore[attr-defined]
    )


def test_every_route_is_asked(description: schemathesis.BaseSchema) -> None:
    told = {(method, path) for path, methods in description.raw_schema["paths"].items() for method in methods}
    assert {(method, path) for method, path in told if not path.startswith("/health")} - NOT_ASKED == set(operations())


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(("method", "path"), operations())
def test_every_answer_is_as_described(
    api: TestClient,
    known: dict[str, Any],
    description: schemathesis.BaseSchema,
    method: str,
    path: str,
    mode: GenerationMode,
) -> None:
    operation = description[path][method]
    if mode is GenerationMode.NEGATIVE and (
        (method, path) in ANY_BYTES
        or not (operation.definition.raw.get("parameters") or operation.definition.raw.get("requestBody"))
    ):
        pytest.skip("takes nothing that could be wrong")

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def every(case: Any) -> None:
        headers = {"Authorization": api.headers["Authorization"]}
        case.headers = {**{k: v for k, v in (case.headers or {}).items() if k.lower() != "authorization"}, **headers}
        case.validate_response(case.call(session=api), checks=CHECKS)

    every()


def test_what_is_there_answers_as_described(
    api: TestClient, known: dict[str, Any], description: schemathesis.BaseSchema
) -> None:
    project, dataset, upload = ({name: known[name]} for name in ("project_id", "dataset_id", "upload_id"))
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("get", "/quality-control/projects/{project_id}/tasks", {"path_parameters": project}),
        ("post", "/quality-control/projects/{project_id}/run-iaa-check", {"path_parameters": project}),
        ("post", "/quality-control/projects/{project_id}/reconcile", {"path_parameters": project}),
        ("post", "/quality-control/run-iaa-check", {"body": {"task_ids": known["pair"]}}),
        ("get", "/metrics/summary", {"query": project}),
        ("get", "/datasets", {"query": project}),
        ("get", "/datasets/{dataset_id}", {"path_parameters": dataset}),
        ("get", "/datasets/{dataset_id}/files/{name}", {"path_parameters": {**dataset, "name": "annotations.csv"}}),
        ("get", "/clips/{clip}/frames/{frame}", {"path_parameters": {"clip": CLIPS[0], "frame": 1}}),
        ("get", "/uploads/{upload_id}", {"path_parameters": upload}),
    ]
    for method, path, options in asked:
        if "body" in options:
            options["media_type"] = "application/json"
        case = description[path][method].Case(headers={"Authorization": api.headers["Authorization"]}, **options)
        response = case.call(session=api)
        assert response.status_code in {200, 202}, (path, response.text)
        case.validate_response(response, checks=CHECKS)
