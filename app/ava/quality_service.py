"""Quality of annotations: how far two annotators agree on where persons are and on what they do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np

from app.ava import agreement
from app.ava.agreement import Kappa
from app.ava.attributes import Profile
from app.ava.boxes import Box, by_frame, by_track
from app.ava.matching import MATCH_IOU, Matched, Pair, group

LOW_IOU: Final = 0.5
LOW_SHARE: Final = 0.7
LOW_KAPPA: Final = 0.4
WORST: Final = 12


class NoData(Exception):
    """Neither annotator has a box: there is nothing to compare."""


@dataclass(frozen=True)
class Flips:
    """How often a person's attributes change from one second to the next. None when no one is seen for two seconds."""

    rate: float | None
    flips: int
    transitions: int
    by_attribute: Mapping[str, float | None]


@dataclass(frozen=True)
class Agreement:
    """What is said of two annotators of one clip, or of several clips together.

    Precision and recall take the first annotator for the reference. `average_iou` and `share` are over all positions: pairs of boxes,
    and each box without a partner, which counts 0. `average_iou_matched` is over the pairs that overlap by half alone.
    """

    boxes: tuple[int, int]
    matched: int
    positions: int
    precision: float | None
    recall: float | None
    f1: float | None
    average_iou: float | None
    average_iou_matched: float | None
    share: float | None
    tube_iou: float | None
    kappas: Mapping[str, Kappa]
    macro_kappa: float | None
    flips: tuple[Flips, Flips]
    warnings: tuple[str, ...] = ()
    worst: tuple[Pair, ...] = field(default=(), repr=False)


def compare(work: Sequence[Matched], profile: Profile, *, seed: int = 0) -> Agreement:
    """Compare what two annotators made of the same clips.

    Args:
        work: For each clip the boxes of the first and of the second annotator, matched.
        profile: The attributes.
        seed: Of the bootstrap.

    Raises:
        NoData: There is no box at all.
    """
    pairs = [pair for each in work for pair in each.pairs]
    if not pairs:
        raise NoData
    count_a, count_b = sum(len(each.first) for each in work), sum(len(each.second) for each in work)
    matched = [pair for pair in pairs if pair.matched]
    overlaps = np.array([pair.iou for pair in pairs])
    found = _kappas([each.pairs for each in work], profile, seed)
    mean_iou, share = float(overlaps.mean()), float((overlaps >= MATCH_IOU).mean())
    macro = agreement.mean([one.value for one in found.values()])
    return Agreement(
        boxes=(count_a, count_b),
        matched=len(matched),
        positions=len(pairs),
        precision=len(matched) / count_b if count_b else None,
        recall=len(matched) / count_a if count_a else None,
        # 2 TP / (2 TP + FP + FN): defined as soon as there is a box
        f1=2 * len(matched) / (count_a + count_b),
        average_iou=mean_iou,
        average_iou_matched=float(np.mean([pair.iou for pair in matched])) if matched else None,
        share=share,
        tube_iou=float(np.mean([value for each in work for value in each.tubes])),
        kappas=found,
        macro_kappa=macro,
        flips=(flip_rate([each.first for each in work], profile), flip_rate([each.second for each in work], profile)),
        warnings=warnings(mean_iou, share, macro, found),
        worst=tuple(worst(pairs)),
    )


def _kappas(paired: Sequence[Sequence[Pair]], profile: Profile, seed: int) -> dict[str, Kappa]:
    """Kappa of every attribute on the boxes that both drew."""
    items = [
        (clip, (pair.first, pair.second))
        for clip, pairs in enumerate(paired)
        for pair in pairs
        if pair.matched and pair.first is not None and pair.second is not None
    ]
    drawn = agreement.draw(np.array([clip * 2**32 + both[0].track for clip, both in items], dtype=np.int64), seed=seed)
    told: dict[str, Kappa] = {}
    for name, options in profile.options.items():
        code = {option: number for number, option in enumerate(options)}
        ours, theirs = (
            np.array([code.get(both[place].attributes.get(name, ""), 0) for _, both in items], dtype=np.int64)
            for place in (0, 1)
        )
        told[name] = agreement.kappa(ours, theirs, drawn, len(options))
    return told


