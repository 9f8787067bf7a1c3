"""How much the app is used: counts by day, name and country. No address, no name, no session that could be found again."""

import hashlib
import hmac
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.core import metrics
from app.drawings.tables import Setting, Usage, Visit

NOWHERE: Final = "ZZ"
_COUNTRY: Final = re.compile(r"[A-Z]{2}")
_KEY: Final = "visit_key"

page_views = metrics.counter("PageViews", "Screens opened", ("Page",))


def country_of(headers: Any) -> str:
    """The visitor's country as the edge says it (CloudFront), ZZ when nobody knows."""
    said = str(headers.get("cloudfront-viewer-country", "")).strip().upper()
    return said if _COUNTRY.fullmatch(said) else NOWHERE


def today() -> str:
    """The day in UTC."""
    return datetime.now(UTC).date().isoformat()


def count(db: Session, kind: str, name: str, country: str = "") -> None:
    """Count one thing, in one statement that is right whoever else counts."""
    made = postgresql.insert if db.get_bind().dialect.name == "postgresql" else sqlite.insert
    row = {"day": today(), "kind": kind, "name": name[:60], "country": country or NOWHERE, "count": 1}
    db.execute(
        made(Usage)
        .values(row)
        .on_conflict_do_update(index_elements=["day", "kind", "name", "country"], set_={"count": Usage.count + 1})
    )


def view(db: Session, page: str, session: str, country: str) -> None:
    """Count a page view, and the session once a day by a hash that nobody can undo tomorrow."""
    count(db, "page", page, country)
    hashed = hmac.new(_todays_key(db), session.encode(), hashlib.sha256).hexdigest()
    made = postgresql.insert if db.get_bind().dialect.name == "postgresql" else sqlite.insert
    db.execute(
        made(Visit).values(day=today(), session_hash=hashed, country=country or NOWHERE).on_conflict_do_nothing()
    )


def _todays_key(db: Session) -> bytes:
    """The key of today's hashes; yesterday's is thrown away."""
    name = f"{_KEY}:{today()}"
    row = db.get(Setting, name)
    if row is None:
        db.execute(delete(Setting).where(Setting.name.like(f"{_KEY}:%")))
        made = postgresql.insert if db.get_bind().dialect.name == "postgresql" else sqlite.insert
        db.execute(made(Setting).values(name=name, value=secrets.token_hex(32)).on_conflict_do_nothing())
        row = db.get(Setting, name)
    if row is None:
        raise RuntimeError("today's key was not written")
    return bytes.fromhex(row.value)


def told(db: Session, days: int) -> dict[str, Any]:
    """Counts of the last days."""
    first = (datetime.now(UTC).date() - timedelta(days=days - 1)).isoformat()
    by_day: dict[str, dict[str, int]] = {}
    for offset in range(days):
        day = (datetime.now(UTC).date() - timedelta(days=days - 1 - offset)).isoformat()
        by_day[day] = {"page_views": 0, "analyses": 0, "sessions": 0}
    asked = (
        select(Usage.day, Usage.kind, func.sum(Usage.count)).where(Usage.day >= first).group_by(Usage.day, Usage.kind)
    )
    for day, kind, number in db.execute(asked):
        by_day.setdefault(day, {"page_views": 0, "analyses": 0, "sessions": 0})[
            "page_views" if kind == "page" else "analyses"
        ] += int(number)
    visits = select(Visit.day, func.count()).where(Visit.day >= first).group_by(Visit.day)
    for day, number in db.execute(visits):
        by_day.setdefault(day, {"page_views": 0, "analyses": 0, "sessions": 0})["sessions"] = int(number)

    def sums(column: Any, kind: str) -> list[dict[str, Any]]:
        rows = db.execute(
            select(column, func.sum(Usage.count)).where(Usage.day >= first, Usage.kind == kind).group_by(column)
        )
        found = [{"name": str(name), "count": int(number)} for name, number in rows]
        return sorted(found, key=lambda row: (-row["count"], row["name"]))

    return {
        "days": [{"day": day, **by_day[day]} for day in sorted(by_day)],
        **{key: sum(row[key] for row in by_day.values()) for key in ("page_views", "analyses", "sessions")},
        "pages": sums(Usage.name, "page"),
        "countries": sums(Usage.country, "page"),
    }
