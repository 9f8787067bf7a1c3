"""CVAT XML 1.1: what is written is what CVAT shows (no ghost boxes), and what is read is what was written."""

import re
from pathlib import Path

import pytest
from defusedxml import ElementTree
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.ava import cvat_xml
from app.ava.attributes import Profile, load
from app.ava.boxes import Box, by_frame
from app.ava.cvat_xml import XmlError, read, write
from app.ava.proposals import read_proposals

from .conftest import SIZE, box, images_form
from .cvat_stand_in import read_xml

PROFILE = load()


def shown(xml: bytes, profile: Profile, frames: int) -> dict[int, list[tuple[float, ...]]]:
    """The boxes that CVAT shows in each frame, by the stand-in's own reading and interpolation."""
    told: dict[int, list[tuple[float, ...]]] = {}
    for track in read_xml(xml, profile.cvat_labels(), frames):
        for frame, (shape, _) in track.seen(frames - 1).items():
            if not shape.outside:
                told.setdefault(frame, []).append(shape.points)
    return told


def test_ten_clips_show_exactly_their_660_boxes(shared_data: Path, profile: Profile) -> None:
    found = read_proposals((shared_data / "ava" / "proposals_10_clips.pkl").read_bytes(), {}, SIZE)
    count = 0
    for clip, boxes in found.clips.items():
        seen = shown(write(clip, boxes, profile, frames=15, size=SIZE), profile, 15)
        assert {frame: len(its) for frame, its in seen.items()} == {
            frame: len(its) for frame, its in by_frame(boxes).items()
        }
        count += sum(map(len, seen.values()))
    assert count == 660


def test_without_the_end_of_a_run_there_would_be_ghosts(profile: Profile) -> None:
    xml = write("a_clip_000", [box(1, 2), box(1, 3), box(1, 7)], profile, frames=15, size=SIZE)
    assert sorted(shown(xml, profile, 15)) == [2, 3, 7]
    naive = re.sub(rb'<box frame="\d+" keyframe="1" outside="1".*?</box>\n', b"", xml)
    assert len(shown(naive, profile, 15)) == 13
    ends = [int(one.attrib["frame"]) for one in ElementTree.fromstring(xml).iter("box") if one.get("outside") == "1"]
    assert ends == [4, 8]
    assert {one.get("keyframe") for one in ElementTree.fromstring(xml).iter("box")} == {"1"}


tracks = st.dictionaries(st.integers(0, 6), st.sets(st.integers(0, 14), min_size=1), max_size=5).map(
    lambda runs: [
        box(track, frame, 10.0 * track, 5.0 * frame) for track, frames in runs.items() for frame in sorted(frames)
    ]
)


@hypothesis_settings(max_examples=100, deadline=None)
@given(tracks)
def test_whatever_the_runs_what_is_shown_is_what_was_written(boxes: list[Box]) -> None:
    xml = write("a_clip_000", boxes, PROFILE, frames=15, size=SIZE)
    seen = shown(xml, PROFILE, 15)
    assert {frame: sorted(its) for frame, its in seen.items()} == {
        frame: sorted(one.corners for one in its) for frame, its in by_frame(boxes).items()
    }
    again = read(xml)
    assert sorted((one.frame, one.corners) for one in again.boxes) == sorted((one.frame, one.corners) for one in boxes)
    assert (again.size, again.frames) == (SIZE, 15)


def test_attributes_are_unknown_unless_said(profile: Profile) -> None:
    xml = write("a_clip_000", [box(1, 0), box(2, 0, 500, phone_usage="texting")], profile, frames=15, size=SIZE)
    first, second = read(xml).boxes
    assert set(first.attributes.values()) == {"unknown"}
    assert second.attributes["phone_usage"] == "texting"
    assert set(second.attributes) == set(profile.names)


def test_the_images_form_is_read_too() -> None:
    boxes = [box(1, 0), box(1, 1, phone_usage="texting"), box(2, 1, 500)]
    again = read(images_form(boxes, [f"a_clip_000_frame_000{number}.jpg" for number in range(3)]))
    assert [(one.frame, one.corners) for one in again.boxes] == [(one.frame, one.corners) for one in boxes]
    assert len({one.track for one in again.boxes}) == 3  # that form has no tracks
    assert again.boxes[1].attributes["phone_usage"] == "texting"
    assert again.size == SIZE


def test_what_cannot_be_written_is_said(profile: Profile) -> None:
    with pytest.raises(XmlError, match="frame 15, but the clip has 15"):
        write("a_clip_000", [box(1, 15)], profile, frames=15, size=SIZE)
    with pytest.raises(XmlError, match="twice in frame 3"):
        write("a_clip_000", [box(1, 3), box(1, 3, 500)], profile, frames=15, size=SIZE)


GOOD = '<box frame="0" keyframe="1" outside="0" occluded="0" xtl="1" ytl="2" xbr="3" ybr="4"></box>'


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        ("<track>", "not XML"),
        (f'<track id="0" label="person">{GOOD}{GOOD}</track>', "twice in frame 0"),
        (
            f'<track id="0" label="person">{GOOD.replace("xtl=" + chr(34) + "1", "xtl=" + chr(34) + "nan")}</track>',
            "out of range",
        ),
        (
            f'<track id="0" label="person">{GOOD.replace("xbr=" + chr(34) + "3", "xbr=" + chr(34) + "x")}</track>',
            "not a number",
        ),
        (
            f'<track id="0" label="person">{GOOD.replace("xbr=" + chr(34) + "3", "xbr=" + chr(34) + "0")}</track>',
            "ends before it begins",
        ),
        ('<image id="x"></image>', "not a number"),
    ],
)
def test_what_cannot_be_read_is_said(inner: str, said: str) -> None:
    with pytest.raises(XmlError, match=said):
        read(f"<annotations>{inner}</annotations>".encode())


def test_entities_another_root_and_length_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    laughs = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><annotations>&b;</annotations>'
    with pytest.raises(XmlError, match="DTD or entities"):
        read(laughs.encode())
    with pytest.raises(XmlError, match="not with <annotations>"):
        read(b"<html></html>")
    monkeypatch.setattr(cvat_xml, "LONGEST", 10)
    with pytest.raises(XmlError, match="longer than"):
        read(bytes(11))


def test_other_labels_and_an_empty_job(profile: Profile) -> None:
    found = read(
        f'<annotations><track id="0" label="car">{GOOD}</track><track id="1" label="person">{GOOD}</track></annotations>'.encode()
    )
    assert len(found.boxes) == 1
    assert read(write("a_clip_000", [], profile, frames=15, size=SIZE)).boxes == []
