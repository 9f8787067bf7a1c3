"""Chance-corrected agreement of annotators. What is undefined is None ("n/a"), never 1."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from app.ava.boxes import Floats

DRAWS: Final = 500
FEWEST: Final = 5  # clusters; an interval from fewer would be a guess
INTERVAL: Final = 0.95
Codes: TypeAlias = npt.NDArray[np.int64]

BANDS: Final = ((0.8, "Excellent"), (0.6, "Good"), (0.4, "Moderate"), (0.2, "Fair"))
POOR: Final = "Poor"
UNDEFINED: Final = "n/a"


def band(value: float | None) -> str:
    """The word for an agreement: above .8 Excellent, above .6 Good, above .4 Moderate, above .2 Fair, else Poor."""
    if value is None:
        return UNDEFINED
    return next((word for least, word in BANDS if value > least), POOR)


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa with the number of items it is from, and its bootstrap interval of 95 %.

    `labelled` counts the items that at least one of the two gave a value other than `unknown`.
    """

    value: float | None
    support: int
    labelled: int
    low: float | None
    high: float | None

    @property
    def band(self) -> str:
        """In a word."""
        return band(self.value)


def confusion(first: Codes, second: Codes, categories: int) -> Floats:
    """How often each pair of categories was given: (categories, categories)."""
    return (
        np.bincount(first * categories + second, minlength=categories**2).reshape(categories, categories).astype(float)
    )


def kappas(tables: Floats) -> Floats:
    """Cohen's kappa (Cohen 1960) of each table of (..., k, k); NaN where it is undefined.

    (p_o - p_e) / (1 - p_e) with observed agreement p_o and p_e that of two who answer by their own frequencies. When both always
    gave one and the same category p_e is 1: then there is nothing to say.
    """
    totals = tables.sum(axis=(-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = np.trace(tables, axis1=-2, axis2=-1) / totals
        expected = (tables.sum(axis=-1) * tables.sum(axis=-2)).sum(axis=-1) / totals**2
        return np.where((totals > 0) & (1 - expected > 1e-12), (observed - expected) / (1 - expected), np.nan)


@dataclass(frozen=True)
class Drawn:
    """Bootstrap samples: the cluster of each item, and how often each sample has each cluster, (draws, clusters)."""

    cluster: Codes
    weights: Codes


def draw(clusters: Codes, *, draws: int = DRAWS, seed: int = 0) -> Drawn:
    """Draw clusters with replacement.

    Args:
        clusters: What is drawn: the person each item shows. Boxes of one person are alike from frame to frame, so drawing single boxes
            would give an interval that is much too narrow (Field and Welsh 2007, cluster bootstrap).
        draws: Number of bootstrap samples.
        seed: Of the drawing.
    """
    _, cluster = np.unique(clusters, return_inverse=True)
    count = int(cluster.max()) + 1 if len(cluster) else 0
    if count < FEWEST:
        return Drawn(cluster, np.zeros((0, count), dtype=np.int64))
    return Drawn(cluster, np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws))


def kappa(first: Codes, second: Codes, drawn: Drawn, categories: int) -> Kappa:
    """Cohen's kappa of two annotators, with a bootstrap interval.

    Args:
        first: Category of each item by one annotator, 0 to categories - 1; 0 is `unknown`.
        second: By the other.
        drawn: Samples of the items, see `draw`.
        categories: How many there are.
    """
    support = len(first)
    labelled = int(((first != 0) | (second != 0)).sum())
    if not support:
        return Kappa(None, 0, 0, None, None)
    value = float(kappas(confusion(first, second, categories)))
    if np.isnan(value):
        return Kappa(None, support, labelled, None, None)
    low, high = _interval(first, second, drawn)
    return Kappa(value, support, labelled, low, high)


def _interval(first: Codes, second: Codes, drawn: Drawn) -> tuple[float | None, float | None]:
    draws, count = drawn.weights.shape
    if not draws:
        return None, None
    # only categories that were given: the others are rows and columns of zeros
    given, codes = np.unique(np.concatenate([first, second]), return_inverse=True)
    ours, theirs = codes[: len(first)], codes[len(first) :]
    size = len(given)
    cells = size**2
    each = np.bincount(drawn.cluster * cells + ours * size + theirs, minlength=count * cells).reshape(count, cells)
    found = kappas((drawn.weights @ each).astype(float).reshape(draws, size, size))
    found = found[~np.isnan(found)]
    if len(found) < draws / 2:
        return None, None
    low, high = np.quantile(found, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2])
    return float(low), float(high)


def alpha(ratings: Codes, categories: int) -> float | None:
    """Krippendorff's alpha for nominal data (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability").

    1 - D_o / D_e from the coincidences of values within units. None when fewer than two values can be paired or all are the same.

    Args:
        ratings: (annotators, units); -1 where an annotator did not rate the unit.
        categories: How many there are.
    """
    counts = np.stack([(ratings == category).sum(axis=0) for category in range(categories)], axis=1).astype(float)
    per_unit = counts.sum(axis=1)
    counts, per_unit = counts[per_unit >= 2], per_unit[per_unit >= 2]
    total = float(per_unit.sum())
    if total < 2:
        return None
    # coincidences: ordered pairs of different annotators within a unit, weighted by 1 / (m_u - 1)
    agree = float(((counts * (counts - 1)).sum(axis=1) / (per_unit - 1)).sum())
    values = counts.sum(axis=0)
    expected = float(total**2 - (values**2).sum()) / (total - 1)
    if expected <= 1e-12:
        return None
    return 1 - (total - agree) / expected


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of those that are defined; None when none is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
