"""VibeJudge's bars: judging, a queue through worker restarts, dashboards, a database that is away.

    python bench/judge.py judge        a repository of 100 commits, judged 20 times: seconds after the clone (bar 5 s)
    python bench/judge.py queue        500 submissions through two workers killed with SIGKILL: lost, done twice (bar 0)
    python bench/judge.py sessions     100 dashboards at once over the API: seconds a page (bar 2 s)
    python bench/judge.py database     PostgreSQL stopped for 30 s under load: answers, acknowledged writes that are lost (bar 0)

Everything runs on this machine, in a folder of its own; loads go to 127.0.0.1 only and end by themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from sqlalchemy import text

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from app.core.database import engine
from app.judge import scorecard
from app.judge.clone import Clone
from app.judge.schemas import Rubric
from app.judge.scorecard import Rules
from bench import dashboards
from tests.unit.judge.conftest import AGENTS, PASSWORD, RUBRIC, hackathon
from tests.unit.judge.repositories import ADA, BO, SOURCE, START, Made, build, good
from tests.unit.judge.test_data import Server

ROOT = Path(__file__).resolve().parents[1]
V1 = "/api/v1"
JUDGE_BAR, AWAY_SECONDS = 5.0, 30.0


def environment(folder: Path, **more: str) -> dict[str, str]:
    """What the processes of a measurement are told."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PERGOLA_", "JUDGE_"))}
    return {
        **kept,
        "PERGOLA_APP": "judge",
        "PERGOLA_STATE_DIR": str(folder / "state"),
        "PERGOLA_LOG_LEVEL": "ERROR",
        "JUDGE_MIRROR": f"file://{folder / 'repos'}",
        "JUDGE_DEFAULT_TIER": "enterprise",
        "JUDGE_REGISTER_PER_HOUR": "100000",
        **more,
    }


@contextmanager
def api(folder: Path, workers: int = 2, **more: str) -> Iterator[str]:
    """The API under gunicorn as on a host; its address with /api/v1."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    told = environment(folder, **more)
    subprocess.run(
        [sys.executable, "-m", "app.core.migrate"], cwd=ROOT, env=told, check=True, stdout=subprocess.DEVNULL
    )
    served = ("-k", "uvicorn_worker.UvicornWorker", "--workers", str(workers), "--bind", f"127.0.0.1:{port}")
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        *served,
        "--keep-alive",
        "75",
        "--log-level",
        "error",
        "app.judge.api:app",
    ]
    process = subprocess.Popen(command, cwd=ROOT, env=told)
    try:
        base = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 120
        while True:
            try:
                if httpx.get(f"{base}/health/ready", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit("the API has not started")
            time.sleep(0.2)
        yield f"{base}{V1}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def organizer(base: str) -> httpx.Client:
    """A client of a new organizer."""
    client = httpx.Client(base_url=base, timeout=60)
    body = {"email": f"bench-{time.time_ns()}@example.org", "name": "Bench", "password": PASSWORD}
    client.headers["X-API-Key"] = client.post("/organizers", json=body).raise_for_status().json()["api_key"]
    return client


def filled(client: httpx.Client, names: list[str]) -> str:
    """A hackathon with these repositories."""
    hack_id = str(
        client.post("/hackathons", json=hackathon(budget_limit_usd=1000)).raise_for_status().json()["hack_id"]
    )
    rows = [{"team_name": f"Team {name}", "repo_url": f"https://github.com/team/{name}"} for name in names]
    client.post(f"/hackathons/{hack_id}/submissions", json={"submissions": rows}).raise_for_status()
    return hack_id


def processor() -> float:
    """Seconds of processor time of this process and of the programs that it has run."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def part_judge(folder: Path, given: argparse.Namespace) -> bool:
    """Seconds to judge 100 commits after the clone."""
    commits = []
    for number in range(100):
        files = {
            f"app/part_{number % 40}.py": SOURCE * 12 + f"\n\nNUMBER = {number}\n",
            f"tests/test_{number % 20}.py": SOURCE * 3,
        }
        commits.append(Made((ADA, BO)[number % 2], START + number * 900, f"Count the votes of part {number}", files))
    path = build(folder / "long", commits)
    rules = Rules(Rubric.model_validate(RUBRIC), AGENTS, "ai_assisted", {})
    took: list[float] = []
    used: list[float] = []
    card: dict[str, Any] = {}
    for number in range(given.count):
        scratch = folder / f"scratch-{number}"
        scratch.mkdir()
        began, before = time.perf_counter(), processor()
        card = scorecard.judge(Clone(path, "HEAD", "main", 1, 0.0), scratch, rules)
        took.append(time.perf_counter() - began)
        used.append(processor() - before)
    facts = card["repository"]
    print(
        f"{facts['commit_count']} commits, {facts['file_count']} files, {facts['lines_of_code']} lines; judged {given.count} times"
    )
    print(f"{'seconds':<12}" + "".join(f"{name:>8}" for name in ("p50", "p95", "max")))
    for name, values in (("wall", took), ("processor", used)):
        print(f"{name:<12}" + "".join(f"{value:>8.2f}" for value in (*np.percentile(values, (50, 95)), max(values))))
    print(f"bar: below {JUDGE_BAR:g} s: {'kept' if max(took) < JUDGE_BAR else 'MISSED'}")
    return max(took) < JUDGE_BAR


