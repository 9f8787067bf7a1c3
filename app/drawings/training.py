"""Training: embeddings of normal drawings in, a model and an honest report out. Seeded: the same drawings give the same model.

Every threshold comes from drawings that the model which scored them had not seen: the drawings are split into five folds, and each
fold is scored by what the other four teach. (The training drawings' own errors are far too small: thresholds from them raised
20-40 % false alarms.) PCA and autoencoder are compared on the same unseen drawings.
"""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from app.core.encoder import EMBEDDING
from app.drawings.model import (
    PARTS,
    Doubles,
    DrawingModel,
    Group,
    Method,
    Probe,
    Rebuilder,
    References,
    combine,
    rank,
    threshold_of,
)
from app.drawings.subjects import SLOTS, UNSPECIFIED

SEED: Final = 42
FOLDS: Final = 5
COMPONENTS: Final = 16
MIN_SAMPLES: Final = 50
MAX_YEARS: Final = 4.0
PERCENTILE: Final = 95.0
AGES: Final = ((2.0, 3.0), (3.0, 4.0), (4.0, 5.0), (5.0, 6.0), (6.0, 7.0), (7.0, 8.0), (8.0, 9.0), (9.0, 12.0))
"""The age groups before thin ones are merged."""

_RIDGE: Final = 3000.0
_SCALE_FLOOR: Final = 0.05
_REFERENCES: Final = 24
_PROBES: Final = 3
_WIDE: Final = 48
_STEPS: Final = 250
_RATE: Final = 0.01

Tell = Callable[[float, str], None]
Rows = npt.NDArray[np.int64]


class TrainingError(Exception):
    """There is nothing to train on; the message says what is missing."""


@dataclass(frozen=True)
class Samples:
    """Normal drawings: embeddings (n, 1280), subjects' indices, ages in years, shares of marked paper, and what each is."""

    embeddings: npt.NDArray[np.float32]
    subjects: Rows
    ages: Doubles
    ink: Doubles
    about: list[dict[str, Any]]
    encoder: str
    source: str

    def __len__(self) -> int:
        """Number of drawings."""
        return len(self.ages)


@dataclass(frozen=True)
class Span:
    """An age group to be trained: its ages and how many drawings it has."""

    age_min: float
    age_max: float
    samples: int

    @property
    def name(self) -> str:
        """How it is called: 5-6."""
        return f"{self.age_min:g}-{self.age_max:g}"


@dataclass(frozen=True)
class Trained:
    """A model with the report about it."""

    model: DrawingModel
    report: dict[str, Any]


def spans(ages: Doubles, minimum: int = MIN_SAMPLES) -> list[Span]:
    """The age groups that these ages allow: thin ones are merged with their thinner neighbour, up to four years together.

    What stays thin is left out, and so are ages without any drawing.
    """
    every = [Span(low, high, int(((ages >= low) & (ages < high)).sum())) for low, high in AGES]
    found = [span for span in every if span.samples]
    while True:
        merged = _merge_thinnest(found, minimum)
        if merged is None:
            return [span for span in found if span.samples >= minimum]
        found = merged


def _merge_thinnest(found: list[Span], minimum: int) -> list[Span] | None:
    thin = sorted((span.samples, place) for place, span in enumerate(found) if span.samples < minimum)
    for _, place in thin:
        beside = [
            other
            for other in (place - 1, place + 1)
            if 0 <= other < len(found)
            and max(found[place].age_max, found[other].age_max) - min(found[place].age_min, found[other].age_min)
            <= MAX_YEARS
        ]
        if beside:
            other = min(beside, key=lambda one: (found[one].samples, one))
            low, high = sorted((place, other))
            one = Span(found[low].age_min, found[high].age_max, found[low].samples + found[high].samples)
            return [*found[:low], one, *found[high + 1 :]]
    return None


