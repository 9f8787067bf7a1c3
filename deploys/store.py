"""What deploys remember in the artefact bucket: the lease, the deploy under way, and the history."""

from __future__ import annotations

import itertools
import json
import secrets
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self

from botocore.exceptions import BotoCoreError, ClientError

from deploys.spec import DeployError

PREFIX = "deploys/"
LEASE = f"{PREFIX}lease.json"
CURRENT = f"{PREFIX}current.json"
HISTORY = f"{PREFIX}history/"


class LeaseLostError(DeployError):
    """Somebody else has the lease now: nothing may be moved any more."""


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


class Store:
    """JSON objects in one bucket."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client, self.bucket = client, bucket

    def read(self, key: str) -> tuple[dict[str, Any], str, float] | None:
        """Return an object, its entity tag and its age in seconds by the bucket's own clock; None when it is not there."""
        try:
            found = self._client.get_object(Bucket=self.bucket, Key=key)
            body = found["Body"].read()
        except ClientError as error:
            if _code(error) in {"NoSuchKey", "404"}:
                return None
            if _code(error) == "NoSuchBucket":
                raise DeployError(
                    f"there is no bucket {self.bucket}; make the environment first: ansible-playbook site.yml"
                ) from error
            raise
        now = parsedate_to_datetime(found["ResponseMetadata"]["HTTPHeaders"]["date"])
        return json.loads(body), found["ETag"], (now - found["LastModified"]).total_seconds()

    def write(self, key: str, data: dict[str, Any], *, match: str = "", new: bool = False) -> str:
        """Write an object and return its entity tag; ``match`` and ``new`` make it fail when somebody was faster."""
        guard = {"IfMatch": match} if match else {"IfNoneMatch": "*"} if new else {}
        body = json.dumps(data, indent=1, sort_keys=True).encode()
        try:
            done = self._client.put_object(
                Bucket=self.bucket, Key=key, Body=body, ContentType="application/json", **guard
            )
        except ClientError as error:
            if _code(error) in {"PreconditionFailed", "ConditionalRequestConflict", "412", "409", "NoSuchKey"}:
                raise LeaseLostError(f"{key} was changed by somebody else") from error
            raise
        return str(done["ETag"])

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is fine."""
        self._client.delete_object(Bucket=self.bucket, Key=key)

    def past(self) -> Iterator[dict[str, Any]]:
        """Give the deploys of the past, the newest first; each is read when it is asked for."""
        for key in sorted(self.keys(HISTORY), reverse=True):
            if found := self.read(key):
                yield found[0]

    def history(self, number: int = 20) -> list[dict[str, Any]]:
        """Return the last deploys, the newest first."""
        return list(itertools.islice(self.past(), number))

    def keys(self, prefix: str) -> Iterator[str]:
        """Give the keys below a prefix."""
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
            yield from (entry["Key"] for entry in page.get("Contents", ()))


class Lease:
    """The right to move this environment (or to do what ``key`` stands for), for one controller at a time; a context manager.

    Who holds it renews it three times in its life. When its holder is dead, or cannot reach the bucket, it expires, and the next one
    takes it.
    """

    def __init__(self, store: Store, owner: str, seconds: float, *, key: str = LEASE, what: str = "deploys") -> None:
        self._store, self._seconds, self._key, self._what = store, seconds, key, what
        self._mine = {
            "owner": owner,
            "token": secrets.token_hex(8),
            "seconds": seconds,
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self._tag = ""
        self._lost = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> Self:
        """Take the lease.

        Raises:
            DeployError: Somebody else has it.
        """
        found = self._store.read(self._key)
        if found and found[2] <= float(found[0]["seconds"]):
            left = float(found[0]["seconds"]) - found[2]
            raise DeployError(
                f"{found[0]['owner']} {self._what} here since {found[0]['since']}; one at a time."
                f" (If that process is dead, its lease ends in {left:.0f} s.)"
            )
        try:
            self._tag = self._store.write(self._key, self._mine, match=found[1] if found else "", new=not found)
        except LeaseLostError as error:
            raise DeployError("somebody else began in this moment; look at `status`, then try again") from error
        self._thread.start()
        return self

    def _keep(self) -> None:
        while not self._ended.wait(self._seconds / 3):
            try:
                self._tag = self._store.write(self._key, self._mine, match=self._tag)
            except LeaseLostError as error:
                self._lost = str(error)
                return
            except (ClientError, BotoCoreError) as error:
                self._mine["trouble"] = str(error)[
                    :200
                ]  # tried again; when it lasts, the next check finds the lease too old

    def check(self) -> None:
        """Raise ``LeaseLostError`` unless the lease is still held; before everything that moves."""
        found = None if self._lost else self._store.read(self._key)
        if self._lost or not found or found[0].get("token") != self._mine["token"]:
            raise LeaseLostError(f"the lease is lost ({self._lost or 'it was taken over'}); whoever has it now goes on")

    def __exit__(self, *_: object) -> None:
        """Give the lease back, if it is still ours."""
        self._ended.set()
        self._thread.join()
        found = self._store.read(self._key)
        if found and found[0].get("token") == self._mine["token"]:
            self._store.delete(self._key)
