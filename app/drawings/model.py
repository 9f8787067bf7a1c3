"""The model: how far a drawing is from what its age group draws, in three parts that are each the error of a reconstruction.

- **visual**: the picture's embedding, standardised, is rebuilt by the age group's model (PCA with 16 components, or an autoencoder
  when the training report found it better); the part is the mean squared error.
- **subject**: the subject's slots are rebuilt from the picture; the part is by how much another subject fits better than the one given.
- **age**: the age is rebuilt from the picture; the part is the distance in years.

Each part is divided by the 95th percentile it had for normal drawings that its model had not seen; the score is the 4-norm of the
three, so any one of them can raise it: `score = (visual^4 + subject^4 + age^4) ^ (1/4)`.

The model is a file of plain arrays (npz, never a pickle).
"""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from app.core.encoder import EMBEDDING
from app.drawings.subjects import SLOTS, UNSPECIFIED

FORMAT: Final = "pergola-drawings-model/1"
PARTS: Final = ("visual", "subject", "age")
POWER: Final = 4
_MAX_BYTES: Final = 256 * 1024**2
_TOLERANCE: Final = 2e-3

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Method = Literal["pca", "autoencoder"]


class ModelError(ValueError):
    """These bytes are not a model that this code can serve; the message says why."""


class NoGroup(LookupError):
    """No age group of the model is active."""


@dataclass(frozen=True)
class Rebuilder:
    """Rebuilds standardised embeddings: `mean + decode(encode(x - mean))`.

    PCA has `basis` (k, 1280) alone. The autoencoder works in the space of a wider basis: 16 tanh units between two matrices.
    """

    method: Method
    mean: Doubles
    basis: Doubles
    down: Doubles | None = None
    up: Doubles | None = None

    def residual(self, standard: Doubles) -> Doubles:
        """What is left of (n, 1280) after the rebuilding."""
        centred = standard - self.mean
        code = centred @ self.basis.T
        if self.down is not None and self.up is not None:
            code = np.tanh(code @ self.down) @ self.up
        left: Doubles = centred - code @ self.basis
        return left


@dataclass(frozen=True)
class Group:
    """One age group: `age_min` <= age < `age_max`.

    `scores` are the sorted scores of its training drawings, each by a model that had not seen it; `parts` (3, n) likewise, part by
    part. `scales` are the parts' 95th percentiles. Below `ink_low` (share of the paper with marks) there is nothing to judge.
    """

    name: str
    age_min: float
    age_max: float
    rebuilder: Rebuilder
    scales: Doubles
    scores: Doubles
    parts: Doubles
    ink_low: float

    @property
    def samples(self) -> int:
        """Number of training drawings."""
        return len(self.scores)

    def covers(self, age: float) -> bool:
        """Whether the age belongs to this group."""
        return self.age_min <= age < self.age_max

    def threshold(self, percentile: float) -> float:
        """The score that this share (50 to 99.9) of normal drawings stays below."""
        return threshold_of(self.scores, percentile)


@dataclass(frozen=True)
class Probe:
    """An embedding whose score is known from training; a model that scores it differently is not served."""

    embedding: list[float]
    subject: int
    age: float
    score: float


@dataclass(frozen=True)
class Result:
    """What the model says about one drawing. `cells` (7, 7) add up to `parts[0]`; percentiles are 0 to 100."""

    group: Group
    score: float
    percentile: float
    parts: tuple[float, float, float]
    part_percentiles: tuple[float, float, float]
    ratios: tuple[float, float, float]
    cells: Doubles
    gated: bool
    seen_age: float
    seen_subject: int

    @property
    def attribution(self) -> str:
        """Which part speaks loudest: visual, subject, both (visual and subject beyond their 95th percentile) or age."""
        return "visual" if self.gated else attribution_of(self.part_percentiles, self.ratios)


@dataclass(frozen=True)
class References:
    """Normal drawings to compare with: unit vectors (n, 1280) and what each is (`group`, `age`, `subject`, `seed` or `drawing`)."""

    vectors: npt.NDArray[np.float16]
    about: list[dict[str, Any]]


