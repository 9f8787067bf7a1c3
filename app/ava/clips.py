"""Clips: archives of frames and videos as they are uploaded, looked at before anything is believed.

A clip is `{video}_clip_{nnn}.zip` with flat frames `{clip}_frame_0000.jpg`, ..., one for each second. An archive may hold several such
clips, as zips or as frames beside each other. A video is cut into clips of 15 s at one frame a second.
"""

import io
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final

from app.ava.boxes import CLIP_SECONDS, frame_file, parse_clip

VIDEOS: Final = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
MOST_FRAMES: Final = 1000
MOST_MEMBERS: Final = 200_000
LARGEST_FRAME: Final = 40 * 1024 * 1024
MOST_UNPACKED: Final = 40 * 1024**3
BOMB_RATIO: Final = 200  # a JPEG hardly shrinks: more than this is made to fill a disk
_FRAME: Final = re.compile(r"(?P<clip>.+)_frame_(?P<number>[0-9]{4})\.jpg")
_CHUNK: Final = 1024 * 1024


class ClipError(Exception):
    """This is not a clip, or an archive that is not let in; the message says which file and why."""


@dataclass(frozen=True)
class Clip:
    """A clip that was let in: its zip and what is in it."""

    name: str
    path: Path
    frames: int
    width: int
    height: int


def unpack(path: Path, filename: str, work: Path) -> Iterator[Clip]:
    """The clips of an uploaded file, one after another; each zip is in `work` until the next is asked for.

    Args:
        path: The file.
        filename: What it was called.
        work: An empty folder for what is made of it.

    Raises:
        ClipError: Before the first clip for a file that is refused as a whole, else at the clip that is wrong.
    """
    suffix = PurePosixPath(filename).suffix.lower()
    if suffix in VIDEOS:
        yield from cut(path, filename, work)
    elif suffix == ".zip":
        yield from _archive(path, PurePosixPath(filename).stem, work)
    else:
        raise ClipError(f"{filename}: expected {{video}}_clip_{{nnn}}.zip, an archive of such clips, or a video")


def _archive(path: Path, stem: str, work: Path) -> Iterator[Clip]:
    with opened(path) as archive:
        members = checked(archive)
        inner = [info for info in members if info.filename.lower().endswith(".zip")]
        frames = [info for info in members if not info.filename.lower().endswith(".zip")]
        if inner and frames:
            raise ClipError(f"{stem}.zip: it holds both clips and frames ({frames[0].filename[:80]}); send one of them")
        if not inner:
            groups = _by_clip(frames, stem)
            for name, infos in groups.items():
                target = work / f"{name}.zip"
                repack(archive, infos, target)
                yield inspect(target, name)
                target.unlink(missing_ok=True)
            return
        for info in inner:
            name = PurePosixPath(info.filename).stem
            target = work / f"{name}.zip"
            with archive.open(info) as source, target.open("xb") as out:
                _copy(source, out, info.file_size, info.filename)
            yield inspect(target, name)
            target.unlink(missing_ok=True)


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip, or ClipError."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError) as error:
        raise ClipError(f"{path.name}: the archive is damaged or not a zip; pack and send it again") from error
    except RuntimeError as error:  # zipfile's way to say that a password is needed
        raise ClipError(f"{path.name}: the archive is encrypted; send it without a password") from error


