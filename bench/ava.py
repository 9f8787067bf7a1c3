"""AVA: proposals to XML, agreement of a project, a multi-gigabyte upload, each with its time and memory; and 100 dashboards.

    python bench/ava.py                       all four; proposals from ../shared/data/ava, or made up where there are none
    python bench/ava.py xml agreement         some of them
    python bench/ava.py upload --gigabytes 5

    python bench/ava.py sessions              100 dashboards at once, on a project of 100 clips

Prints a table of processor time, with the wall's beside it. Fails when a bar is missed: 725 clips with 31,482 boxes into XML within 20 s
and 300 MB, agreement of a project of 100 clips within 10 s, an upload through a real server whose memory grows by less than 64 MB.
"""

from __future__ import annotations

import argparse
import os
import pickle
import platform
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from app.ava import attributes, quality_service
from app.ava.boxes import Box
from app.ava.matching import match
from bench import dashboards
from tests.unit.ava.conftest import frame_zip

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("PERGOLA_SHARED_DATA", ROOT.parent / "shared" / "data"))
PASSWORD = "bench"  # noqa: S105 - of a server that lives as long as this program
CLIPS, BOXES = 725, 31_482
PIECE = 1024 * 1024


def row(name: str, value: str, bar: str, kept: bool) -> bool:  # noqa: FBT001 - a row of the table
    """Print a row of the table."""
    print(f"{name:<44}{value:>24}   {bar:<18}{'kept' if kept else 'MISSED'}")
    return kept


