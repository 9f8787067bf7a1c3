"""What is let in: proposals by a reader that knows numbers only, clips without traps, videos cut by the second."""

import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.ava import clips, proposals, proposals_to_cvat
from app.ava.boxes import parse_clip
from app.ava.clips import ClipError, inspect, jpeg_size, unpack
from app.ava.proposals import ProposalError, read_pickle, read_proposals

from .conftest import SIZE, _picture, frame_zip

CLIP = "walk_clip_003"
FRAME = f"{CLIP}_frame_0002.jpg"


class Evil:
    """What a plain pickle.load would run."""

    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/ava-was-here",)


class Built:
    def __reduce__(self) -> Any:
        return np.ndarray, ((10**12,),)


@pytest.mark.parametrize(
    "value",
    [
        Evil(),
        {"x": [Evil()]},
        Built(),
        np.array([object()]),
        {1, 2}.__class__,
        pickle.loads,
        np.dtype("O"),
        Path("/x"),
        np.zeros(2, "M8[s]"),
    ],
)
def test_a_pickle_that_could_run_code_is_refused(value: Any) -> None:
    for protocol in (0, 2, 4, 5):
        with pytest.raises(ProposalError, match=r"not read|only arrays"):
            read_pickle(pickle.dumps(value, protocol))
    assert not Path("/tmp/ava-was-here").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"\x80\x04.",
        b"\x80\x04}",
        b"\x80\x05\x8d" + struct.pack("<Q", 2**60) + b"x.",
        b"c__builtin__\neval\n.",
    ],
)
def test_a_broken_pickle_is_refused(data: bytes) -> None:
    with pytest.raises(ProposalError):
        read_pickle(data)


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_whatever_comes_only_proposal_errors_come_back(data: bytes) -> None:
    try:
        told = read_pickle(b"\x80\x04" + data)
    except ProposalError:
        return
    assert isinstance(
        told,
        int
        | float
        | str
        | bytes
        | bytearray
        | list
        | dict
        | tuple
        | set
        | frozenset
        | type(None)
        | np.ndarray
        | np.dtype
        | type,
    )


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("kind", ["<f8", ">f4", "<i4", "<u2", "<f2"])
def test_arrays_of_numbers_are_read(protocol: int, kind: str) -> None:
    table = np.arange(12).reshape(2, 6).astype(kind)
    for array in (table, np.asfortranarray(table), table[:, ::2]):
        told = read_pickle(pickle.dumps({"x": array, "y": array.dtype.type(3)}, protocol))
        np.testing.assert_array_equal(told["x"], array)
        assert told["y"] == 3


def test_numpy_two_s_own_names_are_known(shared_data: Path) -> None:
    told = read_pickle((shared_data / "ava" / "proposals_mmaction.pkl").read_bytes())  # made by NumPy 1: numpy.core
    assert len(told) == 21
    assert all(table.shape[1] == 5 for table in told.values())


def test_boxes_are_clipped_to_the_picture_and_counted() -> None:
    rows = [
        [-5, 10, 50, 60, 0.9, 1],  # sticks out
        [100, 100, 200, 200, 0.8, 2],
        [1300, 10, 1400, 50, 0.5, 3],  # outside
        [300, 300, 400, 400, 0.7, 2],  # a track twice in a frame
        [10, 10, 10, 50, 0.7, 9],  # no width
    ]
    found = read_proposals(pickle.dumps({CLIP: {FRAME: rows}}), {CLIP: SIZE})
    assert found.counts.as_dict() == {"read": 5, "clipped": 1, "dropped": 2, "renumbered": 1}
    boxes = found.clips[CLIP]
    assert boxes[0].corners == (0, 10, 50, 60)
    assert len({box.track for box in boxes}) == len(boxes) == 3
    assert {box.frame for box in boxes} == {2}


