"""Training: clean reviews in, a calibrated model and an honest report out.

Everything that learns from the notes (vocabulary, idf, weights, variety counts) is fitted inside each fold; the calibration is
fitted on predictions for notes that their model had not seen, and is itself measured on folds it was not fitted on.
"""

import platform
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from app.wine import quality
from app.wine.analytics import make_table
from app.wine.counting import Counts, Features, Weighting, count
from app.wine.dataset import Dataset, Review, read_starter
from app.wine.features import Doubles, Reader
from app.wine.model import Calibration, Probe, WineModel, calibrate, reach
from app.wine.text import Backend, content_words, fold, stop_words

FOLDS: Final = 5
SEED: Final = 7

INVERSE_REGULARISATION: Final = 3.0
"""C of the logistic regression."""

BALANCE: Final = 1.5
"""Weight of a note: (notes / (classes * notes of its class)) to this power; 1 is scikit-learn's "balanced".

Above 1 the rare countries shape the weights more; the calibration's offsets take back what is too much. Measured on real reviews:
with 1.5 the note alone gains .003 accuracy and .014 macro-F1 over 1.
"""

PRIOR_WEIGHT: Final = 0.1
"""Weight of a starter note beside a real one: they teach grape and place names that a small collection has not met."""

PRIOR_BELOW: Final = 10_000
"""With this many reviews or more the starter notes have nothing left to teach."""

ROTATE_BELOW: Final = 3_000
"""Up to this many notes the regression is solved in the space of the notes: same answer, many times faster."""

MIN_NOTES: Final = FOLDS
"""A country needs this many notes, one for each fold."""

SHRINKS: Final = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
"""What is tried for the shrinking of answers to short notes, see `app.wine.model.reach`."""

_CLIP_WORDS: Final = (2, 10)
_SMOOTHING: Final = 0.3
_COVERAGE: Final = (0.25, 0.4)
_COVERAGE_QUANTILE: Final = 0.002
_PROBES: Final = 5
_LIBRARIES: Final = ("numpy", "scipy", "nltk")

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
    """For every note what a model that had not seen it says; `fold` is the fold it was held out in.

    `known` and `content` count its different words that say something: those the model knows, and all. `clip_scores` and
    `clip_known` are the same for a few words cut out of the note.
    """

    scores: Doubles
    evidence: Doubles
    known: Doubles
    content: Doubles
    clip_scores: Doubles
    clip_known: Doubles
    fold: Labels


def train(dataset: Dataset, options: Options | None = None, progress: Progress | None = None) -> Trained:
    """Train on all usable reviews. Raises TrainingError.

    `progress` is called with the share done (0 to 1) and a sentence.
    """
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 - serving never needs it

    with threadpool_limits(1):  # the matrices are small: threads would only wait for each other
        return _train(dataset, options or Options(), progress or (lambda _share, _sentence: None))


def _train(dataset: Dataset, options: Options, tell: Progress) -> Trained:
    reviews, classes, dropped = usable(dataset.reviews)
    tell(0.02, f"reading {len(reviews)} notes from {len(classes)} countries")
    stops, stop_source = stop_words()
    backend = Backend(stemmer=options.stemmer, stop_words=stop_source)
    reader = Reader(backend)
    prior = starter_prior(dataset, classes) if options.prior else []
    everything = read_notes(reviews, prior, classes, reader, options.seed)
    labels = everything.labels[: len(reviews)]
    fixed = np.arange(len(reviews), len(reviews) + len(prior))
    tell(0.15, "weights: held-out folds")
    held = hold_out(
        everything,
        np.arange(len(reviews)),
        fixed,
        len(classes),
        stops,
        options,
        lambda done: tell(0.15 + 0.60 * done, f"fold {done * options.folds:.0f} of {options.folds} done"),
    )
    tell(0.75, "calibrating")
    shrink = fit_shrink(held, labels)
    scores = held.scores * reach(held.known, shrink)
    plain = fit_calibration(scores, None, labels)
    with_variety = fit_calibration(scores, held.evidence, labels)
    measured = {
        "with_variety": quality.measure(cross_calibrated(held, labels, shrink, use_variety=True), labels, classes),
        "note_only": quality.measure(cross_calibrated(held, labels, shrink, use_variety=False), labels, classes),
    }
    tell(0.80, "fitting on all notes")
    everything = everything.part(np.arange(len(reviews) + len(prior)))
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
        shrink=shrink,
        min_coverage=float(
            np.clip(np.quantile(held.known / np.maximum(held.content, 1), _COVERAGE_QUANTILE), low, high)
        ),
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
            "shrink": shrink,
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


