"""How good answers are: accuracy, confusion, calibration. `dirty` is (n,) probabilities, `labels` (n,) whether it is dirty."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

BINS: Final = 10


@dataclass(frozen=True)
class Quality:
    """Measures of one set of answers.

    Attributes:
        pictures: How many.
        accuracy, balanced_accuracy: Share of right answers; mean of the two classes' shares.
        log_loss, brier: Of the probabilities.
        ece: Expected calibration error in ten bins of confidence (Guo et al., "On Calibration of Modern Neural Networks", 2017).
        confusion: [[clean called clean, clean called dirty], [dirty called clean, dirty called dirty]].
        uncertain: Share of answers in the uncertain band.
        accuracy_when_certain: Share of right answers outside it.
        calibration: For each bin that has answers: mean confidence, share right, count.
    """

    pictures: int
    accuracy: float
    balanced_accuracy: float
    log_loss: float
    brier: float
    ece: float
    confusion: list[list[int]]
    uncertain: float
    accuracy_when_certain: float
    calibration: list[dict[str, Any]]


def log_loss(dirty: Doubles, labels: Flags) -> float:
    """Mean negative log-likelihood."""
    clipped = np.clip(np.where(labels, dirty, 1 - dirty), 1e-12, 1)
    return float(-np.log(clipped).mean())


def calibration_bins(dirty: Doubles, labels: Flags) -> list[dict[str, Any]]:
    """Answers by confidence, from 0.5 to 1, in ten bins of equal width."""
    confidence, right = np.maximum(dirty, 1 - dirty), (dirty >= 0.5) == labels
    places = np.clip(((confidence - 0.5) * 2 * BINS).astype(int), 0, BINS - 1)
    rows = []
    for place in range(BINS):
        inside = places == place
        if inside.any():
            rows.append(
                {
                    "confidence": round(float(confidence[inside].mean()), 4),
                    "accuracy": round(float(right[inside].mean()), 4),
                    "count": int(inside.sum()),
                }
            )
    return rows


def measure(dirty: Doubles, labels: Flags, band: float) -> Quality:
    """All measures. A class that is absent does not count in the balanced accuracy."""
    if not len(labels):
        raise ValueError("nothing to measure")
    called = dirty >= 0.5
    right = called == labels
    certain = np.maximum(dirty, 1 - dirty) >= band
    bins = calibration_bins(dirty, labels)
    gaps = [abs(row["confidence"] - row["accuracy"]) * row["count"] for row in bins]
    shares = [float(right[labels == label].mean()) for label in (False, True) if (labels == label).any()]
    return Quality(
        pictures=len(labels),
        accuracy=round(float(right.mean()), 4),
        balanced_accuracy=round(float(np.mean(shares)), 4),
        log_loss=round(log_loss(dirty, labels), 4),
        brier=round(float(((dirty - labels) ** 2).mean()), 4),
        ece=round(sum(gaps) / len(labels), 4),
        confusion=[
            [int(((labels == truth) & (called == said)).sum()) for said in (False, True)] for truth in (False, True)
        ],
        uncertain=round(float(1 - certain.mean()), 4),
        accuracy_when_certain=round(float(right[certain].mean()), 4) if certain.any() else 0.0,
        calibration=bins,
    )
