"""The heat map lies where the evidence is."""

import numpy as np
import pytest
from PIL import Image

from app.vision import heat
from app.vision.dishes import draw
from app.vision.model import from_bytes, look
from app.vision.store import encoder_sha256, read_starter


def spot(row: int, column: int, grid: int = 8) -> np.ndarray:
    cells = np.full((grid, grid), -0.1, np.float32)
    cells[row, column] = 2.0
    return cells


@pytest.mark.parametrize(
    ("row", "column", "place"),
    [
        (0, 0, "on the upper left"),
        (0, 7, "on the upper right"),
        (7, 4, "in the lower part"),
        (4, 0, "on the left"),
        (4, 4, "in the middle"),
    ],
)
def test_the_place_has_a_name(row: int, column: int, place: str) -> None:
    assert heat.lay_over(Image.new("RGB", (300, 300), "white"), spot(row, column)).place == place


def test_the_map_is_over_the_picture_itself_not_over_its_square() -> None:
    wide = heat.lay_over(Image.new("RGB", (400, 200), "white"), spot(2, 4))
    row, column = np.unravel_index(wide.strength.argmax(), wide.strength.shape)
    assert wide.image.size == (400, 200)
    assert row < 60  # the third of eight rows of the square is the first quarter of the picture
    assert 200 <= column <= 250


def test_a_clean_dish_stays_cool() -> None:
    image = Image.new("RGB", (100, 100), "#d0d0d0")
    cool = heat.lay_over(image, np.full((8, 8), 0.001, np.float32))
    assert cool.strength.max() < 0.05
    assert np.abs(np.asarray(cool.image, int) - np.asarray(image, int)).max() < 12


def test_a_large_picture_gets_a_small_overlay() -> None:
    assert heat.lay_over(Image.new("RGB", (1200, 900)), spot(1, 1)).image.size == (480, 360)


def test_on_dirty_dishes_it_points_at_the_stains() -> None:
    """The mean heat on the stains is higher than beside them, on nearly every dish."""
    head = from_bytes(read_starter("balanced")[0], "balanced", encoder_sha256("balanced"))
    hits = 0
    for seed in range(5_000_000_200, 5_000_000_212):
        drawn = draw(seed, level="medium")
        strength = heat.lay_over(drawn.image, head.decide(look(drawn.image, "balanced")).cells).strength
        hits += strength[drawn.stains].mean() > strength[~drawn.stains].mean()
    assert hits >= 11
