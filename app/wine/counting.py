"""Fitting TF-IDF: all notes are counted once, then each fold takes its own vocabulary and weights from its own rows.

Choosing the columns of a fold from the counts of its rows gives exactly what reading only those notes would give, and is many
times faster than reading them again. Needs SciPy; serving does not.
"""

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix, diags, hstack

from app.wine.features import BLOCKS, Doubles, Vectoriser

MIN_DOCUMENTS: Final = 2
"""A feature must occur in this many notes."""

MAX_FEATURES: Final = 200_000
"""Most features a block keeps: those that occur in the most notes."""

Features = tuple[tuple[list[str], list[int]], ...]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """For each block how often each feature (sorted by name) occurs in each note."""

    names: tuple[list[str], ...]
    matrices: tuple[Any, ...]

    def part(self, rows: Rows) -> "Counts":
        """The counts of these notes."""
        return Counts(self.names, tuple(matrix[rows] for matrix in self.matrices))


@dataclass(frozen=True)
class Weighting:
    """A fitted vocabulary: the chosen columns of each block, and their idf."""

    names: tuple[list[str], ...]
    columns: tuple[Rows, ...]
    idf: tuple[Doubles, ...]

    @classmethod
    def fit(cls, counts: Counts, min_documents: int = MIN_DOCUMENTS) -> "Weighting":
        """The features that enough of these notes have, with `idf = ln((1 + n) / (1 + df)) + 1`."""
        columns, idf = [], []
        for matrix in counts.matrices:
            frequency = np.bincount(matrix.indices, minlength=matrix.shape[1])
            chosen = np.flatnonzero(frequency >= min_documents)
            if len(chosen) > MAX_FEATURES:
                chosen = np.sort(chosen[np.argsort(-frequency[chosen], kind="stable")[:MAX_FEATURES]])
            columns.append(chosen)
            idf.append(np.log((1.0 + matrix.shape[0]) / (1.0 + frequency[chosen])) + 1.0)
        return cls(counts.names, tuple(columns), tuple(idf))

    def apply(self, counts: Counts) -> Any:
        """TF-IDF (notes, features) of these notes, each block scaled to length 1."""
        blocks = []
        for matrix, columns, idf in zip(counts.matrices, self.columns, self.idf, strict=True):
            block = matrix[:, columns].astype(np.float64)
            block.data = 1.0 + np.log(block.data)
            block = block @ diags(idf)
            length = np.sqrt(np.asarray(block.multiply(block).sum(axis=1)).ravel())
            blocks.append(diags(1.0 / np.where(length > 0, length, 1.0)) @ block)
        return hstack(blocks, format="csr")

    def vectoriser(self) -> Vectoriser:
        """The same for serving."""
        vocabularies: list[dict[str, int]] = []
        first = 0
        for names, columns in zip(self.names, self.columns, strict=True):
            vocabularies.append({names[column]: first + place for place, column in enumerate(columns)})
            first += len(columns)
        return Vectoriser((vocabularies[0], vocabularies[1]), np.concatenate(self.idf).astype(np.float32))


def count(documents: Iterable[Features], min_documents: int = MIN_DOCUMENTS) -> Counts:
    """Count every feature of every document; those in fewer than `min_documents` can be in no vocabulary and are left out."""
    ids: list[dict[str, int]] = [{} for _ in BLOCKS]
    indices, values, ends = ([array("q") for _ in BLOCKS] for _ in range(3))
    for features in documents:
        for block, (found, _) in enumerate(features):
            known = ids[block]
            for feature, times in Counter(found).items():
                indices[block].append(known.setdefault(feature, len(known)))
                values[block].append(times)
            ends[block].append(len(indices[block]))
    names, matrices = [], []
    for block in range(len(BLOCKS)):
        starts = np.concatenate(([0], np.frombuffer(ends[block], dtype=np.int64)))
        data = (np.frombuffer(values[block], dtype=np.int64), np.frombuffer(indices[block], dtype=np.int64), starts)
        matrix = csr_matrix(data, shape=(len(starts) - 1, len(ids[block])))
        frequency = np.bincount(matrix.indices, minlength=matrix.shape[1])
        listed = list(ids[block])
        order = sorted(np.flatnonzero(frequency >= min_documents).tolist(), key=listed.__getitem__)
        names.append([listed[place] for place in order])
        matrices.append(matrix[:, order])
    return Counts(tuple(names), tuple(matrices))
