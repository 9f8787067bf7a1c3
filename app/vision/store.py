"""The models in service: one of each type, loaded from the storage and replaced while serving when a newer good one appears."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from app.core import artefacts, assets, serving
from app.core.storage import Storage, StorageError
from app.vision.model import MODEL_TYPES, TRAITS, Head, ModelError, ModelType, from_bytes

log = logging.getLogger(__name__)

STARTER: Final = Path(__file__).parent / "starter"
"""The heads that come with the app, as `<type>.npz` and `<type>.json`."""

_KIND: Final = "vision-model"


class NoModel(Exception):
    """There is no model of a type; the message says what to do."""


@dataclass(frozen=True)
class Served:
    """A head in service with its version, its size in bytes and its report."""

    head: Head
    version: str
    sha256: str
    size: int
    report: Mapping[str, Any]


class ModelStore:
    """Knows the newest good head of each type. Safe to use from several threads."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._newest = {
            model_type: serving.Newest(
                storage, artefact(model_type), partial(load, storage, model_type), ModelError, prefix=f"{model_type}/"
            )
            for model_type in MODEL_TYPES
        }

    def current(self, model_type: ModelType) -> Served:
        """The head in service. Raises NoModel."""
        served = self._newest[model_type].served
        if served is None:
            raise NoModel(f"There is no {model_type} model yet: run `python -m app.vision.train`.")
        return served

    def available(self) -> dict[ModelType, bool]:
        """Which types are in service."""
        return {model_type: newest.served is not None for model_type, newest in self._newest.items()}

    @property
    def refused(self) -> dict[str, str]:
        """Versions (`type/id`) that were not taken into service, and why."""
        return {name: why for newest in self._newest.values() for name, why in newest.refused.items()}

    def refresh(self) -> int:
        """Look for newer heads; how many went into service (see `serving.Newest`). Raises StorageError."""
        return sum(newest.refresh() for newest in self._newest.values())


def artefact(model_type: ModelType) -> str:
    """Heads are stored as `vision/<type>/<utc>-<sha8>`."""
    return f"vision/{model_type}"


def load(storage: Storage, model_type: ModelType, version: artefacts.Version) -> Served:
    """Load one version and try it. Raises ArtefactError or ModelError."""
    if version.meta.get("kind") != _KIND:
        raise ModelError("it is not a vision model")
    head = from_bytes(artefacts.load(storage, version), model_type, encoder_sha256(model_type))
    return Served(head, version.id, version.sha256, version.size, version.meta)


def encoder_sha256(model_type: ModelType) -> str:
    """Checksum of the encoder that a type's head must be made for."""
    return assets.recipe(f"encoder-{TRAITS[model_type].variant}").sha256


def newest_good(storage: Storage, model_type: ModelType) -> Served | None:
    """The newest good head of a type; None when there is none."""
    for version in artefacts.versions(storage, artefact(model_type)):
        try:
            return load(storage, model_type, version)
        except (artefacts.ArtefactError, ModelError) as error:
            log.warning("model refused: %s", error)
    return None


def read_starter(model_type: ModelType, folder: Path = STARTER) -> tuple[bytes, dict[str, Any]]:
    """The head that comes with the app, and its report. Raises ModelError."""
    try:
        data = (folder / f"{model_type}.npz").read_bytes()
        report = json.loads((folder / f"{model_type}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"the starter model {model_type} cannot be read: {error}") from error
    from_bytes(data, model_type, encoder_sha256(model_type))
    return data, report


def install_starter(storage: Storage) -> list[str]:
    """Store the heads that come with the app where there is none, or an older starter; returns the types that were stored.

    A head that was trained here is never replaced. Raises ModelError or StorageError.
    """
    stored: list[str] = []
    for model_type in MODEL_TYPES:
        data, report = read_starter(model_type)
        there = newest_good(storage, model_type)
        if there is None or (
            there.report.get("origin") == "starter" and there.report.get("made") != report.get("made")
        ):
            artefacts.save(storage, artefact(model_type), data, {**report, "origin": "starter"})
            stored.append(model_type)
    return stored


def save(storage: Storage, head: Head, report: Mapping[str, Any], keep_days: int) -> artefacts.Version:
    """Store a head that was trained here as the newest of its type, and let old ones go. Raises StorageError."""
    name = artefact(head.model_type)
    version = artefacts.save(storage, name, head.to_bytes(), {**report, "origin": "trained"})
    try:
        artefacts.prune(storage, name, keep_days=keep_days)
    except StorageError as error:
        log.warning("old models could not be removed: %s", error)
    return version
