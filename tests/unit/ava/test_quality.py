"""Agreement: every number against another implementation, and the cases that fool naive ones."""

import warnings
from collections.abc import Callable
from itertools import permutations

import krippendorff
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from app.ava import agreement, matching, quality_service
from app.ava.attributes import Profile
from app.ava.boxes import Box
from app.ava.quality_service import Agreement, NoData, alphas

from .conftest import box

codes = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=60)


@hypothesis_settings(max_examples=100, deadline=None)
@given(codes)
def test_kappa_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    first, second = (np.array(column) for column in zip(*pairs, strict=True))
    ours = agreement.kappa(first, second, agreement.draw(np.arange(len(first)), draws=10), 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = cohen_kappa_score(first, second)
    if np.isnan(theirs) or len(set(first.tolist()) | set(second.tolist())) == 1:
        assert ours.value is None  # one constant class: nothing to say, never 1
    else:
        assert ours.value == pytest.approx(theirs, abs=1e-12)
    assert ours.support == len(pairs)


@hypothesis_settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(-1, 3), min_size=3, max_size=3), min_size=2, max_size=40))
def test_alpha_is_the_krippendorff_packages(units: list[list[int]]) -> None:
    ratings = np.array(units).T
    ours = agreement.alpha(ratings, 4)
    data = np.where(ratings < 0, np.nan, ratings.astype(float))
    pairable = [[value for value in unit if value >= 0] for unit in units if sum(value >= 0 for value in unit) > 1]
    if not pairable or len({value for unit in pairable for value in unit}) < 2:
        assert ours is None
        return
    theirs = krippendorff.alpha(reliability_data=data, level_of_measurement="nominal", value_domain=[0, 1, 2, 3])
    assert ours == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (1.0, "Excellent"),
        (0.81, "Excellent"),
        (0.8, "Good"),
        (0.61, "Good"),
        (0.6, "Moderate"),
        (0.4, "Fair"),
        (0.2, "Poor"),
        (-1.0, "Poor"),
        (None, "n/a"),
    ],
)
def test_bands(value: float | None, word: str) -> None:
    assert agreement.band(value) == word


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Two annotators who agree in 80 % of the cases beyond chance, on clusters of boxes of one person: about 95 % are covered."""
    chance = np.random.default_rng(1)
    covered = total = 0
    for trial in range(50):
        truth = chance.integers(0, 3, 40)
        other = np.where(chance.random(40) < 0.7, truth, chance.integers(0, 3, 40))  # kappa 0.7
        found = agreement.kappa(
            np.repeat(truth, 15), np.repeat(other, 15), agreement.draw(np.repeat(np.arange(40), 15), seed=trial), 3
        )
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.7 <= found.high
        total += 1
        single = agreement.kappa(
            np.repeat(truth, 15), np.repeat(other, 15), agreement.draw(np.arange(600), seed=trial), 3
        )
        assert single.low is not None
        assert single.high is not None
        assert single.high - single.low < found.high - found.low  # drawing single boxes would be far too sure
    assert 0.85 <= covered / total <= 1


@hypothesis_settings(max_examples=100, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 10**6))
def test_the_assignment_is_the_best_of_all(rows: int, columns: int, seed: int) -> None:
    overlaps = np.random.default_rng(seed).random((rows, columns)) * (
        np.random.default_rng(seed + 1).random((rows, columns)) < 0.6
    )
    found = matching.assign(overlaps)
    assert len({a for a, _ in found}) == len({b for _, b in found}) == len(found)
    table = overlaps if rows <= columns else overlaps.T
    best = max(
        (
            sum(table[row, column] >= 0.5 for row, column in enumerate(order)),
            sum(table[row, column] for row, column in enumerate(order)),
        )
        for order in permutations(range(table.shape[1]), table.shape[0])
    )
    assert sum(overlaps[pair] >= 0.5 for pair in found) == best[0]
    assert sum(overlaps[pair] for pair in found) == pytest.approx(best[1])


def test_iou_of_known_boxes() -> None:
    a = np.array([[0.0, 0, 10, 10], [0, 0, 0, 0]])
    b = np.array([[5.0, 0, 15, 10], [0, 0, 10, 10], [20, 20, 30, 30]])
    np.testing.assert_allclose(matching.iou(a, b), [[1 / 3, 1, 0], [0, 0, 0]])


Clip = list[Box]


def compare(clips: list[tuple[Clip, Clip]], profile: Profile) -> Agreement:
    return quality_service.compare([matching.match(first, second) for first, second in clips], profile)


WALKS = ("normal_walk", "fast_walk", "jogging")


def people(count: int = 3, frames: int = 15) -> Clip:
    return [
        box(track, frame, 300.0 * track + frame, walking_behavior=WALKS[track % 3], phone_usage="no_phone")
        for track in range(count)
        for frame in range(frames)
    ]


def test_two_who_agree(profile: Profile) -> None:
    found = compare([(people(), people())], profile)
    assert (found.precision, found.recall, found.f1, found.average_iou, found.share, found.tube_iou) == (
        1,
        1,
        1,
        1,
        1,
        1,
    )
    assert found.kappas["walking_behavior"].value == pytest.approx(1)
    assert found.kappas["walking_behavior"].support == 45
    assert found.kappas["phone_usage"].value is None  # both always say no_phone: undefined, not 1
    assert found.kappas["time_context"].value is None  # nobody said anything
    assert found.kappas["time_context"].labelled == 0
    assert found.macro_kappa == pytest.approx(1)
    assert found.warnings == ()
    assert found.worst == ()


def test_no_agreement_at_all(profile: Profile) -> None:
    away = [
        Box(one.track, one.frame, one.xtl, one.ytl + 400, one.xbr, one.ybr + 400, one.attributes) for one in people()
    ]
    found = compare([(people(), away)], profile)
    assert (found.precision, found.recall, found.f1, found.average_iou, found.share, found.tube_iou) == (
        0,
        0,
        0,
        0,
        0,
        0,
    )
    assert all(one.value is None for one in found.kappas.values())
    assert found.macro_kappa is None
    assert found.average_iou_matched is None
    assert quality_service.as_dict(found)["band"] == "n/a"
    assert any("mean IoU is 0.00" in sentence for sentence in found.warnings)


def test_same_boxes_opposite_words(profile: Profile) -> None:
    turn = {"normal_walk": "fast_walk", "fast_walk": "jogging", "jogging": "normal_walk"}
    other = [
        Box(o.track, o.frame, *o.corners, {**o.attributes, "walking_behavior": turn[o.attributes["walking_behavior"]]})
        for o in people()
    ]
    found = compare([(people(), other)], profile)
    assert found.average_iou == 1
    assert found.kappas["walking_behavior"].value == pytest.approx(-0.5)
    assert any(sentence.startswith("walking_behavior: kappa is -0.50") for sentence in found.warnings)
    assert any("mean kappa" in sentence for sentence in found.warnings)


def test_one_deletes_a_track(profile: Profile) -> None:
    found = compare([(people(), [one for one in people() if one.track != 1])], profile)
    assert (found.precision, found.recall) == (1, pytest.approx(2 / 3))
    assert found.average_iou == pytest.approx(2 / 3)
    assert found.share == pytest.approx(2 / 3)
    assert found.tube_iou == pytest.approx(2 / 3)
    assert found.average_iou_matched == 1
    assert {pair.first.track for pair in found.worst if pair.first} == {1}
    assert all(pair.second is None for pair in found.worst)
    assert any("67%" in sentence for sentence in found.warnings)


def test_track_numbers_do_not_matter(profile: Profile) -> None:
    swap = {0: 2, 1: 0, 2: 1}
    other = [Box(swap[one.track], *(one.frame, *one.corners), one.attributes) for one in people()]
    found = compare([(people(), other)], profile)
    assert found.tube_iou == 1
    assert found.kappas["walking_behavior"].value == pytest.approx(1)


def test_numbers_swapped_in_the_middle_cost_tubes_and_nothing_else(profile: Profile) -> None:
    swap = {0: 1, 1: 0, 2: 2}
    other = [Box(swap[o.track] if o.frame >= 9 else o.track, *(o.frame, *o.corners), o.attributes) for o in people()]
    found = compare([(people(), other)], profile)
    assert found.average_iou == 1
    assert found.kappas["walking_behavior"].value == pytest.approx(1)
    assert found.tube_iou == pytest.approx((9 / 15 + 9 / 15 + 1) / 3)


def test_an_empty_job(profile: Profile) -> None:
    found = compare([(people(), [])], profile)
    assert (found.precision, found.recall, found.f1, found.average_iou) == (None, 0, 0, 0)
    assert found.flips[1].rate is None
    with pytest.raises(NoData):
        compare([([], [])], profile)


def test_flips_are_changes_from_second_to_second(profile: Profile) -> None:
    said = ["normal_walk", "fast_walk", "fast_walk", "jogging"]
    boxes = [box(1, frame, walking_behavior=word) for frame, word in enumerate(said)]
    boxes.append(box(1, 9, walking_behavior="slow_walk"))  # after a gap: no transition
    flips = quality_service.flip_rate([boxes], profile)
    assert (flips.flips, flips.transitions) == (2, 3)
    assert flips.rate == pytest.approx(2 / (3 * 8))
    assert flips.by_attribute["walking_behavior"] == pytest.approx(2 / 3)
    assert quality_service.flip_rate([[box(1, 0)]], profile).rate is None


def test_more_than_two_annotators(profile: Profile) -> None:
    clip = {"a": people(), "b": people(), "c": people()}
    found = alphas([clip], profile)
    assert found["walking_behavior"] == pytest.approx(1)
    assert found["phone_usage"] is None
    slips: list[tuple[str, Callable[[Box], bool]]] = [
        ("b", lambda one: one.track == 0),
        ("c", lambda one: one.frame > 9),
    ]
    for person, wrong in slips:
        clip[person] = [
            Box(
                o.track,
                o.frame,
                *o.corners,
                {**o.attributes, **({"walking_behavior": "slow_walk"} if wrong(o) else {})},
            )
            for o in clip[person]
        ]
    options = profile.options["walking_behavior"]
    order = [(track, frame) for track in range(3) for frame in range(15)]
    table = [
        [
            options.index(next(o for o in clip[who] if (o.track, o.frame) == key).attributes["walking_behavior"])
            for key in order
        ]
        for who in "abc"
    ]
    theirs = krippendorff.alpha(
        reliability_data=table, level_of_measurement="nominal", value_domain=list(range(len(options)))
    )
    assert alphas([clip], profile)["walking_behavior"] == pytest.approx(theirs)


def test_the_same_boxes_give_the_same_numbers(profile: Profile) -> None:
    assert compare([(people(), people(2))], profile) == compare([(people(), people(2))], profile)