@dataclass(frozen=True)
class DrawingModel:
    """Everything that serving needs."""

    encoder: str
    mean: Doubles
    scale: Doubles
    subject_weights: Doubles
    subject_bias: Doubles
    known_subjects: frozenset[int]
    age_weights: Doubles
    age_bias: float
    groups: list[Group]
    references: References
    probes: list[Probe] = field(default_factory=list)

    def group_for(self, age: float, active: frozenset[str] | None = None) -> Group:
        """The group for an age: the active one that covers it (the one with most drawings if several), else the nearest.

        Raises:
            NoGroup: No group is active.
        """
        there = [group for group in self.groups if active is None or group.name in active]
        return choose_group(there, age)

    def standard(self, embeddings: npt.ArrayLike) -> Doubles:
        """Embeddings (n, 1280) with mean 0 and variance 1 in the training drawings."""
        made: Doubles = (np.asarray(embeddings, dtype=np.float64) - self.mean) / self.scale
        return made

    def visual(self, group: Group, standard: Doubles) -> Doubles:
        """Mean squared error of the rebuilt pictures."""
        left = group.rebuilder.residual(standard)
        errors: Doubles = (left * left).mean(axis=1)
        return errors

    def subject(self, standard: Doubles, subjects: Sequence[int]) -> Doubles:
        """By how much another subject fits better; 0 when none was given, or none that the model has learnt."""
        fits = self.fits(standard)
        given = fits[np.arange(len(fits)), np.asarray(subjects, dtype=np.int64)]
        better = fits.max(axis=1) - given
        told = np.array([index != UNSPECIFIED and index in self.known_subjects for index in subjects], dtype=bool)
        return np.where(told, better, 0.0)

    def fits(self, standard: Doubles) -> Doubles:
        """How well each subject (n, 64) fits the pictures."""
        made: Doubles = standard @ self.subject_weights + self.subject_bias
        return made

    def ages(self, standard: Doubles) -> Doubles:
        """The age in years that the pictures look like."""
        made: Doubles = standard @ self.age_weights + self.age_bias
        return made

    def judge(
        self,
        embedding: npt.ArrayLike,
        features: npt.ArrayLike,
        subject: int,
        age: float,
        ink: float,
        active: frozenset[str] | None = None,
    ) -> Result:
        """Judge one drawing: embedding (1280), features (7, 7, 1280), subject's index, age in years, share of marked paper.

        Raises:
            NoGroup: No age group is active.
        """
        group = self.group_for(age, active)
        standard = self.standard(np.asarray(embedding)[None])
        left = group.rebuilder.residual(standard)[0]
        visual = float((left * left).mean())
        seen_age = float(self.ages(standard)[0])
        fits = self.fits(standard)[0]
        parts = (visual, float(self.subject(standard, [subject])[0]), age_part(group, seen_age, age))
        ratios = tuple(float(part / scale) for part, scale in zip(parts, group.scales, strict=True))
        score = float(combine(np.array([parts]), group.scales)[0])
        percentiles = [rank(known, part) for known, part in zip(group.parts, parts, strict=True)]
        gated = ink < group.ink_low
        if gated:  # an empty sheet has nothing to rebuild badly: it is judged by its ink
            score, percentiles[0] = max(score, 1.25 * float(group.scores[-1])), 100.0
            ratios = (max(ratios[0], score), ratios[1], ratios[2])
        return Result(
            group,
            score,
            rank(group.scores, score),
            parts,
            (percentiles[0], percentiles[1], percentiles[2]),
            (ratios[0], ratios[1], ratios[2]),
            self._cells(group, left, np.asarray(features, dtype=np.float64), visual),
            gated,
            seen_age,
            int(fits.argmax()),
        )

    def _cells(self, group: Group, left: Doubles, features: Doubles, visual: float) -> Doubles:
        """The visual part, cell by cell.

        The embedding is the mean of the cells' features, and the residual r of a projection satisfies |r|^2 = r . (x - m): so each
        cell's share is r . (f - m) / (cells * 1280), and the shares add up to the error exactly. For an autoencoder the same
        shares are scaled to add up.
        """
        towards = left / self.scale
        offset = float(left @ (self.mean / self.scale + group.rebuilder.mean))
        shares = (features @ towards - offset) / (features.shape[0] * features.shape[1] * EMBEDDING)
        total = float(shares.sum())
        made: Doubles = shares * (visual / total) if abs(total) > 1e-12 else shares
        return made

    def similar(
        self, embedding: npt.ArrayLike, group: str, count: int = 3, *, shared: bool = True
    ) -> list[tuple[dict[str, Any], float]]:
        """The normal drawings of a group that are most alike, with the cosine of their standardised embeddings.

        Without `shared` only the generated ones: drawings of real children are for those who have logged in.
        """
        vector = self.standard(np.asarray(embedding)[None])[0]
        vector /= np.linalg.norm(vector) or 1.0
        rows = [
            row
            for row, about in enumerate(self.references.about)
            if about["group"] == group and (shared or "seed" in about)
        ]
        if not rows:
            return []
        cosines = self.references.vectors[rows].astype(np.float64) @ vector
        best = np.argsort(-cosines, kind="stable")[:count]
        return [(self.references.about[rows[place]], float(np.clip(cosines[place], -1, 1))) for place in best]

    def check(self) -> None:
        """Score the probes. Raises ModelError when a score is not the one of training."""
        for probe in self.probes:
            standard = self.standard(np.array([probe.embedding]))
            group = self.group_for(probe.age)
            parts = [
                float(self.visual(group, standard)[0]),
                float(self.subject(standard, [probe.subject])[0]),
                age_part(group, float(self.ages(standard)[0]), probe.age),
            ]
            got = float(combine(np.array([parts]), group.scales)[0])
            if not np.isclose(got, probe.score, rtol=_TOLERANCE):
                raise ModelError(f"test score is wrong: expected {probe.score:.4f}, got {got:.4f}")


