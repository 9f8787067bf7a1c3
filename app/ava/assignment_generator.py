"""Who annotates what: every clip has one primary annotator, some go to others as well, and loads are even."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

STEP: Final = 5
PRIMARY: Final = "primary"
OVERLAP: Final = "overlap"
Role = Literal["primary", "overlap"]


class AssignmentError(Exception):
    """There is no such plan; the message says why and what would help."""


@dataclass(frozen=True)
class Assignment:
    """One task: a clip for an annotator. `group` numbers the clips that several annotate, from 1; None for the others."""

    clip: str
    annotator: str
    role: Role
    group: int | None = None


def names(text: str) -> list[str]:
    """Annotators, one a line; empty lines do not count."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def generate(
    clips: Sequence[str], annotators: Sequence[str], *, overlap_percentage: int = 20, k: int = 2, seed: int = 0
) -> list[Assignment]:
    """Make a plan.

    `int(n * overlap_percentage / 100)` of the n clips go to k annotators, the others to one. Each clip goes to those who have least so
    far: when loads differ by at most one before, they do afterwards; ties are broken by chance. The same arguments give the same plan.

    Raises:
        AssignmentError: Nobody or nothing to assign, names twice, a percentage that is not 0, 5, ... 100, or more annotators a
            clip than there are.
    """
    _check(clips, annotators, overlap_percentage)
    shared = len(clips) * overlap_percentage // 100
    if overlap_percentage and len(annotators) == 1:
        raise AssignmentError(
            f"Overlap needs a second annotator, and {annotators[0]!r} is the only one: name another, or set the overlap to 0 %."
        )
    if shared and not 2 <= k <= len(annotators):
        raise AssignmentError(
            f"{k} annotators for an overlap clip are not possible with {len(annotators)}: choose 2 to {len(annotators)}."
        )
    chance = random.Random(seed)  # noqa: S311 - a plan that can be made again, no secret
    order = list(clips)
    chance.shuffle(order)
    people = list(annotators)
    chance.shuffle(people)
    load: Counter[str] = Counter()
    leads: Counter[str] = Counter()
    plan: dict[str, list[Assignment]] = {}
    for number, clip in enumerate(order):
        several = number < shared
        chance.shuffle(people)  # sorted() keeps the order of equals: ties go by chance
        chosen = sorted(people, key=lambda person: load[person])[: k if several else 1]
        chosen.sort(key=lambda person: leads[person])
        leads[chosen[0]] += 1
        load.update(chosen)
        group = number + 1 if several else None
        plan[clip] = [
            Assignment(clip, person, OVERLAP if place else PRIMARY, group) for place, person in enumerate(chosen)
        ]
    return [assignment for clip in clips for assignment in plan[clip]]


def _check(clips: Sequence[str], annotators: Sequence[str], percentage: int) -> None:
    if not clips:
        raise AssignmentError("There are no clips to assign; upload some first.")
    if not annotators:
        raise AssignmentError("There is nobody to annotate: name at least one annotator, one a line.")
    for what, words in (("clip", clips), ("annotator", annotators)):
        twice = [word for word, count in Counter(words).items() if count > 1]
        if twice:
            raise AssignmentError(f"The {what} {twice[0]!r} is there twice; name each once.")
    if percentage % STEP or not 0 <= percentage <= 100:
        raise AssignmentError(f"An overlap of {percentage} % is not possible: 0 to 100 in steps of {STEP}.")


def check_plan(plan: Iterable[Assignment], clips: Sequence[str], annotators: Sequence[str]) -> list[Assignment]:
    """A plan that somebody edited, with its groups numbered anew.

    Raises:
        AssignmentError: A clip has no primary or two, an annotator has a clip twice, or a name is unknown.
    """
    found: dict[str, list[Assignment]] = {clip: [] for clip in clips}
    for one in plan:
        if one.clip not in found:
            raise AssignmentError(f"The plan has the clip {one.clip!r}, which is not among the clips of the project.")
        if one.annotator not in annotators:
            raise AssignmentError(f"{one.clip}: {one.annotator!r} is not among the annotators.")
        if any(other.annotator == one.annotator for other in found[one.clip]):
            raise AssignmentError(f"{one.clip}: {one.annotator!r} is there twice.")
        found[one.clip].append(one)
    group = 0
    checked: list[Assignment] = []
    for clip, its in found.items():
        leads = [one for one in its if one.role == PRIMARY]
        if len(leads) != 1:
            raise AssignmentError(f"{clip}: there are {len(leads)} primary annotators; every clip has exactly one.")
        if len(its) > 1:
            group += 1
        number = group if len(its) > 1 else None
        checked += [Assignment(clip, one.annotator, one.role, number) for one in its]
    return checked


def loads(plan: Iterable[Assignment]) -> dict[str, dict[str, int]]:
    """Tasks of each annotator: in all, as primary, for overlap."""
    told: dict[str, dict[str, int]] = {}
    for one in plan:
        row = told.setdefault(one.annotator, {"total": 0, PRIMARY: 0, OVERLAP: 0})
        row["total"] += 1
        row[one.role] += 1
    return dict(sorted(told.items()))
