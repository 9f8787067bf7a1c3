"""How right the vision models are: on drawn dishes they had not seen, and on pictures from elsewhere, each apart.

    python bench/vision_accuracy.py [--dishes 300] [--seed 1500]

Drawn: fresh dishes (not those of the starter models' own report), a clean and a dirty picture each. Elsewhere: the test pictures in
`$PERGOLA_SHARED_DATA/dishes`, else `../shared/data/dishes` beside the project; real photographs and computer-drawn ones are counted
apart. Strange: photographs without a dish from scikit-image's wheel must be called `not_a_dish`.
Ends with 1 when a bar is missed, with 2 when the pictures are not there.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from app.vision import quality  # noqa: E402 - run as a script, the project is not on the path before
from app.vision.dishes import LEVELS, draw  # noqa: E402
from app.vision.heat import lay_over  # noqa: E402
from app.vision.model import MODEL_TYPES, NOT_A_DISH, Head, ModelType, from_bytes, look  # noqa: E402
from app.vision.store import encoder_sha256, read_starter  # noqa: E402
from app.vision.training import level_of  # noqa: E402

BALANCED, MOST_WRONG = 0.90, 2
STRANGE = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "motorcycle_left.png",
    "rocket.jpg",
    "horse.png",
    "grass.png",
    "brick.png",
)


def heads() -> dict[ModelType, Head]:
    """The starter models."""
    return {name: from_bytes(read_starter(name)[0], name, encoder_sha256(name)) for name in MODEL_TYPES}


def pictures() -> list[tuple[str, bool, Image.Image]]:
    """Name, whether it is dirty, image. Ends the program when they are not there."""
    folder = Path(os.environ.get("PERGOLA_SHARED_DATA") or ROOT.parent / "shared" / "data") / "dishes"
    files = sorted(folder.glob("*/*.jpg"))
    if not files:
        print(f"no pictures in {folder}: set PERGOLA_SHARED_DATA to the folder that has dishes/", file=sys.stderr)
        raise SystemExit(2)
    return [(path.name, "dirty" in path.name, Image.open(path).convert("RGB")) for path in files]


def drawn(found: dict[ModelType, Head], dishes: int, seed: int) -> list[str]:
    """Measure on drawn dishes; what was missed."""
    began = time.monotonic()
    rows = {name: ([], [], []) for name in found}  # type: dict[ModelType, tuple[list[float], list[bool], list[bool]]]
    levels = []
    for number in range(seed * 1_000_000, seed * 1_000_000 + dishes):
        for level in (None, level_of(number)):
            picture = draw(number, level=level)
            levels.append(level)
            for name, head in found.items():
                verdict = head.decide(look(picture.image, name))
                rows[name][0].append(verdict.dirty)
                rows[name][1].append(verdict.warning is None)
                if level:
                    strength = lay_over(picture.image, verdict.cells).strength
                    rows[name][2].append(bool(strength[picture.stains].mean() > strength[~picture.stains].mean()))
    labels = np.array([level is not None for level in levels])
    print(f"\ndrawn: {2 * dishes} pictures of {dishes} dishes (seed {seed}), {time.monotonic() - began:.0f} s")
    print(f"{'model':<10}{'balanced':>9}{'ECE':>7}{'uncertain':>11}{'certain':>9}", end="")
    print("".join(f"{level:>9}" for level in LEVELS), f"{'false alarm':>12}{'no dish':>9}{'heat hits':>10}")
    missed = []
    for name, (dirty, is_dish, hits) in rows.items():
        chances = np.array(dirty)
        measured = quality.measure(chances, labels, found[name].band)
        print(f"{name:<10}{measured.balanced_accuracy:>9.3f}{measured.ece:>7.3f}{measured.uncertain:>11.1%}", end="")
        print(f"{measured.accuracy_when_certain:>9.3f}", end="")
        for level in LEVELS:
            print(f"{(chances[[one == level for one in levels]] >= 0.5).mean():>9.1%}", end="")
        print(f"{(chances[~labels] >= 0.5).mean():>13.1%}{1 - np.mean(is_dish):>9.1%}{np.mean(hits):>10.1%}")
        print(f"{'':<10}confusion: clean {measured.confusion[0]}, dirty {measured.confusion[1]}")
        if measured.balanced_accuracy < BALANCED:
            missed.append(f"{name}: {measured.balanced_accuracy:.3f} on drawn dishes, bar {BALANCED}")
    return missed


def elsewhere(found: dict[ModelType, Head]) -> list[str]:
    """Measure on the test pictures; what was missed."""
    rows, missed = pictures(), []
    print(f"\nfrom elsewhere: {len(rows)} pictures")
    print(f"{'model':<10}{'real right':>12}{'drawn right':>13}{'ECE':>7}{'uncertain':>11}  wrong")
    for name, head in found.items():
        verdicts = [head.decide(look(image, name)) for _, _, image in rows]
        right = [(verdict.label == "dirty") == dirty for verdict, (_, dirty, _) in zip(verdicts, rows, strict=True)]
        real = [file.startswith("real") for file, _, _ in rows]
        measured = quality.measure(
            np.array([verdict.dirty for verdict in verdicts]), np.array([dirty for _, dirty, _ in rows]), head.band
        )
        shares = [
            f"{sum(good for good, one in zip(right, real, strict=True) if one == kind)}/{real.count(kind)}"
            for kind in (True, False)
        ]
        wrong = [file for good, (file, _, _) in zip(right, rows, strict=True) if not good]
        print(
            f"{name:<10}{shares[0]:>12}{shares[1]:>13}{measured.ece:>7.3f}{measured.uncertain:>11.1%}  {', '.join(wrong) or 'none'}"
        )
        if len(wrong) > MOST_WRONG:
            missed.append(f"{name}: {len(wrong)} pictures from elsewhere wrong, at most {MOST_WRONG}")
    return missed


def strange(found: dict[ModelType, Head]) -> list[str]:
    """Measure on photographs without a dish; what was missed."""
    import skimage  # noqa: PLC0415 - only its pictures are needed

    folder, missed = Path(skimage.__file__).parent / "data", []
    print(f"\nphotographs without a dish: {len(STRANGE)}")
    for name, head in found.items():
        passed = [
            file
            for file in STRANGE
            if head.decide(look(Image.open(folder / file).convert("RGB"), name)).warning != NOT_A_DISH
        ]
        print(
            f"{name:<10} {len(STRANGE) - len(passed)} called not_a_dish; taken for dishes: {', '.join(passed) or 'none'}"
        )
        missed += [f"{name}: takes {file} for a dish" for file in passed]
    return missed


def main() -> int:
    """Measure, print, compare with the bars."""
    parser = argparse.ArgumentParser(description="Accuracy of the vision models.")
    parser.add_argument("--dishes", type=int, default=300, help="drawn dishes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1500, help="which dishes (default: %(default)s)")
    given = parser.parse_args()
    found = heads()
    missed = [*drawn(found, given.dishes, given.seed), *elsewhere(found), *strange(found)]
    print("\n" + ("all bars met" if not missed else "MISSED: " + "; ".join(missed)))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
