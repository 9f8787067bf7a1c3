"""Organizers: registering, logging in, their tier.

python -m app.judge.accounts                       who there is
python -m app.judge.accounts someone@example.org pro    give an organizer another tier
"""

import argparse
import sys
import time
from typing import Final

from fastapi import HTTPException
from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core import database, passwords
from app.core.settings import get_settings
from app.judge.keys import DAY, TIERS, make_key
from app.judge.schemas import LoginIn, OrganizerIn, OrganizerOut, moment
from app.judge.settings import JudgeSettings
from app.judge.tables import ApiKey, Hackathon, Organizer, new_id

_NOBODY: Final = passwords.hashed("nobody has this password")
"""Compared with when the address is unknown: how long an answer takes must not tell who is registered."""


def register(given: OrganizerIn, tier: str) -> tuple[Organizer, str]:
    """A new organizer and the first key. Raises HTTPException 409 when the address is taken."""
    email = given.email.strip().lower()
    taken = HTTPException(409, "There is an organizer with this e-mail address already. Log in instead.")
    with database.session(read_only=True) as db:
        if db.scalar(select(Organizer.id).where(Organizer.email == email)):
            raise taken
    row = Organizer(
        id=new_id(),
        email=email,
        name=given.name,
        organization=given.organization,
        password_hash=passwords.hashed(given.password),
        tier=tier,
        created_at=time.time(),
    )
    try:
        with database.session() as db:
            db.add(row)
            db.flush()
            _, key = make_key(db, row.id, "First key", "registration")
    except IntegrityError as error:
        raise taken from error
    return row, key


def log_in(given: LoginIn, settings: JudgeSettings) -> tuple[str, str, float]:
    """A new key for whoever knows the password: organizer, key, when it expires. Raises HTTPException 401.

    Other keys stay as they are; login keys that have expired are removed.
    """
    with database.session(read_only=True) as db:
        row = db.scalar(select(Organizer).where(Organizer.email == given.email.strip().lower()))
    if not passwords.right(given.password, row.password_hash if row else _NOBODY) or row is None:
        told = "E-mail address or password is not right."
        raise HTTPException(401, {"error": told, "detail": told})
    now = time.time()
    expires = now + settings.login_key_days * DAY
    with database.session() as db:
        db.execute(delete(ApiKey).where(ApiKey.org_id == row.id, ApiKey.source == "login", ApiKey.expires_at < now))
        _, key = make_key(db, row.id, "Login", "login", expires_at=expires)
    return row.id, key, expires


def organizer_out(row: Organizer) -> OrganizerOut:
    """An organizer as the API gives it."""
    return OrganizerOut(
        org_id=row.id,
        email=row.email,
        name=row.name,
        organization=row.organization,
        tier=row.tier,  # type: ignore[arg-type]  # only such are stored
        created_at=moment(row.created_at),
    )


def hackathon_count(db: Session, org_id: str) -> int:
    """Hackathons of an organizer that are not archived."""
    asked = select(func.count()).where(Hackathon.org_id == org_id, Hackathon.status != "archived")
    return int(db.scalar(asked) or 0)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m app.judge.accounts", description="Organizers and their tiers.")
    parser.add_argument("email", nargs="?", help="whose tier to set; without it all are listed")
    parser.add_argument("tier", nargs="?", choices=sorted(TIERS))
    given = parser.parse_args(arguments)
    get_settings(JudgeSettings)
    with database.session() as db:
        if given.email is None:
            for row in db.scalars(select(Organizer).order_by(Organizer.email)):
                print(f"{row.email}\t{row.tier}\t{row.name}")
            return 0
        found = db.scalar(select(Organizer).where(Organizer.email == given.email.strip().lower()))
        if found is None:
            print(f"there is no organizer {given.email}", file=sys.stderr)
            return 1
        if given.tier:
            found.tier = given.tier
        print(f"{found.email}\t{found.tier}\t{found.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
