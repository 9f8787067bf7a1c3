#!/usr/bin/python3
"""Prepares for the CloudWatch agent what it cannot read by itself (service pergola-feed).

The journal becomes files, one for each app and one for the host, whose lines are the apps' own JSON. What apps count becomes gauges at
http://127.0.0.1:<port>/metrics: the mean of a histogram and the growth of a counter over the seconds that the manifest names, live
sessions of the screens, how often services ended by themselves, days that the host's certificate is still valid.

Killed at any time it goes on where it was: a line may come twice, and none is lost that the journal still has.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import deque
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

SETTINGS = Path("/etc/pergola/feed.json")
FIELDS = "MESSAGE,MESSAGE_ID,SYSLOG_IDENTIFIER,PRIORITY,UNIT,_SYSTEMD_UNIT"
RESTART = "5eb03494b6584870a536b337290809b3"  # systemd.journal-fields: SD_MESSAGE_UNIT_RESTART_SCHEDULED
LEVELS = ("critical", "critical", "critical", "error", "warning", "info", "info", "debug")
ROTATE = 8 << 20  # bytes of a file; the one before is kept beside it
RESTART_SECONDS = 300.0  # in which restarts are counted
SAMPLE = 15.0  # seconds between two looks at what apps count
CERTIFICATE = 3600.0  # between two looks at the certificate
SPEED = float(os.environ.get("REHEARSAL_SPEED", "1"))  # seconds of a rehearsal's clock in one of ours
LOST = (OSError, http.client.HTTPException, ValueError)


def say(text: str) -> None:
    """Print a line for the journal."""
    print(f"pergola-feed: {text}", flush=True)


# ---------------------------------------------------------------- the journal becomes files


class Log:
    """A file of lines that never grows beyond twice its limit."""

    def __init__(self, path: Path, limit: int = ROTATE) -> None:
        self.path, self.limit, self.size = path, limit, 0
        self._stream: IO[bytes] | None = None

    def write(self, line: str) -> None:
        """Append a line."""
        if self._stream is None:
            self._stream = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640), "ab")
            self.size = self._stream.tell()
        self.size += self._stream.write(f"{line}\n".encode())
        if self.size >= self.limit:
            self._stream.close()
            self._stream = None
            self.path.replace(self.path.with_name(f"{self.path.name}.1"))

    def flush(self) -> None:
        """Hand what was written to the system."""
        if self._stream is not None:
            self._stream.flush()


def text_of(entry: dict[str, Any]) -> str:
    """Return an entry's message; the journal gives one that is not UTF-8 as a list of bytes."""
    message = entry.get("MESSAGE")
    return bytes(message).decode(errors="replace") if isinstance(message, list) else str(message or "")