def age_part(group: Group, seen: float, told: float) -> float:
    """Distance in years between the age a drawing looks like and the child's; beyond the group's ages the group's edge counts."""
    return abs(seen - min(max(told, group.age_min), group.age_max))


def choose_group(groups: Sequence[Group], age: float) -> Group:
    """The group that covers an age (most drawings first), else the nearest. Raises NoGroup when there is none."""
    if not groups:
        raise NoGroup
    covering = [group for group in groups if group.covers(age)]
    if covering:
        return max(covering, key=lambda group: group.samples)
    return min(groups, key=lambda group: (max(group.age_min - age, age - group.age_max), -group.samples))


def combine(parts: Doubles, scales: Doubles) -> Doubles:
    """The score of parts (n, 3): 4-norm of the parts over their scales."""
    made: Doubles = ((parts / scales) ** POWER).sum(axis=1) ** (1 / POWER)
    return made


def rank(known: Doubles, value: float) -> float:
    """Percentile rank (0 to 100) of a value among sorted ones; equal ones count half."""
    below = np.searchsorted(known, value, "left")
    upto = np.searchsorted(known, value, "right")
    return float(50 * (below + upto) / len(known))


def threshold_of(scores: Doubles, percentile: float) -> float:
    """The score below which this share of sorted scores is."""
    return float(np.quantile(scores, percentile / 100))


def confidence_of(score: float, threshold: float) -> float:
    """How sure the verdict is, from the relative distance r to the threshold: below 1 % .1, 5 % .3, 10 % .6, else .5 + r up to .95."""
    distance = abs(score - threshold) / threshold
    if distance < 0.01:
        return 0.1
    if distance < 0.05:
        return 0.3
    return 0.6 if distance < 0.10 else min(0.95, 0.5 + distance)


def attribution_of(percentiles: Sequence[float], ratios: Sequence[float]) -> str:
    """visual, subject, both or age: the part with the highest percentile, the furthest beyond its scale when several are at the top."""
    order = sorted(range(len(PARTS)), key=lambda place: (percentiles[place], ratios[place]), reverse=True)
    first = PARTS[order[0]]
    if first != "age" and min(percentiles[0], percentiles[1]) >= 95:
        return "both"
    return first


def to_bytes(model: DrawingModel) -> bytes:
    """The model as a compressed file of plain arrays (npz)."""
    header = {
        "format": FORMAT,
        "encoder": model.encoder,
        "age_bias": model.age_bias,
        "known_subjects": sorted(model.known_subjects),
        "groups": [
            {
                "name": group.name,
                "age_min": group.age_min,
                "age_max": group.age_max,
                "method": group.rebuilder.method,
                "ink_low": group.ink_low,
            }
            for group in model.groups
        ],
        "references": model.references.about,
        "probes": [vars(probe) for probe in model.probes],
    }
    arrays: dict[str, npt.NDArray[Any]] = {
        "header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8),
        "mean": model.mean.astype(np.float32),
        "scale": model.scale.astype(np.float32),
        "subject_weights": model.subject_weights.astype(np.float16),
        "subject_bias": model.subject_bias.astype(np.float32),
        "age_weights": model.age_weights.astype(np.float32),
        "references": model.references.vectors,
    }
    for number, group in enumerate(model.groups):
        arrays |= {
            f"{number}_mean": group.rebuilder.mean.astype(np.float32),
            f"{number}_basis": group.rebuilder.basis.astype(np.float16),
            f"{number}_scales": group.scales,
            f"{number}_scores": group.scores,
            f"{number}_parts": group.parts,
        }
        if group.rebuilder.down is not None and group.rebuilder.up is not None:
            arrays |= {f"{number}_down": group.rebuilder.down, f"{number}_up": group.rebuilder.up}
    out = io.BytesIO()
    np.savez_compressed(out, allow_pickle=False, **arrays)
    return out.getvalue()


