"""What several annotators said of one clip, as one: boxes averaged, attributes by majority, ties for a person to decide."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.ava.attributes import UNKNOWN, Profile
from app.ava.boxes import Box, by_frame, corners
from app.ava.matching import group


@dataclass(frozen=True)
class Tie:
    """A value that the annotators do not agree on by majority; it is not exported until somebody decides."""

    frame: int
    person: int
    attribute: str
    votes: Mapping[str, int]


@dataclass(frozen=True)
class Merged:
    """The consensus of a clip. `alone` counts boxes that only a minority drew: they are left out."""

    boxes: list[Box]
    ties: list[Tie]
    alone: int


def merge(annotators: Sequence[Sequence[Box]], profile: Profile) -> Merged:
    """Merge what annotators made of one clip.

    Boxes of one person (they overlap by half) are averaged when at least half of the annotators drew them; of two annotators, one is
    enough: a person that one overlooked is still there. Attributes go by the majority of those who said something.

    A person's number goes on from frame to frame through the annotators' own tracks: boxes of one track of one annotator are one person.
    """
    if len(annotators) == 1:
        boxes = [
            Box(box.track, box.frame, *box.corners, profile.complete(box.attributes), box.occluded)
            for box in annotators[0]
        ]
        return Merged(boxes, [], 0)
    frames = [by_frame(boxes) for boxes in annotators]
    groups: list[tuple[int, tuple[Box | None, ...]]] = []
    alone = 0
    for frame in sorted({frame for each in frames for frame in each}):
        for members in group([each.get(frame, []) for each in frames]):
            if 2 * sum(box is not None for box in members) >= len(annotators):
                groups.append((frame, members))
            else:
                alone += 1
    persons = _persons(groups)
    merged: list[Box] = []
    ties: list[Tie] = []
    for (frame, members), person in zip(groups, persons, strict=True):
        there = [box for box in members if box is not None]
        said, undecided = _majority(there, profile)
        ties += [Tie(frame, person, name, votes) for name, votes in undecided.items()]
        xtl, ytl, xbr, ybr = (float(value) for value in corners(there).mean(axis=0))
        occluded = 2 * sum(box.occluded for box in there) > len(there)
        merged.append(Box(person, frame, xtl, ytl, xbr, ybr, said, occluded))
    return Merged(merged, ties, alone)


def _persons(groups: Sequence[tuple[int, tuple[Box | None, ...]]]) -> list[int]:
    """A number for each group, such that a person is at most once in a frame.

    A group belongs to the person whose tracks most of its boxes have; what is left over begins a new one. So two tracks that an
    annotator swapped do not make two persons of everyone else's one.
    """
    owner: dict[tuple[int, int], int] = {}
    numbers: list[int] = []
    taken: set[tuple[int, int]] = set()
    fresh = 0
    for frame, members in groups:
        keys = [(who, box.track) for who, box in enumerate(members) if box is not None]
        votes = Counter(owner[key] for key in keys if key in owner and (frame, owner[key]) not in taken)
        if votes:
            most = max(votes.values())
            # ties go to the annotator who comes first: the primary
            person = next(owner[key] for key in keys if votes.get(owner.get(key, -1)) == most)
        else:
            person, fresh = fresh, fresh + 1
        for key in keys:
            owner.setdefault(key, person)
        taken.add((frame, person))
        numbers.append(person)
    return numbers


def _majority(boxes: Sequence[Box], profile: Profile) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    said: dict[str, str] = {}
    undecided: dict[str, dict[str, int]] = {}
    each = [profile.complete(box.attributes) for box in boxes]
    for name in profile.names:
        votes = Counter(one[name] for one in each if one[name] != UNKNOWN).most_common()
        if len(votes) > 1 and votes[0][1] == votes[1][1]:
            undecided[name] = dict(votes)
            said[name] = UNKNOWN
        else:
            said[name] = votes[0][0] if votes else UNKNOWN
    return said, undecided
