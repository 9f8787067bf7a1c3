"""Generator, model and training: what they promise, on real embeddings of generated drawings."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sqlalchemy import select

from app.core import artefacts, database, migrate
from app.core.encoder import Encoder
from app.core.settings import get_settings
from app.core.storage import FolderStorage
from app.drawings import dataset, demo, generate, importer, model, pictures, prepare, training
from app.drawings.model import (
    DrawingModel,
    Group,
    ModelError,
    NoGroup,
    Rebuilder,
    choose_group,
    confidence_of,
    from_bytes,
    to_bytes,
)
from app.drawings.store import STARTER, ModelStore
from app.drawings.subjects import NAMES, group_of, index_of, slots_of
from app.drawings.tables import Drawing
from app.drawings.training import Samples, TrainingError, spans, train

from .conftest import encoded, picture

EACH = 56


@pytest.fixture(scope="session")
def starter_model(encoder: Encoder) -> DrawingModel:
    return from_bytes((STARTER / "model.npz").read_bytes(), encoder=encoder.sha256)


@pytest.fixture(scope="session")
def samples(starter_model: DrawingModel) -> Samples:
    """Made-up embeddings around each age's own middle: training's arithmetic needs no pictures."""
    random = np.random.default_rng(3)
    rows, about = [], []
    for number, (low, high) in enumerate(training.AGES[:3]):
        middle = random.uniform(0, 2, 1280)
        ways = random.normal(0, 1, (6, 1280))
        for place in range(EACH):
            rows.append(np.clip(middle + random.normal(0, 0.3, 6) @ ways + random.normal(0, 0.1, 1280), 0, None))
            about.append(
                {
                    "seed": place,
                    "age": float(random.uniform(low, high - 0.01)),
                    "subject": NAMES[1 + place % 5],
                    "number": number,
                }
            )
    return dataset._samples(np.array(rows), np.full(len(rows), 0.05), about, "an encoder")


@pytest.fixture(scope="session")
def trained(samples: Samples) -> training.Trained:
    return train(samples)


def test_drawings_are_seeded_and_differ() -> None:
    one = np.asarray(generate.drawing(7, 5.5, "cat"))
    assert (one == np.asarray(generate.drawing(7, 5.5, "cat"))).all()
    assert (one != np.asarray(generate.drawing(8, 5.5, "cat"))).any()
    assert (one != np.asarray(generate.drawing(7, 5.5, "dog"))).any()


@pytest.mark.parametrize("age", [2.0, 2.9, 3.5, 5.0, 7.2, 9.0, 12.0])
def test_every_subject_can_be_drawn_at_every_age(age: float) -> None:
    assert len(generate.DRAWN) == 51
    for subject in generate.DRAWN:
        image = generate.drawing(1, age, subject)
        assert (image.size, image.mode) == ((224, 224), "RGB")
        assert pictures.ink(image) > 0.004, subject


def test_drawings_grow_up() -> None:
    """Scribbles have no scene; lines get steadier; details come with the years."""
    ink = {age: np.mean([pictures.ink(generate.drawing(n, age, "house")) for n in range(12)]) for age in (3.2, 8.5)}
    assert ink[8.5] > ink[3.2] * 1.3


@pytest.mark.parametrize("kind", generate.KINDS)
def test_planted_pictures_are_seeded(kind: str) -> None:
    one, again = (generate.planted(kind, 4, 6.0, "house") for _ in range(2))
    assert one.tobytes() == again.tobytes()
    assert one.size == (224, 224)


def test_the_subjects_of_the_specification() -> None:
    assert len(NAMES) == 52
    assert [group_of(index) for index in (0, 1, 27, 28, 45, 46, 49, 50, 51)] == [
        "other", "thing", "thing", "animal", "animal", "person", "person", "other", "other"]  # fmt: skip
    assert index_of("tv") == index_of("TV") == 1
    assert index_of(" Ice  Cream ") == index_of("ice_cream") == 18
    assert index_of("person") == 48
    assert index_of("unicorn") == index_of(None) == index_of("") == 0
    assert slots_of(63).shape == (64,)
    assert slots_of(48).argmax() == 48


def test_thin_age_groups_are_merged_up_to_four_years() -> None:
    ages = np.concatenate(
        [np.full(10, 2.5), np.full(45, 3.5), np.full(60, 4.5), np.full(20, 5.5), np.full(20, 6.5), np.full(5, 10.0)]
    )
    assert [(span.name, span.samples) for span in spans(ages)] == [("2-4", 55), ("4-7", 100)]
    assert [span.name for span in spans(np.full(50, 5.5))] == ["5-6"]
    assert spans(np.full(49, 5.5)) == []


@given(st.lists(st.floats(2, 11.99), max_size=400))
def test_merging_keeps_its_promises(ages: list[float]) -> None:
    found = spans(np.array(ages))
    for span in found:
        assert span.samples >= training.MIN_SAMPLES
        assert span.age_max - span.age_min <= 4 or (span.age_min, span.age_max) in training.AGES
        assert span.samples == sum(span.age_min <= age < span.age_max for age in ages)
    for one, other in pairwise(found):
        assert one.age_max <= other.age_min


def group(low: float, high: float, samples: int) -> Group:
    flat = Rebuilder("pca", np.zeros(1280), np.zeros((1, 1280)))
    return Group(
        f"{low:g}-{high:g}", low, high, flat, np.ones(3), np.linspace(0, 1, samples), np.zeros((3, samples)), 0.0
    )


def test_which_group_judges() -> None:
    groups = [group(4, 6, 50), group(5, 7, 80), group(9, 12, 60)]
    assert choose_group(groups, 5.5).name == "5-7"
    assert choose_group(groups, 4.5).name == "4-6"
    assert choose_group(groups, 8.5).name == "9-12"
    assert choose_group(groups, 2.0).name == "4-6"
    assert choose_group(groups, 17.0).name == "9-12"
    with pytest.raises(NoGroup):
        choose_group([], 5.0)


@pytest.mark.parametrize(
    ("score", "confidence"),
    [(1.0, 0.1), (1.009, 0.1), (1.03, 0.3), (0.96, 0.3), (1.08, 0.6), (1.2, 0.7), (0.7, 0.8), (3.0, 0.95)],
)
def test_confidence_by_distance(score: float, confidence: float) -> None:
    assert confidence_of(score, 1.0) == pytest.approx(confidence)


@pytest.mark.parametrize(
    ("percentiles", "ratios", "word"),
    [
        ((99, 50, 50), (2, 0, 0), "visual"),
        ((50, 99, 50), (0, 2, 0), "subject"),
        ((97, 96, 50), (1, 1, 0), "both"),
        ((50, 60, 99), (0, 0, 2), "age"),
        ((100, 100, 100), (1, 1, 3), "age"),
        ((100, 100, 100), (3, 1, 1), "both"),
    ],
)
def test_attribution_by_each_parts_own_percentile(percentiles: Any, ratios: Any, word: str) -> None:
    assert model.attribution_of(percentiles, ratios) == word


def test_training_is_seeded(samples: Samples, trained: training.Trained) -> None:
    again = train(samples)
    assert to_bytes(again.model) == to_bytes(trained.model)
    assert training.SEED == 42


def test_training_reports_each_group_and_chooses_the_better_method(trained: training.Trained) -> None:
    rows = trained.report["age_groups"]
    assert [row["age_group"] for row in rows] == ["2-3", "3-4", "4-5"]
    for row, one in zip(rows, trained.model.groups, strict=True):
        assert row["method"] == one.rebuilder.method
        better = row["autoencoder_auc"] > row["pca_auc"] + 0.001
        assert (row["method"] == "autoencoder") == better
        assert row["samples"] == EACH == len(one.scores)
    json.dumps(trained.report)


def test_thresholds_are_percentiles_of_unseen_scores(trained: training.Trained) -> None:
    for one in trained.model.groups:
        assert (one.scores > one.threshold(95)).mean() <= 0.06
        assert one.threshold(50) < one.threshold(95) < one.threshold(99.9) <= one.scores[-1]
        assert model.rank(one.scores, one.scores[0] - 1) == 0
        assert model.rank(one.scores, one.scores[-1] + 1) == 100


def test_too_few_drawings_are_an_error_with_a_reason(samples: Samples) -> None:
    few = replace(
        samples,
        embeddings=samples.embeddings[:40],
        subjects=samples.subjects[:40],
        ages=samples.ages[:40],
        ink=samples.ink[:40],
        about=samples.about[:40],
    )
    with pytest.raises(TrainingError, match="40 drawings are too few"):
        train(few)


def test_a_model_survives_its_file(trained: training.Trained, samples: Samples) -> None:
    again = from_bytes(to_bytes(trained.model))
    features = np.zeros((7, 7, 1280))
    for number in (0, 70, 140):
        one, other = (
            made.judge(
                samples.embeddings[number], features, int(samples.subjects[number]), float(samples.ages[number]), 0.05
            )
            for made in (trained.model, again)
        )
        assert other.score == pytest.approx(one.score, rel=2e-3)


def test_a_bad_model_is_refused(trained: training.Trained) -> None:
    good = to_bytes(trained.model)
    for bad in (b"", b"nonsense", good[:-100], good[: len(good) // 2]):
        with pytest.raises(ModelError):
            from_bytes(bad)
    with pytest.raises(ModelError, match="trained with encoder"):
        from_bytes(good, encoder="another")
    wrong = replace(trained.model, probes=[replace(trained.model.probes[0], score=9.9)])
    with pytest.raises(ModelError, match="test score is wrong"):
        from_bytes(to_bytes(wrong))
    for broken in (
        replace(trained.model, probes=[]),
        replace(trained.model, groups=[]),
        replace(trained.model, scale=np.zeros(1280)),
    ):
        with pytest.raises(ModelError):
            from_bytes(to_bytes(broken))


def test_the_cells_add_up_to_the_error(starter_model: DrawingModel, encoder: Encoder) -> None:
    for age, method in ((5.5, "pca"), (7.5, "autoencoder")):
        seen = encoder.encode([generate.drawing(5, age, "boat")])
        result = starter_model.judge(seen.embeddings[0], seen.features[0], index_of("boat"), age, 0.05)
        assert result.group.rebuilder.method == method
        assert result.cells.sum() == pytest.approx(result.parts[0], rel=1e-6)


def test_the_starter_model_tells_what_does_not_belong(starter_model: DrawingModel, encoder: Encoder) -> None:
    """A small check of what bench/drawings_accuracy.py measures in full."""
    alarms = 0
    for number in range(24):
        one = dataset.specimen(number % 8, 50_000 + number, *training.AGES[number % 8])
        image = generate.drawing(one["seed"], one["age"], one["subject"])
        seen = encoder.encode([image])
        result = starter_model.judge(
            seen.embeddings[0], seen.features[0], index_of(one["subject"]), one["age"], pictures.ink(image)
        )
        alarms += result.score > result.group.threshold(95)
    assert alarms <= 4
    for kind in ("blank", "photograph"):
        image = generate.planted(kind, 9, 6.5, "house")
        seen = encoder.encode([image])
        result = starter_model.judge(seen.embeddings[0], seen.features[0], index_of("house"), 6.5, pictures.ink(image))
        assert result.score > result.group.threshold(99)


def test_the_demos_samples_are_what_they_say() -> None:
    assert len(demo.IDEAS) == 3
    assert len({demo.picture(idea).tobytes() for idea in demo.IDEAS}) == 3


def test_a_fresh_install_unpacks_its_model_once(encoder: Encoder, storage: FolderStorage) -> None:
    migrate.ensure(get_settings())
    assert prepare.main() == 0
    assert prepare.main() == 0
    (version,) = artefacts.versions(storage, "models")
    assert version.meta["data"]["drawings"] == 1280
    store = ModelStore(storage, encoder.sha256)
    assert store.refresh()
    assert store.current.version == version.id


def test_generated_drawings_are_kept_for_the_next_training(encoder: Encoder, tmp_path: Path) -> None:
    told: list[str] = []
    first = dataset.generated(encoder, lambda _share, sentence: told.append(sentence), each=1, cache=tmp_path)
    again = dataset.generated(encoder, lambda _share, sentence: told.append(sentence), each=1, cache=tmp_path)
    assert told[-1] == "generated drawings are there"
    np.testing.assert_array_equal(first.embeddings, again.embeddings)
    assert len(first) == 8
    (kept,) = tmp_path.glob("generated-*.npz")
    kept.write_bytes(kept.read_bytes()[:100])
    assert len(dataset.generated(encoder, lambda *_: None, each=1, cache=tmp_path)) == 8


def test_an_age_group_with_enough_own_drawings_learns_from_them_alone(samples: Samples) -> None:
    own = replace(samples, source="own")
    made = replace(samples, about=[{**one, "generated": True} for one in samples.about])
    both = dataset.together(own, made)
    assert len(both) == len(own)
    few = replace(
        own,
        embeddings=own.embeddings[:10],
        subjects=own.subjects[:10],
        ages=own.ages[:10],
        ink=own.ink[:10],
        about=own.about[:10],
    )
    assert len(dataset.together(few, made)) == 10 + len(made)


def test_an_operators_folder_is_imported(tmp_path: Path, encoder: Encoder, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "drawings"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(picture(number))
    (folder / "bad.png").write_bytes(b"bad")
    (tmp_path / "secret.png").write_bytes(picture(9))
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows(
            [
                ["Filename", "AGE_YEARS", "subject", "expert_label"],
                ["0.png", "4.5", "Cat", ""],
                ["1.png", "5,5", "house", "normal"],
                ["2.png", "6", "", "severe"],
                ["bad.png", "6", "", ""],
                ["../secret.png", "6", "", ""],
                ["0.png", "x", "", ""],
                ["1.png", "40", "", ""],
            ]
        )
    assert importer.main([str(folder)]) == 1
    told = capsys.readouterr()
    assert "3 imported, 0 known, 4 refused" in told.out
    for word in (
        "line 5: bad.png",
        "line 6: ../secret.png: there is no such file",
        "not a number of years",
        "expected 2 to 18",
    ):
        assert word in told.err
    assert importer.main([str(folder)]) == 1
    assert "0 imported, 3 known" in capsys.readouterr().out
    with database.session(read_only=True) as db:
        rows = db.scalars(select(Drawing).order_by(Drawing.filename)).all()
        assert [(one.age_years, NAMES[one.subject_index], one.expert_label, one.source) for one in rows] == [
            (4.5, "cat", None, "import"),
            (5.5, "house", "normal", "import"),
            (6.0, "unspecified", "severe", "import"),
        ]
        assert len(dataset.operators(db, encoder.sha256)) == 2
    (folder / "metadata.csv").write_text("name,age\n")
    assert importer.main([str(folder)]) == 2
    assert "has no column filename and age_years" in capsys.readouterr().err


def test_what_an_image_marks() -> None:
    paper = Image.new("RGB", (300, 200), (250, 248, 240))
    assert pictures.ink(paper) == 0
    paper.paste((0, 0, 0), (100, 50, 200, 150))
    assert pictures.ink(paper) == pytest.approx(1 / 6, abs=0.02)


def test_regions_lie_in_the_drawing() -> None:
    cells = np.zeros((7, 7))
    cells[1:3, 4:6] = 1.0
    (one,) = pictures.regions(cells, (700, 700))
    assert one["bounding_box"] == [400, 100, 200, 200]
    assert one["importance_score"] == 1.0
    assert one["spatial_location"] == "top right" or one["spatial_location"] == "top center"
    (wide,) = pictures.regions(cells, (700, 350))
    assert wide["bounding_box"][1] == 0  # type: ignore[index]
    assert pictures.regions(np.zeros((7, 7)), (10, 10)) == []


def test_nothing_of_scikit_learn_runs_at_run_time() -> None:
    code = "import sys, app.drawings.api; sys.exit(any(name.split('.')[0] in {'sklearn', 'scipy', 'torch'} for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_starter_fits_this_generator() -> None:
    """Whoever changes the generator trains the starter anew: its references must be drawn as they were learnt."""
    told = from_bytes((STARTER / "model.npz").read_bytes())
    one = told.references.about[0]
    assert {"seed", "age", "subject", "group"} <= set(one)
    assert encoded(generate.drawing(one["seed"], one["age"], one["subject"]))