def read_notes(
    reviews: Sequence[Review], prior: Sequence[Review], classes: Sequence[str], reader: Reader, seed: int
) -> Corpus:
    """Ready for fitting: these reviews, then the prior's with their small weight, then a clip of each of these reviews."""
    index = {name: place for place, name in enumerate(classes)}
    rng = random.Random(seed)  # noqa: S311 - which words are cut out is no secret
    clipped = [replace(review, description=_clip(review.description, rng)) for review in reviews]
    rows = [*reviews, *prior, *clipped]
    words: list[list[str]] = []

    def features() -> Iterator[Features]:
        for review in rows:  # one at a time: taken apart, a note is a hundred times its size
            document = reader.read(review.description)
            words.append([sys.intern(word) for word in document.words])
            yield document.features

    weights = np.ones(len(rows))
    weights[len(reviews) : len(reviews) + len(prior)] = PRIOR_WEIGHT
    return Corpus(
        count(features()),
        words,
        np.array([index[review.country] for review in rows], dtype=np.int64),
        [review.variety for review in rows],
        weights,
    )


def _clip(text: str, rng: random.Random) -> str:
    """A few words in a row from anywhere in the text."""
    found = text.split()
    size = rng.randint(*_CLIP_WORDS)
    start = rng.randint(0, max(0, len(found) - size))
    return " ".join(found[start : start + size])


def starter_prior(dataset: Dataset, classes: Sequence[str]) -> list[Review]:
    """The starter notes of these countries; none when they would teach nothing."""
    starter = read_starter()
    if dataset.sha256 == starter.sha256 or len(dataset.reviews) >= PRIOR_BELOW:
        return []
    return [review for review in starter.reviews if review.country in set(classes)]


def folds_of(labels: Labels, folds: int, seed: int) -> Iterator[tuple[Labels, Labels]]:
    """Stratified folds: rows to fit on, rows held out. Each class is shuffled and dealt out to the folds in turn."""
    rng = np.random.default_rng(seed)
    fold_of = np.empty(len(labels), dtype=np.int64)
    dealt = 0
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        fold_of[rows] = (
            dealt + np.arange(len(rows))
        ) % folds  # going on where the last class ended keeps the folds equal
        dealt += len(rows)
    for number in range(folds):
        yield np.flatnonzero(fold_of != number), np.flatnonzero(fold_of == number)


def hold_out(
    corpus: Corpus,
    notes: Labels,
    fixed: Labels,
    classes: int,
    stops: frozenset[str],
    options: Options,
    done: Callable[[float], None],
) -> HeldOut:
    """What models say about the rows `notes`, each by one fitted without its fold; the rows `fixed` are in every fit."""
    size = len(notes)
    out = HeldOut(
        scores=np.zeros((size, classes)),
        evidence=np.zeros((size, classes)),
        known=np.zeros(size),
        content=np.zeros(size),
        clip_scores=np.zeros((size, classes)),
        clip_known=np.zeros(size),
        fold=np.zeros(size, dtype=np.int64),
    )
    reviews = (len(corpus) - len(fixed)) // 2  # reviews, fixed rows, clips of the reviews
    for number, (inside, outside) in enumerate(folds_of(corpus.labels[notes], options.folds, options.seed)):
        learnt = corpus.part(np.concatenate((notes[inside], fixed)))
        held, clips = corpus.part(notes[outside]), corpus.part(notes[outside] + reviews + len(fixed))
        fitted = fit(learnt, classes)
        vocabulary = learnt.vocabulary()
        out.scores[outside] = fitted.scores(held)
        out.evidence[outside] = fitted.evidence_of(held.varieties)
        out.clip_scores[outside] = fitted.scores(clips)
        out.content[outside] = [len(content_words(words, stops)) for words in held.words]
        out.known[outside] = [len(content_words(words, stops) & vocabulary) for words in held.words]
        out.clip_known[outside] = [len(content_words(words, stops) & vocabulary) for words in clips.words]
        out.fold[outside] = number
        done((number + 1) / options.folds)
    return out


def fit_shrink(held: HeldOut, labels: Labels) -> float:
    """How much the answers to short notes must shrink so that they, too, mean what they say (minimum log-loss)."""

    def loss(shrink: float) -> float:
        calibration = fit_calibration(held.scores * reach(held.known, shrink), None, labels)
        whole = calibrate(held.scores * reach(held.known, shrink), calibration)
        clips = calibrate(held.clip_scores * reach(held.clip_known, shrink), calibration)
        return quality.log_loss(whole, labels) + quality.log_loss(clips, labels)

    return min(SHRINKS, key=loss)


