"""How good a classifier is: measures on held-out probabilities. Probabilities are (notes, classes), labels class indices."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

BINS: Final = 10
"""Bins of confidence, of equal width, for calibration."""

_FLOOR: Final = 1e-12


@dataclass(frozen=True)
class Quality:
    """Measures of one evaluation.

    `confusion[i][j]` counts notes of class i answered as j. `calibration` has one entry for each bin that is not empty:
    mean confidence, accuracy, number of notes. `ece` is the expected calibration error, `log_loss` is in nats.
    """

    notes: int
    accuracy: float
    macro_f1: float
    log_loss: float
    ece: float
    classes: list[str]
    confusion: list[list[int]]
    per_class: list[dict[str, float]]
    calibration: list[dict[str, float]]

    def as_dict(self) -> dict[str, Any]:
        """For the model's description, rounded for reading."""
        return {
            "notes": self.notes,
            "accuracy": round(self.accuracy, 4),
            "macro_f1": round(self.macro_f1, 4),
            "log_loss": round(self.log_loss, 4),
            "ece": round(self.ece, 4),
            "confusion": self.confusion,
            "per_class": self.per_class,
            "calibration": self.calibration,
        }


def measure(probabilities: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], classes: list[str]) -> Quality:
    """All measures of these probabilities against these labels."""
    answers = probabilities.argmax(axis=1)
    matrix = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(matrix, (labels, answers), 1)
    curve = calibration_curve(probabilities, labels)
    rows = _per_class(matrix, classes)
    return Quality(
        notes=len(labels),
        accuracy=float((answers == labels).mean()),
        macro_f1=float(np.mean([row["f1"] for row in rows])),
        log_loss=log_loss(probabilities, labels),
        ece=expected_calibration_error(curve),
        classes=list(classes),
        confusion=matrix.tolist(),
        per_class=[{key: round(value, 4) for key, value in row.items()} for row in rows],
        calibration=[{key: round(value, 4) for key, value in row.items()} for row in curve],
    )


def log_loss(probabilities: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float:
    """Mean of -ln(probability of the right class), in nats."""
    right = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(right, _FLOOR)).mean())


def calibration_curve(probabilities: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> list[dict[str, float]]:
    """For each bin of confidence: mean confidence, accuracy and number of notes. Empty bins are left out."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        {
            "confidence": float(confidence[inside].mean()),
            "accuracy": float(right[inside].mean()),
            "notes": float(inside.sum()),
        }
        for inside in (bins == index for index in range(BINS))
        if inside.any()
    ]


def expected_calibration_error(curve: list[dict[str, float]]) -> float:
    """Mean distance between confidence and accuracy over the bins, weighted by notes (Naeini et al. 2015)."""
    total = sum(row["notes"] for row in curve)
    return sum(row["notes"] * abs(row["confidence"] - row["accuracy"]) for row in curve) / total


def _per_class(matrix: npt.NDArray[np.int64], classes: list[str]) -> list[dict[str, float]]:
    rows = []
    for index in range(len(classes)):
        right = float(matrix[index, index])
        actual, answered = float(matrix[index].sum()), float(matrix[:, index].sum())
        rows.append(
            {
                "precision": right / answered if answered else 0.0,
                "recall": right / actual if actual else 0.0,
                "f1": 2 * right / (actual + answered) if actual + answered else 0.0,
                "notes": actual,
            }
        )
    return rows
