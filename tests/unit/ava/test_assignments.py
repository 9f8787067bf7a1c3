"""Who annotates what: every promise about the plan, for whatever is asked."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.ava.assignment_generator import Assignment, AssignmentError, check_plan, generate, loads, names


@hypothesis_settings(max_examples=300, deadline=None)
@given(
    n=st.integers(1, 120),
    people=st.integers(2, 9),
    percentage=st.integers(0, 20).map(lambda step: step * 5),
    k=st.integers(2, 9),
    seed=st.integers(0, 99),
)
def test_a_plan_keeps_its_promises(n: int, people: int, percentage: int, k: int, seed: int) -> None:
    k = min(k, people)
    clips, annotators = [f"v_clip_{number:03d}" for number in range(n)], [f"p{number}" for number in range(people)]
    plan = generate(clips, annotators, overlap_percentage=percentage, k=k, seed=seed)
    by_clip: dict[str, list[Assignment]] = {}
    for one in plan:
        by_clip.setdefault(one.clip, []).append(one)
    assert list(by_clip) == clips
    assert all(sum(one.role == "primary" for one in its) == 1 for its in by_clip.values())
    assert all(len({one.annotator for one in its}) == len(its) for its in by_clip.values())
    assert sorted(Counter(map(len, by_clip.values())).items()) == sorted(
        {
            size: count for size, count in ((1, n - int(n * percentage / 100)), (k, int(n * percentage / 100))) if count
        }.items()
    )
    load = [sum(one.annotator == person for one in plan) for person in annotators]
    assert max(load) - min(load) <= 1
    groups = Counter(one.group for one in plan if one.group is not None)
    assert set(groups.values()) <= {k}
    assert plan == generate(clips, annotators, overlap_percentage=percentage, k=k, seed=seed)


def test_another_seed_is_another_plan() -> None:
    clips, annotators = [f"v_clip_{number:03d}" for number in range(40)], ["a", "b", "c"]
    assert generate(clips, annotators, seed=1) != generate(clips, annotators, seed=2)
    assert sum(one.role == "overlap" for one in generate(clips, annotators)) == 8  # 20 % is the default


@pytest.mark.parametrize(
    ("clips", "annotators", "percentage", "k", "said"),
    [
        ([], ["a"], 0, 2, "no clips"),
        (["x"], [], 0, 2, "nobody to annotate"),
        (["x"], ["a", "a"], 0, 2, "annotator 'a' is there twice"),
        (["x", "x"], ["a"], 0, 2, "clip 'x' is there twice"),
        (["x"], ["a", "b"], 7, 2, "steps of 5"),
        (["x"], ["a", "b"], 105, 2, "0 to 100"),
        (["x"], ["a"], 100, 2, "needs a second annotator"),
        (["x"], ["a", "b"], 100, 3, "choose 2 to 2"),
        (["x"], ["a", "b"], 100, 1, "choose 2 to 2"),
    ],
)
def test_what_cannot_be_planned_is_said(
    clips: list[str], annotators: list[str], percentage: int, k: int, said: str
) -> None:
    with pytest.raises(AssignmentError, match=said):
        generate(clips, annotators, overlap_percentage=percentage, k=k)


def test_one_annotator_without_overlap_is_fine() -> None:
    assert len(generate(["x", "y"], ["a"], overlap_percentage=0)) == 2


def test_an_edited_plan_is_checked_and_numbered_anew() -> None:
    plan = [Assignment("x", "a", "primary"), Assignment("x", "b", "overlap"), Assignment("y", "b", "primary", 9)]
    assert check_plan(plan, ["x", "y"], ["a", "b"]) == [
        Assignment("x", "a", "primary", 1), Assignment("x", "b", "overlap", 1), Assignment("y", "b", "primary", None)]  # fmt: skip
    assert loads(plan) == {"a": {"total": 1, "primary": 1, "overlap": 0}, "b": {"total": 2, "primary": 1, "overlap": 1}}


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ([Assignment("z", "a", "primary")], "not among the clips"),
        ([Assignment("x", "z", "primary")], "not among the annotators"),
        ([Assignment("x", "a", "primary"), Assignment("x", "a", "overlap")], "'a' is there twice"),
        ([Assignment("x", "a", "primary"), Assignment("x", "b", "primary")], "2 primary"),
        ([Assignment("x", "a", "overlap")], "0 primary"),
        ([], "0 primary"),
    ],
)
def test_a_wrong_edit_is_said(plan: list[Assignment], said: str) -> None:
    with pytest.raises(AssignmentError, match=said):
        check_plan(plan, ["x"], ["a", "b"])


def test_names_one_a_line() -> None:
    assert names(" ann \n\nbob\r\n") == ["ann", "bob"]