class Restarts:
    """When services of apps ended by themselves (crashed, or outgrew their memory) and systemd started them anew."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.times: deque[float] = deque(maxlen=1000)

    def see(self, moment: float) -> None:
        """Take one restart, at a moment in seconds since 1970."""
        with self.lock:
            self.times.append(moment)

    def count(self, now: float) -> int:
        """Return how many there were in the last minutes."""
        with self.lock:
            return sum(moment > now - RESTART_SECONDS / SPEED for moment in self.times)


class Lines:
    """Sorts entries of the journal into files, and remembers how far it came."""

    def __init__(self, settings: dict[str, Any], state: Path, restarts: Restarts) -> None:
        self.folder, self.state, self.restarts = Path(settings["logs"]), state, restarts
        self.owner = {identifier: app for app, about in settings["apps"].items() for identifier in about["identifiers"]}
        self.logs: dict[str, Log] = {}
        self.lock = threading.Lock()
        self.cursor = self.saved = state.read_text(encoding="utf-8").strip() if state.is_file() else ""

    def take(self, entry: dict[str, Any]) -> None:
        """Write one entry where it belongs."""
        identifier = str(entry.get("SYSLOG_IDENTIFIER", ""))
        app = self.owner.get(identifier)
        level = LEVELS[min(int(entry.get("PRIORITY") or 6), 7)]
        if entry.get("MESSAGE_ID") == RESTART and identifier == "systemd":
            unit = str(entry.get("UNIT", "")).removesuffix(".service").replace("@", "-", 1)
            if unit in self.owner:
                self.restarts.see(moment_of(entry))
        with self.lock:
            if app or level != "debug":
                log = self.logs.setdefault(app or "host", Log(self.folder / f"{app or 'host'}.log"))
                log.write(line_of(entry, app, identifier, level))
            self.cursor = str(entry.get("__CURSOR", self.cursor))

    def save(self) -> None:
        """Keep what was written, then the place in the journal."""
        with self.lock:
            if self.cursor == self.saved:
                return
            for log in self.logs.values():
                log.flush()
            part = self.state.with_name(f".{self.state.name}")
            part.write_text(self.cursor, encoding="utf-8")
            part.replace(self.state)
            self.saved = self.cursor

    def follow(self) -> None:
        """Read the journal until it ends."""
        since = ["--after-cursor", self.cursor] if self.cursor else ["--since=-1h"]
        command = ["journalctl", "--follow", "--all", "--no-pager", "--lines=all", "--output=json"]
        with subprocess.Popen([*command, f"--output-fields={FIELDS}", *since], stdout=subprocess.PIPE) as journal:
            for line in journal.stdout or ():
                with contextlib.suppress(ValueError):  # half a line of a journal that was cut off
                    self.take(json.loads(line))
        say(f"journalctl ended with {journal.returncode}; once more")


def moment_of(entry: dict[str, Any]) -> float:
    """Return when an entry was written, in seconds since 1970."""
    return int(entry.get("__REALTIME_TIMESTAMP", time.time() * 1e6)) / 1e6


def line_of(entry: dict[str, Any], app: str | None, identifier: str, level: str) -> str:
    """Return an entry as a line: what an app wrote as JSON stays as it is."""
    message = text_of(entry)
    if app and message.startswith("{"):
        return message.replace("\n", " ")
    moment = dt.datetime.fromtimestamp(moment_of(entry), dt.UTC)
    about = {"ts": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"), "level": level}
    if app:
        about |= {"app": app, "slot": identifier.rpartition("-")[2], "service": identifier.split("-")[1]}
    else:
        about |= {"service": identifier or "kernel", "unit": str(entry.get("UNIT") or entry.get("_SYSTEMD_UNIT") or "")}
    return json.dumps({**about, "message": message}, ensure_ascii=False)


# ---------------------------------------------------------------- what apps count becomes gauges


class Socket(http.client.HTTPConnection):
    """A connection to a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=5)
        self.path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(path: str, url: str) -> str:
    """GET a text over a unix socket."""
    connection = Socket(path)
    try:
        connection.request("GET", url)
        answer = connection.getresponse()
        text = answer.read(4 << 20).decode(errors="replace")
    finally:
        connection.close()
    if answer.status != 200:
        raise OSError(f"{path}{url} answers {answer.status}")
    return text


def samples(text: str) -> dict[str, float]:
    """Return the samples of Prometheus' text format by name, summed over their labels."""
    found: dict[str, float] = {}
    for match in re.finditer(r"^([A-Za-z_:][\w:]*)(?:\{[^\n]*\})? (\S+)", text, re.MULTILINE):
        with contextlib.suppress(ValueError):
            found[match[1]] = found.get(match[1], 0.0) + float(match[2])
    return found


