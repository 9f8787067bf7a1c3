"""Proposals: the boxes of a detector and a tracker that annotators begin with.

They come as a pickle. A pickle is a program, so it is read by an unpickler that knows arrays of numbers and nothing else.
"""

import io
import math
import pickle
import pickletools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

import numpy as np

from app.ava.boxes import CLIP_SECONDS, Box, Floats, corners, parse_clip
from app.ava.matching import MATCH_IOU, assign, iou

LONGEST: Final = 256 * 1024 * 1024
MOST_BOXES: Final = 5_000_000
_FRAME: Final = re.compile(r"(?P<clip>.+)_frame_(?P<number>[0-9]{4,6})\.jpg")
_SECOND: Final = re.compile(r"(?P<video>[^,]{1,120}),(?P<second>[0-9]{1,8})")
_MOST_OPCODES: Final = 60_000_000
# what a pickle of lists and numeric arrays needs; anything that could build, call or look up more is refused
_DTYPES: Final = frozenset("f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8".split())


class ProposalError(Exception):
    """The proposals cannot be used; the message says where and why."""


def _dtype(code: Any, *_: Any) -> np.dtype[Any]:
    if not isinstance(code, str) or code not in _DTYPES:
        raise ProposalError(f"the pickle has an array of {str(code)[:20]!r}; only arrays of numbers are read")
    # a copy: its state is set next, and NumPy's own dtypes are shared by everybody
    return np.dtype(code, align=False, copy=True)


def _array(kind: Any, shape: Any, _code: Any) -> np.ndarray[Any, Any]:
    if kind is not np.ndarray or shape != (0,):
        raise ProposalError("the pickle makes something that is not a plain array; it is not read")
    return np.ndarray((0,), dtype=np.float64)


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray[Any, Any]:
    if not isinstance(dtype, np.dtype) or not isinstance(data, bytes | bytearray):
        raise ProposalError("the pickle makes something that is not a plain array; it is not read")
    return np.frombuffer(bytes(data), dtype).reshape(shape, order=order)


def _scalar(dtype: Any, data: Any) -> float:
    if not isinstance(dtype, np.dtype) or not isinstance(data, bytes) or len(data) != dtype.itemsize:
        raise ProposalError("the pickle has a number that cannot be read")
    return float(np.frombuffer(data, dtype)[0])


def _latin1(text: Any, encoding: Any) -> bytes:
    """Bytes as protocol 2 writes them."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ProposalError("the pickle has text that cannot be read")
    return text.encode("latin1")


_ALLOWED: Final[Mapping[tuple[str, str], Any]] = {
    ("_codecs", "encode"): _latin1,
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): np.ndarray,
    **{
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")
        for module, name, function in (
            ("multiarray", "_reconstruct", _array),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
}


class _NumbersOnly(pickle.Unpickler):
    """Knows arrays of numbers; refuses every other name, and whatever lives outside the stream."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        allowed = _ALLOWED.get((module_name, global_name))
        if allowed is None:
            raise ProposalError(
                f"the pickle wants {module_name}.{global_name}"[:120]
                + ", which could run code; it is not read. Save plain lists or NumPy arrays."
            )
        return allowed

    def persistent_load(self, _pid: Any) -> Any:
        raise ProposalError("the pickle refers to something outside of it; it is not read")


def read_pickle(data: bytes) -> Any:
    """What a pickle of lists, dictionaries, numbers and arrays holds. Raises ProposalError."""
    if len(data) > LONGEST:
        raise ProposalError(f"the proposals are longer than {LONGEST // 1024**2} MB; send them in parts")
    _look(data)
    try:
        return _NumbersOnly(io.BytesIO(data)).load()
    except ProposalError:
        raise
    except MemoryError:
        raise ProposalError("the pickle asks for more memory than its length explains; it is not read") from None
    except Exception as error:  # a broken pickle can raise anything
        raise ProposalError(f"the proposals are not a pickle that can be read ({type(error).__name__})") from error


