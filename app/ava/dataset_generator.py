"""The dataset: what was approved, in the form of AVA, with everything that one needs to trust it.

AVA's CSV has no header: `video_id,timestamp,x1,y1,x2,y2,action_id,person_id`, corners from 0 to 1, one line for each action of a box.
"""

import hashlib
import io
import json
import pickle
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Literal

import numpy as np

from app.ava.attributes import Profile
from app.ava.boxes import Box, parse_clip
from app.ava.consensus import Tie, merge

DECIMALS: Final = 6
SPLITS: Final = ("train", "val")


@dataclass(frozen=True)
class Source:
    """One approved clip: what each annotator made of it, the primary first, and the size of its pictures in pixels."""

    clip: str
    annotators: Sequence[Sequence[Box]]
    size: tuple[int, int]


@dataclass(frozen=True)
class Options:
    """How a dataset is made.

    Attributes:
        excluded: `(video_id, timestamp)` that get no lines, as AVA's own list of excluded timestamps.
        val_share: Share of the videos that are for validation, 0 to 1. All clips of a video are in one part.
        seed: Of the split.
        video_ids: `video`: the video and the second within it; `clip`: the clip and the second within it.
    """

    excluded: frozenset[tuple[str, int]] = frozenset()
    val_share: float = 0.2
    seed: int = 0
    video_ids: Literal["video", "clip"] = "video"


@dataclass
class Dataset:
    """The files by name, and the manifest that describes them."""

    files: dict[str, bytes] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Counts:
    boxes: int = 0
    unlabelled: int = 0
    collapsed: int = 0
    excluded: int = 0
    alone: int = 0
    actions: Counter[int] = field(default_factory=Counter)


def generate(sources: Sequence[Source], profile: Profile, options: Options | None = None) -> Dataset:
    """Make the files of a dataset. The same arguments give the same bytes."""
    options = options or Options()
    counts = _Counts()
    rows: dict[str, list[str]] = {}
    proposals: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    review: list[str] = []
    persons: dict[str, int] = defaultdict(int)
    groups: dict[str, str] = {}
    for source in sorted(sources, key=lambda one: one.clip):
        video, offset, split_by = _place(source.clip, options)
        groups[video] = split_by
        merged = merge(source.annotators, profile)
        counts.alone += merged.alone
        numbers: dict[int, int] = {}
        lines = rows.setdefault(video, [])
        for box in sorted(merged.boxes, key=lambda one: (one.frame, one.track)):
            second = offset + box.frame
            if (video, second) in options.excluded:
                counts.excluded += 1
                continue
            text = _text(box, source.size)
            if text is None:
                counts.collapsed += 1
                continue
            if box.track not in numbers:
                numbers[box.track] = persons[video] = persons[video] + 1
            prefix = f"{video},{second:04d}"
            made = profile.csv_rows(text, numbers[box.track], box.attributes, prefix)
            lines += made
            counts.boxes += 1
            counts.unlabelled += not made
            counts.actions.update(int(line.rsplit(",", 2)[1]) for line in made)
            proposals[prefix].append((*(float(value) for value in text.split(",")), box.score))
        review += [
            _tie(tie, video, offset, numbers)
            for tie in merged.ties
            if (video, offset + tie.frame) not in options.excluded
        ]
    return _files(rows, proposals, review, groups, profile, options, counts, len(sources))


def _place(clip: str, options: Options) -> tuple[str, int, str]:
    """The video's id, the second of the clip's first frame, and what the split goes by."""
    name = parse_clip(clip)
    if name is None:
        return clip, 0, clip
    return (clip, 0, name.video) if options.video_ids == "clip" else (name.video, name.second(0), name.video)


def _text(box: Box, size: tuple[int, int]) -> str | None:
    """The corners from 0 to 1 as they stand in every line of this box; None for a box without an area."""
    width, height = size
    scaled = (box.xtl / width, box.ytl / height, box.xbr / width, box.ybr / height)
    words = [f"{min(max(value, 0.0), 1.0):.{DECIMALS}f}" for value in scaled]
    if float(words[0]) >= float(words[2]) or float(words[1]) >= float(words[3]):
        return None
    return ",".join(words)


