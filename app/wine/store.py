"""The model in service: loaded from the storage, replaced while serving when a newer good one appears."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.core import artefacts, serving
from app.core.storage import Storage, StorageError
from app.wine.model import ModelError, WineModel, from_bytes

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


class ModelStore:
    """Knows the newest good model of a storage. Safe to use from several threads."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._newest = serving.Newest(storage, ARTEFACT, lambda version: _load(storage, version), ModelError)

    @property
    def current(self) -> Served:
        """The model in service. Raises NoModel."""
        served = self._newest.served
        if served is None:
            raise NoModel(
                "There is no trained model yet: run `python -m app.wine.train` or wait for the training to end."
            )
        return served

    @property
    def refused(self) -> dict[str, str]:
        """Versions that were not taken into service, and why."""
        return dict(self._newest.refused)

    def refresh(self) -> bool:
        """Look for a newer model; True when one went into service (see `serving.Newest`). Raises StorageError."""
        return self._newest.refresh()

    def versions(self) -> list[dict[str, Any]]:
        """Every stored version, newest first, with its measures and whether it is the one in service."""
        rows = []
        for version in artefacts.versions(self.storage, ARTEFACT):
            if version.meta.get("kind") != "wine-model":
                continue
            measured = version.meta["metrics"]["with_variety"]
            rows.append(
                {
                    "version": version.id,
                    "trained_at": version.meta["trained_at"],
                    "serving": version.id == self._newest.version,
                    "refused": self._newest.refused.get(version.id),
                    "notes": version.meta["data"]["notes"],
                    "source": version.meta["data"]["source"],
                    "size_bytes": version.size,
                    **{key: measured[key] for key in _KEYS},
                }
            )
        return rows


def _load(storage: Storage, version: artefacts.Version) -> Served:
    if version.meta.get("kind") != "wine-model":
        raise ModelError("it is not a wine model")
    return Served(from_bytes(artefacts.load(storage, version)), version.id, version.sha256, version.meta)


def load_or_none(storage: Storage) -> Served | None:
    """The newest good model of a storage; None when there is none."""
    store = ModelStore(storage)
    with contextlib.suppress(NoModel, StorageError):
        store.refresh()
        return store.current
    return None
