"""The model: exact explanations, abstention, and a file format that refuses what is wrong."""

import io
import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.wine.model import ModelError, WineModel, from_bytes, reach, to_bytes
from app.wine.training import Trained

NOTE = "White pepper, green lentil and lime. Lean and stony, with a zesty finish."


@pytest.fixture(scope="module")
def model(trained: Trained) -> WineModel:
    return trained.model


def test_a_note_is_answered(model: WineModel) -> None:
    found = model.predict(NOTE, top_k=2)
    assert found.country == "Austria"
    assert found.reason is None
    assert len(found.top) == 2
    assert found.top[0] == (found.country, found.confidence)
    assert sum(model.probabilities(NOTE)) == pytest.approx(1)


def test_the_variety_counts(model: WineModel) -> None:
    note = "Ripe fruit, fresh acidity and a long, clean finish with some spice."
    plain, informed = model.predict(note), model.predict(note, "malbec ")
    assert informed.country == "Argentina"
    assert informed.confidence > plain.confidence
    assert informed.terms[0][0] == "variety: malbec"
    assert model.predict(note, "No Such Grape") == plain


@settings(max_examples=60, deadline=None)
@given(
    note=st.lists(
        st.sampled_from([*NOTE.split(), "slate", "Malbec", "plum", "—", "andean", "nights", "the", "xyzzy"]),
        min_size=3,
        max_size=40,
    ),
    variety=st.sampled_from([None, "Malbec", "Riesling", "Nonesuch"]),
)
def test_the_explanation_is_the_answer(model: WineModel, note: list[str], variety: str | None) -> None:
    """The terms and the constant make up the logit of every country, against the average country."""
    text = " ".join(note)
    logits = np.log(model.probabilities(text, variety))
    for index, country in enumerate(model.classes):
        terms, constant = model.explain(text, variety, country)
        assert sum(terms.values()) + constant == pytest.approx(logits[index] - logits.mean(), abs=1e-4)


def test_terms_are_those_of_the_note_strongest_first(model: WineModel) -> None:
    found = model.predict(NOTE, "Riesling")
    weights = [abs(weight) for _, weight in found.terms]
    assert weights == sorted(weights, reverse=True)
    for term, _ in found.terms:
        assert term.startswith("variety: ") or all(word in NOTE.lower() for word in term.split())
        assert not all(word in model.stop_words for word in term.split())


def test_a_word_taken_away_loses_its_push(model: WineModel) -> None:
    terms, _ = model.explain(NOTE, None, "Austria")
    assert terms["pepper"] > 0
    without = NOTE.replace("pepper", "")
    assert (
        model.probabilities(without)[model.classes.index("Austria")]
        < model.probabilities(NOTE)[model.classes.index("Austria")]
    )


@pytest.mark.parametrize(
    ("note", "reason"),
    [
        ("", "no words about a wine"),
        ("   \n\t ", "no words about a wine"),
        ("!!! ... 123 456", "no words about a wine"),
        ("the and of with to a", "no words about a wine"),
        ("asdf qwer zxcv uiop hjkl", "too few words"),
        ("葡萄酒 非常 好喝 的", "too few words"),
        ("plum", "too few words"),
        (
            "The committee deferred its quarterly budget resolution until auditors certify municipal pension liabilities",
            "too few words",
        ),
        (
            "plum oak committee deferred quarterly budget resolution auditors certify municipal pension liabilities bonds",
            "Only 2 of",
        ),
    ],
)
def test_it_would_rather_not_guess(model: WineModel, note: str, reason: str) -> None:
    found = model.predict(note, "Malbec")
    assert found.country is None
    assert reason in str(found.reason)
    assert (found.confidence, found.top, found.terms) == (0.0, [], [])


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=300))
def test_no_text_breaks_it_and_gibberish_is_no_country(model: WineModel, note: str) -> None:
    found = model.predict(note)
    assert found.country in {None, *model.classes}
    assert all(np.isfinite(weight) for _, weight in found.terms)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(alphabet="bcdfghjklmnpqrstvwxz", min_size=4, max_size=9), min_size=1, max_size=40))
def test_random_letters_are_never_answered(model: WineModel, chunks: list[str]) -> None:
    assert model.predict(" ".join(chunks)).country is None


def test_real_notes_are_not_turned_away(trained: Trained, small: Any) -> None:
    away = [review for review in small.reviews if trained.model.predict(review.description).country is None]
    assert not away


def test_few_words_are_not_answered_as_surely_as_many(model: WineModel) -> None:
    assert reach(np.array([2.0]), 4.0) == pytest.approx(1 / 3)
    assert reach(np.array([0.0]), 4.0) == 0
    assert reach(np.array([2.0]), 0.0) == 1
    few, many = model.predict("pepper and lentil"), model.predict(NOTE)
    assert few.confidence < many.confidence


def test_a_model_survives_storage(model: WineModel) -> None:
    again = from_bytes(to_bytes(model))
    assert again.predict(NOTE, "Riesling", 4) == model.predict(NOTE, "Riesling", 4)
    assert again.classes == model.classes
    assert again.table is not None
    assert model.table is not None
    assert len(again.table) == len(model.table)


def _with(model: WineModel, **arrays: Any) -> bytes:
    with np.load(io.BytesIO(to_bytes(model))) as file:
        kept = {name: file[name] for name in file.files}
    out = io.BytesIO()
    np.savez(out, **{name: value for name, value in {**kept, **arrays}.items() if value is not None})
    return out.getvalue()


def _header(model: WineModel, **changes: Any) -> Any:
    with np.load(io.BytesIO(to_bytes(model))) as file:
        header = json.loads(file["header"].tobytes())
    return np.frombuffer(json.dumps({**header, **changes}).encode(), dtype=np.uint8)


def test_what_is_no_model_is_refused(model: WineModel) -> None:
    whole = to_bytes(model)
    for data, message in (
        (b"", "not a wine model"),
        (b"PK\x03\x04 nonsense", "not a wine model"),
        (pickle.dumps({"a": 1}), "not a wine model"),
        (whole[: len(whole) // 2], "not a wine model"),
        (_with(model, weights=None), "not a wine model: KeyError"),
        (_with(model, weights=np.zeros((3, 2), dtype=np.float32)), "weights has shape"),
        (_with(model, bias=np.full(4, np.nan, dtype=np.float32)), "bias has values that are not finite"),
        (_with(model, plain=np.array([-1.0, 0, 0, 0, 0, 0])), "temperature must be above 0"),
        (_with(model, header=_header(model, format="pergola-wine-model/0")), "train again"),
        (_with(model, header=_header(model, classes=["Austria"] * 4)), "two different classes"),
        (_with(model, header=_header(model, probes=[])), "no test predictions"),
        (_with(model, bias=np.array([9, 0, 0, 0], dtype=np.float32)), "test prediction is wrong"),
    ):
        with pytest.raises(ModelError, match=message):
            from_bytes(data)


def test_a_pickle_inside_is_not_opened(model: WineModel) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (pytest.fail, ("a pickle was opened",))

    with pytest.raises(ModelError, match="not a wine model"):
        from_bytes(_with(model, idf=np.array([Trap()], dtype=object)))
