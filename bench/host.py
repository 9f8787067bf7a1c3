"""What one host costs and gives: seconds of `make up-local`, memory of each service, first render of a screen, many open screens.

python bench/host.py                 against the host of `make up-local`
python bench/host.py --from-nothing  also makes a host of its own from nothing, and again
"""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.environment import for_host, say  # noqa: E402 - the project's folder must be on the path first
from prober import sessions  # noqa: E402 - the project's folder must be on the path first
from prober.hosts import ContainerHost  # noqa: E402 - likewise
from prober.report import percentile, table  # noqa: E402 - likewise


def up_from_nothing() -> list[list[object]]:
    """Time `make up-local` on a host that does not exist, and again; remove the host afterwards."""
    run = for_host("pergola-bench", 28443, 28480)

    def timed(*command: str) -> float:
        began = time.monotonic()
        run(*command)
        return time.monotonic() - began

    run("scripts/local-host", "destroy")
    try:
        say("make up-local from nothing")
        first = timed("make", "up-local")
        say("make up-local again")
        again = timed("make", "up-local")
    finally:
        run("scripts/local-host", "destroy")
    return [
        ["make up-local, from nothing (image and layers at hand)", f"{first:.1f}"],
        ["make up-local, again (no change)", f"{again:.1f}"],
    ]


def memory(host: ContainerHost) -> list[tuple[str, int, int]]:
    """Return each service's memory in MiB: its processes' proportional share."""
    script = """
for unit in $(systemctl list-units --plain --no-legend --state=running 'pergola-*.service' nginx.service | cut -d' ' -f1); do
  pid=$(systemctl show -p MainPID --value "$unit")
  pids="$pid $(pgrep -P "$pid" | tr '\\n' ' ')"
  total=0
  for one in $pids; do
    part=$(sed -n 's/^Pss: *\\([0-9]*\\).*/\\1/p' "/proc/$one/smaps_rollup")
    total=$((total + part))
  done
  echo "$unit $total $(echo $pids | wc -w)"
done
"""
    rows = [line.split() for line in host.sh(script).splitlines()]
    return [(unit, int(processes), round(int(kib) / 1024)) for unit, kib, processes in rows]


async def render(base: str, path: str, tls: ssl.SSLContext) -> float:
    """Return the seconds from the first byte asked to the end of the page's first run."""
    began = time.monotonic()
    session = await sessions.connect(base, path, tls)
    await session.rerun()
    await session.socket.close()
    return time.monotonic() - began


async def screens(base: str, path: str, tls: ssl.SSLContext, count: int, seconds: float) -> dict[str, float]:
    """Hold many open screens that each run their page every two seconds; return what they saw."""
    times: list[float] = []
    cut = 0
    until = time.monotonic() + seconds

    async def visitor(number: int) -> None:
        nonlocal cut
        await asyncio.sleep(number * 0.1)
        try:
            session = await sessions.connect(base, path, tls)
            while time.monotonic() < until:
                times.append(await session.rerun())
                await asyncio.sleep(2)
            await session.socket.close()
        except (sessions.SessionCutError, OSError) as error:
            cut += 1
            say(f"  a session was cut: {error}")

    await asyncio.gather(*(visitor(number) for number in range(count)))
    times.sort()
    return {"runs": len(times), "p50": percentile(times, 50), "p99": percentile(times, 99), "cut": cut}


def main() -> int:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--from-nothing", action="store_true", help="also time `make up-local` on a host of its own")
    parser.add_argument(
        "--apps",
        default="wine",
        help="whose release is switched and screen rendered; the open screens are the first one's (default %(default)s)",
    )
    parser.add_argument("--screens", type=int, default=50, help="screens open at once (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=30, help="how long they stay open (default %(default)s)")
    options = parser.parse_args()
    host = ContainerHost(os.environ.get("PERGOLA_LOCAL_HOST", "pergola-local"))
    port = int(os.environ.get("PERGOLA_HTTPS_PORT", "8443"))
    base, apps = f"https://127.0.0.1:{port}", options.apps.split(",")
    path = f"/{apps[0]}/"
    tls = ssl.create_default_context(cadata=ssl.get_server_certificate(("127.0.0.1", port)))

    rows: list[list[object]] = up_from_nothing() if options.from_nothing else []
    for app in apps:
        say(f"release switch: {app}")
        began = time.monotonic()
        live = host.app(app)
        answer = host.pergola("deploy", app, live["release"], "--again")
        rows.append([f"{app}: release switch: start, deep readiness, traffic moved", f"{answer['seconds']:.1f}"])
        first = asyncio.run(render(base, f"/{app}/", tls))
        rows.append([f"{app}: screen, first render after a start", f"{first:.2f}"])
        later = sorted(asyncio.run(render(base, f"/{app}/", tls)) for _ in range(5))
        rows.append([f"{app}: screen, render for the next visitors (median of 5)", f"{percentile(later, 50):.2f}"])
        say(f"switched and rendered after {time.monotonic() - began:.0f} s")
    print(table(["seconds", "s"], rows))

    host.wait_settled(apps[0], 120)
    idle = memory(host)
    say(f"{options.screens} screens for {options.seconds:.0f} s")
    seen = asyncio.run(screens(base, path, tls, options.screens, options.seconds))
    print()
    print(
        table(
            ["open screens", "page runs", "p50 s", "p99 s", "cut"],
            [[options.screens, int(seen["runs"]), f"{seen['p50']:.2f}", f"{seen['p99']:.2f}", int(seen["cut"])]],
        )
    )
    busy = {row[0]: row[2] for row in memory(host)}
    print()
    print(
        table(
            ["service", "processes", "MiB idle", f"MiB after {options.screens} screens"],
            [[*row, busy.get(row[0], "-")] for row in idle],
        )
    )
    return 1 if seen["cut"] or first >= 2 else 0


if __name__ == "__main__":
    sys.exit(main())
