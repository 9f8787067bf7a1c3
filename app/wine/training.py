"""Training: clean reviews in, a calibrated model and an honest report out.

Everything that learns from the notes (vocabulary, idf, weights, variety counts) is fitted inside each fold; the calibration is
fitted on predictions for notes that their model had not seen, and is itself measured on folds it was not fitted on.
"""

import platform
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from app.wine import quality
from app.wine.analytics import make_table
from app.wine.counting import Counts, Weighting, count
from app.wine.dataset import Dataset, Review, read_starter
from app.wine.features import Doubles, Reader
from app.wine.model import Calibration, Probe, WineModel, calibrate
from app.wine.text import Backend, coverage_of, fold, stop_words

FOLDS: Final = 5
SEED: Final = 7

INVERSE_REGULARISATION: Final = 10.0
"""C of the logistic regression."""

BALANCE: Final = 1.0
"""Weight of a note: (notes / (classes * notes of its class)) to this power; 1 is "balanced"."""

PRIOR_WEIGHT: Final = 0.1
"""Weight of a starter note beside a real one: they teach grape and place names that a small collection has not met."""

PRIOR_BELOW: Final = 10_000
"""With this many reviews or more the starter notes have nothing left to teach."""

ROTATE_BELOW: Final = 3_000
"""Up to this many notes the regression is solved in the space of the notes: same answer, many times faster."""

MIN_NOTES: Final = FOLDS
"""A country needs this many notes, one for each fold."""

_SMOOTHING: Final = 0.3
_OFFSET_PENALTY: Final = 0.02
_COVERAGE: Final = (0.25, 0.4)
_COVERAGE_QUANTILE: Final = 0.002
_PROBES: Final = 5
_LIBRARIES: Final = ("numpy", "scipy", "scikit-learn", "nltk")

Labels = npt.NDArray[np.int64]
Progress = Callable[[float, str], None]


class TrainingError(ValueError):
    """These reviews cannot train a model; the message says why."""


@dataclass(frozen=True)
class Options:
    """How to train. `prior` adds the starter notes of the same countries with a small weight."""

    seed: int = SEED
    folds: int = FOLDS
    stemmer: str = "none"
    prior: bool = True


@dataclass(frozen=True)
class Trained:
    """A model and what is known about it (JSON)."""

    model: WineModel
    report: dict[str, Any]


@dataclass(frozen=True)
class Corpus:
    """Notes ready for fitting: counted, labelled, weighted. `words` are the words of each note."""

    counts: Counts
    words: list[list[str]]
    labels: Labels
    varieties: list[str]
    weights: Doubles

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, rows: Labels) -> "Corpus":
        """The notes in these rows."""
        return Corpus(
            self.counts.part(rows),
            [self.words[row] for row in rows],
            self.labels[rows],
            [self.varieties[row] for row in rows],
            self.weights[rows],
        )

    def vocabulary(self) -> frozenset[str]:
        """Every word of these notes."""
        return frozenset(word for found in self.words for word in found)


@dataclass(frozen=True)
class Fitted:
    """What is learnt from a set of notes, before calibration. `varieties` are rows of `evidence`."""

    weighting: Weighting
    weights: Doubles
    bias: Doubles
    varieties: dict[str, int]
    evidence: Doubles

    def scores(self, notes: Corpus) -> Doubles:
        """Linear scores (notes, classes)."""
        return np.asarray(self.weighting.apply(notes.counts) @ self.weights + self.bias)

    def evidence_of(self, varieties: Sequence[str]) -> Doubles:
        """Variety evidence (notes, classes); zero where the variety is unknown."""
        out = np.zeros((len(varieties), len(self.bias)))
        for index, name in enumerate(varieties):
            row = self.varieties.get(fold(name.strip()))
            if row is not None:
                out[index] = self.evidence[row]
        return out


@dataclass(frozen=True)
class HeldOut:
    """For every note what a model that had not seen it says; `fold` is the fold it was held out in."""

    scores: Doubles
    evidence: Doubles
    coverage: Doubles
    fold: Labels


