"""Milliseconds of an analysis with its saliency, on one core: reading the picture, the encoder, the model, regions and the overlay.

    python bench/drawings_latency.py                  200 analyses of PNG drawings of 1200 x 900 pixels
    python bench/drawings_latency.py --count 500 --side 2400

Prints wall and processor time; fails when the 95th percentile of the processor time is 250 ms or more.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from app.core.encoder import open_encoder
from app.core.images import DRAWINGS, read_image
from app.drawings import generate, pictures
from app.drawings.model import from_bytes
from app.drawings.store import STARTER
from app.drawings.subjects import index_of

BAR = 250.0


def main() -> int:
    """Measure, print, compare with the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--side", type=int, default=1200, help="longer side of the drawing in pixels")
    given = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    encoder = open_encoder("lite0")
    model = from_bytes((STARTER / "model.npz").read_bytes(), encoder=encoder.sha256)
    out = io.BytesIO()
    generate.drawing(1, 6.5, "cat").resize((given.side, given.side * 3 // 4)).save(out, "PNG")
    data, wall, cpu = out.getvalue(), [], []
    for _ in range(given.count + 5):
        began, used = time.perf_counter(), time.process_time()
        image = read_image(data, formats=DRAWINGS, smallest=32).image
        seen = encoder.encode([image])
        result = model.judge(seen.embeddings[0], seen.features[0], index_of("cat"), 6.5, pictures.ink(image))
        pictures.regions(result.cells, image.size)
        pictures.png(pictures.overlay(image, result.cells))
        wall.append((time.perf_counter() - began) * 1000)
        cpu.append((time.process_time() - used) * 1000)
    print(
        f"{platform.machine()}, one core of {os.cpu_count()}; {given.count} drawings of {given.side} x {given.side * 3 // 4} pixels"
    )
    print(f"{'milliseconds':<16}{'p50':>8}{'p95':>8}{'p99':>8}")
    for name, values in (("wall", wall[5:]), ("processor", cpu[5:])):
        print(f"{name:<16}" + "".join(f"{np.percentile(values, share):>8.1f}" for share in (50, 95, 99)))
    slowest = float(np.percentile(cpu[5:], 95))
    print(f"bar: p95 below {BAR:g} ms: {'kept' if slowest < BAR else 'MISSED'}")
    return 0 if slowest < BAR else 1


if __name__ == "__main__":
    sys.exit(main())
