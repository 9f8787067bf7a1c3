"""API keys: make, list, change, rotate, revoke."""

import time

from fastapi import APIRouter
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import database
from app.judge.hackathons import missing
from app.judge.keys import DAY, ROTATION_DAYS, Asking, Caller, make_key
from app.judge.routes.common import NOT_FOUND, REFUSED, KeyId
from app.judge.schemas import KeyChange, KeyIn, KeyMade, KeyOut, KeyRotated, Keys, moment, moment_or_none
from app.judge.tables import ApiKey

routes = APIRouter(prefix="/api-keys", tags=["api keys"], responses=REFUSED)


def key_out(row: ApiKey, asking: Caller) -> KeyOut:
    """A key as the API gives it."""
    return KeyOut(
        api_key_id=row.id,
        name=row.name,
        prefix=row.prefix,
        source=row.source,
        tier=asking.tier,  # type: ignore[arg-type]  # only such are stored
        active=row.active,
        expired=row.expires_at is not None and row.expires_at <= time.time(),
        created_at=moment(row.created_at),
        expires_at=moment_or_none(row.expires_at),
        last_used_at=moment_or_none(row.last_used_at),
    )


def _own(db: Session, asking: Caller, key_id: str) -> ApiKey:
    asked = select(ApiKey).where(ApiKey.id == key_id, ApiKey.org_id == asking.org_id)
    row = db.scalar(asked) if key_id.isascii() and key_id.isalnum() else None
    if row is None:
        raise missing("key", key_id)
    return row


@routes.post("", status_code=201, summary="Make a key; it is shown this once")
def create(asking: Asking, given: KeyIn) -> KeyMade:
    """Make it."""
    expires = None if given.expires_in_days is None else time.time() + given.expires_in_days * DAY
    with database.session() as db:
        row, key = make_key(db, asking.org_id, given.name, "created", environment=given.environment, expires_at=expires)
        return KeyMade(**key_out(row, asking).model_dump(), api_key=key)


@routes.get("", summary="Your keys, newest first")
def listed(asking: Asking) -> Keys:
    """Give them."""
    with database.session(read_only=True) as db:
        rows = db.scalars(select(ApiKey).where(ApiKey.org_id == asking.org_id).order_by(ApiKey.id.desc()).limit(500))
        return Keys(api_keys=[key_out(row, asking) for row in rows])


@routes.patch("/{key_id}", summary="Rename it, switch it off or on, give it an end", responses=NOT_FOUND)
def change(asking: Asking, key_id: KeyId, given: KeyChange) -> KeyOut:
    """Change it."""
    with database.session() as db:
        row = _own(db, asking, key_id)
        if given.name is not None:
            row.name = given.name
        if given.active is not None:
            row.active = given.active
        if "expires_at" in given.model_fields_set:
            row.expires_at = None if given.expires_at is None else given.expires_at.timestamp()
        return key_out(row, asking)


@routes.delete("/{key_id}", status_code=204, summary="Revoke it: from now on it is inactive", responses=NOT_FOUND)
def revoke(asking: Asking, key_id: KeyId) -> None:
    """Switch it off; it stays in the list."""
    with database.session() as db:
        _own(db, asking, key_id).active = False


@routes.post(
    "/{key_id}/rotate", status_code=201, summary="A new key in its place; the old one lives 7 days", responses=NOT_FOUND
)
def rotate(asking: Asking, key_id: KeyId) -> KeyRotated:
    """Make its successor."""
    with database.session() as db:
        old = _own(db, asking, key_id)
        environment = old.prefix.split("_")[1]
        length = None if old.expires_at is None else old.expires_at - old.created_at
        expires = None if length is None else time.time() + length
        row, key = make_key(db, asking.org_id, old.name, "rotation", environment=environment, expires_at=expires)
        end = time.time() + ROTATION_DAYS * DAY
        old.expires_at = end if old.expires_at is None else min(end, old.expires_at)
        return KeyRotated(
            **key_out(row, asking).model_dump(),
            api_key=key,
            old_key_id=old.id,
            old_key_expires_at=moment(old.expires_at),
        )
