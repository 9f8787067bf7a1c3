"""Versioned artefacts (models, calibration tables) on a storage.

An artefact is two objects: the data, and a JSON sidecar written after it with the SHA-256 of the data. Whoever loads
believes only a sidecar whose checksum fits, so a torn upload, a flipped bit or a foreign file is refused and the last
good version is served instead. Nothing here unpickles anything: bytes go in, the same bytes come out.
"""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from app.core.storage import NotFound, Storage, StorageError, check_key

log = logging.getLogger(__name__)

_FORMAT: Final = "pergola-artefact/1"
_ID: Final = re.compile(r"(\d{8}T\d{6}\.\d{3}Z)-([0-9a-f]{8})")
_TORN_AFTER: Final = timedelta(days=1)
_META_BYTES: Final = 4 * 1024 * 1024


class ArtefactError(StorageError):
    """A version was refused; the message says which and why."""


@dataclass(frozen=True)
class Version:
    """One version of an artefact. `id` is `<utc>-<first 8 hex digits of the SHA-256>`, `size` is in bytes."""

    name: str
    id: str
    sha256: str
    size: int
    created: datetime
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Key of the data in the storage."""
        return f"{self.name}/{self.id}"


def save(storage: Storage, name: str, data: bytes, meta: Mapping[str, Any]) -> Version:
    """Store `data` as the newest version of `name`; `meta` is anything JSON can hold."""
    check_key(name)
    digest = hashlib.sha256(data).hexdigest()
    now = datetime.now(UTC)
    if known := _ids(storage, name):
        # a clock that was set back must not make the new version an old one
        now = max(now, _time_of(known[-1]) + timedelta(milliseconds=1))
    version = Version(name, f"{_stamp(now)}-{digest[:8]}", digest, len(data), _time_of(_stamp(now)), dict(meta))
    sidecar = {
        "format": _FORMAT,
        "name": name,
        "id": version.id,
        "sha256": digest,
        "size": version.size,
        "created": version.created.isoformat(),
        "meta": version.meta,
    }
    try:
        text = json.dumps(sidecar, indent=1, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ArtefactError(f"meta of artefact {name!r} is not JSON: {error}") from error
    storage.put(version.key, data)
    storage.put(f"{version.key}.json", text.encode())
    return version


def versions(storage: Storage, name: str) -> list[Version]:
    """Complete versions, newest first. Reads the sidecars, not the data."""
    found = []
    for identity in reversed(_ids(storage, name)):
        try:
            found.append(_sidecar(storage, name, identity))
        except StorageError as error:
            log.warning("artefact version refused: %s", error)
    return found


def load(storage: Storage, version: Version) -> bytes:
    """The data of one version, checked. Raises ArtefactError."""
    try:
        data = storage.get(version.key)
    except NotFound as error:
        raise ArtefactError(f"artefact {version.key} is torn: its data is missing") from error
    digest = hashlib.sha256(data).hexdigest()
    if len(data) != version.size or digest != version.sha256:
        raise ArtefactError(
            f"artefact {version.key} is torn: {len(data)} bytes with SHA-256 {digest[:8]}, "
            f"expected {version.size} bytes with {version.sha256[:8]}"
        )
    return data


def load_latest(storage: Storage, name: str) -> tuple[bytes, dict[str, Any]]:
    """Data and meta of the newest good version; bad ones are logged and passed over.

    The returned meta has two keys of its own, `version` (the id) and `sha256`. Raises NotFound when no version is good.
    """
    refused = 0
    for identity in reversed(_ids(storage, name)):
        try:
            version = _sidecar(storage, name, identity)
            data = load(storage, version)
        except ArtefactError as error:
            refused += 1
            log.error("artefact refused, trying the one before: %s", error)  # noqa: TRY400 - the sentence is the story
            continue
        return data, {**version.meta, "version": version.id, "sha256": version.sha256}
    raise NotFound(f"artefact {name!r} has no good version ({refused} refused): train or restore one")


def prune(storage: Storage, name: str, keep_days: int = 30, keep_min: int = 2) -> list[Version]:
    """Delete versions older than `keep_days`, but never the newest `keep_min`; returns what was deleted.

    What a torn upload left behind goes after a day.
    """
    if keep_min < 1 or keep_days < 0:
        raise ArtefactError("prune keeps at least one version: keep_min >= 1, keep_days >= 0")
    now = datetime.now(UTC)
    complete = versions(storage, name)
    old = [version for version in complete[keep_min:] if version.created < now - timedelta(days=keep_days)]
    for version in old:
        # the sidecar first: without it the version does not exist, so a crash in between leaves nothing torn
        storage.delete(f"{version.key}.json")
        storage.delete(version.key)
    described = {version.key for version in complete}
    for info in list(storage.list(f"{name}/")):
        identity = info.key.removeprefix(f"{name}/").removesuffix(".json")
        if f"{name}/{identity}" not in described and _ID.fullmatch(identity) and info.modified < now - _TORN_AFTER:
            storage.delete(info.key)
    return old


def _ids(storage: Storage, name: str) -> list[str]:
    """Ids that have a sidecar, oldest first."""
    check_key(name)
    found = (info.key.removeprefix(f"{name}/") for info in storage.list(f"{name}/"))
    return sorted(key.removesuffix(".json") for key in found if key.endswith(".json") and _ID.fullmatch(key[:-5]))


def _sidecar(storage: Storage, name: str, identity: str) -> Version:
    key = f"{name}/{identity}.json"
    raw = storage.get(key)
    if len(raw) > _META_BYTES:
        raise ArtefactError(f"artefact {key} is not ours: {len(raw)} bytes of description")
    try:
        told = json.loads(raw)
        version = Version(
            name=told["name"],
            id=told["id"],
            sha256=told["sha256"],
            size=int(told["size"]),
            created=datetime.fromisoformat(told["created"]),
            meta=dict(told["meta"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"artefact {key} is torn: {type(error).__name__} in its description") from error
    if told.get("format") != _FORMAT or version.name != name or version.id != identity:
        raise ArtefactError(f"artefact {key} is not ours: it calls itself {version.name}/{version.id}")
    if not version.id.endswith(f"-{version.sha256[:8]}"):
        raise ArtefactError(f"artefact {key} is not ours: its id and its checksum differ")
    return version


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y%m%dT%H%M%S.") + f"{moment.microsecond // 1000:03d}Z"


def _time_of(identity: str) -> datetime:
    return datetime.strptime(identity[:19], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC)