def train(dataset: Dataset, options: Options | None = None, progress: Progress | None = None) -> Trained:
    """Train on all usable reviews. Raises TrainingError.

    `progress` is called with the share done (0 to 1) and a sentence.
    """
    options = options or Options()
    tell: Progress = progress or (lambda _share, _sentence: None)
    reviews, classes, dropped = usable(dataset.reviews)
    tell(0.02, f"reading {len(reviews)} notes from {len(classes)} countries")
    stops, stop_source = stop_words()
    backend = Backend(stemmer=options.stemmer, stop_words=stop_source)
    reader = Reader(backend)
    prior = starter_prior(dataset, classes) if options.prior else []
    everything = read_notes([*reviews, *prior], classes, reader, starters=len(prior))
    notes = np.arange(len(reviews))
    labels = everything.labels[notes]
    tell(0.15, "weights: held-out folds")
    held = hold_out(
        everything,
        len(reviews),
        len(classes),
        stops,
        options,
        lambda done: tell(0.15 + 0.60 * done, f"fold {done * options.folds:.0f} of {options.folds} done"),
    )
    tell(0.75, "calibrating")
    plain = fit_calibration(held.scores, None, labels)
    with_variety = fit_calibration(held.scores, held.evidence, labels)
    measured = {
        "with_variety": quality.measure(cross_calibrated(held, labels, use_variety=True), labels, classes),
        "note_only": quality.measure(cross_calibrated(held, labels, use_variety=False), labels, classes),
    }
    tell(0.80, "fitting on all notes")
    fitted = fit(everything, len(classes))
    tell(0.95, "test predictions and report")
    low, high = _COVERAGE
    model = WineModel(
        classes=classes,
        backend=backend,
        vectoriser=fitted.weighting.vectoriser(),
        weights=fitted.weights.astype(np.float32),
        bias=fitted.bias.astype(np.float32),
        varieties=fitted.varieties,
        evidence=fitted.evidence.astype(np.float32),
        plain=plain,
        with_variety=with_variety,
        known_words=everything.vocabulary(),
        stop_words=stops,
        min_coverage=float(np.clip(np.quantile(held.coverage, _COVERAGE_QUANTILE), low, high)),
        table=make_table(reviews),
    )
    model.probes.extend(_probes(model, reviews))
    report = {
        "kind": "wine-model",
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "classes": classes,
        "features": model.vectoriser.size,
        "data": {
            "source": dataset.source,
            "sha256": dataset.sha256,
            "notes": len(reviews),
            "by_class": dict(Counter(review.country for review in reviews).most_common()),
            "cleaning": dataset.cleaning.as_dict(),
            "countries_left_out": dropped,
            "starter_notes_as_prior": len(prior),
        },
        "evaluation": {
            "method": f"{options.folds}-fold stratified, vocabulary and calibration inside the folds",
            "seed": options.seed,
        },
        "metrics": {name: value.as_dict() for name, value in measured.items()},
        "calibration": {
            "temperature": round(plain.temperature, 4),
            "temperature_with_variety": round(with_variety.temperature, 4),
            "variety_weight": round(with_variety.variety_weight, 4),
        },
        "min_coverage": round(model.min_coverage, 3),
        "backend": backend.as_dict(),
        "libraries": {"python": platform.python_version(), **{name: metadata.version(name) for name in _LIBRARIES}},
        "options": {"seed": options.seed, "stemmer": options.stemmer, "C": INVERSE_REGULARISATION, "balance": BALANCE},
    }
    tell(1.0, "trained")
    return Trained(model, report)


def usable(reviews: Sequence[Review]) -> tuple[list[Review], list[str], dict[str, int]]:
    """Reviews of countries with enough notes, those countries sorted, and the countries left out with their notes."""
    counts = Counter(review.country for review in reviews)
    classes = sorted(name for name, count in counts.items() if count >= MIN_NOTES)
    if len(classes) < 2:
        raise TrainingError(
            f"training needs at least two countries with {MIN_NOTES} notes each; the data has "
            + (", ".join(f"{name}: {count}" for name, count in counts.most_common(5)) or "none")
        )
    chosen = set(classes)
    dropped = {name: count for name, count in counts.items() if name not in chosen}
    return [review for review in reviews if review.country in chosen], classes, dropped


