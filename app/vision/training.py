"""Trains the heads: draws dishes, shows them to the encoders, fits, calibrates, measures. Seeded: equal options, equal heads.

Parts are split by dish (70 % to learn from, 15 % to calibrate on, 15 % to measure with): the clean and the dirty pictures of one dish
are never in two parts. The head is a logistic regression (L2) on the standardised embedding, solved by Newton's method; its strength is
chosen, and its probabilities calibrated (J. Platt, "Probabilistic outputs for support vector machines", 1999), on the second part.
"""

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from app.core.encoder import square
from app.vision import quality
from app.vision.dishes import KINDS, LEVELS, Drawn, Level, draw
from app.vision.model import (
    MODEL_TYPES,
    NOT_A_DISH,
    TRAITS,
    Evidence,
    Head,
    ModelType,
    encoder_of,
    look_at_square,
    sigmoid,
)

Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Progress = Callable[[float, str], None]

PARTS: Final = ("learn", "calibrate", "measure")
SHARES: Final = (0.70, 0.15)
STRENGTHS: Final = (0.0003, 0.001, 0.003, 0.01)
"""C of the regression: the smaller, the simpler the head."""
BANDS: Final = tuple(step / 100 for step in range(55, 81))
CERTAIN: Final = 0.95
"""Answers outside the uncertain band are right at least this often on the second part, where that can be had."""
FALSE_WARNINGS: Final = 0.01
"""Share of dishes that may be called no dish."""
FAMILIAR_DISHES: Final = {"learn": 200, "calibrate": 150, "measure": 100}
"""From how many dishes of each part it is learnt, decided and measured what a dish is taken for."""
RARE: Final = 1e-4
"""Probability that is added to a class that no dish was ever taken for."""
PROBES: Final = 8

KITCHEN: Final = (
    *(
        438,
        441,
        455,
        463,
        469,
        503,
        504,
        505,
        521,
        544,
        550,
        567,
        572,
        618,
        647,
        659,
        666,
        712,
        725,
        729,
        738,
        773,
        809,
    ),
    *(828, 849, 868, 896, 899, 909, 910, 923, 968, 969),
    *range(924, 968),
)
"""ImageNet's classes of dishes, and of what lies on them."""


class TrainingError(ValueError):
    """Nothing can be learnt from these options; the message says why."""


@dataclass(frozen=True)
class Options:
    """What to train.

    Attributes:
        dishes: How many different dishes; each gives one clean and one dirty picture.
        seed: Which dishes they are, and how they are split.
        types: The model types.
    """

    dishes: int = 2000
    seed: int = 0
    types: tuple[ModelType, ...] = MODEL_TYPES

    def __post_init__(self) -> None:
        if self.dishes < 40:
            raise TrainingError(f"{self.dishes} dishes are too few to split, fit and calibrate; draw at least 40")
        if not 0 <= self.seed <= 2000:
            raise TrainingError("the seed is a whole number from 0 to 2000")
        if not self.types or set(self.types) - set(MODEL_TYPES):
            raise TrainingError(f"model types are {', '.join(MODEL_TYPES)}")


@dataclass(frozen=True)
class Trained:
    """A head and everything that is known about it."""

    head: Head
    report: dict[str, Any]


@dataclass
class _Gathered:
    """What an encoder saw; `cells` is the sum of the maps of the clean pictures to learn from."""

    embeddings: list[npt.NDArray[np.float32]]
    classes: dict[str, list[npt.NDArray[np.float32]]]
    cells: Doubles
    clean: int = 0


def seeds_of(options: Options) -> dict[str, list[int]]:
    """The dishes of each part."""
    seeds = options.seed * 1_000_000 + np.arange(options.dishes)
    np.random.default_rng([options.seed, 11]).shuffle(seeds)
    ends = np.cumsum([round(options.dishes * share) for share in SHARES])
    return dict(zip(PARTS, (part.tolist() for part in np.split(seeds, ends)), strict=True))


def level_of(seed: int) -> Level:
    """How dirty the dirty picture of a dish is."""
    return LEVELS[int(np.random.default_rng([seed, 4]).choice(3, p=[0.3, 0.35, 0.35]))]


def pictures(options: Options) -> Iterator[tuple[str, Drawn]]:
    """Every picture with its part, dish by dish."""
    for part, seeds in seeds_of(options).items():
        for seed in seeds:
            yield part, draw(seed)
            yield part, draw(seed, level=level_of(seed))