def train(samples: Samples, tell: Tell = lambda _share, _sentence: None, *, seed: int = SEED) -> Trained:
    """Train a model of every age group that has enough drawings.

    Raises:
        TrainingError: No age group has enough drawings, even merged.
    """
    wanted = spans(samples.ages)
    if not wanted:
        raise TrainingError(
            f"{len(samples)} drawings are too few: one age group of at most {MAX_YEARS:g} years needs {MIN_SAMPLES}"
        )
    random = np.random.default_rng(seed)
    of_group = np.full(len(samples), -1, dtype=np.int64)
    for number, span in enumerate(wanted):
        of_group[(samples.ages >= span.age_min) & (samples.ages < span.age_max)] = number
    rows = np.flatnonzero(of_group >= 0)
    folds = _folds(of_group, rows, random)
    parts = np.zeros((2, len(samples), len(PARTS)))  # by method
    far: list[list[list[float]]] = [[[] for _ in wanted] for _ in range(2)]
    for fold in range(FOLDS):
        tell(0.1 + 0.7 * fold / FOLDS, f"fold {fold + 1} of {FOLDS}")
        _score_fold(
            samples, wanted, of_group, rows[folds[rows] != fold], rows[folds[rows] == fold], seed + fold, parts, far
        )
    tell(0.85, "comparing PCA and autoencoder")
    chosen, comparison = _choose(wanted, of_group, parts, far)
    tell(0.9, "fitting on all drawings")
    model = _final(samples, wanted, of_group, rows, parts, chosen, seed)
    report = _report(samples, wanted, of_group, model, comparison, seed)
    tell(1.0, "done")
    return Trained(model, report)


@dataclass(frozen=True)
class _Shared:
    """What all age groups have in common."""

    mean: Doubles
    scale: Doubles
    subject_weights: Doubles
    subject_bias: Doubles
    age_weights: Doubles
    age_bias: float
    known: frozenset[int]

    @classmethod
    def fit(cls, samples: Samples, rows: Rows) -> "_Shared":
        raw = samples.embeddings[rows].astype(np.float64)
        mean, scale = raw.mean(axis=0), raw.std(axis=0) + _SCALE_FLOOR
        standard = (raw - mean) / scale
        slots = np.eye(SLOTS)[samples.subjects[rows]]
        bias, age_bias = slots.mean(axis=0), float(samples.ages[rows].mean())
        targets = np.concatenate([slots - bias, (samples.ages[rows] - age_bias)[:, None]], axis=1)
        # ridge regression in the space of the drawings, which are fewer than the numbers of an embedding squared
        duals = np.linalg.solve(standard @ standard.T + _RIDGE * np.eye(len(rows)), targets)
        weights = standard.T @ duals
        known = frozenset(int(index) for index in np.unique(samples.subjects[rows])) - {UNSPECIFIED}
        return cls(mean, scale, weights[:, :SLOTS], bias, weights[:, SLOTS], age_bias, known)

    def standard(self, embeddings: npt.ArrayLike) -> Doubles:
        made: Doubles = (np.asarray(embeddings, dtype=np.float64) - self.mean) / self.scale
        return made


def _folds(of_group: Rows, rows: Rows, random: np.random.Generator) -> Rows:
    """A fold for every drawing, each group spread evenly."""
    folds = np.full(len(of_group), -1, dtype=np.int64)
    for group in np.unique(of_group[rows]):
        members = random.permutation(np.flatnonzero(of_group == group))
        folds[members] = np.arange(len(members)) % FOLDS
    return folds


def _score_fold(
    samples: Samples,
    wanted: Sequence[Span],
    of_group: Rows,
    learn: Rows,
    unseen: Rows,
    seed: int,
    parts: Doubles,
    far: list[list[list[float]]],
) -> None:
    """Score the unseen drawings with what the others teach, and other ages' drawings as each group would see them."""
    shared = _Shared.fit(samples, learn)
    standard = shared.standard(samples.embeddings)
    model = _frame(samples.encoder, shared, [])
    subject = model.subject(standard[unseen], samples.subjects[unseen].tolist())
    age = np.abs(model.ages(standard[unseen]) - samples.ages[unseen])
    for number in range(len(wanted)):
        mine = learn[of_group[learn] == number]
        own = of_group[unseen] == number
        others = unseen[np.abs(of_group[unseen] - number) >= 2]
        for place, rebuilder in enumerate((_pca(standard[mine]), _autoencoder(standard[mine], seed))):
            left = rebuilder.residual(standard[unseen[own]])
            parts[place, unseen[own], 0] = (left * left).mean(axis=1)
            parts[place, unseen[own], 1] = subject[own]
            parts[place, unseen[own], 2] = age[own]
            other = rebuilder.residual(standard[others])
            far[place][number] += (other * other).mean(axis=1).tolist()


