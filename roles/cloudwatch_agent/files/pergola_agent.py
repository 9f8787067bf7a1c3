#!/usr/bin/python3
"""Stands in for the CloudWatch agent where that cannot be installed (service pergola-agent): it reads the same files and does the same.

Log files become log events, what Prometheus would scrape becomes log events in CloudWatch's embedded metric format, and the processor,
memory and disk become metrics of the fleet. It knows the settings that app/core/agent.py writes, and no others.

How far it came in each file is on disk: nothing is lost while CloudWatch does not answer, and memory does not grow. Metrics wait for
a few minutes, then the oldest go.
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
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from user_data import call, keys, metadata  # type: ignore[import-not-found,unused-ignore]  # beside this file on a host

CONFIG = Path("/etc/pergola/agent.json")
SPEED = float(os.environ.get("REHEARSAL_SPEED", "1"))  # seconds of a rehearsal's clock in one of ours
EVENTS, BYTES, LINE = 1000, 512 << 10, 200 << 10  # of one call; of one event
SPAN = 23 * 3600 * 1000  # CloudWatch takes no more than a day in one call
WAITING = 300  # metrics that wait
LOST = (OSError, http.client.HTTPException, ValueError, RuntimeError)
FORMATS = {"%Y": r"\d{4}", "%z": r"[+-]\d\d:?\d\d", "%f": r"\d{1,6}"}


def say(text: str) -> None:
    """Print a line for the journal."""
    print(f"pergola-agent: {text}", flush=True)


class Refused(OSError):
    """CloudWatch does not take a call; ``code`` is its word for the reason, and ``final`` whether the same call would be refused again."""

    def __init__(self, call: str, code: str, status: int, text: str) -> None:
        super().__init__(f"{call}: {code or status} {text}")
        self.code = code
        self.final = 400 <= status < 500 and not re.search("Throttl|Expired|Limit|Unrecognized|Signature|Denied", code)


class Api:
    """CloudWatch and its logs, with the credentials of this host's role, or those of the environment."""

    def __init__(self, region: str) -> None:
        self.region = region
        self._keys: dict[str, str] = {}
        self._asked = float("-inf")

    def credentials(self) -> dict[str, str]:
        """Return credentials; those of a role are asked for again after ten minutes."""
        if "AWS_ACCESS_KEY_ID" in os.environ:
            names = {
                "AccessKeyId": "AWS_ACCESS_KEY_ID",
                "SecretAccessKey": "AWS_SECRET_ACCESS_KEY",
                "Token": "AWS_SESSION_TOKEN",
            }
            return {key: os.environ.get(name, "") for key, name in names.items()}
        if time.monotonic() - self._asked > 600:
            self._keys, self._asked = keys(), time.monotonic()
        return self._keys

    def call(self, service: str, action: str, body: bytes, headers: dict[str, str]) -> None:
        """Make one call."""
        try:
            call(service, self.region, body, headers, self.credentials())
        except urllib.error.HTTPError as error:
            text = error.read(2000).decode(errors="replace")
            found = re.search(r'"__type"\s*:\s*"(?:[\w.]+#)?(\w+)|<Code>(\w+)', text)
            code = next(filter(None, found.groups()), "") if found else ""
            raise Refused(action, code, error.code, text[:300]) from error

    def logs(self, action: str, **arguments: Any) -> None:
        """Make a call of CloudWatch Logs."""
        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"Logs_20140328.{action}"}
        self.call("logs", action, json.dumps(arguments).encode(), headers)

    def events(self, group: str, stream: str, events: list[dict[str, Any]]) -> None:
        """Put log events; the stream is made when it is not there."""
        arguments = {"logGroupName": group, "logStreamName": stream, "logEvents": events}
        try:
            self.logs("PutLogEvents", **arguments)
        except Refused as error:
            if error.code != "ResourceNotFoundException":
                raise
            with contextlib.suppress(Refused):
                self.logs("CreateLogStream", logGroupName=group, logStreamName=stream)
            self.logs("PutLogEvents", **arguments)

    def metrics(self, namespace: str, values: dict[str, float], dimensions: dict[str, str], moment: float) -> None:
        """Put values of metrics."""
        form = {"Action": "PutMetricData", "Version": "2010-08-01", "Namespace": namespace}
        stamp = dt.datetime.fromtimestamp(moment, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for number, (name, value) in enumerate(values.items(), 1):
            row = f"MetricData.member.{number}."
            form |= {
                f"{row}MetricName": name,
                f"{row}Value": repr(value),
                f"{row}Unit": "Percent",
                f"{row}Timestamp": stamp,
            }
            for count, (key, cell) in enumerate(dimensions.items(), 1):
                form |= {f"{row}Dimensions.member.{count}.Name": key, f"{row}Dimensions.member.{count}.Value": cell}
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
        self.call("monitoring", "PutMetricData", urllib.parse.urlencode(form).encode(), headers)


# ---------------------------------------------------------------- log files


def moment_of(pattern: str) -> Callable[[str], float | None]:
    """Return what finds the time in a line, in seconds, by the agent's ``timestamp_format``."""
    escaped = re.sub(r"%(\w)", lambda found: FORMATS.get(found[0], r"\d\d"), re.escape(pattern).replace(r"\%", "%"))
    expression = re.compile(escaped)

    def find(line: str) -> float | None:
        found = expression.search(line[:2000])
        if found is None:
            return None
        try:
            read = dt.datetime.strptime(found[0], pattern)  # noqa: DTZ007 - without a zone it is UTC: see below
        except ValueError:
            return None
        return (read if read.tzinfo else read.replace(tzinfo=dt.UTC)).timestamp()

    return find


class Tail:
    """One log file, also across its rotation."""

    def __init__(self, entry: dict[str, Any], stream: str, place: dict[str, int] | None) -> None:
        self.path, self.group, self.stream = Path(entry["file_path"]), entry["log_group_name"], stream
        self.moment = moment_of(entry["timestamp_format"])
        self.place = place or {"inode": 0, "offset": 0}
        self.last = 0.0  # a line without a time has that of the line before
        self.failed = 0

    def read(self) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """Return the next events, and the place after them."""
        path, offset = self._where()
        if path is None:
            return [], self.place
        with path.open("rb") as stream:
            inode = os.fstat(stream.fileno()).st_ino
            stream.seek(offset)
            block = stream.read(BYTES)
        whole = block.rpartition(b"\n")[0]
        if not whole and len(block) == BYTES:
            whole = block  # one line larger than everything: in pieces
        events: list[dict[str, Any]] = []
        used = 0
        for raw in whole.split(b"\n") if whole else ():
            line = raw[:LINE].decode(errors="replace").rstrip("\r")
            moment = self.moment(line) or self.last or time.time()
            at = int(moment * 1000)
            if len(events) == EVENTS or (events and abs(at - events[0]["timestamp"]) > SPAN):
                break
            self.last = moment
            used += len(raw) + 1
            if line.strip():
                events.append({"timestamp": at, "message": line})
        return sorted(events, key=lambda event: event["timestamp"]), {"inode": inode, "offset": offset + used}

    def _where(self) -> tuple[Path | None, int]:
        """Return the file to read and from where: one that was rotated away is finished first."""
        try:
            now = self.path.stat()
        except FileNotFoundError:
            return None, 0
        if now.st_ino == self.place["inode"]:
            return self.path, self.place["offset"] if self.place["offset"] <= now.st_size else 0
        old = self.path.with_name(f"{self.path.name}.1")
        with contextlib.suppress(FileNotFoundError):
            before = old.stat()
            if before.st_ino == self.place["inode"] and before.st_size > self.place["offset"]:
                return old, self.place["offset"]
        return self.path, 0

    def send(self, api: Api) -> bool:
        """Send the next events; return whether there may be more."""
        events, after = self.read()
        try:
            if events:
                api.events(self.group, self.stream, events)
        except Refused as error:
            self.failed += 1
            if not error.final or error.code == "ResourceNotFoundException" or self.failed < 3:
                raise
            say(f"{len(events)} lines of {self.path} are left out: {error}")
        moved, self.place, self.failed = after != self.place, after, 0
        return moved and bool(events)


# ---------------------------------------------------------------- numbers


OLD = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")  # names in version 1 of control groups
NEW = ("memory.max", "memory.current", "inactive_file")


def memory(root: Path = Path("/")) -> float:
    """Return the percentage of memory in use: of this machine, or of the container that it is."""
    rows = (line.partition(":") for line in (root / "proc/meminfo").read_text().splitlines())
    about = {name: int(value.split()[0]) * 1024 for name, _, value in rows}
    total, used = about["MemTotal"], about["MemTotal"] - about["MemAvailable"]
    for row in (root / "proc/self/cgroup").read_text().splitlines():
        _, controller, path = row.split(":", 2)
        if controller not in {"memory", ""}:
            continue
        machine = path.partition("/system.slice")[0].lstrip("/")
        folder, names = root / "sys/fs/cgroup" / controller / machine, OLD if controller else NEW
        with contextlib.suppress(OSError, ValueError):  # "max": no limit
            limit, held = (int((folder / name).read_text()) for name in names[:2])
            cache = re.search(rf"^{names[2]} (\d+)", (folder / "memory.stat").read_text(), re.MULTILINE)
            if limit < total:
                total, used = limit, held - int(cache[1] if cache else 0)
    return round(100 * used / total, 2)


def disk(paths: list[str]) -> float:
    """Return the percentage in use of the fullest of some file systems."""
    shares = []
    for path in paths:
        with contextlib.suppress(OSError):
            about = os.statvfs(path)
            used = about.f_blocks - about.f_bfree
            shares.append(100 * used / (used + about.f_bavail or 1))
    return round(max(shares), 2)


class Processor:
    """The share of time that the processors worked since the last question."""

    def __init__(self) -> None:
        self.before = self._times()

    @staticmethod
    def _times() -> tuple[int, int]:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]

    def used(self) -> float:
        """Return it, in percent."""
        now, before = self._times(), self.before
        self.before = now
        every = now[0] - before[0]
        return round(100 * (1 - (now[1] - before[1]) / every), 2) if every > 0 else 0.0


