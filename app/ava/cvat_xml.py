"""CVAT XML 1.1: written for import, read from exports, in the video form (`<track>`) and the images form (`<image>`).

CVAT drops boxes that say `outside="1" keyframe="0"`, and lets the last box of a track run on to the end of the clip. So after each run
of boxes the first frame without one says `outside="1" keyframe="1"`: nobody is seen where nobody is (a "ghost box").
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final
from xml.sax.saxutils import escape

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from app.ava.attributes import LABEL, Profile
from app.ava.boxes import Box, by_track

LONGEST: Final = 512 * 1024 * 1024
MOST_BOXES: Final = 5_000_000
_LARGEST: Final = 1e6


class XmlError(Exception):
    """The annotations cannot be read; the message says where and why."""


@dataclass
class Annotations:
    """What an XML says: boxes that are seen, and those that say "outside" (a track's end) with them."""

    boxes: list[Box] = field(default_factory=list)
    outside: list[Box] = field(default_factory=list)
    size: tuple[int, int] | None = None
    frames: int | None = None


def write(clip: str, boxes: Sequence[Box], profile: Profile, *, frames: int, size: tuple[int, int]) -> bytes:
    """The XML of one clip, to be imported into a task whose frame 0 is the clip's first one.

    Args:
        clip: Name of the clip.
        boxes: In pixels. Attributes that a box does not have are `unknown`.
        profile: The attributes.
        frames: Number of the clip's frames.
        size: Width and height of the pictures in pixels.

    Raises:
        XmlError: A box is in a frame that the clip does not have, or a track is twice in a frame.
    """
    out = [_head(clip, profile, frames, size)]
    constant = {name: f'<attribute name="{name}">' for name in profile.names}
    for number, (track, its) in enumerate(by_track(boxes).items()):
        out.append(f'<track id="{number}" label="{LABEL}" source="file">\n')
        for place, box in enumerate(its):
            if not 0 <= box.frame < frames:
                raise XmlError(f"{clip}: a box is in frame {box.frame}, but the clip has {frames} frames")
            if place and its[place - 1].frame == box.frame:
                raise XmlError(f"{clip}: track {track} is twice in frame {box.frame}")
            values = profile.complete(box.attributes)
            said = "".join(f"{start}{values[name]}</attribute>" for name, start in constant.items())
            out.append(_box(box, box.frame, outside=False, said=said))
            following = box.frame + 1
            ends = place + 1 == len(its) or its[place + 1].frame != following
            if ends and following < frames:
                out.append(_box(box, following, outside=True, said=said))
        out.append("</track>\n")
    out.append("</annotations>\n")
    return "".join(out).encode()


def _box(box: Box, frame: int, *, outside: bool, said: str) -> str:
    return (
        f'<box frame="{frame}" keyframe="1" outside="{int(outside)}" occluded="{int(box.occluded)}" xtl="{box.xtl:.2f}" '
        f'ytl="{box.ytl:.2f}" xbr="{box.xbr:.2f}" ybr="{box.ybr:.2f}" z_order="0">{said}</box>\n'
    )


def _head(clip: str, profile: Profile, frames: int, size: tuple[int, int]) -> str:
    attributes = "".join(
        f"<attribute><name>{name}</name><mutable>True</mutable><input_type>select</input_type>"
        f"<default_value>{options[0]}</default_value><values>{escape(chr(10).join(options))}</values></attribute>\n"
        for name, options in profile.options.items()
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta>\n<task>\n'
        f"<name>{escape(clip)}</name>\n<size>{frames}</size>\n<mode>interpolation</mode>\n<overlap>0</overlap>\n"
        f"<start_frame>0</start_frame>\n<stop_frame>{frames - 1}</stop_frame>\n<frame_filter></frame_filter>\n"
        f"<labels>\n<label>\n<name>{LABEL}</name>\n<type>rectangle</type>\n<attributes>\n{attributes}</attributes>\n</label>\n</labels>\n"
        f"<original_size><width>{size[0]}</width><height>{size[1]}</height></original_size>\n"
        f"<source>{escape(clip)}</source>\n</task>\n</meta>\n"
    )


def read(data: bytes | BinaryIO) -> Annotations:
    """What an export of CVAT holds.

    In the video form, boxes with `outside="0"` are those that are seen (CVAT writes every frame of a track). In the images form every
    box is a track of its own, since that form has none. Labels other than `person` and shapes other than boxes are passed over.

    Raises:
        XmlError: It is not such an XML, or a number in it is not one.
    """
    if isinstance(data, bytes):
        if len(data) > LONGEST:
            raise XmlError(f"the annotations are longer than {LONGEST // 1024**2} MB")
        data = io.BytesIO(data)
    found = Annotations()
    try:
        _read_into(found, ElementTree.iterparse(data, events=("start", "end"), forbid_dtd=True))
    except ElementTree.ParseError as error:
        raise XmlError(f"the annotations are not XML: {error}") from error
    except DefusedXmlException as error:
        raise XmlError("the annotations have a DTD or entities; CVAT writes none, so they are not read") from error
    return found


def _read_into(found: Annotations, events: Iterator[tuple[str, Any]]) -> None:
    depth, path, fresh = 0, "", 0
    root: Any = None
    for event, element in events:
        if event == "start":
            depth += 1
            if depth == 1:
                root = element
                if element.tag != "annotations":
                    raise XmlError(f"the XML begins with <{str(element.tag)[:30]}>, not with <annotations>")
            if depth == 2:
                path = element.tag
            continue
        depth -= 1
        if depth != 1:
            continue
        if path == "meta":
            _meta(found, element)
        elif path == "track":
            if element.get("label", LABEL) == LABEL:
                _track(found, element, fresh)
                fresh += 1
        elif path == "image":
            fresh = _image(found, element, fresh)
        root.clear()  # memory stays that of one track
        if len(found.boxes) > MOST_BOXES:
            raise XmlError(f"there are more than {MOST_BOXES} boxes")


def _meta(found: Annotations, element: Any) -> None:
    width, height = (element.findtext(f".//original_size/{side}") for side in ("width", "height"))
    if width and height:
        found.size = (int(_number(width, "original_size")), int(_number(height, "original_size")))
    if size := (element.findtext("./task/size") or element.findtext("./job/size")):
        found.frames = int(_number(size, "size"))


def _track(found: Annotations, element: Any, number: int) -> None:
    seen: set[int] = set()
    for box in element.iterfind("box"):
        frame = int(_number(box.get("frame"), f"track {number}/frame"))
        if frame in seen:
            raise XmlError(f"track {number} is twice in frame {frame}")
        seen.add(frame)
        made = _made(box, number, frame)
        if box.get("outside") == "1":
            found.outside.append(made)
        else:
            found.boxes.append(made)


def _image(found: Annotations, element: Any, fresh: int) -> int:
    frame = int(_number(element.get("id"), "image/id"))
    if element.get("width") and element.get("height"):
        found.size = (int(_number(element.get("width"), "width")), int(_number(element.get("height"), "height")))
    for box in element.iterfind("box"):
        if box.get("label", LABEL) == LABEL:
            found.boxes.append(_made(box, fresh, frame))
            fresh += 1
    return fresh


def _made(box: Any, track: int, frame: int) -> Box:
    where = f"track {track}, frame {frame}"
    xtl, ytl, xbr, ybr = (_number(box.get(side), f"{where}/{side}") for side in ("xtl", "ytl", "xbr", "ybr"))
    if xbr < xtl or ybr < ytl:
        raise XmlError(f"{where}: the box ends before it begins")
    return Box(
        track,
        frame,
        xtl,
        ytl,
        xbr,
        ybr,
        {str(one.get("name")): (one.text or "").strip() for one in box.iterfind("attribute")},
        occluded=box.get("occluded") == "1",
    )


def _number(text: Any, where: str) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError):
        raise XmlError(f"{where}: {str(text)[:30]!r} is not a number") from None
    if not -_LARGEST < value < _LARGEST:  # false for NaN too
        raise XmlError(f"{where}: {str(text)[:30]!r} is out of range")
    return value