def _pca(standard: Doubles, components: int = COMPONENTS) -> Rebuilder:
    mean = standard.mean(axis=0)
    # eigenvectors in the space of the drawings: a tenth of the work of the other space
    centred = standard - mean
    values, vectors = np.linalg.eigh(centred @ centred.T)
    keep = min(components, len(standard) - 1)
    top = np.argsort(-values, kind="stable")[:keep]
    basis = (vectors[:, top].T @ centred) / np.sqrt(np.maximum(values[top], 1e-12))[:, None]
    return Rebuilder("pca", mean, basis)


def _autoencoder(standard: Doubles, seed: int) -> Rebuilder:
    """16 tanh units between two matrices, in the space of the first 48 components; Adam on all drawings at once."""
    wide = _pca(standard, _WIDE)
    code = (standard - wide.mean) @ wide.basis.T
    spread = float(code.std()) or 1.0
    inputs = code / spread
    random = np.random.default_rng(seed)
    width = code.shape[1]
    weights = [random.normal(0, 1 / np.sqrt(width), (width, COMPONENTS)), random.normal(0, 0.25, (COMPONENTS, width))]
    first = [np.zeros_like(weight) for weight in weights]
    second = [np.zeros_like(weight) for weight in weights]
    for step in range(1, _STEPS + 1):
        hidden = np.tanh(inputs @ weights[0])
        error = (hidden @ weights[1] - inputs) / len(inputs)
        back = (error @ weights[1].T) * (1 - hidden**2)
        for place, gradient in enumerate((inputs.T @ back, hidden.T @ error)):
            first[place] = 0.9 * first[place] + 0.1 * gradient
            second[place] = 0.999 * second[place] + 0.001 * gradient**2
            correction = np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            weights[place] -= _RATE * correction * first[place] / (np.sqrt(second[place]) + 1e-8)
    return Rebuilder("autoencoder", wide.mean, wide.basis, weights[0] / spread, weights[1] * spread)


def _choose(
    wanted: Sequence[Span], of_group: Rows, parts: Doubles, far: list[list[list[float]]]
) -> tuple[list[Method], list[dict[str, Any]]]:
    """The method of each group: the one that tells unseen drawings of the group from those of other ages better; PCA when equal."""
    names: tuple[Method, Method] = ("pca", "autoencoder")
    chosen: list[Method] = []
    told = []
    for number, span in enumerate(wanted):
        own = np.flatnonzero(of_group == number)
        areas = [
            roc_auc(parts[place, own, 0], np.array(far[place][number])) if far[place][number] else 0.5
            for place in range(2)
        ]
        chosen.append(names[1] if areas[1] > areas[0] + 1e-3 else names[0])
        told.append(
            {
                "age_group": span.name,
                "method": chosen[-1],
                "pca_auc": round(areas[0], 4),
                "autoencoder_auc": round(areas[1], 4),
                "pca_error": round(float(parts[0, own, 0].mean()), 4),
                "autoencoder_error": round(float(parts[1, own, 0].mean()), 4),
            }
        )
    return chosen, told