def test_the_mmaction_form_gets_pixels_clips_and_tracks() -> None:
    still = np.array([[0.1, 0.1, 0.2, 0.5, 0.9], [0.6, 0.1, 0.7, 0.5, 0.8]])
    flat = {
        "walk,0046": still,
        "walk,0047": still[::-1],
        "walk,0061": still[:1],
    }  # 46 s is second 1 of clip 3, 61 s of clip 4
    found = read_proposals(pickle.dumps(flat), {}, SIZE)
    assert sorted(found.clips) == ["walk_clip_003", "walk_clip_004"]
    boxes = found.clips["walk_clip_003"]
    assert [box.frame for box in boxes] == [1, 1, 2, 2]
    assert boxes[0].corners == pytest.approx((128, 72, 256, 360))
    assert boxes[0].track == boxes[3].track != boxes[1].track == boxes[2].track
    by_clip = read_proposals(pickle.dumps({"walk_clip_003,0002": still}), {}, SIZE)
    assert list(by_clip.clips) == ["walk_clip_003"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "hold no clips"),
        ({"walk": {}}, "not the name of a clip"),
        ({CLIP: []}, "expected {frame_file: boxes}"),
        ({CLIP: {"other_clip_001_frame_0000.jpg": []}}, "not one of its frames"),
        ({CLIP: {FRAME: [[1, 2, 3]]}}, "at least 6 numbers"),
        ({CLIP: {FRAME: [[1, 2, 3, 4, 1, "x"]]}}, "rows of numbers"),
        ({CLIP: {FRAME: [[1, 2, float("nan"), 4, 1, 1]]}}, "not finite"),
        ({CLIP: {FRAME: [[1, 2, 30, 40, 1, 1.5]]}}, "not a whole number"),
        ({CLIP: {FRAME: 7}}, "rows of numbers"),
        ({"walk,0001": np.array([[10.0, 20, 300, 400, 1]])}, "look like pixels"),
    ],
)
def test_proposals_of_another_form_are_refused_with_the_place(value: Any, said: str) -> None:
    with pytest.raises(ProposalError, match=said):
        read_proposals(pickle.dumps(value), {}, SIZE)


def test_clips_whose_frames_are_not_here_are_passed_over() -> None:
    found = read_proposals(pickle.dumps({CLIP: {FRAME: [[1, 2, 30, 40, 1, 1]]}}), {})
    assert (found.boxes, found.skipped) == (0, {CLIP})


@pytest.mark.parametrize("name", ["walk_clip_003", "a-b.c_clip_000123", "1_clip_000"])
def test_names_of_clips(name: str) -> None:
    parsed = parse_clip(name)
    assert parsed is not None
    assert f"{parsed.video}_clip_{name.rpartition('_')[2]}" == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "walk",
        "walk_clip_1",
        "../x_clip_001",
        "x/y_clip_001",
        "x,y_clip_001",
        "x_clip_001.zip",
        "-x_clip_001",
        "ä_clip_001",
    ],
)
def test_what_is_no_name_of_a_clip(name: str) -> None:
    assert parse_clip(name) is None


def make(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def frames(name: str = CLIP, count: int = 3) -> dict[str, bytes]:
    return {f"{name}_frame_{number:04d}.jpg": _picture for number in range(count)}


def unpacked(path: Path, work: Path, name: str = "") -> list[clips.Clip]:
    work.mkdir()
    return [clips.Clip(c.name, c.path, c.frames, c.width, c.height) for c in unpack(path, name or path.name, work)]


def test_a_clip_an_archive_of_clips_and_loose_frames(tmp_path: Path) -> None:
    one = make(tmp_path / f"{CLIP}.zip", frames())
    assert [(c.name, c.frames, (c.width, c.height)) for c in unpacked(one, tmp_path / "a")] == [(CLIP, 3, SIZE)]
    both = {f"{name}.zip": make(tmp_path / "x.zip", frames(name)).read_bytes() for name in (CLIP, "walk_clip_004")}
    assert [c.name for c in unpacked(make(tmp_path / "all.zip", both), tmp_path / "b")] == [CLIP, "walk_clip_004"]
    loose = make(tmp_path / "loose.zip", frames(CLIP) | frames("run_clip_000", 2))
    assert {(c.name, c.frames) for c in unpacked(loose, tmp_path / "c")} == {(CLIP, 3), ("run_clip_000", 2)}
    assert not any((tmp_path / "c").iterdir())  # what was made is gone when the next is asked for


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../x.jpg", "flat"),
        ("/etc/x.jpg", "flat"),
        ("a/b.jpg", "flat"),
        ("a\\b.jpg", "flat"),
        ("C:x.jpg", "flat"),
        (".hidden", "flat"),
    ],
)
def test_a_name_that_leads_out_is_refused(name: str, said: str, tmp_path: Path) -> None:
    path = make(tmp_path / f"{CLIP}.zip", {**frames(), name: b"x"})
    with pytest.raises(ClipError, match=said):
        unpacked(path, tmp_path / "w")


