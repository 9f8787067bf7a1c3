"""Turn proposals into CVAT XML, one file a clip.

python -m app.ava.proposals_to_cvat proposals.pkl --out xml --size 1280x720
python -m app.ava.proposals_to_cvat proposals.pkl --out xml --clips folder-with-zips
"""

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from app.ava import attributes, clips, cvat_xml
from app.ava.boxes import CLIP_SECONDS
from app.ava.proposals import ProposalError, Proposals, Size, read_proposals


def convert(
    proposals: Proposals,
    profile: attributes.Profile,
    sizes: Callable[[str], tuple[Size, int]],
) -> Iterator[tuple[str, bytes]]:
    """The XML of each clip, by its name. `sizes` gives the pictures' width and height and the number of frames."""
    for clip, boxes in sorted(proposals.clips.items()):
        size, frames = sizes(clip)
        yield clip, cvat_xml.write(clip, boxes, profile, frames=frames, size=size)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m app.ava.proposals_to_cvat",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("proposals", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for {clip}.xml; made when it is not there")
    parser.add_argument("--clips", type=Path, help="folder with {clip}.zip: sizes and numbers of frames come from them")
    parser.add_argument("--size", default="1280x720", help="pictures' size in pixels where --clips does not tell")
    parser.add_argument("--frames", type=int, default=CLIP_SECONDS, help="frames of a clip where --clips does not tell")
    parser.add_argument("--attributes", type=Path, default=attributes.DEFAULT_FILE)
    given = parser.parse_args(arguments)
    began = time.perf_counter()
    try:
        size = _size(given.size)
        profile = attributes.load(given.attributes)
        known = {one.name: one for one in _inspected(given.clips)} if given.clips else {}
        read = read_proposals(
            given.proposals.read_bytes(), {name: (c.width, c.height) for name, c in known.items()}, size
        )
        given.out.mkdir(parents=True, exist_ok=True)

        def sizes(clip: str) -> tuple[Size, int]:
            found = known.get(clip)
            return ((found.width, found.height), found.frames) if found else (size, given.frames)

        for clip, xml in convert(read, profile, sizes):
            (given.out / f"{clip}.xml").write_bytes(xml)
    except (ProposalError, cvat_xml.XmlError, attributes.ProfileError, clips.ClipError) as error:
        print(f"proposals_to_cvat: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"proposals_to_cvat: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    told = read.counts
    print(
        f"{len(read.clips)} clips, {read.boxes} boxes in {given.out} after {time.perf_counter() - began:.1f} s; "
        f"{told.clipped} clipped to the picture, {told.dropped} outside of it and left out, {told.renumbered} twice in a frame"
    )
    return 0


def _size(text: str) -> Size:
    found = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text)
    if found is None:
        raise ProposalError(f"--size {text!r}: expected WIDTHxHEIGHT such as 1280x720")
    return int(found[1]), int(found[2])


def _inspected(folder: Path) -> Iterator[clips.Clip]:
    for path in sorted(folder.glob("*.zip")):
        yield clips.inspect(path, path.stem)


if __name__ == "__main__":
    sys.exit(main())