def proposals(folder: Path) -> Path:
    """The real proposals, or as many made up."""
    real = SHARED / "ava" / "proposals_725_clips.pkl"
    if real.is_file():
        return real
    chance = random.Random(1)  # noqa: S311 - made-up boxes
    made: dict[str, dict[str, list[list[float]]]] = {}
    for number in range(BOXES):
        clip = f"v_clip_{number % CLIPS:03d}"
        place = number // CLIPS
        left, top = chance.uniform(0, 1100), chance.uniform(0, 500)
        frame = f"{clip}_frame_{place % 15:04d}.jpg"
        made.setdefault(clip, {}).setdefault(frame, []).append([left, top, left + 90, top + 200, 1.0, place // 15])
    path = folder / "proposals.pkl"
    path.write_bytes(pickle.dumps(made))
    return path


def xml(folder: Path) -> bool:
    """The command, in a process of its own: from the pickle to a file a clip."""
    source, out = proposals(folder), folder / "xml"
    began = time.perf_counter()
    command = [sys.executable, "-m", "app.ava.proposals_to_cvat", str(source), "--out", str(out)]
    done = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    _, status, usage = os.wait4(done.pid, 0)
    wall, seconds = time.perf_counter() - began, usage.ru_utime + usage.ru_stime
    memory = usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
    done.returncode = os.waitstatus_to_exitcode(status)
    said = done.stdout.read() if done.stdout else ""
    counted = len(list(out.glob("*.xml")))
    good = done.returncode == 0 and counted == CLIPS and f"{BOXES} boxes" in said
    good &= row(
        f"{counted} clips, {BOXES:,} boxes to XML", f"{seconds:.1f} s ({wall:.1f} s wall)", "below 20 s", seconds < 20
    )
    return row("  its memory at most", f"{memory:.0f} MB", "below 300 MB", memory < 300) and good


def agreement() -> bool:
    """100 clips that two annotators had: boxes from the tables, every pair, each two annotators, alpha."""
    profile = attributes.load()
    chance = random.Random(2)  # noqa: S311 - made-up annotations

    def annotator(slip: float) -> list[list[Box]]:
        clips = []
        for clip in range(100):
            boxes = []
            for track in range(6):
                truth = random.Random(f"{clip} {track}")  # noqa: S311 - as above
                said = {name: truth.choice(options) for name, options in profile.options.items()}
                left, top = truth.uniform(0, 1000), truth.uniform(0, 400)
                for frame in range(15):
                    words = {
                        n: chance.choice(profile.options[n]) if chance.random() < slip else w for n, w in said.items()
                    }
                    off = chance.uniform(-4, 4)
                    boxes.append(Box(track, frame, left + off, top, left + 90 + off, top + 220, words))
            clips.append(boxes)
        return clips

    first, second = annotator(0.0), annotator(0.15)
    began, used = time.perf_counter(), time.process_time()
    work = [match(ours, theirs) for ours, theirs in zip(first, second, strict=True)]
    for pair in work:
        quality_service.compare([pair], profile)
    found = quality_service.compare(work, profile)
    quality_service.alphas([{"a": a, "b": b} for a, b in zip(first, second, strict=True)], profile)
    seconds, wall = time.process_time() - used, time.perf_counter() - began
    print(
        f"  (mean IoU {found.average_iou:.2f}, mean kappa {found.macro_kappa or 0:.2f}, {found.matched:,} boxes in common)"
    )
    return row(
        "agreement of 100 clips, 9,000 boxes each", f"{seconds:.1f} s ({wall:.1f} s wall)", "below 10 s", seconds < 10
    )


def memory_of(process: int) -> float:
    """Largest resident memory of a process and its children so far, MB."""
    total = 0
    for pid in [process, *children(process)]:
        status = Path(f"/proc/{pid}/status").read_text()
        total += int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    return total / 1024


def children(process: int) -> list[int]:
    """Processes that a process started."""
    return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def environment(state: Path) -> dict[str, str]:
    """What the server and the worker are told."""
    return {
        **os.environ,
        "PERGOLA_APP": "ava",
        "PERGOLA_STATE_DIR": str(state),
        "PERGOLA_SECRET_ADMIN_PASSWORD": PASSWORD,
        "PERGOLA_LOG_LEVEL": "ERROR",
        "AVA_WORK_HERE": "false",
        "AVA_RATE_DEFAULT": "1000000",
    }


@contextmanager
def served(state: Path, *server: str) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """A real server on loopback (uvicorn unless told otherwise) and a client that is logged in."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ("--bind", f"127.0.0.1:{port}") if server else ("--port", str(port))
    command = [sys.executable, *(server or ("-m", "uvicorn")), "app.ava.api:app", *where, "--log-level", "error"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(state))
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
            wait_for(client)
            token = client.post("/auth/api/login", json={"password": PASSWORD}).json()["session_token"]
            client.headers["Authorization"] = f"Bearer {token}"
            yield process, client
    finally:
        process.terminate()
        process.wait(30)


def upload(folder: Path, gigabytes: float) -> bool:
    """A stream of zeros over loopback into a real server, in parts and in one request; half of the parts after a break."""
    size = int(gigabytes * 1024**3)
    if shutil.disk_usage(folder).free < size * 1.1 + 1024**3:
        print(f"not enough room in {folder} for {gigabytes:g} GiB")
        return False
    good = True
    with served(folder / "state") as (server, client):
        before = memory_of(server.pid)
        began = time.perf_counter()
        begun = client.post("/uploads", json={"filename": "large.zip", "size_bytes": size}).json()
        for part in begun["parts"][1::2]:
            client.put(f"/uploads/{begun['id']}/parts/{part['number']}", content=zeros(part["size"])).raise_for_status()
        for part in client.get(f"/uploads/{begun['id']}").json()["parts"]:  # as after a break
            if not part["received"]:
                client.put(
                    f"/uploads/{begun['id']}/parts/{part['number']}", content=zeros(part["size"])
                ).raise_for_status()
        client.post(f"/uploads/{begun['id']}/complete").raise_for_status()
        seconds = time.perf_counter() - began
        grown = memory_of(server.pid) - before
        print(f"  ({len(begun['parts'])} parts, {gigabytes * 1024 / seconds:.0f} MiB/s, {before:.0f} MB before)")
        good &= row(f"{gigabytes:g} GiB in parts: memory grows by", f"{grown:.0f} MB", "below 64 MB", grown < 64)
        client.delete(f"/uploads/{begun['id']}").raise_for_status()
        began = time.perf_counter()
        answer = client.post(
            "/uploads/file",
            params={"filename": "large.zip"},
            content=zeros(size),
            headers={"Content-Length": str(size)},
        )
        answer.raise_for_status()
        seconds = time.perf_counter() - began
        grown = memory_of(server.pid) - before
        print(f"  (one request of {answer.json()['size_bytes']:,} bytes, {gigabytes * 1024 / seconds:.0f} MiB/s)")
        good &= row(f"{gigabytes:g} GiB in one request: memory grows by", f"{grown:.0f} MB", "below 64 MB", grown < 64)
    return good


def sessions(folder: Path) -> bool:
    """100 dashboards over a project of 100 clips, a fifth of them for two annotators."""
    names = [f"a_clip_{number:03d}" for number in range(100)]
    with served(folder / "state", "-m", "gunicorn", "-k", "uvicorn_worker.UvicornWorker", "--workers", "2") as (
        _,
        client,
    ):
        for name in names:
            archive = frame_zip(folder / f"{name}.zip", name, 3)
            with archive.open("rb") as data:
                client.post("/uploads/file", params={"filename": archive.name}, content=data).raise_for_status()
        worker = subprocess.Popen([sys.executable, "-m", "app.ava.worker"], cwd=ROOT, env=environment(folder / "state"))
        try:
            deadline = time.monotonic() + 120
            while client.get("/clips").json()["total"] < len(names):
                if time.monotonic() > deadline:
                    raise SystemExit("the worker has not unpacked the clips")
                time.sleep(0.5)
        finally:
            worker.terminate()
            worker.wait(30)
        asked = {
            "project_name": "street",
            "annotators": ["ann", "bob", "eve"],
            "overlap_percentage": 20,
            "clips": names,
        }
        project = client.post("/projects", json=asked).raise_for_status().json()["project"]["id"]
        tasks = f"/quality-control/projects/{project}/tasks"
        pages = {
            "task creation": ("/clips?page_size=500", "/uploads?limit=8"),
            "progress": (
                "/quality-control/projects",
                f"/metrics/summary?project_id={project}",
                f"{tasks}?only=error&page_size=50",
            ),
            "quality control": (
                "/quality-control/projects",
                f"{tasks}?only=overlap&page_size=5000",
                f"{tasks}?page_size=50",
            ),
        }
        headers = [{"Authorization": str(client.headers["Authorization"])}]
        return dashboards.run(str(client.base_url), pages, headers, sessions=100, seconds=30)


def zeros(size: int) -> Iterator[bytes]:
    """So many bytes, never at once."""
    piece = bytes(PIECE)
    for _ in range(size // PIECE):
        yield piece
    yield bytes(size % PIECE)


def wait_for(client: httpx.Client) -> None:
    """Wait until the server answers."""
    deadline = time.monotonic() + 60
    while True:
        try:
            client.get("/health").raise_for_status()
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def main() -> int:
    """Measure, print, compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=["xml", "agreement", "upload", "sessions", []], default=[])
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the upload")
    given = parser.parse_args()
    chosen = given.what or ["xml", "agreement", "upload", "sessions"]
    print(f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}")
    kept = True
    with tempfile.TemporaryDirectory(prefix="ava-bench-", dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        if "xml" in chosen:
            kept &= xml(folder)
        if "agreement" in chosen:
            kept &= agreement()
        if "upload" in chosen:
            kept &= upload(folder, given.gigabytes)
        if "sessions" in chosen:
            kept &= sessions(folder)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
