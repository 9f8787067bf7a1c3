"""The tone of a note."""

import pytest

from app.wine.sentiment import LEXICON, tone


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("Superb, complex and beautifully balanced.", "A good wine."),
        ("A good wine.", "A wine."),
        ("A wine.", "Thin and dull."),
        ("Thin and dull.", "Awful, flat and watery, with a foul smell."),
        ("It has charm.", "It lacks charm and is hardly fresh."),
    ],
)
def test_praise_is_above_blame(better: str, worse: str) -> None:
    assert tone(better) > tone(worse)


def test_nothing_said_is_nought() -> None:
    assert tone("Made from Malbec and sold in a bottle.") == 0
    assert tone("") == 0


def test_the_tone_stays_between_the_ends() -> None:
    assert -1 < tone("awful " * 200) < -0.99
    assert 0.99 < tone("superb " * 200) < 1


def test_a_negation_turns_a_word_around() -> None:
    assert tone("not harsh at all") > 0
    assert tone("never superb") < 0


def test_every_word_can_be_found() -> None:
    assert all(word.isalpha() and word.islower() for word in LEXICON)