def _tie(tie: Tie, video: str, offset: int, numbers: Mapping[int, int]) -> str:
    votes = " ".join(f"{option}={count}" for option, count in sorted(tie.votes.items()))
    return f"{video},{offset + tie.frame:04d},{numbers.get(tie.person, '')},{tie.attribute},{votes}"


def split_videos(groups: Mapping[str, str], share: float, seed: int) -> dict[str, list[str]]:
    """Videos for training and for validation; what was filmed together stays together.

    Args:
        groups: What each video id belongs to.
        share: Of validation. With two or more groups and a share above 0 both parts get one at least.
        seed: Of the drawing.
    """
    names = sorted(set(groups.values()))
    Random(seed).shuffle(names)  # noqa: S311 - a split that can be made again, no secret
    count = round(len(names) * share)
    if share > 0 and len(names) > 1:
        count = min(max(count, 1), len(names) - 1)
    chosen = set(names[:count])
    return {
        "train": sorted(video for video, of in groups.items() if of not in chosen),
        "val": sorted(video for video, of in groups.items() if of in chosen),
    }


def _files(
    rows: Mapping[str, Sequence[str]],
    proposals: Mapping[str, Sequence[tuple[float, ...]]],
    review: Sequence[str],
    groups: Mapping[str, str],
    profile: Profile,
    options: Options,
    counts: _Counts,
    clips: int,
) -> Dataset:
    made = Dataset()
    splits = split_videos(groups, options.val_share, options.seed)
    for name, videos in splits.items():
        made.files[f"{name}.csv"] = _lines(line for video in videos for line in rows.get(video, ()))
        chosen = {key: table for key, table in proposals.items() if key.rpartition(",")[0] in set(videos)}
        made.files[f"dense_proposals_{name}.pkl"] = _pickle(chosen)
        excluded = sorted(f"{video},{second:04d}" for video, second in options.excluded if video in set(videos))
        made.files[f"{name}_excluded_timestamps.csv"] = _lines(excluded)
    made.files["annotations.csv"] = _lines(line for video in sorted(rows) for line in rows[video])
    made.files["dense_proposals.pkl"] = _pickle(proposals)
    made.files["actions.pbtxt"] = profile.pbtxt().encode()
    made.files["review.csv"] = _lines(["video_id,timestamp,person_id,attribute,votes", *review])
    lines = sum(len(of) for of in rows.values())
    made.manifest = {
        "format": "ava-2.2",
        "video_ids": options.video_ids,
        "clips": clips,
        "videos": len(rows),
        "boxes": counts.boxes,
        "rows": lines,
        "unlabelled_boxes": counts.unlabelled,
        "ties_for_review": len(review),
        "left_out": {
            "excluded_timestamps": counts.excluded,
            "without_area": counts.collapsed,
            "drawn_by_a_minority": counts.alone,
        },
        "splits": {
            name: {"videos": videos, "rows": sum(len(rows.get(v, ())) for v in videos)}
            for name, videos in splits.items()
        },
        "classes": [
            {"id": action.id, "name": action.name, "attribute": action.attribute, "rows": counts.actions[action.id]}
            for action in profile.actions
        ],
        "attributes": profile.as_dict(),
        "files": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in sorted(made.files.items())
        },
    }
    made.files["manifest.json"] = json.dumps(made.manifest, indent=1, ensure_ascii=False).encode()
    return made


def _lines(lines: Any) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _pickle(proposals: Mapping[str, Sequence[tuple[float, ...]]]) -> bytes:
    """`{"<video>,<ssss>": array(N, 5)}`: corners from 0 to 1 and a score, as mmaction reads it."""
    out = io.BytesIO()
    pickle.dump({key: np.array(rows, dtype=np.float64) for key, rows in sorted(proposals.items())}, out, protocol=4)
    return out.getvalue()