def a_link(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo(f"{CLIP}_frame_0003.jpg")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")


def a_twin(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(f"{CLIP}_frame_0002.jpg", b"another")


def a_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{CLIP}_frame_0003.jpg", bytes(60 * 1024 * 1024))


def a_gap(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{CLIP}_frame_0009.jpg", _picture)


def another_size(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{CLIP}_frame_0003.jpg", cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes())


def no_picture(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{CLIP}_frame_0003.jpg", b"GIF89a")


def something_else(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("readme.txt", b"hello")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-400])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (a_link, "is a link"),
        (a_twin, "twice"),
        (a_bomb, "would grow"),
        (a_gap, "_frame_0003.jpg is missing"),
        (another_size, "8 x 8 pixels"),
        (no_picture, "not a JPEG"),
        (something_else, "is not a frame"),
        (cut_off, "damaged or not a zip"),
        (flipped, "damaged"),
    ],
)
def test_an_archive_that_is_wrong_is_refused(spoil: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    path = make(tmp_path / f"{CLIP}.zip", frames())
    spoil(path)
    with pytest.raises(ClipError, match=said):
        unpacked(path, tmp_path / "w")


def test_a_header_that_lies_about_the_length_is_found_out(tmp_path: Path) -> None:
    path = make(tmp_path / "loose.zip", frames(), zipfile.ZIP_DEFLATED)
    data = path.read_bytes()
    size = struct.pack("<I", len(_picture))
    path.write_bytes(data.replace(size, struct.pack("<I", 100)))  # the directory and the local headers say 100 bytes
    with pytest.raises(ClipError):
        unpacked(path, tmp_path / "w")


def test_names_of_files_and_of_what_is_in_them_must_fit(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="holds frames of walk_clip_003"):
        unpacked(make(tmp_path / "run_clip_000.zip", frames()), tmp_path / "a")
    with pytest.raises(ClipError, match="both clips and frames"):
        unpacked(make(tmp_path / "x.zip", {**frames(), "y_clip_000.zip": b"x"}), tmp_path / "b")
    with pytest.raises(ClipError, match="holds no frames"):
        unpacked(make(tmp_path / "x.zip", {}), tmp_path / "c")
    with pytest.raises(ClipError, match="expected"):
        unpacked(make(tmp_path / "x.tar", {}), tmp_path / "d")


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0" + b"\xff" * 40, b"\xff\xd8\xff\xc0\x00\x11\x08" + bytes(4) + b"xx"],
)
def test_a_broken_jpeg_is_said_so(data: bytes) -> None:
    with pytest.raises(ClipError, match="JPEG"):
        jpeg_size(data, "x.jpg")


@pytest.mark.parametrize("options", [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]])
def test_the_size_of_a_jpeg_is_read_from_its_header(options: list[int]) -> None:
    data = cv2.imencode(".jpg", np.zeros((123, 45, 3), np.uint8), options)[1].tobytes()
    assert jpeg_size(data, "x.jpg") == (45, 123)


@pytest.mark.parametrize("rate", [10.0, 23.976])
def test_a_video_is_cut_into_clips_of_fifteen_seconds(tmp_path: Path, rate: float) -> None:
    path = tmp_path / "street.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate, (160, 120))  # type: ignore[attr-defined]
    for number in range(int(rate * 17.5)):
        writer.write(
            np.full((120, 160, 3), min(255, int(number / rate) * 14), np.uint8)
        )  # grey says which second it is
    writer.release()
    work = tmp_path / "work"
    work.mkdir()
    made = []
    for clip in unpack(path, "street.avi", work):
        seen = inspect(clip.path, clip.name)
        assert (seen.frames, seen.width, seen.height) == (clip.frames, 160, 120)
        for frame in range(clip.frames):
            with clip.path.open("rb") as archive:
                picture = cv2.imdecode(
                    np.frombuffer(clips.read_frame(archive, clip.name, frame), np.uint8), cv2.IMREAD_GRAYSCALE
                )
            second = (parse_clip(clip.name) or pytest.fail("no clip")).second(frame)
            assert picture is not None
            assert abs(int(picture.mean()) - second * 14) <= 4, second
        made.append((clip.name, clip.frames))
    assert made == [("street_clip_000", 15), ("street_clip_001", 3)]


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(b"not a video" * 100)
    with pytest.raises(ClipError, match="not a video"):
        unpacked(path, tmp_path / "w")
    with pytest.raises(ClipError, match="not a name for a video"):
        unpacked(path, tmp_path / "v", "ä ö.mp4")


def test_the_command_writes_an_xml_for_each_clip(
    tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(shared_data / "ava" / "proposals_10_clips.pkl")
    assert proposals_to_cvat.main([source, "--out", str(tmp_path / "xml")]) == 0
    assert "10 clips, 660 boxes" in capsys.readouterr().out
    assert len(list((tmp_path / "xml").glob("*.xml"))) == 10
    frame_zip(tmp_path / "clips" / "1_clip_000.zip", "1_clip_000")
    assert proposals_to_cvat.main([source, "--out", str(tmp_path / "x"), "--clips", str(tmp_path / "clips")]) == 0
    assert proposals_to_cvat.main([source, "--out", str(tmp_path / "x"), "--frames", "3"]) == 1
    assert "has 3 frames" in capsys.readouterr().err
    assert proposals_to_cvat.main([source, "--out", str(tmp_path / "x"), "--size", "big"]) == 1
    assert proposals_to_cvat.main([str(tmp_path / "none.pkl"), "--out", str(tmp_path / "x")]) == 1
    assert "none.pkl" in capsys.readouterr().err


def test_the_longest_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "LONGEST", 10)
    with pytest.raises(ProposalError, match="longer than"):
        read_pickle(bytes(11))
