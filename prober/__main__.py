"""Probe a running service: ``python -m prober https://127.0.0.1:8443``.

It reads commands from standard input, one a line: ``mark NAME`` begins a phase, ``stop`` ends the run. Progress goes to standard
error, one JSON object with everything to standard output. Exit code 1 when a request failed or a session was cut.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import ssl
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import websockets

from prober import sessions
from prober.report import Phase, Report, Sample, table

NOTE = json.dumps({"description": "Ripe cherry, cedar and a firm tannic grip with a long savoury finish."})


@dataclass(frozen=True)
class Request:
    """One kind of request that is sent again and again."""

    method: str
    path: str
    body: str | None
    fresh: bool

    @property
    def kind(self) -> str:
        """Name of the kind in the report."""
        return f"{self.method} {'new' if self.fresh else 'keep-alive'}"


@dataclass(frozen=True)
class Visits:
    """Live Streamlit sessions that are held side by side.

    Attributes:
        path: The page, for example ``/wine/``.
        live: How many at a time.
        rerun_seconds: Pause between two runs of the page.
        seconds: How long one lasts before another visitor comes; for ever by default.
    """

    path: str
    live: int
    rerun_seconds: float
    seconds: float = math.inf


class Prober:
    """Sends requests at a rate and holds sessions until it is told to stop."""

    def __init__(
        self,
        base: str,
        requests: Sequence[Request],
        *,
        rate: float,
        visits: Visits,
        tls: ssl.SSLContext | None,
        timeout: float,
    ) -> None:
        self._follow = False
        self._base, self._requests, self._rate = base.rstrip("/"), requests, rate
        self._visits, self._tls, self._timeout = visits, tls, timeout
        self._began = time.monotonic()
        self._stop = asyncio.Event()
        self.report = Report()

    def mark(self, name: str) -> None:
        """Begin a phase."""
        phase = Phase(name, time.monotonic() - self._began)
        if len(self.report.phases) == 1 and self.report.phases[0].name == "all":
            self.report.phases = [Phase("before", 0.0)]
        self.report.phases.append(phase)

    def follow(self) -> None:
        """Print what the current phase sees while it runs; the first one is ``before``."""
        self._follow = True
        self.report.phases = [Phase("before", 0.0)]

    def stop(self) -> None:
        """End the run after the requests under way."""
        self._stop.set()

    async def run(self, seconds: float | None) -> None:
        """Probe for a time, or until ``stop``."""
        self._began = time.monotonic()
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, self.stop)
        verify = self._tls if self._tls is not None else True
        limits = httpx.Limits(max_keepalive_connections=20)
        async with (
            httpx.AsyncClient(verify=verify, timeout=self._timeout, limits=limits) as kept,
            httpx.AsyncClient(
                verify=verify,
                timeout=self._timeout,
                limits=httpx.Limits(max_keepalive_connections=0),
                headers={"Connection": "close"},
            ) as fresh,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(self._visits.live):
                group.create_task(self._hold_session())
            group.create_task(self._tell() if self._follow else self._progress())
            await self._send_all(group, kept, fresh)

    async def _send_all(self, group: asyncio.TaskGroup, kept: httpx.AsyncClient, fresh: httpx.AsyncClient) -> None:
        if not self._requests or self._rate <= 0:
            await self._stop.wait()
            return
        number = 0
        while not self._stop.is_set():
            request = self._requests[number % len(self._requests)]
            group.create_task(self._send(request, fresh if request.fresh else kept))
            number += 1
            ahead = self._began + number / self._rate - time.monotonic()
            if ahead > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), ahead)

    async def _send(self, request: Request, client: httpx.AsyncClient) -> None:
        began = time.monotonic()
        failure = None
        try:
            answer = await client.request(
                request.method,
                f"{self._base}{request.path}",
                content=request.body,
                headers={"Content-Type": "application/json"} if request.body else {},
            )
            if answer.status_code != httpx.codes.OK:
                failure = f"status {answer.status_code}"
        except httpx.HTTPError as error:
            failure = f"{type(error).__name__} {error}".strip()
        self.report.samples.append(
            Sample(at=began - self._began, seconds=time.monotonic() - began, kind=request.kind, failure=failure)
        )

    async def _hold_session(self) -> None:
        try:
            while not self._stop.is_set():
                session = await sessions.connect(self._base, self._visits.path, self._tls)
                self.report.sockets_opened += 1
                until = time.monotonic() + self._visits.seconds
                while not self._stop.is_set() and time.monotonic() < until:
                    await session.rerun()
                    self.report.reruns += 1
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._stop.wait(), self._visits.rerun_seconds)
                await session.socket.close()
        except (sessions.SessionCutError, websockets.WebSocketException, OSError, httpx.HTTPError) as error:
            self.report.cut(time.monotonic() - self._began, str(error))

    async def _tell(self) -> None:
        """Print what the current phase saw, a JSON line every half second."""
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), 0.5)
            print(json.dumps(self.report.current()), flush=True)

    async def _progress(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), 5)
            numbers = self.report
            print(
                f"prober: {time.monotonic() - self._began:5.0f} s  {numbers.phases[-1].name:<8} "
                f"sent {len(numbers.samples)}  failed {len(numbers.failures())}  "
                f"sessions {numbers.sockets_opened} (cut {len(numbers.sockets_cut)})",
                file=sys.stderr,
                flush=True,
            )


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m prober", description="Probe a running service with requests and live Streamlit sessions."
    )
    parser.add_argument("base", help="where it runs, for example https://127.0.0.1:8443")
    parser.add_argument("--rate", type=float, default=40, help="requests a second (default %(default)s)")
    parser.add_argument("--seconds", type=float, help="how long; without it until `stop` on standard input")
    parser.add_argument("--get", default="/wine/api/health", metavar="PATH")
    parser.add_argument("--post", default="/wine/api/predict", metavar="PATH")
    parser.add_argument("--body", default=NOTE, metavar="JSON")
    parser.add_argument(
        "--ui", default="/wine/", metavar="PATH", help="page whose sessions are held (default %(default)s)"
    )
    parser.add_argument("--sessions", type=int, default=1, help="live Streamlit sessions (default %(default)s)")
    parser.add_argument(
        "--rerun-seconds", type=float, default=1.0, help="pause between two runs of a page (default %(default)s)"
    )
    parser.add_argument(
        "--visit-seconds",
        type=float,
        default=math.inf,
        metavar="N",
        help="a session ends after so long and another visitor comes (default: never)",
    )
    parser.add_argument("--timeout", type=float, default=30, help="seconds a request may take (default %(default)s)")
    parser.add_argument(
        "--follow", action="store_true", help="print what the current phase sees, a JSON line every half second"
    )
    parser.add_argument(
        "--ca", type=Path, help="certificate to trust; without it the service's certificate is not checked"
    )
    return parser


async def probe(options: argparse.Namespace) -> Report:
    """Run a probe and return what it saw."""
    tls = None
    if options.base.startswith("https:"):
        tls = ssl.create_default_context(cafile=options.ca)
        if options.ca is None:
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    requests = [
        Request(method, path, options.body if method == "POST" else None, fresh)
        for fresh in (False, True)
        for method, path in (("GET", options.get), ("POST", options.post))
        if path
    ]
    prober = Prober(
        options.base,
        requests,
        rate=options.rate,
        visits=Visits(options.ui, options.sessions, options.rerun_seconds, options.visit_seconds),
        tls=tls,
        timeout=options.timeout,
    )
    if options.follow:
        prober.follow()
    loop = asyncio.get_running_loop()
    if options.seconds is None:
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

        async def obey() -> None:
            while line := (await reader.readline()).decode().strip():
                word, _, name = line.partition(" ")
                if word == "mark" and name:
                    prober.mark(name)
                elif word == "stop":
                    break
                else:
                    print(f"prober: unknown command {line!r}; expected: mark NAME, stop", file=sys.stderr)
            prober.stop()

        obeying = asyncio.create_task(obey())
        await prober.run(None)
        await obeying
    else:
        await prober.run(options.seconds)
    return prober.report


def main() -> int:
    """Probe and print."""
    options = arguments().parse_args()
    report = asyncio.run(probe(options))
    numbers = report.as_dict()
    phases = numbers["phases"]
    rows = (
        [[row["name"], row["sent"], row["failed"], row["p50_ms"], row["p99_ms"], row["max_ms"]] for row in phases]
        if isinstance(phases, list)
        else []
    )
    print(table(["phase", "sent", "failed", "p50 ms", "p99 ms", "max ms"], rows), file=sys.stderr)
    print(json.dumps(numbers))
    return 1 if numbers["failed"] or numbers["sockets_cut"] else 0


if __name__ == "__main__":
    sys.exit(main())
