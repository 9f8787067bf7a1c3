"""The models in service: one of each type, loaded from the storage and replaced while serving when a newer good one appears."""

import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from app.core import artefacts, assets
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


@dataclass
class ModelStore:
    """Knows the newest good head of each type. Safe to use from several threads."""

    storage: Storage
    _served: dict[ModelType, Served] = field(default_factory=dict)
    _newest: dict[ModelType, str] = field(default_factory=dict)
    _refused: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def current(self, model_type: ModelType) -> Served:
        """The head in service. Raises NoModel."""
        served = self._served.get(model_type)
        if served is None:
            raise NoModel(f"There is no {model_type} model yet: run `python -m app.vision.train`.")
        return served

    def available(self) -> dict[ModelType, bool]:
        """Which types are in service."""
        return {model_type: model_type in self._served for model_type in MODEL_TYPES}

    @property
    def refused(self) -> dict[str, str]:
        """Versions (`type/id`) that were not taken into service, and why."""
        return dict(self._refused)

    def refresh(self) -> int:
        """Look for newer heads; how many went into service.

        Cheap when nothing is new: one listing of names for each type. A bad newest version changes nothing: the head in service
        stays, or, when there is none yet, the newest good one is taken. Raises StorageError when the storage cannot be read.
        """
        changed = 0
        with self._lock:
            for model_type in MODEL_TYPES:
                newest = self._newest_name(model_type)
                if newest != self._newest.get(model_type, ""):
                    changed += self._take_newest(model_type)
                    self._newest[model_type] = newest  # only now: a storage that failed half-way is asked again
        return changed

    def _newest_name(self, model_type: ModelType) -> str:
        keys = (info.key for info in self.storage.list(f"{artefact(model_type)}/"))
        return max((key for key in keys if key.endswith(".json")), default="")

    def _take_newest(self, model_type: ModelType) -> bool:
        serving = self._served.get(model_type)
        for version in artefacts.versions(self.storage, artefact(model_type)):
            if serving is not None and version.id <= serving.version:
                return False  # what is in service is the newest good one
            name = f"{model_type}/{version.id}"
            if name in self._refused:
                continue
            try:
                found = load(self.storage, version, model_type)
            except (artefacts.ArtefactError, ModelError) as error:
                self._refused[name] = str(error)
                log.error(  # noqa: TRY400 - the reason is the message; a trace would say no more
                    "model refused: %s",
                    error,
                    extra={
                        "event": "model_refused",
                        "version": name,
                        "in_service": serving.version if serving else "none",
                    },
                )
                continue
            self._served[model_type] = found
            log.info("model in service", extra={"event": "model_loaded", "version": name})
            return True
        return False


def artefact(model_type: ModelType) -> str:
    """Heads are stored as `vision/<type>/<utc>-<sha8>`."""
    return f"vision/{model_type}"


def load(storage: Storage, version: artefacts.Version, model_type: ModelType) -> Served:
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
            return load(storage, version, model_type)
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