def flip_rate(clips: Sequence[Sequence[Box]], profile: Profile) -> Flips:
    """Changes of attributes from one frame to the next of the same track, by the number of values that could have changed."""
    flips = dict.fromkeys(profile.names, 0)
    transitions = 0
    for boxes in clips:
        for track in by_track(boxes).values():
            for before, after in pairwise(track):
                if after.frame != before.frame + 1:
                    continue
                transitions += 1
                for name in flips:
                    flips[name] += before.attributes.get(name) != after.attributes.get(name)
    total = sum(flips.values())
    return Flips(
        total / (transitions * len(flips)) if transitions else None,
        total,
        transitions,
        {name: count / transitions if transitions else None for name, count in flips.items()},
    )


def warnings(mean_iou: float, share: float, macro: float | None, found: Mapping[str, Kappa]) -> tuple[str, ...]:
    """What somebody should look at, in sentences."""
    told = []
    if mean_iou < LOW_IOU:
        told.append(f"The mean IoU is {mean_iou:.2f}, below {LOW_IOU:g}: the boxes are not of the same persons.")
    if share < LOW_SHARE:
        told.append(f"Only {share:.0%} of the boxes overlap by half; {LOW_SHARE:.0%} are expected.")
    if macro is not None and macro < LOW_KAPPA:
        told.append(f"The mean kappa of the attributes is {macro:.2f}, below {LOW_KAPPA:g}.")
    told += [
        f"{name}: kappa is {one.value:.2f}, below {LOW_KAPPA:g}; explain this attribute to the annotators again."
        for name, one in found.items()
        if one.value is not None and one.value < LOW_KAPPA
    ]
    return tuple(told)


def worst(pairs: Sequence[Pair], most: int = WORST) -> list[Pair]:
    """The pairs with the smallest IoU, boxes without a partner first."""
    return sorted((pair for pair in pairs if pair.iou < 1), key=lambda pair: (pair.iou, pair.frame))[:most]


def alphas(clips: Sequence[Mapping[str, Sequence[Box]]], profile: Profile) -> dict[str, float | None]:
    """Krippendorff's alpha of every attribute, for clips that two or more annotated.

    A unit is a person in a frame: boxes of several annotators that overlap by half.

    Args:
        clips: For each clip the boxes of every annotator who had it.
        profile: The attributes.
    """
    people = sorted({person for clip in clips for person in clip})
    units: list[dict[str, Box]] = []
    for clip in clips:
        frames = {person: by_frame(boxes) for person, boxes in clip.items()}
        for frame in sorted({frame for each in frames.values() for frame in each}):
            units += [
                {person: box for person, box in zip(frames, members, strict=True) if box is not None}
                for members in group([each.get(frame, []) for each in frames.values()])
            ]
    units = [unit for unit in units if len(unit) > 1]
    told: dict[str, float | None] = {}
    for name, options in profile.options.items():
        code = {option: number for number, option in enumerate(options)}
        ratings = np.full((len(people), len(units)), -1, dtype=np.int64)
        for column, unit in enumerate(units):
            for row, person in enumerate(people):
                if person in unit:
                    ratings[row, column] = code.get(unit[person].attributes.get(name, ""), 0)
        told[name] = agreement.alpha(ratings, len(options))
    return told


def as_dict(found: Agreement) -> dict[str, Any]:
    """With names, for the store and the API; the worst frames with their boxes."""
    return {
        "average_iou": found.average_iou,
        "average_iou_matched": found.average_iou_matched,
        "percent_iou_gte_05": None if found.share is None else 100 * found.share,
        "precision": found.precision,
        "recall": found.recall,
        "f1": found.f1,
        "tube_iou": found.tube_iou,
        "kappa_scores": {name: one.value for name, one in found.kappas.items()},
        "kappa_details": {
            name: {
                "value": one.value,
                "support": one.support,
                "labelled": one.labelled,
                "low": one.low,
                "high": one.high,
                "band": one.band,
            }
            for name, one in found.kappas.items()
        },
        "macro_avg_kappa": found.macro_kappa,
        "band": agreement.band(found.macro_kappa),
        "compared_annotations": found.matched,
        "boxes": list(found.boxes),
        "warnings": list(found.warnings),
        "worst_frames": [
            {
                "frame": pair.frame,
                "iou": pair.iou,
                "first": _corners(pair.first),
                "second": _corners(pair.second),
            }
            for pair in found.worst
        ],
    }


def _corners(box: Box | None) -> list[float] | None:
    return None if box is None else [round(value, 2) for value in box.corners]
