"""Measures: the same as scikit-learn's, and calibration worked out by hand."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from sklearn.metrics import log_loss as reference_log_loss

from app.wine.quality import calibration_curve, expected_calibration_error, measure

CLASSES = ["a", "b", "c"]


def test_measures_are_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet((1, 1, 1), 200)
    labels = rng.integers(0, 3, 200)
    answers = probabilities.argmax(axis=1)
    found = measure(probabilities, labels, CLASSES)
    assert found.accuracy == pytest.approx(accuracy_score(labels, answers))
    assert found.macro_f1 == pytest.approx(f1_score(labels, answers, average="macro"))
    assert found.log_loss == pytest.approx(reference_log_loss(labels, probabilities))
    assert found.confusion == confusion_matrix(labels, answers).tolist()
    assert [row["notes"] for row in found.per_class] == np.bincount(labels).tolist()


def test_calibration_error_by_hand() -> None:
    # two bins: 0.95 sure and right in 1 of 2 (off by .45), 0.65 sure and right in 1 of 1 (off by .35)
    probabilities = np.array([[0.95, 0.05, 0.0], [0.95, 0.05, 0.0], [0.35, 0.65, 0.0]])
    labels = np.array([0, 1, 1])
    curve = calibration_curve(probabilities, labels)
    assert [(row["notes"], row["accuracy"]) for row in curve] == [(1, 1.0), (2, 0.5)]
    assert expected_calibration_error(curve) == pytest.approx((2 * 0.45 + 1 * 0.35) / 3)


def test_a_class_that_is_never_answered_has_no_precision_but_a_number() -> None:
    found = measure(np.array([[1.0, 0, 0], [1.0, 0, 0]]), np.array([0, 1]), CLASSES)
    assert [row["f1"] for row in found.per_class] == pytest.approx([0.6667, 0, 0], abs=1e-4)


def test_full_confidence_belongs_to_the_last_bin() -> None:
    curve = calibration_curve(np.array([[1.0, 0.0]]), np.array([0]))
    assert curve == [{"confidence": 1.0, "accuracy": 1.0, "notes": 1.0}]
