"""The starter corpus: enough, varied, ours, and made by the generator that is there."""

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

from app.wine.corpus import generate
from app.wine.dataset import Review, read_file, read_starter
from app.wine.text import fold, words

COUNTRIES = {
    "US", "Italy", "France", "Spain", "Argentina", "Portugal", "Chile", "Australia", "Germany", "Austria", "New Zealand",
    "South Africa",
}  # fmt: skip
SHINGLE = 7


@pytest.fixture(scope="module")
def reviews() -> list[Review]:
    return list(read_starter().reviews)


def test_every_country_has_at_least_sixty_notes(reviews: list[Review]) -> None:
    counts = Counter(review.country for review in reviews)
    assert set(counts) == COUNTRIES
    assert min(counts.values()) >= 60


def test_no_note_is_there_twice(reviews: list[Review]) -> None:
    assert len({fold(review.description) for review in reviews}) == len(reviews)


def test_points_prices_and_varieties_are_those_of_wines(reviews: list[Review]) -> None:
    assert all(review.points and 80 <= review.points <= 98 for review in reviews)
    assert all(review.price and 6 <= review.price <= 463 for review in reviews)
    assert all(review.variety for review in reviews)
    assert all(40 <= len(review.description) <= 600 for review in reviews)


def test_notes_read_well(reviews: list[Review]) -> None:
    for review in reviews:
        assert review.description.endswith("."), review
        assert "{" not in review.description, review
        assert "  " not in review.description, review
        assert " a a" not in review.description, review
        assert not re.search(r"\b(\w+) \1\b", review.description), review


def test_the_vocabulary_is_varied(reviews: list[Review]) -> None:
    for country in COUNTRIES:
        found = [words(fold(review.description)) for review in reviews if review.country == country]
        assert len({word for note in found for word in note}) > 250, country
        assert len({review.variety for review in reviews if review.country == country}) >= 7, country


def test_the_file_is_what_the_generator_writes(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check"]) == 0, capsys.readouterr().err


def test_a_changed_file_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "NOTES", tmp_path / "notes.csv")
    assert generate.main(["--check"]) == 1
    assert "run python -m app.wine.corpus.generate" in capsys.readouterr().err
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


def test_missing_prices_are_there_to_be_filled() -> None:
    with generate.NOTES.open(encoding="utf-8", newline="") as file:
        missing = [row for row in csv.DictReader(file) if not row["price"]]
    assert 10 < len(missing) < 100


def test_sentences_are_given_only_to_wines_that_they_are_true_for() -> None:
    vocabulary = generate.load_vocabulary()
    names = set(vocabulary["styles"]) | {"red", "white", "rose"}
    for country, told in vocabulary["countries"].items():
        grapes = {grape[0] for grape in told["grapes"]}
        for sentence in [*told["place"], *told["voice"]]:
            condition = sentence.partition(" | ")[2]
            for item in filter(None, (part.strip() for part in condition.split(","))):
                assert item in grapes | names, f"{country}: {sentence!r} names {item!r}, which is no grape of it"


def test_no_sentence_comes_from_the_real_reviews(shared_data: Path, reviews: list[Review]) -> None:
    def shingles(texts: list[str]) -> set[tuple[str, ...]]:
        out = set()
        for note in texts:
            found = words(fold(note))
            out |= {tuple(found[start : start + SHINGLE]) for start in range(len(found) - SHINGLE + 1)}
        return out

    real = shingles([review.description for review in read_file(shared_data / "wine_reviews_600.csv").reviews])
    ours = shingles([review.description for review in reviews])
    assert not real & ours
