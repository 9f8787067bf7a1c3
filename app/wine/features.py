"""TF-IDF over words (1-2) and character n-grams (3-5), as serving applies it: one note at a time, with NumPy alone.

Each of the two blocks is weighted by `(1 + ln tf) * idf`, `idf = ln((1 + n) / (1 + df)) + 1`, and scaled to length 1: what
scikit-learn's TfidfVectorizer does with `sublinear_tf`, to which a test compares it. `app.wine.counting` fits it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from app.wine.text import Backend, char_ngrams, chunk_label, fold, stemmer, words

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

BLOCKS: Final = ("words", "chars")


@dataclass(frozen=True)
class Document:
    """One note, taken apart.

    `terms` are the stretches between spaces and then the pairs of words, as people would name them. `features` holds for each
    block the features and, beside each, the index of the term it belongs to.
    """

    folded: str
    words: list[str]
    terms: list[str]
    features: tuple[tuple[list[str], list[int]], tuple[list[str], list[int]]]


@dataclass(frozen=True)
class Occurrences:
    """A document in numbers: unique feature `ids` with `values`, and each single occurrence.

    Occurrence `i` is of feature `ids[position[i]]`, has `share[i]` of its value and belongs to term `term[i]`.
    """

    ids: Ints
    values: Doubles
    position: Ints
    share: Doubles
    term: Ints


class Reader:
    """Takes notes apart as a backend says."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._stem: Callable[[str], str] | None = stemmer(backend.stemmer)

    def read(self, text: str) -> Document:
        """The words, terms and features of a note."""
        folded = fold(text)
        terms: list[str] = []
        found: list[str] = []
        unigrams: list[str] = []
        owners: list[int] = []
        grams: list[str] = []
        gram_owners: list[int] = []
        for chunk in folded.split():
            index = len(terms)
            terms.append(chunk_label(chunk))
            for word in words(chunk):
                found.append(word)
                unigrams.append(self._stem(word) if self._stem else word)
                owners.append(index)
            before = len(grams)
            grams.extend(char_ngrams(chunk))
            gram_owners.extend([index] * (len(grams) - before))
        pairs = [f"{first} {second}" for first, second in pairwise(unigrams)]
        plain = [f"{first} {second}" for first, second in pairwise(found)]
        pair_owners = list(range(len(terms), len(terms) + len(pairs)))
        return Document(
            folded, unigrams, terms + plain, ((unigrams + pairs, owners + pair_owners), (grams, gram_owners))
        )


@dataclass(frozen=True)
class Vectoriser:
    """Fitted vocabulary: feature -> id for each block (ids run on from words to chars), and the idf of every id."""

    vocabularies: tuple[Mapping[str, int], Mapping[str, int]]
    idf: Floats

    @property
    def size(self) -> int:
        """Number of features."""
        return len(self.idf)

    def transform(self, document: Document) -> Occurrences:
        """The TF-IDF values of one note; empty when it has no known feature."""
        ids: list[int] = []
        position: list[int] = []
        term: list[int] = []
        counts: list[int] = []
        ends: list[int] = []
        for vocabulary, (features, owners) in zip(self.vocabularies, document.features, strict=True):
            local: dict[int, int] = {}
            get = vocabulary.get
            for feature, owner in zip(features, owners, strict=True):
                identity = get(feature)
                if identity is None:
                    continue
                place = local.get(identity)
                if place is None:
                    place = local[identity] = len(ids)
                    ids.append(identity)
                    counts.append(0)
                counts[place] += 1
                position.append(place)
                term.append(owner)
            ends.append(len(ids))
        id_array = np.array(ids, dtype=np.int32)
        count_array = np.array(counts, dtype=np.float64)
        values = (1.0 + np.log(count_array)) * self.idf[id_array] if ids else count_array
        for begin, end in ((0, ends[0]), (ends[0], ends[1])):
            if end > begin:
                values[begin:end] /= math.sqrt(float(values[begin:end] @ values[begin:end]))
        places = np.array(position, dtype=np.int32)
        share = values[places] / count_array[places] if position else np.zeros(0)
        return Occurrences(id_array, values, places, share, np.array(term, dtype=np.int32))
