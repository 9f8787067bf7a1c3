"""How fast `POST /predict` answers: p50, p99 and requests a second with 1, 8 and 64 clients.

    python bench/wine_latency.py https://127.0.0.1:8443/wine/api [--insecure]
    python bench/wine_latency.py --socket /run/pergola/sock/wine-a.api.sock

The notes are those of the starter corpus. The column "note" is what the API itself measures for one note (`latency_ms`), without
network and queue: its p99 has a bar of 15 ms. Ends with 1 when the bar is missed or a request failed.
"""

import argparse
import asyncio
import csv
import ssl
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

NOTES = Path(__file__).resolve().parents[1] / "app" / "wine" / "corpus" / "notes.csv"
CLIENTS = (1, 8, 64)
NOTE_P99_MS = 15.0
WARM_UP = 20


@dataclass
class Run:
    """What one run saw; times in milliseconds."""

    clients: int
    seconds: float = 0.0
    requests: list[float] = field(default_factory=list)
    notes: list[float] = field(default_factory=list)
    failed: int = 0
    reason: str = ""


def bodies() -> list[dict[str, str]]:
    """Requests: a note each, with its variety."""
    with NOTES.open(encoding="utf-8", newline="") as file:
        return [{"description": row["description"], "variety": row["variety"]} for row in csv.DictReader(file)]


async def ask(client: httpx.AsyncClient, asked: list[dict[str, str]], first: int, until: float, run: Run) -> None:
    """One client: one request after the other until the time is over."""
    place = first
    while time.monotonic() < until:
        began = time.perf_counter()
        try:
            answer = await client.post("predict", json=asked[place % len(asked)])
            answer.raise_for_status()
        except httpx.HTTPError as error:
            run.failed += 1
            run.reason = f"{type(error).__name__}: {error}"
            await asyncio.sleep(0.05)  # a server that is away must not be stormed
        else:
            run.requests.append((time.perf_counter() - began) * 1000)
            run.notes.append(float(answer.json()["latency_ms"]))
        place += 1


async def measure(given: argparse.Namespace, clients: int, asked: list[dict[str, str]]) -> Run:
    """One run with so many clients."""
    transport = httpx.AsyncHTTPTransport(uds=given.socket) if given.socket else None
    verify: bool | ssl.SSLContext = not given.insecure
    limits = httpx.Limits(max_connections=clients)
    run = Run(clients)
    base = given.url.rstrip("/") + "/"
    async with httpx.AsyncClient(
        base_url=base, transport=transport, verify=verify, limits=limits, timeout=30
    ) as client:
        await ask_some(client, asked)
        began = time.monotonic()
        await asyncio.gather(
            *(ask(client, asked, number * 37, began + given.seconds, run) for number in range(clients))
        )
        run.seconds = time.monotonic() - began
    return run


async def ask_some(client: httpx.AsyncClient, asked: list[dict[str, str]]) -> None:
    """Warm up; ends the program when the service is not there."""
    try:
        for body in asked[:WARM_UP]:
            (await client.post("predict", json=body)).raise_for_status()
    except httpx.HTTPError as error:
        print(f"{client.base_url}predict: {type(error).__name__}: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def percentile(values: list[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> int:
    """Measure and print; 1 when the bar is missed or a request failed."""
    parser = argparse.ArgumentParser(description="Latency and throughput of VinoVoyant's /predict.")
    parser.add_argument(
        "url", nargs="?", default="http://127.0.0.1:8000", help="base of the API (default: %(default)s)"
    )
    parser.add_argument("--socket", help="unix socket of the API")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each run (default: %(default)s)")
    parser.add_argument("--insecure", action="store_true", help="accept a self-signed certificate")
    given = parser.parse_args()
    asked = bodies()
    print(f"{given.socket or given.url}, {given.seconds:g} s a run; times in ms")
    print(
        f"{'clients':>8}{'requests':>10}{'failed':>8}{'req/s':>9}{'p50':>8}{'p99':>8}{'max':>9}{'note p50':>10}{'note p99':>10}"
    )
    runs = []
    for clients in CLIENTS:
        run = asyncio.run(measure(given, clients, asked))
        runs.append(run)
        if not run.requests:
            print(f"{clients:>8}{0:>10}{run.failed:>8}  {run.reason}")
            continue
        print(
            f"{clients:>8}{len(run.requests):>10}{run.failed:>8}{len(run.requests) / run.seconds:>9.0f}"
            f"{statistics.median(run.requests):>8.1f}{percentile(run.requests, 0.99):>8.1f}{max(run.requests):>9.1f}"
            f"{statistics.median(run.notes):>10.2f}{percentile(run.notes, 0.99):>10.2f}",
            flush=True,
        )
    failed = [f"{run.failed} of {run.clients} clients' requests failed ({run.reason})" for run in runs if run.failed]
    alone = next((run for run in runs if run.notes), None)
    slow = percentile(alone.notes, 0.99) if alone else float("inf")
    missed = [*failed, *([f"p99 of one note is {slow:.1f} ms, bar {NOTE_P99_MS:g} ms"] if slow >= NOTE_P99_MS else [])]
    print(
        "MISSED: " + "; ".join(missed)
        if missed
        else f"bar met: p99 of one note {slow:.2f} ms < {NOTE_P99_MS:g} ms, no request failed"
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
