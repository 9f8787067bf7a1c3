"""Whom the screens ask: the API over HTTP, as anybody's client would, or on a laptop the models in this very process."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Protocol

from app.core.client import ApiClient, ApiError, api_client
from app.core.settings import get_settings
from app.core.storage import StorageError, open_storage
from app.vision.model import ModelError
from app.vision.service import Asked, Refused, Service
from app.vision.settings import VisionSettings
from app.vision.store import ModelStore, NoModel, install_starter

SINGLE: Final = "/api/v1/classify/single"
BATCH: Final = "/api/v1/batch/classify"
INFO: Final = "/api/v1/classify/model-info"


@dataclass(frozen=True)
class Question:
    """What the sidebar says of how to classify."""

    model_type: str
    min_confidence: float


class Asking(Protocol):
    """Somebody who classifies. Everything raises ApiError."""

    def classify(self, name: str, data: bytes, question: Question) -> Mapping[str, Any]:
        """The `result` for one picture, with its explanation."""
        ...

    def batch(self, files: Sequence[tuple[str, bytes]], question: Question) -> list[dict[str, Any]]:
        """The `results` for some pictures."""
        ...

    def model_info(self) -> Mapping[str, Any]:
        """What is known about the models."""
        ...


class OverHttp:
    """Asks the API."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def classify(self, name: str, data: bytes, question: Question) -> Mapping[str, Any]:
        """The `result` for one picture, with its explanation."""
        form = {"model_type": question.model_type, "min_confidence": question.min_confidence, "explain": True}
        answer = self._client.post(SINGLE, files={"image": (name or "picture", io.BytesIO(data))}, data=form).json()
        result: Mapping[str, Any] = answer["result"]
        return result

    def batch(self, files: Sequence[tuple[str, bytes]], question: Question) -> list[dict[str, Any]]:
        """The `results` for some pictures."""
        parts = [("images", (name or "picture", io.BytesIO(data))) for name, data in files]
        form = {
            "model_type": question.model_type,
            "min_confidence": question.min_confidence,
            "max_batch_size": len(files),
        }
        answer = self._client.post(BATCH, files=parts, data=form).json()
        results: list[dict[str, Any]] = answer["results"]
        return results

    def model_info(self) -> Mapping[str, Any]:
        """What is known about the models."""
        info: Mapping[str, Any] = self._client.get(INFO).json()
        return info


class InProcess:
    """Classifies in this process: no API is needed, which is handy on a laptop."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def classify(self, name: str, data: bytes, question: Question) -> Mapping[str, Any]:  # noqa: ARG002 - the API's way
        """The `result` for one picture, with its explanation."""
        try:
            asked = Asked.check(question.model_type, question.min_confidence, explain=True)
            return self._service.classify(lambda: data, asked).result(asked)
        except (Refused, NoModel) as error:
            raise _as_api_error(error) from error

    def batch(self, files: Sequence[tuple[str, bytes]], question: Question) -> list[dict[str, Any]]:
        """The `results` for some pictures."""
        try:
            asked = Asked.check(question.model_type, question.min_confidence)
            found = self._service.batch([(name, lambda data=data: data) for name, data in files], asked)  # type: ignore[misc] # mypy cannot see the default
        except (Refused, NoModel) as error:
            raise _as_api_error(error) from error
        results: list[dict[str, Any]] = found["results"]
        return results

    def model_info(self) -> Mapping[str, Any]:
        """What is known about the models."""
        return self._service.model_info()


def over_http(url: str | None = None) -> Asking:
    """Ask this app's own API, or on a laptop the one at `url`."""
    return OverHttp(api_client()) if url is None else OverHttp(_client(url))


@lru_cache(maxsize=4)
def _client(url: str) -> ApiClient:
    return ApiClient(base_url=url, timeout=60)


@lru_cache(maxsize=1)
def in_process() -> Asking:
    """Classify here. Raises ApiError when there are no models."""
    store = ModelStore(open_storage(get_settings(VisionSettings).storage))
    try:
        install_starter(store.storage)
        store.refresh()
    except (ModelError, StorageError) as error:
        raise ApiError(str(error), status=503) from error
    return InProcess(Service(store))


def _as_api_error(error: Refused | NoModel) -> ApiError:
    if isinstance(error, NoModel):
        return ApiError(str(error), status=503)
    return ApiError(str(error), status=error.status, problem=dict(error.more))
