"""Heads: what they decide, what their files may be, and that the evidence of the parts adds up to the answer."""

import io
import json
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.core import assets
from app.core.encoder import open_encoder
from app.vision.dishes import draw
from app.vision.model import MODEL_TYPES, NOT_A_DISH, TRAITS, Head, ModelError, ModelType, from_bytes, look
from app.vision.store import encoder_sha256, read_starter


def head_of(model_type: ModelType = "fast") -> Head:
    return from_bytes(read_starter(model_type)[0], model_type, encoder_sha256(model_type))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_parts_add_up_to_the_answer(model_type: ModelType) -> None:
    head = head_of(model_type)
    seen = look(draw(5_000_000_001, level="medium").image, model_type)
    verdict = head.decide(seen)
    odds = np.log(verdict.dirty / (1 - verdict.dirty))
    usual = head.slope * (float(head.usual.sum(dtype=np.float64)) + head.bias) + head.offset
    assert float(verdict.cells.sum(dtype=np.float64)) + usual == pytest.approx(odds, abs=1e-3)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_clean_and_dirty_are_told_apart(model_type: ModelType) -> None:
    head = head_of(model_type)
    assert head.decide(look(draw(5_000_000_039).image, model_type)).label == "clean"
    verdict = head.decide(look(draw(5_000_000_024, level="heavy").image, model_type))
    assert (verdict.label, verdict.uncertain, verdict.warning) == ("dirty", False, None)
    assert verdict.confidence > 0.9


def test_the_accurate_model_does_not_care_which_way_round() -> None:
    image = draw(5_000_000_024, level="heavy").image
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    one, two = look(image, "accurate"), look(mirrored, "accurate")
    np.testing.assert_allclose(one.embedding, two.embedding, atol=1e-4)
    np.testing.assert_allclose(one.cells, two.cells[:, ::-1], atol=1e-3)


def test_doubt_is_marked() -> None:
    head = head_of()
    seen = look(draw(1).image, "fast")
    odds = head.slope * (float(seen.embedding @ head.weights) + head.bias) + head.offset
    doubtful = replace(head, offset=head.offset - odds)  # now it says 0.5
    assert doubtful.decide(seen).uncertain
    assert not replace(doubtful, offset=doubtful.offset + 6).decide(seen).uncertain


def test_strange_pictures_get_a_warning(scenery: bytes) -> None:
    for model_type in MODEL_TYPES:
        verdict = head_of(model_type).decide(look(Image.open(io.BytesIO(scenery)), model_type))
        assert verdict.warning == NOT_A_DISH


def test_dishes_get_no_warning() -> None:
    head = head_of()
    warned = [head.decide(look(draw(5_000_000_100 + seed).image, "fast")).warning for seed in range(12)]
    assert warned.count(NOT_A_DISH) == 0


def test_equal_heads_give_equal_files() -> None:
    head = head_of()
    assert head.to_bytes() == head_of().to_bytes() == read_starter("fast")[0]


def changed(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(read_starter("fast")[0])) as old, zipfile.ZipFile(stream, "w") as new:
        for entry in old.namelist():
            new.writestr(entry, content if entry == name else old.read(entry))
    return stream.getvalue()


def array(value: object) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array(value, np.float32))
    return stream.getvalue()


def refused(data: bytes, model_type: ModelType = "fast", sha256: str = "") -> str:
    with pytest.raises(ModelError) as caught:
        from_bytes(data, model_type, sha256 or encoder_sha256(model_type))
    return str(caught.value)


def test_a_head_of_another_type_or_encoder_is_refused() -> None:
    data = read_starter("fast")[0]
    assert "for fast" in refused(data, "accurate")
    assert "another encoder" in refused(data, "fast", "0" * 64)


def test_torn_files_are_refused() -> None:
    data = read_starter("fast")[0]
    for length in (0, 10, 100, len(data) // 2, len(data) - 1):
        assert "torn or foreign" in refused(data[:length])
    assert "torn or foreign" in refused(b"PK\x03\x04 and then something else")


def test_foreign_arrays_are_refused() -> None:
    assert "weights is not" in refused(changed("weights.npy", array(np.zeros(7))))
    assert "usual is not" in refused(changed("usual.npy", array(np.full((7, 7), np.nan))))
    assert "its answers to the test embeddings are wrong" in refused(changed("weights.npy", array(np.ones(1280))))


def test_foreign_numbers_are_refused() -> None:
    with zipfile.ZipFile(io.BytesIO(read_starter("fast")[0])) as archive:
        about = json.loads(archive.read("about.json"))
    for change in ({"bias": None}, {"kind": "other"}, {"slope": "x"}, {"band": float("inf")}):
        refused(changed("about.json", json.dumps({**about, **change}).encode()))


def test_a_bomb_is_refused() -> None:
    assert "too large" in refused(changed("weights.npy", bytes(5 * 1024 * 1024)))


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("harmed",)


def test_a_pickle_inside_is_not_opened(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([Harmful()], object), allow_pickle=True)
    refused(changed("weights.npy", stream.getvalue()))
    refused(pickle.dumps(Harmful()))
    assert "harmed" not in capsys.readouterr().out


def test_what_is_said_of_the_types_is_so() -> None:
    root = Path(__file__).resolve().parents[3]
    for traits in TRAITS.values():
        name = f"encoder-{traits.variant}"
        assert open_encoder(traits.variant).sha256 == assets.recipe(name).sha256
        size = assets.make(name, root / "build" / "assets").stat().st_size
        assert traits.file_mb == pytest.approx(size / 1e6, abs=0.01)
