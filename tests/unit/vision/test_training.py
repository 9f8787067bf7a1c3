"""Training: split by dish, reproducible to the byte, fitted and calibrated as the books say."""

import numpy as np
import pytest

from app.vision import quality, training
from app.vision.model import Head, from_bytes, sigmoid
from app.vision.store import encoder_sha256
from app.vision.training import Options, Trained, TrainingError, train

SMALL = Options(dishes=40, seed=7, types=("fast",))
TOLD: list[float] = []


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train(SMALL, lambda share, _: TOLD.append(share))["fast"]


def test_no_dish_is_in_two_parts() -> None:
    parts = training.seeds_of(Options(dishes=500, seed=3))
    assert [len(seeds) for seeds in parts.values()] == [350, 75, 75]
    assert len({seed for seeds in parts.values() for seed in seeds}) == 500
    assert min(min(seeds) for seeds in parts.values()) >= 3_000_000


def test_equal_options_give_equal_models(trained: Trained) -> None:
    again = train(SMALL)["fast"]
    assert again.head.to_bytes() == trained.head.to_bytes()
    assert {**again.report, "trained_at": ""} == {**trained.report, "trained_at": ""}


def test_another_seed_is_other_dishes() -> None:
    one, two = (training.seeds_of(Options(seed=seed)) for seed in (1, 2))
    assert not {seed for seeds in one.values() for seed in seeds} & {seed for seeds in two.values() for seed in seeds}


def test_what_was_trained_can_be_read_again(trained: Trained) -> None:
    read = from_bytes(trained.head.to_bytes(), "fast", encoder_sha256("fast"))
    assert isinstance(read, Head)
    np.testing.assert_array_equal(read.weights, trained.head.weights)


def test_the_report_says_what_the_model_was_made_from_and_how_it_does(trained: Trained) -> None:
    report = trained.report
    assert report["data"] == {
        "source": "drawn by app.vision.dishes",
        "seed": 7,
        "dishes": 40,
        "pictures": 80,
        "split": {"learn": 56, "calibrate": 12, "measure": 12},
    }
    measured = report["metrics"]
    assert measured["pictures"] == 12
    assert sum(sum(row) for row in measured["confusion"]) == 12
    assert {"balanced_accuracy", "ece", "log_loss", "brier", "uncertain", "calibration", "found_by_level"} <= set(
        measured
    )
    assert report["encoder"]["sha256"] == encoder_sha256("fast")
    assert {"numpy", "onnxruntime", "pillow", "python"} == set(report["versions"])


def test_progress_grows_to_the_end(trained: Trained) -> None:
    told = TOLD[: TOLD.index(1.0) + 1]
    assert told == sorted(told)
    assert told[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dishes": 3}, "3 dishes are too few"),
        ({"seed": -1}, "seed is a whole number"),
        ({"types": ()}, "model types are fast, balanced, accurate"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        Options(**options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(2)
    features = random.normal(size=(240, 12))
    return features, features @ random.normal(size=12) + random.normal(size=240) > 0


@pytest.mark.parametrize("strength", [0.001, 0.1, 3.0])
def test_the_regression_is_scikit_learns(data: tuple[np.ndarray, np.ndarray], strength: float) -> None:
    from sklearn.linear_model import LogisticRegression

    features, labels = data
    weights, bias = training.logistic(features, labels, strength)
    expected = LogisticRegression(C=strength, tol=1e-10, max_iter=5000).fit(features, labels)
    np.testing.assert_allclose(weights, expected.coef_[0], atol=1e-4)
    assert bias == pytest.approx(float(expected.intercept_[0]), abs=1e-4)


def test_calibration_finds_what_made_the_labels() -> None:
    random = np.random.default_rng(3)
    sums = random.normal(size=20000) * 2
    labels = random.random(20000) < sigmoid(0.5 * sums - 0.7)
    slope, offset = training.calibrated(sums, labels)
    assert slope == pytest.approx(0.5, abs=0.03)
    assert offset == pytest.approx(-0.7, abs=0.05)


def test_calibration_of_perfect_separation_does_not_run_away() -> None:
    sums = np.array([-2.0, -1.0, 1.0, 2.0])
    slope, offset = training.calibrated(sums, sums > 0)
    assert np.isfinite([slope, offset]).all()
    assert 0 < sigmoid(slope * sums + offset)[0] < 0.5


def test_the_band_is_where_answers_become_reliable() -> None:
    confidence = np.repeat([0.56, 0.66, 0.9], 100)
    right = np.concatenate([np.arange(100) % 2 == 0, np.arange(100) % 3 > 0, np.arange(100) % 50 > 0])
    labels = np.ones(300, bool)
    dirty = np.where(right, confidence, 1 - confidence)
    assert training.band_of(dirty, labels) == pytest.approx(0.67)
    assert training.band_of(np.full(50, 0.9), np.arange(50) % 2 == 0) == 0.80


def test_dishes_may_look_like_what_they_were_taken_for_and_like_kitchenware() -> None:
    mean = np.zeros(1000)
    mean[[605, 700]] = 0.5, 0.5
    familiar = training.familiarity(mean)
    np.testing.assert_allclose(familiar[[605, 700]], np.log(500.1))
    assert familiar[[923, 968]].tolist() == [1, 1]
    np.testing.assert_allclose(familiar[[281, 817]], np.log(0.1))


def test_measures_of_known_answers() -> None:
    found = quality.measure(np.array([0.1, 0.2, 0.6, 0.9]), np.array([False, False, False, True]), 0.7)
    assert found.confusion == [[2, 1], [0, 1]]
    assert found.accuracy == 0.75
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1) / 2, abs=1e-4)
    assert found.uncertain == 0.25
    assert found.accuracy_when_certain == 1.0
    assert found.log_loss == pytest.approx(-np.log([0.9, 0.8, 0.4, 0.9]).mean(), abs=1e-4)
    assert found.ece == pytest.approx((2 * 0.1 + 0.2 + 0.6) / 4, abs=1e-4)


def test_nothing_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match="nothing to measure"):
        quality.measure(np.empty(0), np.empty(0, bool), 0.7)
