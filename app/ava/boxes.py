"""What everything is about: boxes of persons in the frames of a clip."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
CLIP: Final = re.compile(r"(?P<video>[A-Za-z0-9][A-Za-z0-9._-]{0,80})_clip_(?P<number>[0-9]{3,6})")
CLIP_SECONDS: Final = 15


@dataclass(frozen=True)
class Box:
    """One box of one person in one frame.

    `xtl, ytl, xbr, ybr` are pixels from the top left corner; `frame` counts from 0 and is the second within the clip; `track` is the
    person within these annotations only, since CVAT gives tracks new numbers.
    """

    track: int
    frame: int
    xtl: float
    ytl: float
    xbr: float
    ybr: float
    attributes: Mapping[str, str] = field(default_factory=dict)
    occluded: bool = False
    score: float = 1.0

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        return self.xtl, self.ytl, self.xbr, self.ybr


@dataclass(frozen=True)
class ClipName:
    """A clip's name in its parts: `{video}_clip_{number}`."""

    video: str
    number: int

    def second(self, frame: int) -> int:
        """The second of the video at which a frame of this clip is."""
        return self.number * CLIP_SECONDS + frame


def parse_clip(name: str) -> ClipName | None:
    """The parts of a clip's name; None when it is none."""
    found = CLIP.fullmatch(name)
    return ClipName(found["video"], int(found["number"])) if found else None


def frame_file(clip: str, frame: int) -> str:
    """The name of a frame's picture."""
    return f"{clip}_frame_{frame:04d}.jpg"


def corners(boxes: Sequence[Box]) -> Floats:
    """Boxes as an array (n, 4)."""
    return np.array([box.corners for box in boxes], dtype=np.float64).reshape(-1, 4)


def by_frame(boxes: Iterable[Box]) -> dict[int, list[Box]]:
    """Boxes of each frame, in the order of frames."""
    found: dict[int, list[Box]] = {}
    for box in boxes:
        found.setdefault(box.frame, []).append(box)
    return dict(sorted(found.items()))


def by_track(boxes: Iterable[Box]) -> dict[int, list[Box]]:
    """Boxes of each track, each in the order of frames."""
    found: dict[int, list[Box]] = {}
    for box in sorted(boxes, key=lambda one: one.frame):
        found.setdefault(box.track, []).append(box)
    return dict(sorted(found.items()))