def read_notes(reviews: Sequence[Review], classes: Sequence[str], reader: Reader, *, starters: int = 0) -> Corpus:
    """These reviews ready for fitting; the last `starters` of them have the weight of the prior."""
    index = {name: place for place, name in enumerate(classes)}
    documents = [reader.read(review.description) for review in reviews]
    weights = np.ones(len(reviews))
    weights[len(reviews) - starters :] = PRIOR_WEIGHT
    return Corpus(
        count(document.features for document in documents),
        [document.words for document in documents],
        np.array([index[review.country] for review in reviews], dtype=np.int64),
        [review.variety for review in reviews],
        weights,
    )


def starter_prior(dataset: Dataset, classes: Sequence[str]) -> list[Review]:
    """The starter notes of these countries; none when they would teach nothing."""
    starter = read_starter()
    if dataset.sha256 == starter.sha256 or len(dataset.reviews) >= PRIOR_BELOW:
        return []
    return [review for review in starter.reviews if review.country in set(classes)]


def folds_of(labels: Labels, folds: int, seed: int) -> Iterator[tuple[Labels, Labels]]:
    """Stratified folds: rows to fit on, rows held out."""
    from sklearn.model_selection import StratifiedKFold  # noqa: PLC0415 - serving never needs scikit-learn

    yield from StratifiedKFold(folds, shuffle=True, random_state=seed).split(np.zeros(len(labels)), labels)


def hold_out(
    corpus: Corpus, notes: int, classes: int, stops: frozenset[str], options: Options, done: Callable[[float], None]
) -> HeldOut:
    """Scores of every one of the first `notes` by a model fitted without its fold; what follows is fitted in every fold."""
    always = np.arange(notes, len(corpus))
    scores, evidence = np.zeros((notes, classes)), np.zeros((notes, classes))
    coverage, fold_of = np.ones(notes), np.zeros(notes, dtype=np.int64)
    for number, (inside, outside) in enumerate(folds_of(corpus.labels[:notes], options.folds, options.seed)):
        learnt = corpus.part(np.concatenate((inside, always)))
        held = corpus.part(outside)
        fitted = fit(learnt, classes)
        known = learnt.vocabulary()
        scores[outside] = fitted.scores(held)
        evidence[outside] = fitted.evidence_of(held.varieties)
        coverage[outside] = [coverage_of(words, known, stops) for words in held.words]
        fold_of[outside] = number
        done((number + 1) / options.folds)
    return HeldOut(scores, evidence, coverage, fold_of)


def fit(notes: Corpus, classes: int) -> Fitted:
    """Vocabulary, weights and variety evidence from these notes and no others."""
    weighting = Weighting.fit(notes.counts)
    weights, bias = _logistic_regression(weighting.apply(notes.counts), notes.labels, _balanced(notes, classes))
    varieties, evidence = _variety_evidence(notes, classes)
    return Fitted(weighting, weights, bias, varieties, evidence)


def fit_calibration(scores: Doubles, evidence: Doubles | None, labels: Labels) -> Calibration:
    """Temperature, class offsets and variety weight that make held-out probabilities most likely (minimum log-loss)."""
    from scipy.optimize import minimize  # noqa: PLC0415 - serving never needs SciPy

    classes = scores.shape[1]
    rows = np.arange(len(labels))

    def unpack(values: Doubles) -> Calibration:
        weight = float(values[1]) if evidence is not None else 0.0
        return Calibration(float(np.exp(values[0])), weight, values[2:] - values[2:].mean())

    def loss(values: Doubles) -> tuple[float, Doubles]:
        calibration = unpack(values)
        probabilities = calibrate(scores, calibration, evidence)
        value = -np.log(np.maximum(probabilities[rows, labels], 1e-12)).mean()
        value += _OFFSET_PENALTY * float(calibration.offsets @ calibration.offsets)
        slope = probabilities.copy()
        slope[rows, labels] -= 1.0
        slope /= len(labels)
        gradient = np.zeros_like(values)
        gradient[0] = -float((slope * scores).sum()) / calibration.temperature
        if evidence is not None:
            gradient[1] = float((slope * evidence).sum())
        offsets = slope.sum(axis=0) + 2 * _OFFSET_PENALTY * calibration.offsets
        gradient[2:] = offsets - offsets.mean()
        return float(value), gradient

    start = np.zeros(2 + classes)
    start[1] = 0.3
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(-3, 3), (0, 3), *[(-3, 3)] * classes])
    return unpack(found.x)


