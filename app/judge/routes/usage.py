"""Use: by day, and as CSV. Reading it is never billed."""

import csv
import io
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Response
from sqlalchemy import select

from app.core import database
from app.judge.keys import Caller, Watching
from app.judge.routes.common import REFUSED
from app.judge.schemas import DayBreakdown, DayUsage, Usage
from app.judge.tables import UsageDay

routes = APIRouter(prefix="/usage", tags=["usage"], responses=REFUSED)
MOST_DAYS = 366

Start = Annotated[date | None, Query(description="first day, YYYY-MM-DD; 29 days before the last one by default")]
End = Annotated[date | None, Query(description="last day; today by default")]


def _days(asking: Caller, start: date | None, end: date | None) -> tuple[date, date, Sequence[UsageDay]]:
    """The days that were asked for, and those of them with use. Raises HTTPException 422."""
    last = end or datetime.now(UTC).date()
    try:
        first = start or last - timedelta(days=29)
    except OverflowError as error:
        raise HTTPException(422, "end_date: there is no day so long ago.") from error
    if first > last:
        raise HTTPException(422, "start_date must not be after end_date.")
    if (last - first).days >= MOST_DAYS:
        raise HTTPException(422, f"At most {MOST_DAYS} days can be asked for at once.")
    with database.session(read_only=True) as db:
        rows = db.scalars(
            select(UsageDay)
            .where(
                UsageDay.org_id == asking.org_id, UsageDay.day >= first.isoformat(), UsageDay.day <= last.isoformat()
            )
            .order_by(UsageDay.day)
        ).all()
    return first, last, rows


@routes.get("/summary", summary="Use by day")
def summary(watching: Watching, start_date: Start = None, end_date: End = None) -> Usage:
    """Sum it up."""
    first, last, rows = _days(watching, start_date, end_date)
    requests, failed = sum(row.requests for row in rows), sum(row.failed for row in rows)
    return Usage(
        org_id=watching.org_id,
        start_date=first.isoformat(),
        end_date=last.isoformat(),
        tier=watching.tier,  # type: ignore[arg-type]  # only such are stored
        total_requests=requests,
        successful_requests=requests - failed,
        failed_requests=failed,
        total_cost_usd=round(sum(row.cost_usd for row in rows), 6),
        daily_breakdown=[
            DayBreakdown(
                date=row.day,
                requests=row.requests,
                successful=row.requests - row.failed,
                failed=row.failed,
                cost_usd=round(row.cost_usd, 6),
            )
            for row in rows
        ],
        daily_usage=[
            DayUsage(
                date=row.day,
                request_count=row.requests,
                successful_requests=row.requests - row.failed,
                total_cost_usd=round(row.cost_usd, 6),
            )
            for row in rows
        ],
    )


@routes.get(
    "/export",
    summary="The same as CSV",
    response_class=Response,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}, "description": "One row a day"}},
)
def export(watching: Watching, start_date: Start = None, end_date: End = None) -> Response:
    """Write it."""
    first, last, rows = _days(watching, start_date, end_date)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(("date", "requests", "successful", "failed", "cost_usd"))
    for row in rows:
        writer.writerow((row.day, row.requests, row.requests - row.failed, row.failed, f"{row.cost_usd:.6f}"))
    name = f"usage-{first.isoformat()}-{last.isoformat()}.csv"
    return Response(
        out.getvalue(), media_type="text/csv", headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )
