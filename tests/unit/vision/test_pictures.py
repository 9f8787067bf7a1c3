"""Real and drawn pictures from elsewhere: all right except at most two, and no cat is a clean plate."""

from pathlib import Path

import pytest
from PIL import Image

from app.vision.model import MODEL_TYPES, Head, ModelType, from_bytes, look
from app.vision.store import encoder_sha256, read_starter


def head_of(model_type: ModelType) -> Head:
    return from_bytes(read_starter(model_type)[0], model_type, encoder_sha256(model_type))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_pictures_of_dishes_are_right_except_at_most_two(shared_data: Path, model_type: ModelType) -> None:
    head, wrong = head_of(model_type), []
    files = sorted((shared_data / "dishes").glob("*/*.jpg"))
    assert len(files) >= 15
    for path in files:
        verdict = head.decide(look(Image.open(path).convert("RGB"), model_type))
        assert verdict.warning is None, path.name
        if verdict.label != ("dirty" if "dirty" in path.name else "clean"):
            wrong.append(path.name)
    assert len(wrong) <= 2, wrong


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("name", ["chelsea.png", "astronaut.png", "rocket.jpg", "camera.png", "horse.png"])
def test_a_cat_is_not_a_clean_plate(model_type: ModelType, name: str) -> None:
    import skimage

    image = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
    assert head_of(model_type).decide(look(image, model_type)).warning == "not_a_dish"


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_cup_of_coffee_is_a_dish(model_type: ModelType) -> None:
    import skimage

    image = Image.open(Path(skimage.__file__).parent / "data" / "coffee.png").convert("RGB")
    assert head_of(model_type).decide(look(image, model_type)).warning is None
