"""The model in service: loaded from the storage, replaced while serving when a newer good one appears."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from sqlalchemy import select

from app.core import artefacts, database, serving
from app.core.storage import Storage
from app.drawings.model import DrawingModel, ModelError, from_bytes
from app.drawings.tables import AgeGroup

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


class ModelStore:
    """Knows the newest good model of a storage. Safe to use from several threads."""

    def __init__(self, storage: Storage, encoder: str = "") -> None:
        self.storage, self.encoder = storage, encoder
        self._newest = serving.Newest(storage, ARTEFACT, self._load, ModelError, taken=register)

    @property
    def current(self) -> Served:
        """The model in service. Raises NoModel."""
        if self._newest.served is None:
            raise NoModel
        return self._newest.served

    def refresh(self) -> bool:
        """Look for a newer model; True when one went into service (see `serving.Newest`). Raises StorageError."""
        return self._newest.refresh()

    def versions(self) -> list[dict[str, Any]]:
        """Every stored version, newest first, and whether it is the one in service."""
        return [
            {
                "version": version.id,
                "trained_at": str(version.meta.get("trained_at", "")),
                "serving": version.id == self._newest.version,
                "refused": self._newest.refused.get(version.id),
                "drawings": int(version.meta["data"]["used"]),
                "source": str(version.meta["data"]["source"]),
                "size_bytes": version.size,
                "age_groups": len(version.meta["age_groups"]),
            }
            for version in artefacts.versions(self.storage, ARTEFACT)
            if version.meta.get("kind") == KIND
        ]

    def _load(self, version: artefacts.Version) -> Served:
        if version.meta.get("kind") != KIND:
            raise ModelError("it is not a drawings model")
        model = from_bytes(artefacts.load(self.storage, version), encoder=self.encoder)
        return Served(model, version.id, version.sha256, version.meta)


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
