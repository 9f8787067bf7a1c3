"""Which box of one annotator is which box of another: by where they are, never by their numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.optimize import linear_sum_assignment

from app.ava.boxes import Box, Floats, by_frame, corners

MATCH_IOU: Final = 0.5


def iou(first: Floats, second: Floats) -> Floats:
    """Intersection over union of every box of (n, 4) with every box of (m, 4): (n, m), from 0 to 1."""
    left_top = np.maximum(first[:, None, :2], second[None, :, :2])
    right_bottom = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.clip(right_bottom - left_top, 0, None), axis=2)
    areas = [np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def assign(overlaps: Floats, least: float = MATCH_IOU) -> list[tuple[int, int]]:
    """Pairs of rows and columns, each used at most once (Kuhn 1955, Hungarian method; SciPy's solver).

    As many pairs as possible have at least `least`; among those assignments the sum of the overlaps is the largest. Pairs that do
    not overlap at all are left out.
    """
    if not overlaps.size:
        return []
    # one good pair weighs more than all overlaps together: two good pairs are never given up for one that is better
    weight = overlaps + (overlaps >= least) * (min(overlaps.shape) + 1.0)
    rows, columns = linear_sum_assignment(weight, maximize=True)
    return [(int(row), int(column)) for row, column in zip(rows, columns, strict=True) if overlaps[row, column] > 0]


@dataclass(frozen=True)
class Pair:
    """Two boxes of one frame that belong together, or one without a partner (IoU 0)."""

    frame: int
    first: Box | None
    second: Box | None
    iou: float

    @property
    def matched(self) -> bool:
        """Both are there and overlap by half."""
        return self.first is not None and self.second is not None and self.iou >= MATCH_IOU


@dataclass(frozen=True)
class Matched:
    """The boxes of two annotators of one clip, paired.

    `pairs` have every box exactly once. `tubes` are the IoU of tracks: for two tracks, the sum of IoU over the frames that both have, by
    the number of frames that either has; tracks are assigned to each other by it, and one without a partner counts 0.
    """

    first: Sequence[Box]
    second: Sequence[Box]
    pairs: list[Pair]
    tubes: list[float]


def match(first: Sequence[Box], second: Sequence[Box]) -> Matched:
    """Pair the boxes of two annotators frame by frame, and their tracks by their tubes."""
    frames_a, frames_b = by_frame(first), by_frame(second)
    tracks_a, tracks_b = _numbered(first), _numbered(second)
    shared = np.zeros((len(tracks_a), len(tracks_b)))  # sums of IoU
    both = np.zeros_like(shared)  # frames that both tracks have
    pairs: list[Pair] = []
    for frame in sorted({*frames_a, *frames_b}):
        ours, theirs = frames_a.get(frame, []), frames_b.get(frame, [])
        overlaps = iou(corners(ours), corners(theirs))
        if overlaps.size:
            where = np.ix_([tracks_a[box.track] for box in ours], [tracks_b[box.track] for box in theirs])
            shared[where] += overlaps
            both[where] += 1
        found = assign(overlaps)
        pairs += [Pair(frame, ours[a], theirs[b], float(overlaps[a, b])) for a, b in found]
        with_partner = {a for a, _ in found}, {b for _, b in found}
        pairs += [Pair(frame, box, None, 0.0) for number, box in enumerate(ours) if number not in with_partner[0]]
        pairs += [Pair(frame, None, box, 0.0) for number, box in enumerate(theirs) if number not in with_partner[1]]
    either = _lengths(first, tracks_a)[:, None] + _lengths(second, tracks_b)[None, :] - both
    tubes = np.divide(shared, either, out=np.zeros_like(shared), where=either > 0)
    matched = [float(tubes[pair]) for pair in assign(tubes)]
    return Matched(first, second, pairs, matched + [0.0] * (len(tracks_a) + len(tracks_b) - 2 * len(matched)))


def _numbered(boxes: Sequence[Box]) -> dict[int, int]:
    return {track: number for number, track in enumerate(sorted({box.track for box in boxes}))}


def _lengths(boxes: Sequence[Box], tracks: Mapping[int, int]) -> Floats:
    return np.bincount([tracks[box.track] for box in boxes], minlength=len(tracks)).astype(float)


def group(annotators: Sequence[Sequence[Box]]) -> list[tuple[Box | None, ...]]:
    """The boxes of one frame by person: each group has one box or None of every annotator.

    Annotators are added one by one; a box joins the group whose mean box it overlaps by half, else it begins a group.
    """
    groups: list[list[Box | None]] = []
    for number, boxes in enumerate(annotators):
        means = np.array(
            [corners([box for box in members if box is not None]).mean(axis=0) for members in groups]
        ).reshape(-1, 4)
        overlaps = iou(means, corners(boxes))
        joined: dict[int, int] = {b: a for a, b in assign(overlaps) if overlaps[a, b] >= MATCH_IOU}
        for members in groups:
            members.append(None)
        for index, box in enumerate(boxes):
            if index in joined:
                groups[joined[index]][number] = box
            else:
                groups.append([*[None] * number, box])
    return [tuple(members) for members in groups]
