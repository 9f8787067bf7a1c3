"""TF-IDF: the same numbers as scikit-learn's, whether counted for training or one note at a time."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from app.wine.counting import Weighting, count
from app.wine.dataset import Dataset
from app.wine.features import Reader
from app.wine.text import Backend, fold, words


@pytest.fixture(scope="module")
def notes(small: Dataset) -> list[str]:
    return [review.description for review in small.reviews]


def test_weights_are_scikit_learns(notes: list[str]) -> None:
    reader = Reader(Backend())
    fitting, new = notes[:100], notes[100:]
    counted = count(reader.read(note).features for note in notes)
    weighting = Weighting.fit(counted.part(np.arange(100)))
    ours = weighting.apply(counted.part(np.arange(100, len(notes)))).toarray()
    vocabularies = weighting.vectoriser().vocabularies
    blocks = (
        TfidfVectorizer(
            tokenizer=words, token_pattern=None, preprocessor=fold, ngram_range=(1, 2), sublinear_tf=True, min_df=2
        ),
        TfidfVectorizer(analyzer="char_wb", preprocessor=fold, ngram_range=(3, 5), sublinear_tf=True, min_df=2),
    )
    for vectoriser, vocabulary in zip(blocks, vocabularies, strict=True):
        theirs = vectoriser.fit(fitting).transform(new).toarray()
        assert set(vectoriser.vocabulary_) == set(vocabulary)
        columns = [vocabulary[name] for name in vectoriser.get_feature_names_out()]
        np.testing.assert_allclose(ours[:, columns], theirs, atol=1e-9)


@pytest.mark.parametrize("stemmer", ["none", "snowball"])
def test_serving_gives_the_numbers_of_training(notes: list[str], stemmer: str) -> None:
    reader = Reader(Backend(stemmer=stemmer))
    counted = count(reader.read(note).features for note in notes)
    weighting = Weighting.fit(counted)
    matrix, vectoriser = weighting.apply(counted).toarray(), weighting.vectoriser()
    for row, note in enumerate(notes[:25]):
        found = vectoriser.transform(reader.read(note))
        dense = np.zeros(vectoriser.size)
        dense[found.ids] = found.values
        np.testing.assert_allclose(dense, matrix[row], atol=1e-6)


def test_what_is_only_in_a_held_out_note_is_in_no_vocabulary() -> None:
    reader = Reader(Backend())
    counted = count(
        reader.read(note).features for note in ["plum and oak", "plum and cedar", "zinnia zinnia", "zinnia plum"]
    )
    names = Weighting.fit(counted.part(np.arange(2))).vectoriser().vocabularies[0]
    assert set(names) == {"plum", "and", "plum and"}


def test_the_shares_of_the_occurrences_make_up_the_value(notes: list[str]) -> None:
    reader = Reader(Backend())
    counted = count(reader.read(note).features for note in notes)
    vectoriser = Weighting.fit(counted).vectoriser()
    found = vectoriser.transform(reader.read(f"{notes[0]} {notes[0]}"))
    summed = np.bincount(found.position, weights=found.share, minlength=len(found.ids))
    np.testing.assert_allclose(summed, found.values)


def test_a_note_without_known_features_is_empty(notes: list[str]) -> None:
    reader = Reader(Backend())
    vectoriser = Weighting.fit(count(reader.read(note).features for note in notes)).vectoriser()
    assert len(vectoriser.transform(reader.read("葡萄酒")).ids) == 0
    assert len(vectoriser.transform(reader.read("")).ids) == 0
