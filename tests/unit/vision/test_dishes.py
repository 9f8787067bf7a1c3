"""Drawn dishes: equal seeds give equal pictures, and every stain is seen, inside the dish, and known."""

import hashlib

import numpy as np

from app.vision.dishes import KINDS, LEAST, LEVELS, SIDE, draw, kind_of

SEEDS = range(12)


def test_a_seed_is_a_picture() -> None:
    for level in (None, *LEVELS):
        one, two = draw(3, level=level), draw(3, level=level)
        assert one.image.tobytes() == two.image.tobytes()
        np.testing.assert_array_equal(one.stains, two.stains)
    assert draw(3).image.tobytes() != draw(4).image.tobytes()


def test_pictures_are_rgb_of_one_size() -> None:
    found = draw(1, level="light")
    assert (found.image.mode, found.image.size) == ("RGB", (SIDE, SIDE))
    assert (found.dish.shape, found.stains.shape) == ((SIDE, SIDE), (SIDE, SIDE))
    assert found.dirty


def test_a_clean_dish_has_no_stain() -> None:
    assert not draw(1).dirty
    assert not draw(1).stains.any()


def test_every_dirty_dish_is_visibly_dirty_inside_the_dish_and_more_so_by_level() -> None:
    covered = dict.fromkeys(LEVELS, 0.0)
    for seed in SEEDS:
        for level in LEVELS:
            found = draw(seed, level=level)
            share = found.stains.sum() / found.dish.sum()
            assert share >= LEAST[level] * 0.7, (seed, level, share)  # the picture is smaller than what it was drawn on
            assert (found.stains & ~found.dish).sum() <= 0.02 * found.stains.sum() + 5, (seed, level)
            covered[level] += share
    assert covered["light"] < covered["medium"] < covered["heavy"]


def test_dirty_and_clean_show_the_same_dish() -> None:
    for seed in range(3):
        clean, dirty = draw(seed), draw(seed, level="medium")
        np.testing.assert_array_equal(clean.dish, dirty.dish)
        assert clean.kind == dirty.kind == kind_of(seed)


def test_a_variant_is_other_dirt_on_the_same_dish() -> None:
    one, two = draw(5, level="medium"), draw(5, level="medium", variant=1)
    np.testing.assert_array_equal(one.dish, two.dish)
    assert (one.stains != two.stains).any()


def test_there_are_plates_bowls_and_cups() -> None:
    assert {kind_of(seed) for seed in range(60)} == set(KINDS)


def test_dishes_differ() -> None:
    assert len({hashlib.sha256(draw(seed).image.tobytes()).hexdigest() for seed in SEEDS}) == len(SEEDS)
