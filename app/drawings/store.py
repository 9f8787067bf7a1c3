"""The model in service: loaded from the storage, replaced while serving when a newer good one appears."""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from sqlalchemy import select

from app.core import artefacts, database
from app.core.storage import Storage
from app.drawings.model import DrawingModel, ModelError, from_bytes
from app.drawings.tables import AgeGroup

log = logging.getLogger(__name__)

ARTEFACT: Final = "models"
KIND: Final = "drawings-model"
STARTER: Final = Path(__file__).with_name("starter")


class NoModel(Exception):
    """There is no model to serve."""


@dataclass(frozen=True)
class Served:
    """A model in service with its version and its report."""

    model: DrawingModel
    version: str
    sha256: str
    report: Mapping[str, Any]


@dataclass
class ModelStore:
    """Knows the newest good model of a storage. Safe to use from several threads."""

    storage: Storage
    encoder: str = ""
    _served: Served | None = None
    _newest: str = ""
    _refused: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def current(self) -> Served:
        """The model in service. Raises NoModel."""
        if self._served is None:
            raise NoModel
        return self._served

    def refresh(self) -> bool:
        """Look for a newer model; True when one went into service. A bad one is refused, and the model in service stays.

        Raises:
            StorageError: The storage cannot be read.
        """
        with self._lock:
            names = (info.key for info in self.storage.list(f"{ARTEFACT}/") if info.key.endswith(".json"))
            newest = max(names, default="")
            if newest == self._newest:
                return False
            changed = self._take_newest()
            self._newest = newest
            return changed

    def versions(self) -> list[dict[str, Any]]:
        """Every stored version, newest first, and whether it is the one in service."""
        serving = self._served.version if self._served else ""
        return [
            {
                "version": version.id,
                "trained_at": str(version.meta.get("trained_at", "")),
                "serving": version.id == serving,
                "refused": self._refused.get(version.id),
                "drawings": int(version.meta["data"]["used"]),
                "source": str(version.meta["data"]["source"]),
                "size_bytes": version.size,
                "age_groups": len(version.meta["age_groups"]),
            }
            for version in artefacts.versions(self.storage, ARTEFACT)
            if version.meta.get("kind") == KIND
        ]

    def _take_newest(self) -> bool:
        for version in artefacts.versions(self.storage, ARTEFACT):
            if self._served is not None and version.id <= self._served.version:
                return False
            if version.id in self._refused:
                continue
            try:
                if version.meta.get("kind") != KIND:
                    raise ModelError("it is not a drawings model")  # noqa: TRY301 - refused like any other
                model = from_bytes(artefacts.load(self.storage, version), encoder=self.encoder)
            except (artefacts.ArtefactError, ModelError) as error:
                self._refused[version.id] = str(error)
                log.error(  # noqa: TRY400 - the reason is the message
                    "model refused: %s", error, extra={"event": "model_refused", "version": version.id}
                )
                continue
            self._served = Served(model, version.id, version.sha256, version.meta)
            register(self._served)
            log.info("model in service", extra={"event": "model_loaded", "version": version.id})
            return True
        return False


def register(served: Served) -> None:
    """Write the model's age groups into the database; groups that were switched off stay off."""
    with database.session() as db:
        known = set(db.scalars(select(AgeGroup.name).where(AgeGroup.model_version == served.version)))
        off = set(db.scalars(select(AgeGroup.name).where(AgeGroup.active.is_(False))))
        for group in served.model.groups:
            if group.name not in known:
                db.add(
                    AgeGroup(
                        model_version=served.version,
                        name=group.name,
                        age_min=group.age_min,
                        age_max=group.age_max,
                        samples=group.samples,
                        active=group.name not in off,
                        scores=group.scores.astype(np.float64).tobytes(),
                        created_at=time.time(),
                    )
                )
