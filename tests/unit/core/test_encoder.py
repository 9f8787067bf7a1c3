"""The shared encoder: its answers, their shapes, and what does not change them."""

import threading

import numpy as np
import pytest
from PIL import Image, ImageDraw

from app.core import assets, encoder
from app.core.encoder import Encoder, open_encoder


@pytest.fixture(scope="module")
def lite0() -> Encoder:
    return open_encoder("lite0")


def drawing(width: int = 300, height: int = 200, seed: int = 1) -> Image.Image:
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), "#f4f1e8")
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, r = random.integers(0, width), random.integers(0, height), random.integers(5, 60)
        draw.ellipse([x - r, y - r, x + r, y + r], fill=tuple(random.integers(0, 255, 3)))
    return image


def test_shapes_and_types(lite0: Encoder) -> None:
    seen = lite0.encode([drawing(), drawing(90, 500, 2)])
    assert len(seen) == 2
    assert (seen.embeddings.shape, seen.embeddings.dtype) == ((2, 1280), np.float32)
    assert (seen.features.shape, seen.features.dtype) == ((2, 7, 7, 1280), np.float32)
    assert (seen.probabilities.shape, seen.probabilities.dtype) == ((2, 1000), np.float32)
    assert seen.embeddings.min() >= 0
    assert seen.embeddings.max() > 0.5
    np.testing.assert_allclose(seen.probabilities.sum(axis=1), 1, atol=1e-5)


def test_the_embedding_is_the_mean_of_the_cells(lite0: Encoder) -> None:
    seen = lite0.encode([drawing()])
    np.testing.assert_allclose(seen.features.mean(axis=(1, 2)), seen.embeddings, atol=1e-5)


def test_no_images_are_no_embeddings(lite0: Encoder) -> None:
    assert lite0.encode([]).embeddings.shape == (0, 1280)


def test_an_answer_does_not_depend_on_its_neighbours(lite0: Encoder) -> None:
    alone = lite0.encode([drawing(seed=3)])
    among = lite0.encode([drawing(seed=4), drawing(seed=3), drawing(seed=5)])
    np.testing.assert_array_equal(among.embeddings[1], alone.embeddings[0])


def test_threads_get_their_own_answers(lite0: Encoder) -> None:
    expected = [lite0.encode([drawing(seed=seed)]).embeddings[0] for seed in range(4)]
    found: dict[int, object] = {}

    def look(seed: int) -> None:
        found[seed] = lite0.encode([drawing(seed=seed)]).embeddings[0]

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, wanted in enumerate(expected):
        np.testing.assert_array_equal(found[seed], wanted)


def test_a_cell_sees_its_own_part_of_the_picture(lite0: Encoder) -> None:
    blank = Image.new("RGB", (224, 224), "white")
    marked = blank.copy()
    ImageDraw.Draw(marked).rectangle([170, 20, 205, 55], fill="#a02020")
    change = np.abs(lite0.encode([marked]).features - lite0.encode([blank]).features).sum(axis=3)[0]
    row, column = np.unravel_index(change.argmax(), change.shape)
    assert row <= 2
    assert column >= 4


@pytest.mark.parametrize(("variant", "side", "grid"), [("lite0", 224, 7), ("lite1", 240, 8), ("lite2", 260, 9)])
def test_each_network_recognises_what_everybody_would(variant: encoder.Variant, side: int, grid: int) -> None:
    # a plain traffic light: drawn here, and in no doubt for a network that has learnt ImageNet (class 920)
    image = Image.new("RGB", (400, 400), "#8fb7de")
    draw = ImageDraw.Draw(image)
    draw.rectangle([188, 300, 212, 400], fill="#333333")
    draw.rounded_rectangle([140, 40, 260, 310], 24, fill="#1c1c1c")
    for y, colour in ((90, "#ff2a1a"), (175, "#5a4a10"), (260, "#0f4a1a")):
        draw.ellipse([162, y - 38, 238, y + 38], fill=colour)
    network = open_encoder(variant)
    seen = network.encode([image])
    assert (network.side, network.grid) == (side, grid)
    assert seen.features.shape == (1, grid, grid, 1280)
    assert seen.probabilities[0].argmax() == 920


def test_a_square_holds_the_whole_picture_undistorted() -> None:
    image = Image.new("RGB", (400, 100), "red")
    pixels = encoder.square(image, 224, fill=(0, 0, 255))
    red = (pixels == (255, 0, 0)).all(axis=2)
    assert pixels.shape == (224, 224, 3)
    assert red.any(axis=1).sum() == 56
    assert red.any(axis=0).all()
    assert (pixels[0] == (0, 0, 255)).all()


def test_what_is_beside_the_picture_has_its_borders_colour() -> None:
    image = Image.new("RGB", (100, 300), "#204060")
    ImageDraw.Draw(image).rectangle([30, 60, 70, 240], fill="white")
    assert encoder.square(image, 224)[100, 5].tolist() == [0x20, 0x40, 0x60]


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (224, 224), (3000, 2999)])
def test_any_size_becomes_a_square(size: tuple[int, int]) -> None:
    assert encoder.square(Image.new("RGB", size), 224).shape == (224, 224, 3)


def test_where_a_picture_lies_in_its_square() -> None:
    assert encoder.place((200, 200)) == (0, 0, 1, 1)
    assert encoder.place((400, 100)) == (0, 0.375, 1, 0.625)


def test_an_encoder_is_loaded_once_and_says_which_it_is(lite0: Encoder) -> None:
    assert open_encoder("lite0") is lite0
    assert lite0.sha256 == assets.RECIPES["encoder-lite0"].sha256