def checked(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files of an archive, looked at by their headers: names that lead out, twins, links and bombs are refused.

    Raises:
        ClipError: With the name of the member.
    """
    infos = [info for info in archive.infolist() if not info.is_dir()]
    if len(infos) > MOST_MEMBERS:
        raise ClipError(f"the archive has {len(infos)} files; at most {MOST_MEMBERS} are taken")
    seen: set[str] = set()
    total = 0
    for info in infos:
        name = info.filename
        if "/" in name or "\\" in name or name.startswith(".") or "\0" in name or ":" in name or name in {"", ".."}:
            raise ClipError(f"{name[:80]!r}: files stand side by side in the archive, in no folder; pack them flat")
        if name.casefold() in seen:
            raise ClipError(f"{name[:80]!r} is in the archive twice")
        seen.add(name.casefold())
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ClipError(f"{name[:80]!r} is a link; only files are taken")
        if info.flag_bits & 1:
            raise ClipError(f"{name[:80]!r} is encrypted; send it without a password")
        if info.file_size > max(1024 * 1024, info.compress_size * BOMB_RATIO):
            raise ClipError(
                f"{name[:80]!r} would grow {info.file_size // max(1, info.compress_size)} times; it is not unpacked"
            )
        total += info.file_size
    if total > MOST_UNPACKED:
        raise ClipError(
            f"the archive would be {total // 1024**3} GiB unpacked; at most {MOST_UNPACKED // 1024**3} are taken"
        )
    return infos


def _by_clip(infos: list[zipfile.ZipInfo], stem: str) -> dict[str, list[zipfile.ZipInfo]]:
    groups: dict[str, list[zipfile.ZipInfo]] = {}
    for info in infos:
        found = _FRAME.fullmatch(info.filename)
        if found is None or parse_clip(found["clip"]) is None:
            raise ClipError(f"{info.filename[:80]!r} is not a frame: expected {{video}}_clip_{{nnn}}_frame_0000.jpg")
        groups.setdefault(found["clip"], []).append(info)
    if not groups:
        raise ClipError(f"{stem}.zip holds no frames")
    if parse_clip(stem) is not None and set(groups) != {stem}:
        other = next(name for name in groups if name != stem)
        raise ClipError(f"{stem}.zip holds frames of {other}; a clip's archive has its own name")
    return groups


def repack(archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo], target: Path) -> None:
    """Write some members as a zip of their own, as they are: JPEG does not shrink."""
    with zipfile.ZipFile(target, "x", zipfile.ZIP_STORED) as out:
        for info in sorted(infos, key=lambda one: one.filename):
            with (
                archive.open(info) as source,
                out.open(zipfile.ZipInfo(info.filename, (1980, 1, 1, 0, 0, 0)), "w") as into,
            ):
                _copy(source, into, info.file_size, info.filename)


def _copy(source: Any, into: Any, promised: int, name: str) -> None:
    """Copy no more than the header promised: what follows is a bomb whose header lies."""
    left = promised
    while chunk := source.read(_CHUNK):
        left -= len(chunk)
        if left < 0:
            raise ClipError(f"{name[:80]!r} is longer than its header says; it is not unpacked")
        into.write(chunk)
    if left:
        raise ClipError(f"{name[:80]!r} is shorter than its header says; pack and send it again")


def inspect(path: Path, name: str) -> Clip:
    """Look at a clip's zip: its name, its frames without a gap, the size of its pictures.

    Raises:
        ClipError: With the frame that is missing, twice, of another clip, or no JPEG of the same size.
    """
    if parse_clip(name) is None:
        raise ClipError(f"{name[:80]!r} is not the name of a clip: expected {{video}}_clip_{{nnn}}")
    with opened(path) as archive:
        infos = checked(archive)
        numbers: dict[int, zipfile.ZipInfo] = {}
        for info in infos:
            found = _FRAME.fullmatch(info.filename)
            if found is None or found["clip"] != name:
                raise ClipError(f"{name}: {info.filename[:80]!r} is not one of its frames ({frame_file(name, 0)})")
            numbers[int(found["number"])] = info
        if not numbers:
            raise ClipError(f"{name}: it holds no frames")
        if len(numbers) > MOST_FRAMES:
            raise ClipError(f"{name}: it has {len(numbers)} frames; a clip has {CLIP_SECONDS}")
        missing = sorted(set(range(max(numbers) + 1)) - set(numbers))
        if missing:
            raise ClipError(f"{name}: {frame_file(name, missing[0])} is missing; frames count from 0000 without a gap")
        sizes = {}
        for number, info in sorted(numbers.items()):
            if info.file_size > LARGEST_FRAME:
                raise ClipError(f"{name}: {info.filename} has more than {LARGEST_FRAME // 1024**2} MB")
            with archive.open(info) as picture:
                sizes[number] = jpeg_size(picture.read(), info.filename)
    if len(set(sizes.values())) > 1:
        other = next(number for number, size in sizes.items() if size != sizes[0])
        raise ClipError(
            f"{name}: {frame_file(name, other)} is {sizes[other][0]} x {sizes[other][1]} pixels, the first {sizes[0][0]} x {sizes[0][1]}"
        )
    width, height = sizes[0]
    return Clip(name, path, len(numbers), width, height)


_MARKERS_WITH_SIZE: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})


def jpeg_size(data: bytes, name: str) -> tuple[int, int]:
    """Width and height of a JPEG from its frame header (ITU T.81, B.2.2), without decoding it. Raises ClipError."""
    if data[:3] != b"\xff\xd8\xff":
        raise ClipError(f"{name}: it is not a JPEG")
    place = 2
    while place + 9 <= len(data):
        if data[place] != 0xFF:
            break
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        if marker in _MARKERS_WITH_SIZE:
            height, width = (int.from_bytes(data[place + at : place + at + 2], "big") for at in (5, 7))
            if 0 < width <= 20_000 and 0 < height <= 20_000:
                return width, height
            break
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    raise ClipError(f"{name}: the JPEG is damaged")


def read_frame(source: BinaryIO, clip: str, frame: int) -> bytes:
    """One picture of a clip's zip. Raises KeyError when there is no such frame."""
    with zipfile.ZipFile(source) as archive:
        return archive.read(frame_file(clip, frame))


def cut(path: Path, filename: str, work: Path) -> Iterator[Clip]:
    """Cut a video into clips of 15 s at one frame a second; what is left at the end is a shorter clip.

    The picture of second s is the first whose time is at least s.

    Raises:
        ClipError: It is no video that can be read, or its name is none for a video.
    """
    import cv2  # noqa: PLC0415 - takes a while to load, and only videos need it

    video = PurePosixPath(filename).stem
    if parse_clip(f"{video}_clip_000") is None:
        raise ClipError(f"{video[:80]!r} is not a name for a video: use letters, digits, . _ and -")
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise ClipError(f"{filename}: this is not a video that can be read; send MP4, MOV, AVI, MKV or WebM")
        made = _seconds(capture, cv2)
        number, more = 0, True
        while more:
            name = f"{video}_clip_{number:03d}"
            target = work / f"{name}.zip"
            count, size = 0, (0, 0)
            with zipfile.ZipFile(target, "x", zipfile.ZIP_STORED) as out:
                while count < CLIP_SECONDS:
                    picture = next(made, None)
                    if picture is None:
                        more = False
                        break
                    data, size = picture
                    out.writestr(zipfile.ZipInfo(frame_file(name, count), (1980, 1, 1, 0, 0, 0)), data)
                    count += 1
            if count:
                yield Clip(name, target, count, *size)
            target.unlink(missing_ok=True)
            number += 1
        if number == 1 and count == 0:
            raise ClipError(f"{filename}: the video has no pictures")
    finally:
        capture.release()


def _seconds(capture: Any, cv2: Any) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """A JPEG for each second."""
    rate = capture.get(cv2.CAP_PROP_FPS)
    rate = rate if 0 < rate < 1000 else 25.0
    due, number = 0, 0
    while capture.grab():
        if number / rate + 1e-6 >= due:
            good, picture = capture.retrieve()
            if good:
                done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
                if done:
                    yield data.tobytes(), (int(picture.shape[1]), int(picture.shape[0]))
                    due += 1
        number += 1


@contextmanager
def workplace(folder: Path) -> Iterator[Path]:
    """An empty folder that is gone afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="clips-", dir=folder))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def pack(name: str, frames: list[bytes]) -> bytes:
    """A clip's zip from pictures that are there already."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for number, data in enumerate(frames):
            archive.writestr(zipfile.ZipInfo(frame_file(name, number), (1980, 1, 1, 0, 0, 0)), data)
    return out.getvalue()
