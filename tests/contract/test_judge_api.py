"""The judge's API keeps its own description: schemathesis asks as an organizer, nothing breaks, every answer is as promised."""

import importlib
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

from tests.unit.judge.conftest import AGENTS, V1, isolate, make, register, submit, work_off
from tests.unit.judge.repositories import good
from tests.unit.processes import forget

EXAMPLES = 5
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The API for an organizer who has a judged hackathon."""
    folder = tmp_path_factory.mktemp("judge")
    repos = folder / "repos"
    (repos / "team").mkdir(parents=True)
    good(repos / "team" / "one")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, folder / "state", repos)
        # as many requests as there are must not end in 429 alone
        from app.judge import keys

        patch.setitem(keys.TIERS, "enterprise", keys.Tier(1_000_000, 10_000_000, 10_000.0))
        sys.modules.pop("app.judge.api", None)
        module = importlib.import_module("app.judge.api")
        with TestClient(module.app, base_url="https://judge.example") as client:
            client.headers["X-API-Key"] = register(client)["api_key"]
            yield client
    forget()


@pytest.fixture(scope="module")
def description(api: TestClient) -> schemathesis.BaseSchema:
    made = schemathesis.openapi.from_dict(api.get("/openapi.json").json())
    made.app = api.app
    return made


def operations() -> list[tuple[str, str]]:
    """Every route, from the same code that a host serves."""
    from app.judge.routes import analysis, api_keys, hackathons, organizers, public, submissions, usage
    from app.judge.settings import JudgeSettings

    own = JudgeSettings()
    parts = (
        organizers.router(own),
        hackathons.routes,
        submissions.router(own),
        analysis.router(own),
        public.router(own),
        api_keys.routes,
        usage.routes,
    )
    found = {
        (method.lower(), f"{V1}{route.path}") for part in parts for route in part.routes for method in route.methods
    }  # type: ignore[attr-defined]
    return sorted(found)


def test_every_route_is_asked(description: schemathesis.BaseSchema) -> None:
    told = {(method, path) for path, methods in description.raw_schema["paths"].items() for method in methods}
    core = {path for _, path in told if not path.startswith(V1)}
    assert {one for one in told if one[1].startswith(V1)} - {("get", f"{V1}/health")} == set(operations())
    assert core == {"/health", "/health/live", "/health/ready", "/health/status"}
    assert len(operations()) >= 29


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
        key = {"X-API-Key": api.headers["X-API-Key"]}
        case.headers = {**{k: v for k, v in (case.headers or {}).items() if k.lower() != "x-api-key"}, **key}
        case.validate_response(case.call(session=api), checks=CHECKS)

    every()


def test_known_ids_answer_as_described(api: TestClient, description: schemathesis.BaseSchema) -> None:
    hack_id = make(api)
    (sub_id,) = submit(api, hack_id, "one", members=["Ada", "Bo", "Cy"])
    key = {"X-API-Key": api.headers["X-API-Key"]}

    def ask(method: str, path: str, expected: int, **more: Any) -> Any:
        names = {"hack_id": hack_id, "sub_id": sub_id, **more.pop("names", {})}
        case = description[f"{V1}{path}"][method].Case(
            path_parameters={name: value for name, value in names.items() if f"{{{name}}}" in path}, headers=key, **more
        )
        response = case.call(session=api)
        assert response.status_code == expected, response.text
        case.validate_response(response, checks=CHECKS)
        return None if expected == 204 else response.json()

    ask("post", "/hackathons/{hack_id}/activate", 200)
    ask("post", "/hackathons/{hack_id}/activate", 409)
    ask(
        "post",
        "/hackathons/{hack_id}/analyze/estimate",
        200,
        body={"submission_ids": [sub_id]},
        media_type="application/json",
    )
    ask("post", "/hackathons/{hack_id}/analyze", 202, body={}, media_type="application/json")
    ask("post", "/hackathons/{hack_id}/analyze", 409, body={}, media_type="application/json")
    ask("delete", "/submissions/{sub_id}", 409)
    assert work_off() >= 1
    ask("post", "/hackathons/{hack_id}/analyze", 400, body={}, media_type="application/json")
    for path in ("", "/stats", "/analyze/status", "/leaderboard", "/intelligence", "/costs", "/submissions"):
        ask("get", f"/hackathons/{{hack_id}}{path}", 200)
    for path in ("", "/scorecard", "/individual-scorecards", "/costs"):
        ask("get", f"/submissions/{{sub_id}}{path}", 200)
    made = ask("post", "/api-keys", 201, body={"name": "CI"}, media_type="application/json")
    ask("post", "/api-keys/{key_id}/rotate", 201, names={"key_id": made["api_key_id"]})
    ask("delete", "/api-keys/{key_id}", 204, names={"key_id": made["api_key_id"]})
    poor = make(api, budget_limit_usd=0.01, agents_enabled=AGENTS)
    submit(api, poor, "two", "three")
    hack_id = poor
    ask("post", "/hackathons/{hack_id}/analyze", 402, body={}, media_type="application/json")
    ask("delete", "/hackathons/{hack_id}", 204)
    ask("get", "/hackathons/{hack_id}", 404)


def test_a_refusal_is_as_described(api: TestClient, description: schemathesis.BaseSchema) -> None:
    case = description[f"{V1}/hackathons"]["get"].Case(headers={})
    key = api.headers.pop("X-API-Key")
    try:
        response = case.call(session=api)
    finally:
        api.headers["X-API-Key"] = key
    assert (response.status_code, response.json()["error"]) == (401, "Missing X-API-Key header")
    case.validate_response(response, checks=CHECKS)