def part_queue(folder: Path, given: argparse.Namespace) -> bool:
    """500 submissions through two restarts of the worker by SIGKILL."""
    team = folder / "repos" / "team"
    team.mkdir(parents=True)
    names = [f"r{number}" for number in range(given.submissions)]
    first = good(team / names[0], 4)
    for name in names[1:]:
        (team / name).symlink_to(first)
    told = {"JUDGE_LEASE_SECONDS": "5", "JUDGE_POLL_SECONDS": "0.2", "JUDGE_WORKERS": "2"}

    def worker() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "app.judge.worker"], cwd=ROOT, env=environment(folder, **told))

    with api(folder, 1) as base:
        client = organizer(base)
        hack_id = filled(client, names)
        client.post(f"/hackathons/{hack_id}/analyze").raise_for_status()
        process, kills, began = worker(), 0, time.monotonic()
        try:
            while True:
                time.sleep(1)
                state = client.get(f"/hackathons/{hack_id}/analyze/status").raise_for_status().json()
                done = state["progress"]["completed"] + state["progress"]["failed"]
                if kills < 2 and done >= (kills + 1) * given.submissions / 3:
                    process.kill()
                    process.wait()
                    kills += 1
                    process = worker()
                if state["status"] in {"completed", "failed"} or time.monotonic() - began > given.minutes * 60:
                    break
        finally:
            process.terminate()
            process.wait(30)
        took = time.monotonic() - began
        costs = client.get(f"/hackathons/{hack_id}/costs").json()
        spent = client.get("/organizers/me").json()["spent_usd"]
    progress = state["progress"]
    lost = given.submissions - progress["completed"]
    twice = round(spent / 0.008) - progress["completed"]
    print(f"{'submissions':>12}{'kills':>8}{'judged':>8}{'failed':>8}{'lost':>8}{'twice':>8}{'seconds':>10}{'each':>8}")
    counts = (kills, progress["completed"], progress["failed"], lost, twice)
    each = f"{took:>10.0f}{took / given.submissions:>8.2f}"
    print(f"{given.submissions:>12}" + "".join(f"{one:>8}" for one in counts) + each)
    kept = lost == twice == 0 and kills == 2
    print(f"cost ${costs['total_cost_usd']:.3f}; bar: none lost, none twice: {'kept' if kept else 'MISSED'}")
    return kept