def from_bytes(data: bytes, *, encoder: str = "") -> DrawingModel:
    """The model in `data`, checked for sense; with `encoder` also that it was trained with this one.

    Raises:
        ModelError: The bytes are torn, of another format, or of another encoder. Nothing is ever unpickled.
    """
    if len(data) > _MAX_BYTES:
        raise ModelError(f"{len(data)} bytes is too large for a model")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        model = _assemble(arrays)
    except ModelError:
        raise
    except (OSError, EOFError, LookupError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ModelError(f"not a drawings model: {type(error).__name__}: {error}") from error
    _check(model)
    if encoder and model.encoder != encoder:
        raise ModelError(f"trained with encoder {model.encoder[:12]}, this release has {encoder[:12]}: train again")
    model.check()
    return model


def _assemble(arrays: Mapping[str, npt.NDArray[Any]]) -> DrawingModel:
    header = json.loads(arrays["header"].tobytes())
    if header.get("format") != FORMAT:
        raise ModelError(f"model format {header.get('format')!r}, this release reads {FORMAT!r}: train again")
    groups = []
    for number, about in enumerate(header["groups"]):
        down, up = arrays.get(f"{number}_down"), arrays.get(f"{number}_up")
        rebuilder = Rebuilder(
            about["method"],
            arrays[f"{number}_mean"].astype(np.float64),
            arrays[f"{number}_basis"].astype(np.float64),
            None if down is None else down.astype(np.float64),
            None if up is None else up.astype(np.float64),
        )
        groups.append(
            Group(
                str(about["name"]),
                float(about["age_min"]),
                float(about["age_max"]),
                rebuilder,
                arrays[f"{number}_scales"].astype(np.float64),
                arrays[f"{number}_scores"].astype(np.float64),
                arrays[f"{number}_parts"].astype(np.float64),
                float(about["ink_low"]),
            )
        )
    return DrawingModel(
        encoder=str(header["encoder"]),
        mean=arrays["mean"].astype(np.float64),
        scale=arrays["scale"].astype(np.float64),
        subject_weights=arrays["subject_weights"].astype(np.float64),
        subject_bias=arrays["subject_bias"].astype(np.float64),
        known_subjects=frozenset(int(index) for index in header["known_subjects"]),
        age_weights=arrays["age_weights"].astype(np.float64),
        age_bias=float(header["age_bias"]),
        groups=groups,
        references=References(arrays["references"].astype(np.float16), list(header["references"])),
        probes=[Probe(**probe) for probe in header["probes"]],
    )


def _check(model: DrawingModel) -> None:
    if not model.groups or len({group.name for group in model.groups}) != len(model.groups):
        raise ModelError("a model needs age groups with different names")
    shapes: dict[str, tuple[npt.NDArray[Any], tuple[int, ...]]] = {
        "mean": (model.mean, (EMBEDDING,)),
        "scale": (model.scale, (EMBEDDING,)),
        "subject_weights": (model.subject_weights, (EMBEDDING, SLOTS)),
        "subject_bias": (model.subject_bias, (SLOTS,)),
        "age_weights": (model.age_weights, (EMBEDDING,)),
        "references": (model.references.vectors, (len(model.references.about), EMBEDDING)),
    }
    for group in model.groups:
        width = group.rebuilder.basis.shape[0]
        count = len(group.scores)
        shapes |= {
            f"{group.name} mean": (group.rebuilder.mean, (EMBEDDING,)),
            f"{group.name} basis": (group.rebuilder.basis, (width, EMBEDDING)),
            f"{group.name} scales": (group.scales, (len(PARTS),)),
            f"{group.name} scores": (group.scores, (count,)),
            f"{group.name} parts": (group.parts, (len(PARTS), count)),
        }
        if count == 0 or not (np.diff(group.scores) >= 0).all() or not group.age_min < group.age_max:
            raise ModelError(f"age group {group.name} has no sorted scores or no ages")
        if not (group.scales > 0).all():
            raise ModelError(f"age group {group.name} has a scale that is not above 0")
    for name, (array, shape) in shapes.items():
        if array.shape != shape:
            raise ModelError(f"{name} has shape {array.shape}, expected {shape}")
        if not np.isfinite(array).all():
            raise ModelError(f"{name} has values that are not finite")
    if not (model.scale > 0).all():
        raise ModelError("the scale must be above 0")
    if not model.probes:
        raise ModelError("the model has no test scores")
