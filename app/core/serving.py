"""The model in service: the newest good version of an artefact, replaced while serving when a newer one appears."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable
from typing import Generic, Protocol, TypeVar

from app.core import artefacts
from app.core.storage import Storage, StorageError

log = logging.getLogger(__name__)

T = TypeVar("T")


class Counts(Protocol):
    """A counter of `app.core.metrics`."""

    def inc(self, amount: float = 1) -> None:
        """Add to it."""


class Newest(Generic[T]):
    """Knows the newest good version of one artefact. Safe to use from several threads.

    Args:
        storage: Where the versions are.
        name: Name of the artefact.
        load: Makes of a version what serves; raises when it is not good.
        refusals: What `load` raises for a version that is not good; `ArtefactError` always is.
        prefix: Stands before a version's id in the log and in `refused`, for who has several artefacts.
        taken: Called with what goes into service, before anybody else looks.
    """

    def __init__(
        self,
        storage: Storage,
        name: str,
        load: Callable[[artefacts.Version], T],
        refusals: type[Exception],
        *,
        prefix: str = "",
        taken: Callable[[T], None] = lambda _: None,
    ) -> None:
        self._storage, self._name, self._load, self._refusals = storage, name, load, refusals
        self._prefix, self._taken = prefix, taken
        self._seen = ""
        self._lock = threading.Lock()
        self.served: T | None = None
        self.version = ""
        self.refused: dict[str, str] = {}

    def refresh(self) -> bool:
        """Look for a newer version; True when one went into service.

        Cheap when nothing is new: one listing of names. A bad newest version changes nothing: what is in service stays, or,
        when there is nothing yet, the newest good one is taken. Raises StorageError when the storage cannot be read.
        """
        with self._lock:
            names = (info.key for info in self._storage.list(f"{self._name}/") if info.key.endswith(".json"))
            newest = max(names, default="")
            if newest == self._seen:
                return False
            changed = self._take_newest()
            self._seen = newest  # only now: a storage that failed half-way is asked again
            return changed

    def _take_newest(self) -> bool:
        for version in artefacts.versions(self._storage, self._name):
            if version.id <= self.version:
                return False  # what is in service is the newest good one
            name = f"{self._prefix}{version.id}"
            if name in self.refused:
                continue
            try:
                found = self._load(version)
            except (artefacts.ArtefactError, self._refusals) as error:
                self.refused[name] = str(error)
                log.error(  # noqa: TRY400 - the reason is the message; a trace would say no more
                    "model refused: %s",
                    error,
                    extra={"event": "model_refused", "version": name, "in_service": self.version or "none"},
                )
                continue
            self.served, self.version = found, version.id
            self._taken(found)
            log.info("model in service", extra={"event": "model_loaded", "version": name})
            return True
        return False


async def look(refresh: Callable[[], int], swaps: Counts) -> None:
    """Look for newer models once, beside the requests; a storage that cannot be read is logged, and asked again later."""
    try:
        swaps.inc(await asyncio.to_thread(refresh))
    except StorageError as error:
        log.error(  # noqa: TRY400 - the sentence says it all
            "cannot look for models: %s", error, extra={"event": "model_storage_failed"}
        )


@contextlib.asynccontextmanager
async def watching(refresh: Callable[[], int], seconds: float, swaps: Counts) -> AsyncIterator[None]:
    """Look for newer models every so many seconds, until the end."""

    async def watch() -> None:
        while True:
            await asyncio.sleep(seconds)
            await look(refresh, swaps)

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