def part_sessions(folder: Path, given: argparse.Namespace) -> bool:
    """What 100 dashboards ask at once: each page's requests, one after the other, with some seconds of reading in between."""
    team = folder / "repos" / "team"
    team.mkdir(parents=True)
    good(team / "one", 8)
    with api(folder) as base:
        client = organizer(base)
        hack_id = filled(client, [f"r{number}" for number in range(100)])
        pages = {
            "live dashboard": (
                "/hackathons",
                f"/hackathons/{hack_id}/stats",
                f"/hackathons/{hack_id}/submissions?limit=100",
            ),
            "results": ("/hackathons", f"/hackathons/{hack_id}/leaderboard"),
            "intelligence": ("/hackathons", f"/hackathons/{hack_id}/intelligence"),
            "settings": ("/organizers/me", "/api-keys", "/usage/summary"),
        }
        # the colleagues of one organizer: what another asked for would be a quick 404
        headers = [{"X-API-Key": client.headers["X-API-Key"]}]
        return dashboards.run(base, pages, headers, sessions=given.sessions, seconds=given.seconds)


def part_database(folder: Path, given: argparse.Namespace) -> bool:
    """PostgreSQL away for 30 s while clients write."""
    server = Server()
    acknowledged: list[str] = []
    answers: list[tuple[float, int]] = []
    ended = threading.Event()
    try:
        with api(folder, PERGOLA_DATABASE_URL=server.url) as base:
            key = organizer(base).headers["X-API-Key"]

            def write(number: int) -> None:
                with httpx.Client(base_url=base, timeout=60, headers={"X-API-Key": key}) as own:
                    while not ended.is_set():
                        answer = own.post("/hackathons", json=hackathon(name=f"Hack {number}"))
                        answers.append((time.monotonic(), answer.status_code))
                        if answer.status_code == 201:
                            acknowledged.append(answer.json()["hack_id"])
                        time.sleep(0.1)

            with ThreadPoolExecutor(8) as pool:
                running = [pool.submit(write, number) for number in range(8)]
                time.sleep(5)
                server.stop()
                stopped = time.monotonic()
                time.sleep(given.away)
                server.start()
                started = time.monotonic()
                time.sleep(10)
                ended.set()
                for one in running:
                    one.result()
        with engine(server.url).connect() as connection:
            stored = set(connection.scalars(text("SELECT id FROM hackathon")))
        engine(server.url).dispose()
    finally:
        server.stop()
        shutil.rmtree(server.folder)
    lost = len(set(acknowledged) - stored)
    back = min((at for at, code in answers if at > started and code == 201), default=float("inf")) - started
    table = [("before", 0.0, stopped), ("away", stopped, started), ("after", started, float("inf"))]
    print(f"{'PostgreSQL':<12}{'201':>8}{'503':>8}{'other':>8}")
    others = 0
    for name, begin, end in table:
        codes = Counter(code for at, code in answers if begin <= at < end)
        other = sum(codes.values()) - codes[201] - codes[503]
        others += other
        print(f"{name:<12}{codes[201]:>8}{codes[503]:>8}{other:>8}")
    print(
        f"away {given.away:g} s; first write {back:.1f} s after the start; acknowledged {len(acknowledged)}, lost {lost}"
    )
    kept = lost == 0 and others == 0 and back < 10
    print(
        f"bar: nothing acknowledged is lost, only 503 in between, writes again without a restart: {'kept' if kept else 'MISSED'}"
    )
    return kept


PARTS = {"judge": part_judge, "queue": part_queue, "sessions": part_sessions, "database": part_database}


def main() -> int:
    """Measure, print, compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--count", type=int, default=20, help="judge: how often")
    parser.add_argument("--submissions", type=int, default=500, help="queue: how many")
    parser.add_argument("--minutes", type=float, default=30, help="queue: the longest")
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=30, help="sessions: how long")
    parser.add_argument("--away", type=float, default=AWAY_SECONDS, help="database: seconds that it is stopped")
    given = parser.parse_args()
    if unknown := set(given.part) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {json.dumps([round(one, 1) for one in os.getloadavg()])}"
    )
    good_ = True
    for name in given.part or PARTS:
        print(f"\n{name}")
        with tempfile.TemporaryDirectory(prefix="judge-bench-") as folder:
            Path(folder).chmod(0o755)
            good_ &= PARTS[name](Path(folder), given)
    return 0 if good_ else 1


if __name__ == "__main__":
    sys.exit(main())