def fit(notes: Corpus, classes: int) -> Fitted:
    """Vocabulary, weights and variety evidence from these notes and no others."""
    weighting = Weighting.fit(notes.counts)
    weights, bias = _logistic_regression(
        weighting.apply(notes.counts), notes.labels, _balanced(notes, classes), classes
    )
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
        slope = probabilities.copy()
        slope[rows, labels] -= 1.0
        slope /= len(labels)
        gradient = np.zeros_like(values)
        gradient[0] = -float((slope * scores).sum()) / calibration.temperature
        if evidence is not None:
            gradient[1] = float((slope * evidence).sum())
        offsets = slope.sum(axis=0)
        gradient[2:] = offsets - offsets.mean()
        return float(value), gradient

    start = np.zeros(2 + classes)
    start[1] = 0.3
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(-3, 3), (0, 3), *[(-3, 3)] * classes])
    return unpack(found.x)


def cross_calibrated(held: HeldOut, labels: Labels, shrink: float, *, use_variety: bool) -> Doubles:
    """Held-out probabilities, each fold calibrated on the other folds."""
    scores = held.scores * reach(held.known, shrink)
    out = np.zeros_like(scores)
    for number in np.unique(held.fold):
        inside, outside = held.fold != number, held.fold == number
        evidence = held.evidence if use_variety else None
        calibration = fit_calibration(scores[inside], None if evidence is None else evidence[inside], labels[inside])
        out[outside] = calibrate(scores[outside], calibration, None if evidence is None else evidence[outside])
    return out


def _balanced(notes: Corpus, classes: int) -> Doubles:
    totals = np.bincount(notes.labels, weights=notes.weights, minlength=classes)
    balance = (notes.weights.sum() / (classes * totals)) ** BALANCE
    weights: Doubles = notes.weights * balance[notes.labels]
    return weights


def _logistic_regression(matrix: Any, labels: Labels, sample_weight: Doubles, classes: int) -> tuple[Doubles, Doubles]:
    """Weights (features, classes) and bias of a multinomial logistic regression with an L2 penalty.

    Minimises `C * sum of weighted log-losses + |weights|^2 / 2`, as scikit-learn's LogisticRegression does; the bias is free.
    """
    if len(labels) > ROTATE_BELOW:
        return _minimise(matrix, labels, sample_weight, classes)
    # the optimum lies in the span of the notes: rotate into it (an SVD by way of the Gram matrix), solve, rotate back
    values, vectors = np.linalg.eigh((matrix @ matrix.T).toarray())
    kept = values > 1e-9
    scale = np.sqrt(values[kept])
    weights, bias = _minimise(vectors[:, kept] * scale, labels, sample_weight, classes)
    return np.asarray(matrix.T @ ((vectors[:, kept] / scale) @ weights)), bias


def _minimise(matrix: Any, labels: Labels, sample_weight: Doubles, classes: int) -> tuple[Doubles, Doubles]:
    from scipy.optimize import minimize  # noqa: PLC0415 - serving never needs SciPy

    rows, features = np.arange(len(labels)), matrix.shape[1]
    total = sample_weight.sum()
    penalty = 1.0 / (INVERSE_REGULARISATION * total)

    def loss(values: Doubles) -> tuple[float, Doubles]:
        weights, bias = values[:-classes].reshape(features, classes), values[-classes:]
        logits = matrix @ weights + bias
        logits -= logits.max(axis=1, keepdims=True)
        right = logits[rows, labels]
        np.exp(logits, out=logits)
        sums = logits.sum(axis=1)
        value = (sample_weight @ (np.log(sums) - right)) / total + penalty / 2 * float(
            values[:-classes] @ values[:-classes]
        )
        logits *= (sample_weight / (sums * total))[:, None]
        logits[rows, labels] -= sample_weight / total
        slope = np.concatenate(((matrix.T @ logits + penalty * weights).ravel(), logits.sum(axis=0)))
        return float(value), slope

    settings = {"maxiter": 2000, "gtol": 1e-6, "ftol": 1e-10, "maxcor": 10}
    found = minimize(loss, np.zeros((features + 1) * classes), jac=True, method="L-BFGS-B", options=settings).x
    return found[:-classes].reshape(features, classes), found[-classes:]


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