def embedded(text: str, processor: dict[str, Any], now_ms: int) -> Iterator[str]:
    """Give what was scraped as log events in the embedded metric format, as the emf_processor says."""
    rows = re.findall(r'^([A-Za-z_:][\w:]*)\{(\w+)="([^"]*)"\} (\S+)', text, re.MULTILINE)
    for rule in processor["metric_declaration"]:
        (label,) = rule["source_labels"]
        chosen: dict[str, dict[str, float]] = {}
        for name, key, value, number in rows:
            wanted = any(re.search(selector, name) for selector in rule["metric_selectors"])
            if key == label and wanted and re.search(rule["label_matcher"], value):
                chosen.setdefault(value, {})[name] = float(number)
        for value, gauges in chosen.items():
            told = {
                "Namespace": processor["metric_namespace"],
                "Dimensions": rule["dimensions"],
                "Metrics": [{"Name": name} for name in gauges],
            }
            about = {"Timestamp": now_ms, "CloudWatchMetrics": [told]}
            yield json.dumps({"_aws": about, label: value, **gauges})


# ---------------------------------------------------------------- the service


class Agent:
    """Reads the agent's settings and does what they say."""

    def __init__(self, config: dict[str, Any], state: Path) -> None:
        self.config, self.state = config, state
        self.api = Api(config["agent"]["region"])
        self.waiting: deque[Callable[[], None]] = deque(maxlen=WAITING)
        self.processor = Processor()
        files = config["logs"]["logs_collected"]["files"]["collect_list"]
        self.name = instance() if "{instance_id}" in json.dumps(files) else socket.gethostname()
        places = json.loads(state.read_text()) if state.is_file() else {}
        self.tails = [
            Tail(entry, self._named(entry["log_stream_name"]), places.get(entry["file_path"])) for entry in files
        ]
        self.told: dict[str, float] = {}

    def _named(self, text: str) -> str:
        return text.replace("{instance_id}", self.name).replace("{hostname}", socket.gethostname())

    def complain(self, what: str, error: BaseException) -> None:
        """Say what does not work, once a minute."""
        if time.monotonic() - self.told.get(what, -60.0) >= 60:
            self.told[what] = time.monotonic()
            say(f"{what}: {error}")

    def ship(self) -> None:
        """Send what there is of every file."""
        for tail in self.tails:
            try:
                for _ in range(50):  # others have their turn
                    if not tail.send(self.api):
                        break
            except LOST as error:
                self.complain(str(tail.path), error)
        places = {str(tail.path): tail.place for tail in self.tails}
        text = json.dumps(places)
        if not self.state.is_file() or self.state.read_text() != text:
            part = self.state.with_name(f".{self.state.name}")
            part.write_text(text)
            part.replace(self.state)

    def measure(self) -> None:
        """Measure the host, and scrape; what cannot be sent now waits."""
        wanted, now = self.config["metrics"]["metrics_collected"], time.time()
        measure: dict[str, Callable[[], float]] = {
            "cpu": self.processor.used,
            "mem": memory,
            "disk": lambda: disk(wanted["disk"]["resources"]),
        }
        values = {metric: measure[kind]() for kind, about in wanted.items() for metric in about["measurement"]}
        fleet, namespace = wanted["mem"]["append_dimensions"], self.config["metrics"]["namespace"]
        self.waiting.append(lambda: self.api.metrics(namespace, values, fleet, now))
        about = self.config["logs"]["metrics_collected"]["prometheus"]
        stream = self._named("{instance_id}/metrics")
        try:
            events = [
                {"timestamp": int(now * 1000), "message": line}
                for text in map(scraped, targets(Path(about["prometheus_config_path"])))
                for line in embedded(text, about["emf_processor"], int(now * 1000))
            ]
        except LOST as error:
            self.complain("scraping", error)
            return
        if events:
            self.waiting.append(lambda: self.api.events(about["log_group_name"], stream, events))

    def send(self) -> None:
        """Send what waits, the oldest first."""
        while self.waiting:
            try:
                self.waiting[0]()
            except LOST as error:
                self.complain("metrics", error)
                if not (isinstance(error, Refused) and error.final and error.code != "ResourceNotFoundException"):
                    return
            self.waiting.popleft()

    def run(self, over: threading.Event) -> None:
        """Do it until the end."""
        seconds = self.config["agent"]["metrics_collection_interval"] / SPEED
        flush, due = self.config["logs"]["force_flush_interval"] / SPEED, time.monotonic() + min(5.0, seconds)
        while not over.wait(min(flush, 5.0)):
            self.ship()
            if time.monotonic() >= due:
                due = time.monotonic() + seconds
                self.measure()
            self.send()
        self.ship()


def instance() -> str:
    """Return this instance's id; whoever has credentials in the environment is none."""
    if "AWS_ACCESS_KEY_ID" in os.environ:
        return socket.gethostname()
    return str(metadata("meta-data/instance-id") or socket.gethostname())


def targets(path: Path) -> list[str]:
    """Return what is scraped."""
    jobs = json.loads(path.read_text(encoding="utf-8"))["scrape_configs"]
    return [target for job in jobs for group in job["static_configs"] for target in group["targets"]]


def scraped(target: str) -> str:
    """Scrape one target."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{target}/metrics", timeout=10) as answer:
        return str(answer.read(1 << 20).decode())


def main() -> int:
    """Run until a signal ends it."""
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    Agent(json.loads(CONFIG.read_text(encoding="utf-8")), Path(os.environ["STATE_DIRECTORY"], "places.json")).run(over)
    return 0


if __name__ == "__main__":
    sys.exit(main())
