"""How fast one picture is classified, and whether a hundred at once are all answered.

    python bench/vision_latency.py --here                                    # the service in this process, one core
    python bench/vision_latency.py https://127.0.0.1:8443/vision/api --insecure   # through nginx

Pictures are drawn dishes as JPEG of 256 and of 1600 pixels. `--here` has the bar: p95 of one picture (reading, decoding, deciding)
below 60 ms for `balanced`, in processor time, which is what a free core would take. Through nginx a hundred requests are sent at once
and the memory of the service is asked for before and after. Ends with 1 when a bar is missed or a request failed.
"""

import argparse
import asyncio
import io
import os
import ssl
import statistics
import sys
import time
from pathlib import Path

import httpx
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from app.core.storage import FolderStorage  # noqa: E402 - run as a script, the project is not on the path before
from app.vision.dishes import draw  # noqa: E402
from app.vision.model import MODEL_TYPES  # noqa: E402
from app.vision.service import Asked, Service  # noqa: E402
from app.vision.store import ModelStore, install_starter  # noqa: E402

P95_MS = 60.0
AT_ONCE = 100


def pictures(count: int, side: int) -> list[bytes]:
    """Drawn dishes as JPEG files."""
    files = []
    for number in range(count):
        image = draw(6_000_000_000 + number, level="medium" if number % 2 else None).image
        stream = io.BytesIO()
        image.resize((side, side), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=88)
        files.append(stream.getvalue())
    return files


def percentile(values: list[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def here(times: int) -> list[str]:
    """The service in this process; what was missed."""
    folder = ROOT / "build" / "bench" / "vision"
    store = ModelStore(FolderStorage(folder))
    install_starter(store.storage)
    store.refresh()
    service, missed = Service(store), []
    print(
        f"{'model':<10}{'picture':>9}{'p50':>8}{'p95':>8}{'max':>8}   wall p50   (ms of processor time, {times} each)"
    )
    for model_type in MODEL_TYPES:
        for side in (256, 1600):
            files = pictures(10, side)
            asked, spent, wall = Asked(model_type), [], []
            service.classify(lambda data=files[0]: data, asked)
            for number in range(times):
                at, cpu = time.perf_counter(), time.thread_time()
                service.classify(lambda data=files[number % 10]: data, asked)
                spent.append((time.thread_time() - cpu) * 1000)
                wall.append((time.perf_counter() - at) * 1000)
            p95 = percentile(spent, 0.95)
            print(
                f"{model_type:<10}{side:>7}px{statistics.median(spent):>8.1f}{p95:>8.1f}{max(spent):>8.1f}{statistics.median(wall):>11.1f}",
                flush=True,
            )
            if model_type == "balanced" and p95 >= P95_MS:
                missed.append(f"balanced, {side} px: p95 {p95:.1f} ms, bar {P95_MS:g} ms")
    return missed


async def through(url: str, *, insecure: bool) -> list[str]:
    """A hundred at once over HTTP; what was missed."""
    verify: bool | ssl.SSLContext = not insecure
    files = pictures(10, 1600)
    limits = httpx.Limits(max_connections=AT_ONCE)
    async with httpx.AsyncClient(base_url=url.rstrip("/") + "/", verify=verify, limits=limits, timeout=300) as client:
        before = await memory(client)
        began = time.monotonic()
        taken = await asyncio.gather(*(one(client, files[number % 10]) for number in range(AT_ONCE)))
        seconds = time.monotonic() - began
        after = await memory(client)
    failed = [reason for _, reason in taken if reason]
    times = [milliseconds for milliseconds, _ in taken]
    print(
        f"{AT_ONCE} at once: {AT_ONCE - len(failed)} answered, {len(failed)} failed, {seconds:.1f} s, {AT_ONCE / seconds:.1f} a second"
    )
    print(
        f"p50 {statistics.median(times):.0f} ms, p95 {percentile(times, 0.95):.0f} ms, max {max(times):.0f} ms (waiting included)"
    )
    print(f"memory of a worker: {before:.0f} MB before, {after:.0f} MB after")
    return [f"{len(failed)} requests failed: {failed[0]}"] if failed else []


async def one(client: httpx.AsyncClient, data: bytes) -> tuple[float, str]:
    """One request: milliseconds, and why it failed."""
    began = time.perf_counter()
    try:
        answer = await client.post("api/v1/classify/single", files={"image": ("dish.jpg", data)})
        reason = "" if answer.status_code == 200 else f"{answer.status_code}: {answer.text[:120]}"
    except httpx.HTTPError as error:
        reason = f"{type(error).__name__}: {error}"
    return (time.perf_counter() - began) * 1000, reason


async def memory(client: httpx.AsyncClient) -> float:
    """Megabytes of the worker that answers; ends the program when there is none."""
    try:
        answer = (await client.get("health/detailed")).raise_for_status()
    except httpx.HTTPError as error:
        print(f"{client.base_url}health/detailed: {type(error).__name__}: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    return float(answer.json()["process"]["memory_mb"])


def main() -> int:
    """Measure and print; 1 when a bar is missed or a request failed."""
    parser = argparse.ArgumentParser(description="Latency of the vision app.")
    parser.add_argument(
        "url", nargs="?", default="http://127.0.0.1:8000", help="base of the API (default: %(default)s)"
    )
    parser.add_argument("--here", action="store_true", help="measure in this process, without an API")
    parser.add_argument("--times", type=int, default=60, help="pictures a row (default: %(default)s)")
    parser.add_argument("--insecure", action="store_true", help="accept a self-signed certificate")
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}")
    missed = here(given.times) if given.here else asyncio.run(through(given.url, insecure=given.insecure))
    print("MISSED: " + "; ".join(missed) if missed else "bars met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
