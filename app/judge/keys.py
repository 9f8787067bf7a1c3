"""API keys, tiers, daily quotas and use: who asks, how much he may, and what it has cost him.

A key is 24 random bytes in base64 after `vj_live_` or `vj_test_`; the database has its SHA-256. Requests are counted for each
organizer and day before they are answered, in one statement, so parallel requests cannot pass a quota.
"""

import base64
import hashlib
import re
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import Depends, HTTPException, Request, Response
from fastapi.security import APIKeyHeader
from sqlalchemy import func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.core import database, metrics
from app.core.ratelimit import RateLimit
from app.judge.schemas import KEY_PATTERN
from app.judge.tables import ApiKey, Organizer, UsageDay, new_id

HEADER: Final = "X-API-Key"
ROTATION_DAYS: Final = 7
TOUCH_SECONDS: Final = 60
DAY: Final = 86400

MISSING: Final = "Missing X-API-Key header"
INVALID: Final = "Invalid API key"
EXPIRED: Final = "API key expired"
INACTIVE: Final = "API key inactive"

_KEY: Final = re.compile(KEY_PATTERN)
_asked: Final = metrics.counter("JudgeRequests", "Requests with a key, by outcome", ("outcome",))
_header: Final = APIKeyHeader(
    name=HEADER, auto_error=False, description="made by registering, by a login, or under Settings"
)


@dataclass(frozen=True)
class Tier:
    """What a tier allows: requests a second, requests a day, US dollars altogether."""

    per_second: int
    per_day: int
    usd: float


TIERS: Final = {
    "free": Tier(10, 100, 10.0),
    "starter": Tier(20, 500, 50.0),
    "pro": Tier(50, 2500, 250.0),
    "enterprise": Tier(100, 999_999, 10_000.0),
}


@dataclass(frozen=True)
class Caller:
    """The organizer of this request."""

    org_id: str
    key_id: str
    tier: str

    @property
    def limits(self) -> Tier:
        """What his tier allows."""
        return TIERS[self.tier]


def digest(key: str) -> str:
    """What the database keeps of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def make_key(
    db: Session, org_id: str, name: str, source: str, *, environment: str = "live", expires_at: float | None = None
) -> tuple[ApiKey, str]:
    """A new key of an organizer: its row and the key itself, which is nowhere else."""
    key = f"vj_{environment}_{base64.b64encode(secrets.token_bytes(24)).decode()}"
    row = ApiKey(
        id=new_id(),
        org_id=org_id,
        name=name,
        source=source,
        prefix=key[:12],
        key_sha256=digest(key),
        active=True,
        created_at=time.time(),
        expires_at=expires_at,
        last_used_at=None,
    )
    db.add(row)
    db.flush()
    return row, key


def today(now: float | None = None) -> str:
    """The day of a moment, UTC."""
    return datetime.fromtimestamp(time.time() if now is None else now, UTC).date().isoformat()


def refusal(error: str) -> HTTPException:
    """401 with the reason."""
    _asked.labels("refused").inc()
    return HTTPException(401, {"error": error, "detail": error}, {"WWW-Authenticate": "ApiKey"})


def find(key: str | None) -> Caller:
    """The organizer of this key. Raises HTTPException 401."""
    if not key:
        raise refusal(MISSING)
    if not _KEY.match(key) or not key.isascii():
        raise refusal(INVALID)
    now = time.time()
    with database.session(read_only=True) as db:
        found = db.execute(
            select(ApiKey, Organizer.tier)
            .join(Organizer, Organizer.id == ApiKey.org_id)
            .where(ApiKey.key_sha256 == digest(key))
        ).one_or_none()
    if found is None:
        raise refusal(INVALID)
    row, tier = found
    if not row.active:
        raise refusal(INACTIVE)
    if row.expires_at is not None and row.expires_at <= now:
        raise refusal(EXPIRED)
    if row.last_used_at is None or now - row.last_used_at > TOUCH_SECONDS:
        with database.session() as db:
            db.execute(update(ApiKey).where(ApiKey.id == row.id).values(last_used_at=now))
    return Caller(row.org_id, row.id, tier)


def add_use(db: Session, org_id: str, *, requests: int = 0, failed: int = 0, cost_usd: float = 0.0) -> int:
    """Add to an organizer's day; returns the day's requests so far. One statement: safe among many workers."""
    insert: Any = postgresql.insert if db.get_bind().dialect.name == "postgresql" else sqlite.insert
    asked = insert(UsageDay).values(org_id=org_id, day=today(), requests=requests, failed=failed, cost_usd=cost_usd)
    asked = asked.on_conflict_do_update(
        index_elements=["org_id", "day"],
        set_={
            "requests": UsageDay.requests + requests,
            "failed": UsageDay.failed + failed,
            "cost_usd": UsageDay.cost_usd + cost_usd,
        },
    ).returning(UsageDay.requests)
    return int(db.execute(asked).scalar_one())


def spent(db: Session, org_id: str) -> float:
    """US dollars that an organizer's analyses have cost, over all days."""
    return float(db.scalar(select(func.sum(UsageDay.cost_usd)).where(UsageDay.org_id == org_id)) or 0.0)


