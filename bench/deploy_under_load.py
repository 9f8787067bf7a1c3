"""What visitors notice of a release: requests failed and sessions cut, with Pergola's two slots and with a plain restart.

    python bench/deploy_under_load.py            against the host of `make up-local`
    PERGOLA_LOCAL_HOST=... PERGOLA_HTTPS_PORT=... python bench/deploy_under_load.py --runs 4

Each run is a real new release of VinoVoyant, installed and made live under load: GET and POST, kept and new connections, and live
Streamlit sessions that run their page all the time. Exit code 1 when a run with slots lost anything.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prober.hosts import ContainerHost
from prober.process import ProbeProcess
from prober.report import table


def say(text: str) -> None:
    """Print progress."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def release(host: ContainerHost, number: int) -> tuple[str, float]:
    """Install a new release and make it live; return its id and the seconds the switch took."""
    stamp = f"{number}-{time.time_ns()}"
    found = host.install_changed(
        "wine", lambda folder: folder.joinpath("bench.txt").write_text(stamp, encoding="utf-8") and None
    )
    began = time.monotonic()
    answer = host.pergola("deploy", "wine", found)
    if answer.get("failed"):
        raise SystemExit(f"bench: {answer['msg']}")
    return found, time.monotonic() - began


def restart(host: ContainerHost) -> tuple[str, float]:
    """Restart the live slot the plain way: stop everything, start everything."""
    slot = host.app("wine")["slot"]
    units = [f"pergola-{kind}@wine-{slot}.{suffix}" for kind in ("api", "ui") for suffix in ("socket", "service")]
    began = time.monotonic()
    host.sh(f"systemctl stop {' '.join(units)} && systemctl start {' '.join(units)}")
    return "restart", time.monotonic() - began


def measure(host: ContainerHost, base: str, what: str, number: int, options: argparse.Namespace) -> dict[str, Any]:
    """Probe one switch; return the prober's report with the seconds of the switch."""
    flags = [f"--rate={options.rate}", f"--sessions={options.sessions}", "--rerun-seconds=0.5"]
    with ProbeProcess(base, *flags) as probe:
        time.sleep(options.around)
        probe.mark("during")
        _, seconds = release(host, number) if what == "slots" else restart(host)
        time.sleep(2)
        probe.mark("after")
        time.sleep(options.around)
        report = probe.stop()
    if what == "slots":
        host.wait_settled("wine", 120)
    return {**report, "seconds": seconds}


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=4, help="releases with slots (default %(default)s)")
    parser.add_argument("--restarts", type=int, default=1, help="plain restarts for contrast (default %(default)s)")
    parser.add_argument("--rate", type=float, default=40, help="requests a second (default %(default)s)")
    parser.add_argument("--sessions", type=int, default=3, help="live Streamlit sessions (default %(default)s)")
    parser.add_argument(
        "--around", type=float, default=8, help="seconds of load before and after (default %(default)s)"
    )
    options = parser.parse_args()
    host = ContainerHost(os.environ.get("PERGOLA_LOCAL_HOST", "pergola-local"))
    base = f"https://127.0.0.1:{os.environ.get('PERGOLA_HTTPS_PORT', '8443')}"
    rows, lost = [], 0
    for number in range(options.runs + options.restarts):
        what = "slots" if number < options.runs else "restart"
        say(f"run {number + 1} of {options.runs + options.restarts}: {what}")
        report = measure(host, base, what, number, options)
        if what == "slots":
            lost += int(report["failed"]) + int(report["sockets_cut"])
        p99 = {phase["name"]: phase["p99_ms"] for phase in report["phases"]}
        numbers = [report["sent"], report["failed"], report["longest_gap_seconds"]]
        latencies = [p99.get(phase) for phase in ("before", "during", "after")]
        rows.append(
            [what, *numbers, *latencies, report["sockets_opened"], report["sockets_cut"], f"{report['seconds']:.1f}"]
        )
        for failure, count in report["failures"].items():
            say(f"  {count} x {failure}")
        for cut in report["sockets_cut_why"]:
            say(f"  session cut: {cut}")
    headings = [
        "release by",
        "sent",
        "failed",
        "longest gap s",
        "p99 before ms",
        "during",
        "after",
        "sessions",
        "cut",
        "switch s",
    ]
    print(table(headings, rows))
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
