"""The model in service: loaded from the storage, replaced while serving when a newer good one appears."""

import contextlib
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.core import artefacts
from app.core.storage import Storage, StorageError
from app.wine.model import ModelError, WineModel, from_bytes

log = logging.getLogger(__name__)

ARTEFACT: Final = "wine"
"""Models are stored as `wine/<utc>-<sha8>`."""

_KEYS: Final = ("accuracy", "macro_f1", "log_loss", "ece")


class NoModel(Exception):
    """There is no model to serve; the message says what to do."""


@dataclass(frozen=True)
class Served:
    """A model in service with its version and its report."""

    model: WineModel
    version: str
    sha256: str
    report: Mapping[str, Any]


@dataclass
class ModelStore:
    """Knows the newest good model of a storage. Safe to use from several threads."""

    storage: Storage
    _served: Served | None = None
    _newest: str = ""
    _refused: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def current(self) -> Served:
        """The model in service. Raises NoModel."""
        served = self._served
        if served is None:
            raise NoModel(
                "There is no trained model yet: run `python -m app.wine.train` or wait for the training to end."
            )
        return served

    @property
    def refused(self) -> dict[str, str]:
        """Versions that were not taken into service, and why."""
        return dict(self._refused)

    def refresh(self) -> bool:
        """Look for a newer model; True when one went into service.

        Cheap when nothing is new: one listing of names. A bad newest version changes nothing: the model in service stays, or,
        when there is none yet, the newest good one is taken. Raises StorageError when the storage cannot be read.
        """
        with self._lock:
            newest = self._newest_name()
            if newest == self._newest:
                return False
            changed = self._take_newest()
            self._newest = newest  # only now: a storage that failed half-way is asked again
            return changed

    def versions(self) -> list[dict[str, Any]]:
        """Every stored version, newest first, with its measures and whether it is the one in service."""
        serving = self._served.version if self._served else ""
        rows = []
        for version in artefacts.versions(self.storage, ARTEFACT):
            if version.meta.get("kind") != "wine-model":
                continue
            measured = version.meta["metrics"]["with_variety"]
            rows.append(
                {
                    "version": version.id,
                    "trained_at": version.meta["trained_at"],
                    "serving": version.id == serving,
                    "refused": self._refused.get(version.id),
                    "notes": version.meta["data"]["notes"],
                    "source": version.meta["data"]["source"],
                    "size_bytes": version.size,
                    **{key: measured[key] for key in _KEYS},
                }
            )
        return rows

    def _newest_name(self) -> str:
        return max((info.key for info in self.storage.list(f"{ARTEFACT}/") if info.key.endswith(".json")), default="")

    def _take_newest(self) -> bool:
        for version in artefacts.versions(self.storage, ARTEFACT):
            if self._served is not None and version.id <= self._served.version:
                return False  # what is in service is the newest good one
            if version.id in self._refused:
                continue
            try:
                model = _load(self.storage, version)
            except (artefacts.ArtefactError, ModelError) as error:
                self._refused[version.id] = str(error)
                kept = self._served.version if self._served else "none"
                log.error(  # noqa: TRY400 - the reason is the message; a trace would say no more
                    "model refused: %s",
                    error,
                    extra={"event": "model_refused", "version": version.id, "in_service": kept},
                )
                continue
            self._served = Served(model, version.id, version.sha256, version.meta)
            log.info("model in service", extra={"event": "model_loaded", "version": version.id})
            return True
        return False


def _load(storage: Storage, version: artefacts.Version) -> WineModel:
    if version.meta.get("kind") != "wine-model":
        raise ModelError("it is not a wine model")
    return from_bytes(artefacts.load(storage, version))


def load_or_none(storage: Storage) -> Served | None:
    """The newest good model of a storage; None when there is none."""
    store = ModelStore(storage)
    with contextlib.suppress(NoModel, StorageError):
        store.refresh()
        return store.current
    return None