def train(options: Options, tell: Progress = lambda _share, _sentence: None) -> dict[ModelType, Trained]:
    """Draw, learn and measure; `tell` hears the share done and a sentence."""
    began = datetime.now(UTC)
    drawn: list[tuple[str, str, str | None, npt.NDArray[np.bool_]]] = []
    seen = {kind: _empty(kind) for kind in options.types}
    total = 2 * options.dishes
    for count, (part, picture) in enumerate(pictures(options)):
        if count % 20 == 0:
            tell(0.95 * count / total, f"{count:,} of {total:,} pictures drawn and looked at")
        drawn.append((part, picture.kind, picture.level, picture.stains if part == "measure" else picture.stains[:0]))
        for kind in options.types:
            _gather(seen[kind], kind, picture, part)
    parts = np.array([row[0] for row in drawn])
    dirty = np.array([row[2] is not None for row in drawn])
    trained = {}
    for number, kind in enumerate(options.types):
        tell(0.95 + 0.05 * number / len(options.types), f"fitting {kind}")
        head, chosen = _fit(kind, seen[kind], parts, dirty)
        report = _report(head, seen[kind], drawn, options, chosen)
        report |= {"trained_at": began.isoformat(timespec="seconds")}
        trained[kind] = Trained(head, report)
    tell(1.0, "done")
    return trained


def _empty(kind: ModelType) -> _Gathered:
    grid = encoder_of(kind).grid
    return _Gathered([], {part: [] for part in PARTS}, np.zeros((grid, grid, 1280)))


def _gather(into: _Gathered, kind: ModelType, picture: Drawn, part: str) -> None:
    seen = see(picture, kind)
    into.embeddings.append(seen.embedding)
    if len(into.classes[part]) < 2 * FAMILIAR_DISHES[part]:
        into.classes[part].append(seen.classes)
    if part == "learn" and not picture.dirty:
        into.cells += seen.cells
        into.clean += 1


def see(picture: Drawn, kind: ModelType) -> Evidence:
    """Show a drawn picture to the encoder of a model type."""
    encoder = encoder_of(kind)
    return look_at_square(square(picture.image, encoder.side), encoder, looks=TRAITS[kind].looks)