class Total:
    """A number that only grows, seen through restarts of who counts it: how much it grew in the last seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.last: float | None = None
        self.points: deque[tuple[float, float]] = deque()  # when, and what had grown by then

    def see(self, now: float, value: float) -> None:
        """Take one look."""
        grown = self.points[-1][1] if self.points else 0.0
        if self.last is not None:
            grown += value - self.last if value >= self.last else value
        self.last = value
        self.points.append((now, grown))
        while len(self.points) > 1 and self.points[1][0] <= now - self.seconds:
            self.points.popleft()

    def growth(self) -> float:
        """Return by how much it grew."""
        return self.points[-1][1] - self.points[0][1] if self.points else 0.0


class Numbers:
    """Looks at what apps count, and gives gauges."""

    def __init__(self, settings: dict[str, Any], restarts: Restarts) -> None:
        self.settings, self.restarts = settings, restarts
        self.totals: dict[tuple[str, str], Total] = {}
        self.gauges: dict[tuple[str, str, str], float] = {}  # metric, dimension, its value
        self.certificate_at = float("-inf")
        self.silent: set[str] = set()

    def look(self, now: float) -> None:
        """Ask every app, and the certificate now and then."""
        found: dict[tuple[str, str, str], float] = {}
        for app, about in self.settings["apps"].items():
            lost = ""
            # each by itself: a screen has sessions while its API is down
            for numbers in (partial(self._sessions, about), partial(self._metrics, app, about, now)):
                try:
                    found |= {(name, "App", app): value for name, value in numbers().items()}
                except LOST as error:
                    lost = str(error) or type(error).__name__
            if not lost:
                self.silent.discard(app)
            elif app not in self.silent:  # said once: an app that is down is seen by others
                say(f"{app} does not tell its numbers: {lost}")
                self.silent.add(app)
        fleet = self.settings["fleet"]
        found["ServiceRestarts", "Fleet", fleet] = self.restarts.count(time.time())
        certificate = {key: value for key, value in self.gauges.items() if key[0] == "CertificateDays"}
        if self.settings["certificate"] and now - self.certificate_at >= CERTIFICATE / SPEED:
            certificate = {}
            with contextlib.suppress(*LOST, subprocess.SubprocessError):
                days = days_left(self.settings["certificate"])
                certificate = {("CertificateDays", "Fleet", fleet): days}
                self.certificate_at = now
        self.gauges = found | certificate

    def _sessions(self, about: dict[str, Any]) -> dict[str, float]:
        screens = [path for path in about["screens"] if Path(path).exists()]
        if not screens:
            return {}
        counts = [samples(ask(path, about["sessions"])).get("active_sessions", 0.0) for path in screens]
        return {"LiveSessions": sum(counts)}

    def _metrics(self, app: str, about: dict[str, Any], now: float) -> dict[str, float]:
        gauges: dict[str, float] = {}
        if not about["metrics"] or not Path(about["api"]).exists():
            return gauges
        have = samples(ask(about["api"], "/metrics"))
        for name, seconds in about["metrics"].items():

            def grown(suffix: str, name: str = name, seconds: float = seconds) -> float:
                total = self.totals.setdefault((app, name + suffix), Total(seconds / SPEED))
                total.see(now, have[name + suffix])
                return total.growth()

            if f"{name}_count" in have:
                count, added = grown("_count"), grown("_sum")
                if count:
                    gauges[name] = added / count
            elif f"{name}_total" in have:
                gauges[name] = grown("_total")
            elif name in have:
                gauges[name] = have[name]
        return gauges

    def text(self) -> str:
        """Return the gauges in Prometheus' text format."""
        names = sorted({name for name, _, _ in self.gauges})
        rows = [
            line
            for name in names
            for line in (
                f"# TYPE {name} gauge",
                *(f'{name}{{{label}="{value}"}} {gauge!r}' for (one, label, value), gauge in sorted(self.gauges.items()) if one == name),
            )
        ]  # fmt: skip
        return "".join(f"{row}\n" for row in rows)


def days_left(address: str) -> float:
    """Return for how many days the certificate that this host shows is still valid."""
    host, _, port = address.partition(":")
    pem = ssl.get_server_certificate((host, int(port)), timeout=5)
    done = subprocess.run(
        ["openssl", "x509", "-noout", "-enddate"], input=pem, capture_output=True, text=True, check=True, timeout=10
    )
    end = ssl.cert_time_to_seconds(done.stdout.strip().partition("=")[2])
    return round((end - time.time()) / 86400, 3)


def server(numbers: Numbers, port: int) -> ThreadingHTTPServer:
    """Return a server of the gauges, on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = numbers.text().encode() if self.path == "/metrics" else b""
            self.send_response(200 if self.path == "/metrics" else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
            pass

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main() -> int:
    """Feed until a signal ends it."""
    settings = json.loads(SETTINGS.read_text(encoding="utf-8"))
    restarts, over = Restarts(), threading.Event()
    lines = Lines(settings, Path(os.environ["STATE_DIRECTORY"], "cursor"), restarts)
    numbers = Numbers(settings, restarts)
    serving = server(numbers, settings["port"])

    def follow() -> None:
        while not over.wait(1):
            lines.follow()

    def look() -> None:
        while True:
            numbers.look(time.monotonic())
            over.wait(SAMPLE / SPEED)

    for work in (follow, look, serving.serve_forever):
        threading.Thread(target=work, daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    while not over.wait(1):
        lines.save()
    lines.save()
    return 0


if __name__ == "__main__":
    sys.exit(main())