def _look(data: bytes) -> None:
    """Refuse, before anything is made, opcodes that build objects of a class or repeat themselves without end."""
    names = {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER"}
    steps = enumerate(pickletools.genops(io.BytesIO(data)))
    while True:
        try:
            number, (opcode, _, _) = next(steps)
        except StopIteration:
            return
        except Exception as error:  # pickletools raises ValueError, IndexError and others
            raise ProposalError(f"the proposals are not a pickle that can be read ({type(error).__name__})") from error
        if opcode.name in names:
            raise ProposalError(f"the pickle uses {opcode.name}, which proposals do not need; it is not read")
        if number > _MOST_OPCODES:
            raise ProposalError("the pickle has too many steps; it is not read")


@dataclass
class Counts:
    """What became of the boxes that were read."""

    read: int = 0
    clipped: int = 0
    dropped: int = 0
    renumbered: int = 0

    def as_dict(self) -> dict[str, int]:
        """By name."""
        return dict(vars(self))


@dataclass
class Proposals:
    """Boxes of each clip, in the pixels of its pictures, and what was done to them."""

    clips: dict[str, list[Box]] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    skipped: set[str] = field(default_factory=set)

    @property
    def boxes(self) -> int:
        """How many boxes are left."""
        return sum(len(boxes) for boxes in self.clips.values())


Size = tuple[int, int]


def read_proposals(data: bytes, sizes: Mapping[str, Size], default: Size | None = None) -> Proposals:
    """Read proposals in either form.

    Args:
        data: A pickle `{clip: {frame_file: [[x1, y1, x2, y2, score, track_id, ...]]}}` in pixels, or
            `{"<video>,<ssss>": array(N, 4 or 5)}` with corners from 0 to 1.
        sizes: Width and height of each clip's pictures in pixels.
        default: The size of clips that `sizes` does not name; without one they are passed over, and named in `skipped`.

    Raises:
        ProposalError: The form is another one, or a box is not made of finite numbers.
    """
    raw = read_pickle(data)
    if not isinstance(raw, dict) or not raw:
        raise ProposalError("the proposals hold no clips: expected {clip: {frame_file: boxes}}")
    found = Proposals()
    flat = all(isinstance(key, str) and _SECOND.fullmatch(key) for key in raw)
    rows = _seconds(raw) if flat else _frames(raw)
    for clip, frame, table in rows:
        size = sizes.get(clip, default)
        if size is None:
            found.skipped.add(clip)
            continue
        pixels = np.column_stack([table[:, :4] * np.array([*size, *size]), table[:, 4:5]]) if flat else table
        _add(found, clip, frame, pixels, size, tracked=not flat)
        if found.counts.read > MOST_BOXES:
            raise ProposalError(f"there are more than {MOST_BOXES} boxes; send them in parts")
    if flat:
        for clip, boxes in found.clips.items():
            found.clips[clip] = link(boxes)
    return found


def _frames(raw: Mapping[Any, Any]) -> Iterator[tuple[str, int, Floats]]:
    for clip, frames in raw.items():
        if not isinstance(clip, str) or parse_clip(clip) is None:
            raise ProposalError(f"{str(clip)[:60]!r} is not the name of a clip: expected {{video}}_clip_{{nnn}}")
        if not isinstance(frames, dict):
            raise ProposalError(f"{clip}: expected {{frame_file: boxes}}")
        for name, boxes in frames.items():
            named = _FRAME.fullmatch(str(name))
            if named is None or named["clip"] != clip:
                raise ProposalError(f"{clip}: {str(name)[:60]!r} is not one of its frames ({clip}_frame_0000.jpg)")
            yield clip, int(named["number"]), _table(boxes, f"{clip}/{name}", least=6)


def _seconds(raw: Mapping[str, Any]) -> Iterator[tuple[str, int, Floats]]:
    for key, boxes in sorted(raw.items()):
        found = cast(re.Match[str], _SECOND.fullmatch(key))
        video, second = found["video"], int(found["second"])
        if parse_clip(video) is not None:
            clip, frame = video, second
        else:
            clip, frame = f"{video}_clip_{second // CLIP_SECONDS:03d}", second % CLIP_SECONDS
            if parse_clip(clip) is None:
                raise ProposalError(f"{video[:60]!r} is not the name of a video: use letters, digits, . _ and -")
        table = _table(boxes, key, least=4)
        if len(table) and (table[:, :4].min() < -1 or table[:, :4].max() > 2):
            raise ProposalError(f"{key}: corners of this form are from 0 to 1; these look like pixels")
        score = table[:, 4:5] if table.shape[1] > 4 else np.ones((len(table), 1))
        yield clip, frame, np.column_stack([table[:, :4], score])


def _table(boxes: Any, where: str, least: int) -> Floats:
    """Boxes as numbers (n, at least `least`)."""
    try:
        rows = boxes if isinstance(boxes, np.ndarray) else [list(row)[: max(least, 6)] for row in boxes]
        table = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ProposalError(f"{where}: the boxes are not rows of numbers of one length") from error
    if table.size == 0:
        return np.zeros((0, max(least, 5)))
    if table.ndim != 2 or table.shape[1] < least:
        raise ProposalError(f"{where}: a box has at least {least} numbers")
    if not np.isfinite(table).all():
        raise ProposalError(f"{where}: a box has a number that is not finite")
    return table


def _add(found: Proposals, clip: str, frame: int, table: Floats, size: Size, *, tracked: bool) -> None:
    boxes = found.clips.setdefault(clip, [])
    taken: set[int] = set()
    width, height = size
    for row in table.tolist():
        found.counts.read += 1
        x1, y1, x2, y2 = row[:4]
        inside = (
            min(max(x1, 0.0), width),
            min(max(y1, 0.0), height),
            min(max(x2, 0.0), width),
            min(max(y2, 0.0), height),
        )
        if inside[2] - inside[0] < 0.01 or inside[3] - inside[1] < 0.01:  # CVAT keeps two decimals
            found.counts.dropped += 1
            continue
        if inside != (x1, y1, x2, y2):
            found.counts.clipped += 1
        track = _track(row[5], clip) if tracked else len(taken)
        if track in taken:
            # one tracker's slip: a person is once in a frame. The box is kept, as a person of its own
            track = 1_000_000 + found.counts.read
            found.counts.renumbered += 1
        taken.add(track)
        boxes.append(Box(track, frame, *inside, score=min(max(row[4], 0.0), 1.0)))


def _track(number: float, clip: str) -> int:
    if not math.isfinite(number) or number != int(number):
        raise ProposalError(f"{clip}: track id {number} is not a whole number")
    return int(number)


def link(boxes: list[Box]) -> list[Box]:
    """Give boxes without a tracker their tracks: a box goes on with the one of the second before that it overlaps by half."""
    linked: list[Box] = []
    before: list[Box] = []
    fresh = 0
    frames: dict[int, list[Box]] = {}
    for box in boxes:
        frames.setdefault(box.frame, []).append(box)
    for frame in sorted(frames):
        now = frames[frame]
        if before and before[0].frame != frame - 1:
            before = []
        overlaps = iou(corners(before), corners(now))
        goes_on = {b: before[a].track for a, b in assign(overlaps) if overlaps[a, b] >= MATCH_IOU}
        after = []
        for number, box in enumerate(now):
            track = goes_on.get(number)
            if track is None:
                track, fresh = fresh, fresh + 1
            after.append(Box(track, frame, *box.corners, score=box.score))
        linked += after
        before = after
    return linked
