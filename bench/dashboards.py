"""What open dashboards ask of an API at once: the requests of each page, one after the other, with some seconds of reading in between."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np

BAR = 2.0  # seconds a page


def run(
    base: str,
    pages: Mapping[str, Sequence[str]],
    headers: Sequence[Mapping[str, str]],
    *,
    sessions: int,
    seconds: float,
) -> bool:
    """Have sessions look at pages for some seconds, and print a table.

    Args:
        base: Where the API is, on loopback.
        pages: The paths that each page asks for.
        headers: Of the first session, the second and so on, again and again.
        sessions: How many.
        seconds: How long.

    Returns:
        Whether 95 of 100 pages took less than the bar and no answer was 500 or more.
    """
    took: dict[str, list[float]] = {name: [] for name in pages}
    codes: Counter[int] = Counter()
    end = time.monotonic() + seconds

    def session(number: int) -> None:
        chance, own_headers = np.random.default_rng(number), dict(headers[number % len(headers)])
        # plain HTTP on loopback: without `verify` a client reads no certificates, which would be most of the load
        with httpx.Client(base_url=base, timeout=30, headers=own_headers, verify=False) as own:  # noqa: S501
            time.sleep(float(chance.uniform(0, 4)))  # they are all open; each clicks when its reader has read
            while time.monotonic() < end:
                name = list(pages)[int(chance.integers(len(pages)))]
                began = time.perf_counter()
                for path in pages[name]:
                    codes[own.get(path).status_code] += 1
                took[name].append(time.perf_counter() - began)
                time.sleep(float(chance.uniform(2, 6)))

    with ThreadPoolExecutor(sessions) as pool:
        list(pool.map(session, range(sessions)))
    worst = 0.0
    print(f"{sessions} sessions, {seconds:g} s; answers {dict(sorted(codes.items()))}")
    print(f"{'page, seconds':<18}{'count':>8}{'p50':>8}{'p95':>8}{'max':>8}")
    for name, values in took.items():
        worst = max(worst, float(np.percentile(values, 95)))
        cells = (*np.percentile(values, (50, 95)), max(values))
        print(f"{name:<18}{len(values):>8}" + "".join(f"{one:>8.2f}" for one in cells))
    kept = worst < BAR and all(code < 400 for code in codes)
    print(f"bar: p95 below {BAR:g} s, every answer good: {'kept' if kept else 'MISSED'}")
    return kept
