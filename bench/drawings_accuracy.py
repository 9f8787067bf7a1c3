"""How well the drawings model tells what does not belong, on drawings that no training has seen.

    python bench/drawings_accuracy.py                 the starter model, 30 normal and 20 planted ones of each kind an age group
    python bench/drawings_accuracy.py --normal 60

Prints a table an age group and fails below a bar: ROC-AUC 0.90 on average and 0.80 for each kind, false alarms at most 7 %. Also
how often the hottest cell lies on a patch that was planted into a drawing, beside what chance would find.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from app.core.encoder import Encoder, open_encoder
from app.drawings import dataset, generate, pictures
from app.drawings.model import DrawingModel, Result, from_bytes
from app.drawings.store import STARTER
from app.drawings.subjects import index_of
from app.drawings.training import AGES, roc_auc

BARS = {"average": 0.90, "kind": 0.80, "alarms": 0.07}
UNSEEN = 40_000  # the first number of a drawing that no training uses


def judge(model: DrawingModel, encoder: Encoder, group: int, number: int, kind: str = "") -> Result:
    """Judge one normal or planted drawing of an age group."""
    one = dataset.specimen(group, UNSEEN + number, *AGES[group])
    draw = (
        generate.planted(kind, one["seed"], one["age"], one["subject"])
        if kind
        else generate.drawing(one["seed"], one["age"], one["subject"])
    )
    seen = encoder.encode([draw])
    return model.judge(seen.embeddings[0], seen.features[0], index_of(one["subject"]), one["age"], pictures.ink(draw))


def found_patches(model: DrawingModel, encoder: Encoder, count: int) -> int:
    """How often the hottest cell lies on a patch of 80 pixels of a photograph, planted somewhere into a drawing."""
    random = np.random.default_rng(5)
    hits = 0
    for number in range(count):
        one = dataset.specimen(4, UNSEEN + 5000 + number, 6.0, 7.0)
        image = generate.drawing(one["seed"], one["age"], one["subject"])
        x, y = (int(value) for value in random.integers(0, 145, 2))
        image.paste(generate.planted("photograph", number, 6.5).crop((60, 60, 140, 140)), (x, y))
        seen = encoder.encode([image])
        result = model.judge(
            seen.embeddings[0], seen.features[0], index_of(one["subject"]), one["age"], pictures.ink(image)
        )
        row, column = np.unravel_index(int(result.cells.argmax()), result.cells.shape)
        hits += x - 16 <= (column + 0.5) * 32 <= x + 96 and y - 16 <= (row + 0.5) * 32 <= y + 96
    return hits


def main() -> int:
    """Measure, print, compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--normal", type=int, default=30, help="normal drawings an age group")
    parser.add_argument("--planted", type=int, default=20, help="planted ones of each kind an age group")
    given = parser.parse_args()
    encoder = open_encoder("lite0")
    model = from_bytes((STARTER / "model.npz").read_bytes(), encoder=encoder.sha256)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, one used; "
        f"an age group: {given.normal} normal drawings, {given.planted} planted ones of each kind"
    )
    print(
        f"{'age group':<10}"
        + "".join(f"{kind:>15}" for kind in generate.KINDS)
        + f"{'average':>10}{'false alarms':>14}"
    )
    areas, alarms = np.zeros((len(AGES), len(generate.KINDS))), np.zeros(len(AGES))
    for group, (low, high) in enumerate(AGES):
        normal = [judge(model, encoder, group, number) for number in range(given.normal)]
        alarms[group] = np.mean([one.score > one.group.threshold(95) for one in normal])
        scores = [one.score for one in normal]
        for place, kind in enumerate(generate.KINDS):
            other = [judge(model, encoder, group, 1000 + number, kind).score for number in range(given.planted)]
            areas[group, place] = roc_auc(scores, other)
        print(
            f"{low:g}-{high:<8g}"
            + "".join(f"{area:>15.3f}" for area in areas[group])
            + f"{areas[group].mean():>10.3f}{alarms[group]:>14.1%}",
            flush=True,
        )
    print(
        f"{'all':<10}"
        + "".join(f"{area:>15.3f}" for area in areas.mean(axis=0))
        + f"{areas.mean():>10.3f}{alarms.mean():>14.1%}"
    )
    patches = found_patches(model, encoder, 20)
    print(f"hottest cell on a planted patch: {patches} of 20 (by chance about 5)")
    good = (
        areas.mean() >= BARS["average"] and areas.mean(axis=0).min() >= BARS["kind"] and alarms.mean() <= BARS["alarms"]
    )
    print(
        f"bars: average {BARS['average']}, each kind {BARS['kind']}, false alarms {BARS['alarms']:.0%}: {'kept' if good else 'MISSED'}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
