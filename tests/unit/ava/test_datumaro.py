"""Datumaro, the reader that CVAT itself uses, reads the XML; it runs in an environment of its own (docs/apps/ava.md says why)."""

import json
import subprocess
from pathlib import Path

import pytest

from app.ava.attributes import Profile
from app.ava.cvat_xml import write
from app.ava.proposals import read_proposals

from .conftest import SIZE

ROOT = Path(__file__).resolve().parents[3]
PYTHON = ROOT / "build" / "tools" / "datumaro" / "bin" / "python"
PROGRAM = """
import json, sys
from datumaro.components.dataset import Dataset
told = {}
for path in sys.argv[1:]:
    data = Dataset.import_from(path, "cvat")
    told[path] = [
        [item.attributes.get("frame"), one.points, one.attributes.get("phone_usage"), bool(one.attributes.get("outside"))]
        for item in data for one in item.annotations
    ]
print(json.dumps(told))
"""


def test_datumaro_reads_what_was_written(tmp_path: Path, shared_data: Path, profile: Profile) -> None:
    if not PYTHON.is_file():
        pytest.skip("Datumaro is not in build/tools/datumaro (docs/apps/ava.md says how to put it there)")
    found = read_proposals((shared_data / "ava" / "proposals_10_clips.pkl").read_bytes(), {}, SIZE)
    for clip, boxes in found.clips.items():
        (tmp_path / f"{clip}.xml").write_bytes(write(clip, boxes, profile, frames=15, size=SIZE))
    paths = [str(path) for path in sorted(tmp_path.glob("*.xml"))]
    done = subprocess.run([PYTHON, "-c", PROGRAM, *paths], capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    count = 0
    for clip, boxes in found.clips.items():
        read = [one for one in told[str(tmp_path / f"{clip}.xml")] if not one[3]]
        ours = sorted((box.frame, *(round(value, 2) for value in box.corners)) for box in boxes)
        theirs = sorted((frame, *points) for frame, points, _, _ in read)
        assert len(theirs) == len(ours)
        assert theirs == [pytest.approx(one, abs=1e-3) for one in ours]  # it keeps 32 bits
        assert {value for _, _, value, _ in read} == {"unknown"}
        count += len(read)
    assert count == 660