def roc_auc(normal: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Area under the ROC curve: how often one of `other` scores above one of `normal`; equal ones count half."""
    known = np.sort(np.asarray(normal, dtype=np.float64))
    return float(np.mean([rank(known, float(value)) for value in np.asarray(other, dtype=np.float64)]) / 100)


def _final(
    samples: Samples,
    wanted: Sequence[Span],
    of_group: Rows,
    rows: Rows,
    parts: Doubles,
    chosen: Sequence[Method],
    seed: int,
) -> DrawingModel:
    shared = _Shared.fit(samples, rows)
    standard = shared.standard(samples.embeddings)
    groups, about, vectors = [], [], []
    for number, span in enumerate(wanted):
        own = np.flatnonzero(of_group == number)
        rebuilder = _pca(standard[own]) if chosen[number] == "pca" else _autoencoder(standard[own], seed)
        seen = parts[0 if chosen[number] == "pca" else 1, own]
        scales = np.maximum(np.quantile(seen, PERCENTILE / 100, axis=0), 1e-6)
        scores = np.sort(combine(seen, scales))
        ink_low = float(samples.ink[own].min()) / 2
        groups.append(
            Group(span.name, span.age_min, span.age_max, rebuilder, scales, scores, np.sort(seen, axis=0).T, ink_low)
        )
        typical = own[np.argsort(combine(seen, scales), kind="stable")[: len(own) // 2]]
        picked = typical[:: max(1, len(typical) // _REFERENCES)][:_REFERENCES]
        for row in picked.tolist():
            vector = standard[row]
            vectors.append(vector / np.linalg.norm(vector))
            about.append({"group": span.name, **samples.about[row]})
    model = _frame(samples.encoder, shared, groups, References(np.array(vectors, dtype=np.float16), about))
    return _with_probes(model, samples, rows)


def _frame(
    encoder: str,
    shared: _Shared,
    groups: list[Group],
    references: References | None = None,
    probes: list[Probe] | None = None,
) -> DrawingModel:
    none = References(np.zeros((0, EMBEDDING), dtype=np.float16), [])
    return DrawingModel(
        encoder=encoder,
        mean=shared.mean,
        scale=shared.scale,
        subject_weights=shared.subject_weights,
        subject_bias=shared.subject_bias,
        known_subjects=shared.known,
        age_weights=shared.age_weights,
        age_bias=shared.age_bias,
        groups=groups,
        references=references or none,
        probes=probes or [],
    )


def _with_probes(model: DrawingModel, samples: Samples, rows: Rows) -> DrawingModel:
    probes = []
    for row in rows[:: max(1, len(rows) // _PROBES)][:_PROBES].tolist():
        embedding = samples.embeddings[row].astype(np.float64).round(4)
        standard = model.standard(embedding[None])
        group = model.group_for(float(samples.ages[row]))
        parts = [
            float(model.visual(group, standard)[0]),
            float(model.subject(standard, [int(samples.subjects[row])])[0]),
            abs(float(model.ages(standard)[0]) - float(samples.ages[row])),
        ]
        score = float(combine(np.array([parts]), group.scales)[0])
        probes.append(Probe(embedding.tolist(), int(samples.subjects[row]), float(samples.ages[row]), score))
    return DrawingModel(**{**vars(model), "probes": probes})


def _report(
    samples: Samples,
    wanted: Sequence[Span],
    of_group: Rows,
    model: DrawingModel,
    comparison: list[dict[str, Any]],
    seed: int,
) -> dict[str, Any]:
    return {
        "kind": "drawings-model",
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "encoder": samples.encoder,
        "data": {
            "source": samples.source,
            "drawings": len(samples),
            "used": int((of_group >= 0).sum()),
            "left_out": int((of_group < 0).sum()),
            "subjects": len(set(samples.subjects.tolist())),
        },
        "folds": FOLDS,
        "age_groups": [
            {
                **told,
                "samples": span.samples,
                "threshold": round(threshold_of(group.scores, PERCENTILE), 4),
                "scales": [round(float(scale), 4) for scale in group.scales],
                "ink_low": round(group.ink_low, 5),
            }
            for span, group, told in zip(wanted, model.groups, comparison, strict=True)
        ],
        "libraries": {"python": platform.python_version(), "numpy": np.__version__},
    }
