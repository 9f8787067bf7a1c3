"""Times of cron: how far two runs are apart, and when what they make is too old."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterable, Mapping
from typing import Any


def longest_gap(cron: str) -> dt.timedelta:
    """Return the longest time between two runs of five cron fields (numbers, ``a-b``, ``*``, ``*/n``, lists of them), in UTC.

    As cron has it: when both the day of the month and of the week are restricted, either is enough.
    """
    minute, hour, day, month, weekday = cron.split()
    times = sorted(h * 60 + m for h in _field(hour, 0, 23) for m in _field(minute, 0, 59))
    days, months, weekdays = _field(day, 1, 31), _field(month, 1, 12), {n % 7 for n in _field(weekday, 0, 7)}
    start, last = dt.date(2024, 1, 1), None
    longest = max((after - before for before, after in itertools.pairwise(times)), default=0)
    for number in range(8 * 366):  # over a leap day
        date = start + dt.timedelta(number)
        on_day, on_weekday = date.day in days, (date.weekday() + 1) % 7 in weekdays
        both = not day.startswith("*") and not weekday.startswith("*")
        if date.month not in months or not ((on_day or on_weekday) if both else (on_day and on_weekday)):
            continue
        if last is not None:
            longest = max(longest, number * 1440 + times[0] - last)
        last = number * 1440 + times[-1]
    return dt.timedelta(minutes=longest)


def _field(text: str, low: int, high: int) -> set[int]:
    values: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, end = (f"{low}-{high}" if span == "*" else span).partition("-")
        values |= set(range(int(first), int(end or first) + 1, int(step or 1)))
    return values


def too_old(entries: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Hours after which the last backup of each thing is too old: twice the longest gap of its most frequent schedule.

    Args:
        entries: The manifest's ``backup``: ``what`` and ``schedule`` each.
    """
    hours: dict[str, float] = {}
    for entry in entries:
        twice = longest_gap(entry["schedule"]).total_seconds() / 1800
        hours[entry["what"]] = min(twice, hours.get(entry["what"], twice))
    return hours