def _fit(kind: ModelType, seen: _Gathered, parts: npt.NDArray[np.str_], dirty: Flags) -> tuple[Head, dict[str, Any]]:
    embeddings = np.array(seen.embeddings, np.float64)
    learn, calibrate = parts == "learn", parts == "calibrate"
    mean, spread = embeddings[learn].mean(axis=0), embeddings[learn].std(axis=0)
    spread[spread < 1e-6] = 1.0
    best: tuple[float, float, Doubles, float, float, float] | None = None
    losses = {}
    for strength in STRENGTHS:
        weights, bias = logistic((embeddings[learn] - mean) / spread, dirty[learn], strength)
        sums = (embeddings[calibrate] - mean) / spread @ weights + bias
        slope, offset = calibrated(sums, dirty[calibrate])
        loss = quality.log_loss(sigmoid(slope * sums + offset), dirty[calibrate])
        losses[str(strength)] = round(loss, 5)
        if best is None or loss < best[0]:
            best = (loss, strength, weights, bias, slope, offset)
    assert best is not None  # noqa: S101 - STRENGTHS is not empty; says so to the type checker
    _, strength, weights, bias, slope, offset = best
    weights32 = (weights / spread).astype(np.float32)
    familiar, least = what_is_familiar(seen.classes)
    rows = np.flatnonzero(calibrate)[:: max(1, int(calibrate.sum()) // PROBES)][:PROBES]
    probes = embeddings[rows].astype(np.float32)
    head = Head(
        model_type=kind,
        encoder_sha256=encoder_of(kind).sha256,
        weights=weights32,
        bias=float(bias - (weights / spread) @ mean),
        slope=slope,
        offset=offset,
        band=BANDS[-1],
        usual=(seen.cells / seen.clean @ weights32.astype(np.float64) / encoder_of(kind).grid ** 2).astype(np.float32),
        familiar=familiar,
        least=least,
        probes=probes,
        expected=np.zeros(len(probes), np.float32),
    )
    band = band_of(head.dirty(embeddings[calibrate].astype(np.float32)), dirty[calibrate])
    head = Head(**{**vars(head), "band": band, "expected": head.dirty(probes).astype(np.float32)})
    head.check()
    return head, {"strength": strength, "calibration_log_loss": losses}


def logistic(features: Doubles, labels: Flags, strength: float) -> tuple[Doubles, float]:
    """Weights and bias of the logistic regression that minimises `sum(log-loss) + |weights|^2 / (2 strength)`.

    Newton's method; the bias is not penalised. `features` (n, d), `labels` (n,).
    """
    design = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    penalty = np.full(design.shape[1], 1 / strength)
    penalty[-1] = 0.0
    weights = np.zeros(design.shape[1])
    for _ in range(50):
        expected = sigmoid(design @ weights)
        gradient = design.T @ (expected - labels) + penalty * weights
        curvature = (design * (expected * (1 - expected))[:, None]).T @ design
        curvature[np.diag_indices_from(curvature)] += penalty + 1e-9
        step = np.linalg.solve(curvature, gradient)
        weights = weights - step
        if np.abs(step).max() < 1e-9:
            break
    return weights[:-1], float(weights[-1])


def calibrated(sums: Doubles, labels: Flags) -> tuple[float, float]:
    """Slope and offset that make sums into log-odds; targets are pulled in a little, as Platt does, so that few data do not boast."""
    positive, negative = float(labels.sum()), float((~labels).sum())
    targets = np.where(labels, (positive + 1) / (positive + 2), 1 / (negative + 2))
    slope, offset = 1.0, 0.0
    for _ in range(100):
        expected = sigmoid(slope * sums + offset)
        weight = np.maximum(expected * (1 - expected), 1e-9)
        gradient = np.array([((expected - targets) * sums).sum(), (expected - targets).sum()])
        curvature = np.array([[(weight * sums**2).sum(), (weight * sums).sum()], [(weight * sums).sum(), weight.sum()]])
        step = np.linalg.solve(curvature + 1e-9 * np.eye(2), gradient)
        step = step / max(1.0, np.abs(step).max())
        slope, offset = slope - float(step[0]), offset - float(step[1])
        if np.abs(step).max() < 1e-10:
            break
    return max(slope, 1e-3), offset


def band_of(dirty: Doubles, labels: Flags) -> float:
    """The lowest confidence above which answers are right often enough, between 0.55 and 0.80."""
    confidence, right = np.maximum(dirty, 1 - dirty), (dirty >= 0.5) == labels
    for band in BANDS:
        certain = confidence >= band
        if certain.any() and right[certain].mean() >= CERTAIN:
            return band
    return BANDS[-1]


def what_is_familiar(classes: Mapping[str, Sequence[npt.NDArray[np.float32]]]) -> tuple[npt.NDArray[np.float32], float]:
    """The weights of ImageNet's classes (1000,), and the least sum that all but a few dishes reach."""
    familiar = familiarity(np.array(classes["learn"], np.float64).mean(axis=0))
    sums = np.array(classes["calibrate"], np.float64) @ familiar
    return familiar, float(np.quantile(sums, FALSE_WARNINGS))


def familiarity(mean: Doubles) -> npt.NDArray[np.float32]:
    """(1000,) log of how much more often dishes are taken for a class than one class in a thousand; kitchenware counts at least 1.

    `mean` (1000,) are the mean probabilities of pictures of dishes.
    """
    weights = np.log((mean + RARE) / (1 / len(mean)))
    weights[list(KITCHEN)] = np.maximum(weights[list(KITCHEN)], 1.0)
    return np.asarray(weights, np.float32)


def _report(
    head: Head,
    seen: _Gathered,
    drawn: Sequence[tuple[str, str, str | None, npt.NDArray[np.bool_]]],
    options: Options,
    chosen: Mapping[str, Any],
) -> dict[str, Any]:
    parts = np.array([row[0] for row in drawn])
    measure = parts == "measure"
    rows = np.flatnonzero(measure).tolist()
    labels = np.array([drawn[row][2] is not None for row in rows])
    dirty = head.dirty(np.array(seen.embeddings, np.float32)[measure])
    strange = np.array(seen.classes["measure"], np.float64) @ head.familiar < head.least
    found = quality.measure(dirty, labels, head.band)
    kinds = np.array([drawn[row][1] for row in rows])
    levels = np.array([drawn[row][2] or "" for row in rows])
    return {
        "kind": "vision-model",
        "model_type": head.model_type,
        "metrics": {
            **asdict(found),
            "found_by_level": {
                level: _share((dirty >= 0.5)[levels == level]) for level in LEVELS if (levels == level).any()
            },
            "balanced_accuracy_by_kind": {
                kind: quality.measure(dirty[kinds == kind], labels[kinds == kind], head.band).balanced_accuracy
                for kind in KINDS
                if len(set(labels[kinds == kind])) == 2
            },
            f"{NOT_A_DISH}_false": _share(strange),
        },
        "head": {**chosen, "band": head.band, "least_familiar": round(head.least, 4)},
        "encoder": {"variant": TRAITS[head.model_type].variant, "sha256": head.encoder_sha256},
        "data": {
            "source": "drawn by app.vision.dishes",
            "seed": options.seed,
            "dishes": options.dishes,
            "pictures": len(drawn),
            "split": {name: int((parts == name).sum()) for name in PARTS},
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version_of(name) for name in ("numpy", "onnxruntime", "pillow")},
        },
    }


def _share(values: npt.NDArray[Any]) -> float:
    return round(float(values.mean()), 4)
