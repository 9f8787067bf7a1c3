"""The wine API keeps its own description: schemathesis asks, nothing breaks, every answer is of the shape that was promised."""

import importlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
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
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.core import artefacts, auth, database
from app.core.settings import clear_settings
from app.core.storage import FolderStorage
from app.wine.dataset import read_starter
from app.wine.model import to_bytes
from app.wine.store import ARTEFACT
from app.wine.training import Options, train

PUBLIC = [
    ("/predict", "post"),
    ("/predict/batch", "post"),
    ("/model", "get"),
    ("/model/versions", "get"),
    ("/analytics", "get"),
    ("/health", "get"),
    ("/health/live", "get"),
    ("/health/ready", "get"),
    ("/health/status", "get"),
]
WITH_INPUT = [("/predict", "post"), ("/predict/batch", "post"), ("/analytics", "get")]
ADMIN = [
    ("/admin/retrain", "get"),
    ("/admin/retrain", "post"),
    ("/auth/login", "post"),
    ("/auth/api/login", "post"),
    ("/auth/logout", "post"),
    ("/auth/status", "get"),
]
PASSWORD = "correct horse battery"
EXAMPLES = 60

# nothing a stranger sends may break the API or be answered in another shape than the description says. That a form or a CSV is
# accepted cannot be promised by a schema ("text"), so acceptance is tested by hand in tests/unit/wine.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The API with a small model in service, in a folder of its own."""
    folder = tmp_path_factory.mktemp("wine")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("PERGOLA_"):
                patch.delenv(name)
        patch.setenv("PERGOLA_APP", "wine")
        patch.setenv("PERGOLA_SLOT", "a")
        patch.setenv("PERGOLA_STATE_DIR", str(folder))
        patch.setenv("PERGOLA_BASE_PATH", "/")
        patch.setenv("PERGOLA_SECRET_ADMIN_PASSWORD", PASSWORD)
        clear_settings()
        database.engine.cache_clear()
        auth._prepared.cache_clear()
        _store_a_model(folder)
        sys.modules.pop("app.wine.api", None)
        module = importlib.import_module("app.wine.api")
        from app.core import migrate

        migrate.ensure(module.settings)
        with TestClient(module.app, base_url="https://wine.example") as asking:
            yield asking
    clear_settings()


def _store_a_model(folder: Path) -> None:
    starter = read_starter()
    some = [review for review in starter.reviews if review.country in {"Austria", "Chile", "Portugal"}]
    trained = train(replace(starter, reviews=some, sha256="0" * 64), Options(prior=False))
    artefacts.save(FolderStorage(folder / "storage"), ARTEFACT, to_bytes(trained.model), trained.report)


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


@pytest.mark.parametrize(("path", "method"), PUBLIC)
def test_what_fits_the_description_is_answered_as_described(
    description: schemathesis.BaseSchema, path: str, method: str
) -> None:
    ask(description, path, method, GenerationMode.POSITIVE, CHECKS, EXAMPLES)


@pytest.mark.parametrize(("path", "method"), WITH_INPUT)
def test_what_does_not_fit_is_refused_as_described(
    description: schemathesis.BaseSchema, path: str, method: str
) -> None:
    # a number in a query or a form is text on the wire: only of a JSON body can be said that it must be refused
    checks = [*CHECKS, negative_data_rejection] if path == "/predict" else CHECKS
    ask(description, path, method, GenerationMode.NEGATIVE, checks, EXAMPLES)


@pytest.mark.parametrize(("path", "method"), ADMIN)
def test_admin_routes_keep_their_description_without_a_login(
    description: schemathesis.BaseSchema, path: str, method: str
) -> None:
    ask(description, path, method, GenerationMode.POSITIVE, CHECKS, EXAMPLES // 3)


def test_every_route_is_asked(description: schemathesis.BaseSchema) -> None:
    told = {(path, method) for path, operations in description.raw_schema["paths"].items() for method in operations}
    assert told == {*PUBLIC, *ADMIN}