def cross_calibrated(held: HeldOut, labels: Labels, *, use_variety: bool) -> Doubles:
    """Held-out probabilities, each fold calibrated on the other folds."""
    out = np.zeros_like(held.scores)
    for number in np.unique(held.fold):
        inside, outside = held.fold != number, held.fold == number
        evidence = held.evidence if use_variety else None
        calibration = fit_calibration(
            held.scores[inside], None if evidence is None else evidence[inside], labels[inside]
        )
        out[outside] = calibrate(held.scores[outside], calibration, None if evidence is None else evidence[outside])
    return out


def _balanced(notes: Corpus, classes: int) -> Doubles:
    totals = np.bincount(notes.labels, weights=notes.weights, minlength=classes)
    balance = (notes.weights.sum() / (classes * totals)) ** BALANCE
    weights: Doubles = notes.weights * balance[notes.labels]
    return weights


def _logistic_regression(matrix: Any, labels: Labels, sample_weight: Doubles) -> tuple[Doubles, Doubles]:
    """Weights (features, classes) and bias of a multinomial logistic regression with an L2 penalty."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - serving never needs scikit-learn

    model = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=2000, tol=1e-4)
    if len(labels) > ROTATE_BELOW:
        model.fit(matrix, labels, sample_weight=sample_weight)
        weights = model.coef_.T
    else:
        # the optimum lies in the span of the notes: rotate into it (an SVD by way of the Gram matrix), solve, rotate back
        values, vectors = np.linalg.eigh((matrix @ matrix.T).toarray())
        kept = values > 1e-9
        scale = np.sqrt(values[kept])
        model.fit(vectors[:, kept] * scale, labels, sample_weight=sample_weight)
        weights = matrix.T @ ((vectors[:, kept] / scale) @ model.coef_.T)
    bias = model.intercept_
    if weights.shape[1] == 1:  # scikit-learn gives one column for two classes
        weights, bias = np.hstack((-weights / 2, weights / 2)), np.concatenate((-bias / 2, bias / 2))
    return np.asarray(weights, dtype=np.float64), np.asarray(bias, dtype=np.float64)


def _variety_evidence(notes: Corpus, classes: int) -> tuple[dict[str, int], Doubles]:
    """ln P(variety | class), smoothed and centred over the classes, for every variety of these notes."""
    names = [fold(name.strip()) for name in notes.varieties]
    known = {name: index for index, name in enumerate(sorted(set(names) - {""}))}
    counts = np.zeros((len(known), classes))
    for name, label, weight in zip(names, notes.labels, notes.weights, strict=True):
        if name:
            counts[known[name], label] += weight
    smoothed = (counts + _SMOOTHING) / (counts.sum(axis=0) + _SMOOTHING * max(len(known), 1))
    logs = np.log(smoothed)
    return known, logs - logs.mean(axis=1, keepdims=True)


def _probes(model: WineModel, reviews: Sequence[Review]) -> list[Probe]:
    """Notes of different countries with the probabilities that this model gives them."""
    first = {review.country: review for review in reversed(reviews)}
    probes = []
    for name in sorted(first)[:_PROBES]:
        review = first[name]
        for variety in ("", review.variety):
            probabilities = model.probabilities(review.description, variety)
            probes.append(Probe(review.description, variety, [round(float(value), 6) for value in probabilities]))
    return probes