def _limit_rate(caller: Caller, response: Response) -> None:
    tier = caller.limits
    verdict = RateLimit(tier.per_second, 1, "judge-key").check(caller.org_id)
    response.headers.update(verdict.headers())
    if not verdict.allowed:
        _asked.labels("limited").inc()
        wait = max(1, verdict.reset)
        told = f"Too many requests: the tier {caller.tier} allows {tier.per_second} a second."
        raise HTTPException(
            429,
            {"error": "Rate limit exceeded", "retry_after": wait, "detail": told},
            {**dict(verdict.headers()), "Retry-After": str(wait)},
        )


def _quota_headers(tier: Tier, used: int) -> dict[str, str]:
    now = datetime.now(UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return {
        "X-Quota-Limit": str(tier.per_day),
        "X-Quota-Remaining": str(max(0, tier.per_day - used)),
        "X-Quota-Reset": str(max(1, int((midnight - now).total_seconds()))),
    }


def status_reader(request: Request, response: Response, key: Annotated[str | None, Depends(_header)] = None) -> Caller:
    """A dependency for routes that only read how far something is: a key and its rate, but nothing is billed."""
    caller = find(key)
    _limit_rate(caller, response)
    request.state.caller = caller
    with database.session(read_only=True) as db:
        used = db.scalar(select(UsageDay.requests).where(UsageDay.org_id == caller.org_id, UsageDay.day == today()))
    response.headers.update(_quota_headers(caller.limits, used or 0))
    return caller


def caller(request: Request, response: Response, key: Annotated[str | None, Depends(_header)] = None) -> Caller:
    """A dependency: the organizer of this request, within his rate and his day's quota. Raises HTTPException 401, 429."""
    found = find(key)
    _limit_rate(found, response)
    request.state.caller = found
    tier = found.limits
    with database.session() as db:
        used = add_use(db, found.org_id, requests=1)
        if over := used > tier.per_day:
            add_use(db, found.org_id, requests=-1)  # a refused request does not count
    told = _quota_headers(tier, used)
    response.headers.update(told)
    if over:
        _asked.labels("quota").inc()
        wait = int(told["X-Quota-Reset"])
        raise HTTPException(
            429,
            {
                "error": "Daily quota exceeded",
                "retry_after": wait,
                "detail": f"The tier {found.tier} allows {tier.per_day} requests a day; the next day begins in {wait} seconds.",
            },
            {**told, "X-RateLimit-Limit": str(tier.per_second), "Retry-After": str(wait)},
        )
    _asked.labels("accepted").inc()
    request.state.billed = found.org_id
    return found


def note_failure(org_id: str) -> None:
    """A request that was counted has failed."""
    with database.session() as db:
        add_use(db, org_id, failed=1)


Asking = Annotated[Caller, Depends(caller)]
Watching = Annotated[Caller, Depends(status_reader)]
