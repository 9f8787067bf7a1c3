"""Training: honest folds, calibration, the bars on real reviews."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression

from app.wine import training
from app.wine.dataset import Dataset, Review, read_csv, read_file, read_starter
from app.wine.model import Calibration, calibrate
from app.wine.training import Options, Trained, TrainingError, fit_calibration, train


def test_the_bars_are_met_on_real_reviews(shared_data: Path) -> None:
    dataset = read_file(shared_data / "wine_reviews_600.csv")
    report = train(dataset).report
    measured = report["metrics"]["with_variety"]
    assert report["classes"] == ["France", "Italy", "Spain", "US"]
    assert measured["notes"] == 600
    assert measured["accuracy"] >= 0.87
    assert measured["macro_f1"] >= 0.78
    assert measured["ece"] <= 0.05
    assert measured["log_loss"] < 0.45
    assert report["metrics"]["note_only"]["accuracy"] > 0.84  # the bench measures this one over several seeds


def test_nothing_is_learnt_from_labels_that_mean_nothing(small: Dataset) -> None:
    rng = np.random.default_rng(3)
    countries = rng.permutation([review.country for review in small.reviews])
    shuffled = [
        replace(review, country=str(country), variety="")
        for review, country in zip(small.reviews, countries, strict=True)
    ]
    measured = train(replace(small, reviews=shuffled), Options(prior=False)).report["metrics"]["note_only"]
    assert measured["accuracy"] < 0.40  # four equal classes: 0.25 by chance; a leak would show as much more
    assert measured["ece"] < 0.15


def test_classes_come_from_the_data() -> None:
    rows = [("Atlantis", f"brine and pearl number {n}") for n in range(6)] + [
        ("Lyonesse", f"mist and heather {n}") for n in range(6)
    ]
    rows += [("Avalon", "apples")]
    data = read_csv(("country,description\n" + "\n".join(f"{c},{d}" for c, d in rows)).encode(), "myths.csv")
    found = train(data, Options(prior=False))
    assert found.model.classes == ["Atlantis", "Lyonesse"]
    assert found.report["data"]["countries_left_out"] == {"Avalon": 1}
    assert found.model.predict("brine and pearl again").country == "Atlantis"


def test_too_little_data_is_refused_with_the_numbers() -> None:
    data = read_csv(b"country,description\nUS,plum\nUS,oak\nItaly,cherry\n", "few.csv")
    with pytest.raises(TrainingError, match="two countries with 5 notes each; the data has US: 2, Italy: 1"):
        train(data)


def test_the_same_seed_gives_the_same_model(small: Dataset, trained: Trained) -> None:
    again = train(small, Options(prior=False))
    assert_allclose(again.model.weights, trained.model.weights, atol=1e-6)
    assert again.report["metrics"] == trained.report["metrics"]


def test_solving_in_the_space_of_the_notes_gives_the_same_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.sparse import random as random_matrix

    rng = np.random.default_rng(5)
    matrix = random_matrix(60, 400, 0.1, random_state=5, format="csr")
    labels, weight = rng.integers(0, 3, 60), rng.uniform(0.5, 2, 60)
    rotated = training._logistic_regression(matrix, labels, weight, 3)
    monkeypatch.setattr(training, "ROTATE_BELOW", 0)
    direct = training._logistic_regression(matrix, labels, weight, 3)
    one = Calibration(1.0, 0.0, np.zeros(3))
    answers = [calibrate(matrix @ weights + bias, one) for weights, bias in (rotated, direct)]
    assert_allclose(answers[0], answers[1], atol=1e-3)
    assert_allclose(rotated[0], direct[0], atol=2e-3)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_regression_is_scikit_learns(classes: int) -> None:
    rng = np.random.default_rng(6)
    from scipy.sparse import csr_matrix

    matrix = csr_matrix(rng.normal(size=(80, 6)))
    labels, weight = rng.permutation(np.arange(80) % classes), rng.uniform(0.2, 3, 80)
    weights, bias = training._logistic_regression(matrix, labels, weight, classes)
    # scikit-learn solves two classes with one column, that is, with half the penalty
    strength = training.INVERSE_REGULARISATION * (2 if classes == 2 else 1)
    reference = LogisticRegression(C=strength, max_iter=5000, tol=1e-8)
    reference.fit(matrix, labels, sample_weight=weight)
    ours = calibrate(matrix @ weights + bias, Calibration(1.0, 0.0, np.zeros(classes)))
    assert_allclose(ours, reference.predict_proba(matrix), atol=1e-4)


def test_folds_are_stratified_and_cover_every_note_once() -> None:
    labels = np.array([0] * 43 + [1] * 104 + [2] * 5)
    held = [outside for _, outside in training.folds_of(labels, 5, 1)]
    assert sorted(np.concatenate(held)) == list(range(len(labels)))
    for outside in held:
        counts = np.bincount(labels[outside], minlength=3)
        assert counts[0] in {8, 9}
        assert counts[1] in {20, 21}
        assert counts[2] == 1
    for inside, outside in training.folds_of(labels, 5, 1):
        assert not set(inside) & set(outside)
        assert len(inside) + len(outside) == len(labels)


def test_calibration_finds_the_temperature_that_made_the_labels() -> None:
    rng = np.random.default_rng(7)
    scores = rng.normal(0, 4, (6000, 3))
    truth = calibrate(scores, Calibration(2.5, 0.0, np.zeros(3)))
    labels = np.array([rng.choice(3, p=row) for row in truth])
    found = fit_calibration(scores, None, labels)
    assert found.temperature == pytest.approx(2.5, rel=0.06)
    assert_allclose(found.offsets, 0, atol=0.12)


def test_calibration_finds_how_much_the_variety_says() -> None:
    rng = np.random.default_rng(8)
    scores, evidence = rng.normal(0, 1, (6000, 3)), rng.normal(0, 1, (6000, 3))
    truth = calibrate(scores, Calibration(1.0, 0.7, np.array([0.5, 0.0, -0.5])), evidence)
    labels = np.array([rng.choice(3, p=row) for row in truth])
    found = fit_calibration(scores, evidence, labels)
    assert found.variety_weight == pytest.approx(0.7, abs=0.06)
    assert_allclose(found.offsets, [0.5, 0, -0.5], atol=0.1)


def test_starter_notes_help_a_small_collection_and_not_themselves() -> None:
    starter = read_starter()
    assert training.starter_prior(starter, ["US", "Italy"]) == []
    own = replace(starter, sha256="f" * 64, reviews=list(starter.reviews[:50]))
    chosen = training.starter_prior(own, ["US", "Italy"])
    assert {review.country for review in chosen} == {"US", "Italy"}
    many = replace(own, reviews=[Review("US", f"note {n}", "", None, None) for n in range(training.PRIOR_BELOW)])
    assert training.starter_prior(many, ["US"]) == []


def test_the_report_says_what_the_model_was_made_from_and_with(trained: Trained) -> None:
    report = trained.report
    assert report["data"]["sha256"] == "0" * 64
    assert set(report["libraries"]) == {"python", "numpy", "scipy", "nltk"}
    assert report["backend"]["tokenizer"] == "regexp"
    assert set(report["metrics"]["with_variety"]) >= {
        "accuracy",
        "macro_f1",
        "log_loss",
        "ece",
        "confusion",
        "calibration",
    }
    assert report["evaluation"]["method"].startswith("5-fold stratified")


def test_progress_goes_from_nothing_to_all(small: Dataset) -> None:
    told: list[float] = []
    train(small, Options(prior=False), lambda share, _: told.append(share))
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) > 8


def test_the_snowball_stemmer_can_be_chosen(small: Dataset) -> None:
    found = train(small, Options(prior=False, stemmer="snowball"))
    assert found.model.backend.stemmer == "snowball"
    assert "tannin" in found.model.known_words
    assert "tannins" not in found.model.known_words
    assert found.report["metrics"]["with_variety"]["accuracy"] > 0.7
