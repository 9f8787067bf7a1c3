"""How well VinoVoyant tells countries apart, on real reviews: nested 5-fold cross-validation.

    python bench/wine_accuracy.py [--seeds 1] [--stemmer snowball] [--no-prior]

Everything that learns, calibration included, is fitted inside the outer fold. The reviews are the test CSV (their licence keeps
them out of the project): `$PERGOLA_SHARED_DATA/wine_reviews_600.csv`, else `../shared/data/` beside the project.
Ends with 1 when a bar is missed, with 2 when the reviews are not there.
"""

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from app.wine import quality, training  # noqa: E402 - run as a script, the project is not on the path before
from app.wine.dataset import Dataset, read_file  # noqa: E402
from app.wine.features import Reader  # noqa: E402
from app.wine.model import calibrate, reach  # noqa: E402
from app.wine.text import Backend, content_words, stop_words  # noqa: E402

FILE = "wine_reviews_600.csv"
BARS = {"accuracy": 0.87, "macro_f1": 0.78, "ece": 0.05}
FIRST_SEED = 0


@dataclass(frozen=True)
class Outcome:
    """Held-out measures of one run of five folds, with and without the variety."""

    with_variety: quality.Quality
    note_only: quality.Quality


def find_reviews() -> Path:
    """The test CSV. Ends the program when it is not there."""
    folder = Path(os.environ.get("PERGOLA_SHARED_DATA") or ROOT.parent / "shared" / "data")
    path = folder / FILE
    if not path.is_file():
        print(f"{FILE} is not in {folder}: set PERGOLA_SHARED_DATA to the folder that has it", file=sys.stderr)
        raise SystemExit(2)
    return path


def evaluate(dataset: Dataset, options: training.Options) -> Outcome:
    """Nested cross-validation: the outer folds with `options.seed`, calibration folds inside each."""
    reviews, classes, _ = training.usable(dataset.reviews)
    stops, source = stop_words()
    reader = Reader(Backend(stemmer=options.stemmer, stop_words=source))
    prior = training.starter_prior(dataset, classes) if options.prior else []
    corpus = training.read_notes(reviews, prior, classes, reader, options.seed)
    notes, fixed = len(reviews), np.arange(len(reviews), len(reviews) + len(prior))
    labels = corpus.labels[:notes]
    plain, informed = np.zeros((notes, len(classes))), np.zeros((notes, len(classes)))
    for inside, outside in training.folds_of(labels, options.folds, options.seed):
        held = training.hold_out(corpus, inside, fixed, len(classes), stops, options, lambda _: None)
        shrink = training.fit_shrink(held, labels[inside])
        known_scores = held.scores * reach(held.known, shrink)
        learnt, new = corpus.part(np.concatenate((inside, fixed))), corpus.part(outside)
        fitted, vocabulary = training.fit(learnt, len(classes)), learnt.vocabulary()
        known = np.array([len(content_words(words, stops) & vocabulary) for words in new.words], dtype=np.float64)
        scores, evidence = fitted.scores(new) * reach(known, shrink), fitted.evidence_of(new.varieties)
        plain[outside] = calibrate(scores, training.fit_calibration(known_scores, None, labels[inside]))
        calibration = training.fit_calibration(known_scores, held.evidence, labels[inside])
        informed[outside] = calibrate(scores, calibration, evidence)
    return Outcome(quality.measure(informed, labels, classes), quality.measure(plain, labels, classes))


def print_confusion(measured: quality.Quality) -> None:
    """Rows are what the wine is, columns what the model said."""
    width = max(8, *(len(name) for name in measured.classes)) + 1
    print(" " * width + "".join(f"{name:>{width}}" for name in measured.classes) + f"{'recall':>{width}}")
    for name, row, detail in zip(measured.classes, measured.confusion, measured.per_class, strict=True):
        print(f"{name:<{width}}" + "".join(f"{count:>{width}}" for count in row) + f"{detail['recall']:>{width}.3f}")


def main() -> int:
    """Run, print, compare with the bars."""
    parser = argparse.ArgumentParser(description="VinoVoyant on real reviews: nested 5-fold cross-validation.")
    parser.add_argument("--seeds", type=int, default=3, help="runs with different folds (default: %(default)s)")
    parser.add_argument("--stemmer", choices=("none", "snowball"), default="none")
    parser.add_argument("--no-prior", action="store_true", help="without the starter notes")
    given = parser.parse_args()
    dataset = read_file(find_reviews())
    print(
        f"{dataset.cleaning.kept} reviews; bars: accuracy >= 0.87, macro-F1 >= 0.78, ECE <= 0.05, in the mean of all runs"
    )
    print(
        f"{'seed':<6}{'input':<16}{'accuracy':>9}{'macro-F1':>10}{'log-loss':>10}{'ECE':>8}{'seconds':>9}", flush=True
    )
    outcomes = []
    for seed in range(FIRST_SEED, FIRST_SEED + given.seeds):
        began = time.monotonic()
        outcome = evaluate(dataset, training.Options(seed=seed, stemmer=given.stemmer, prior=not given.no_prior))
        outcomes.append(outcome)
        for label, row in (("note + variety", outcome.with_variety), ("note only", outcome.note_only)):
            print(
                f"{seed:<6}{label:<16}{row.accuracy:>9.3f}{row.macro_f1:>10.3f}{row.log_loss:>10.3f}{row.ece:>8.3f}"
                f"{time.monotonic() - began:>9.1f}",
                flush=True,
            )
    missed = []
    for label, rows in (
        ("note + variety", [outcome.with_variety for outcome in outcomes]),
        ("note only", [outcome.note_only for outcome in outcomes]),
    ):
        mean = {
            name: float(np.mean([getattr(row, name) for row in rows]))
            for name in ("accuracy", "macro_f1", "log_loss", "ece")
        }
        print(
            f"{'mean':<6}{label:<16}{mean['accuracy']:>9.3f}{mean['macro_f1']:>10.3f}{mean['log_loss']:>10.3f}{mean['ece']:>8.3f}"
        )
        for name, bar in BARS.items():
            good = mean[name] <= bar if name == "ece" else mean[name] >= bar
            if not good:
                missed.append(f"{label}: {name} {mean[name]:.4f}, bar {bar}")
    for label, measured in (("note + variety", outcomes[0].with_variety), ("note only", outcomes[0].note_only)):
        print(f"\nconfusion, {label} (seed {FIRST_SEED}; rows: truth, columns: answer)")
        print_confusion(measured)
    print("\n" + ("all bars met" if not missed else "MISSED: " + "; ".join(missed)))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
