"""The two programs that tell CloudWatch of a host, against an emulated CloudWatch: nothing is lost, nothing grows, faults pass."""

from __future__ import annotations

import importlib
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from socketserver import UnixStreamServer
from types import ModuleType
from typing import Any

import pytest

from app.core import manifest, plan
from app.core.logs import JsonFormatter
from tests.unit.rehearsal.conftest import Account

ROOT = Path(__file__).resolve().parents[3]
FILES = ("roles/cloudwatch_agent/files", "roles/aws_fleet/files")
WINE = manifest.load_all(ROOT, ["wine"])


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import a program of the role as it stands on a host."""
    for folder in FILES:
        monkeypatch.syspath_prepend(str(ROOT / folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield importlib.import_module
    for name in ("pergola_agent", "pergola_feed", "user_data"):
        sys.modules.pop(name, None)


def told(environment: str) -> dict[str, Any]:
    return dict(
        plan.build(
            WINE, environment=environment, agent={"project": "pergola", "region": "us-east-1", "kind": "stand-in"}
        )["agent"]
    )


# ---------------------------------------------------------------- the stand-in


class Host:
    """A host's files, and the stand-in that reads them."""

    def __init__(self, account: Account, folder: Path, program: ModuleType, environment: str) -> None:
        self.logs, self.folder, self.program = account.client("logs"), folder, program
        self.metrics = account.client("cloudwatch")
        about = told(environment)
        self.config = about["config"]
        for entry in self.config["logs"]["logs_collected"]["files"]["collect_list"]:
            entry["file_path"] = str(folder / Path(entry["file_path"]).name)
        prometheus = folder / "prometheus.json"
        prometheus.write_text(json.dumps(about["prometheus"]))
        self.config["logs"]["metrics_collected"]["prometheus"]["prometheus_config_path"] = str(prometheus)
        self.group, self.namespace = f"/pergola/{environment}/wine", f"pergola-{environment}"
        for name in ("wine", "host"):
            self.logs.create_log_group(logGroupName=f"/pergola/{environment}/{name}")
        self.file = folder / "wine.log"

    def agent(self) -> Any:
        return self.program.Agent(self.config, self.folder / "places.json")

    def arrived(self, group: str = "") -> list[str]:
        found, more = [], {}
        while True:
            page = self.logs.filter_log_events(logGroupName=group or self.group, **more)
            found += [event["message"] for event in page["events"]]
            if "nextToken" not in page:
                return found
            more = {"nextToken": page["nextToken"]}

    def write(self, *numbers: int) -> None:
        with self.file.open("a") as stream:
            stream.writelines(f"{line(number)}\n" for number in numbers)


def line(number: int) -> str:
    return json.dumps(
        {"ts": f"2026-11-28T12:00:{number % 60:02}.{number:06}Z", "level": "info", "app": "wine", "n": number}
    )


@pytest.fixture
def host(account: Account, tmp_path: Path, module: Any, monkeypatch: pytest.MonkeyPatch, request: Any) -> Host:
    monkeypatch.setenv("AWS_ENDPOINT_URL", account.cloud.world.settings.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "rehearsal")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "rehearsal")
    program = module("pergola_agent")
    monkeypatch.setattr(program, "instance", lambda: "i-0123")
    return Host(account, tmp_path, program, f"t{abs(hash(request.node.name)) % 10**8}")


def test_lines_become_events_of_their_time_and_half_a_line_waits(host: Host) -> None:
    agent = host.agent()
    host.write(1, 2)
    with host.file.open("a") as stream:
        stream.write('{"half": ')
    agent.ship()
    assert host.arrived() == [line(1), line(2)]
    with host.file.open("a") as stream:
        stream.write("1}\n")
    agent.ship()
    assert host.arrived()[-1] == '{"half": 1}'
    (event, *_) = host.logs.get_log_events(logGroupName=host.group, logStreamName="i-0123/app")["events"]
    assert event["timestamp"] == 1795867201000


def test_after_a_restart_it_goes_on_where_it_was(host: Host) -> None:
    host.write(*range(3))
    host.agent().ship()
    host.write(*range(3, 6))
    host.agent().ship()
    assert host.arrived() == [line(number) for number in range(6)]


def test_a_rotated_file_is_finished_first(host: Host) -> None:
    agent = host.agent()
    host.write(1)
    agent.ship()
    host.write(2)
    host.file.rename(host.file.with_name("wine.log.1"))
    host.write(3)
    agent.ship()
    agent.ship()
    assert host.arrived() == [line(1), line(2), line(3)]


def test_what_cloudwatch_does_not_take_now_is_sent_later(host: Host, account: Account, capsys: Any) -> None:
    agent = host.agent()
    account.cloud.fault("throttle", "1")
    try:
        host.write(*range(2500))  # more than one call
        agent.ship()
        agent.measure()
        agent.send()
    finally:
        account.cloud.fault("none", "")
    assert host.arrived() == []
    assert len(agent.waiting) == 1
    assert "PutLogEvents: " in capsys.readouterr().out
    for _ in range(3):
        agent.ship()
        agent.send()
    assert sorted(json.loads(one)["n"] for one in host.arrived()) == list(range(2500))
    assert not agent.waiting


def test_a_group_that_is_not_there_yet_is_waited_for(host: Host) -> None:
    host.logs.delete_log_group(logGroupName=host.group)
    host.write(1)
    agent = host.agent()
    agent.ship()
    host.logs.create_log_group(logGroupName=host.group)
    agent.ship()
    assert host.arrived() == [line(1)]


def test_metrics_wait_in_bounded_memory(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(host.program, "WAITING", 5)
    agent = host.agent()
    for _ in range(8):
        agent.measure()
    agent.send()
    assert len(agent.waiting) == 5


def test_the_host_is_measured_under_the_names_of_the_alarms(host: Host) -> None:
    agent = host.agent()
    agent.measure()
    agent.send()
    found = host.metrics.list_metrics(Namespace=host.namespace)["Metrics"]
    assert {metric["MetricName"] for metric in found} == {"cpu_usage_active", "mem_used_percent", "disk_used_percent"}
    assert all(metric["Dimensions"] == [{"Name": "Fleet", "Value": "main"}] for metric in found)


def test_what_is_scraped_becomes_embedded_metrics(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '# TYPE PredictionLatency gauge\nPredictionLatency{App="wine"} 2500.0\nOther{App="wine"} 1\nLiveSessions{App="other"} 3\nCertificateDays{Fleet="main"} 12.5\n'
    monkeypatch.setattr(host.program, "scraped", lambda _: text)
    agent = host.agent()
    agent.measure()
    agent.send()
    events = [json.loads(one) for one in host.arrived(host.group.replace("wine", "host"))]
    assert [{key: value for key, value in one.items() if key != "_aws"} for one in events] == [
        {"App": "wine", "PredictionLatency": 2500.0},
        {"Fleet": "main", "CertificateDays": 12.5},
    ]
    (about,) = events[0]["_aws"]["CloudWatchMetrics"]
    assert about == {"Namespace": host.namespace, "Dimensions": [["App"]], "Metrics": [{"Name": "PredictionLatency"}]}


@pytest.mark.parametrize(
    ("form", "text", "seconds"),
    [
        ("%Y-%m-%dT%H:%M:%S.%fZ", '{"ts":"2026-11-28T12:00:01.250Z"}', 1795867201.25),
        ("%Y-%m-%dT%H:%M:%S%z", '{"ts":"2026-11-28T13:00:01+01:00","epoch":1}', 1795867201.0),
        ("%Y/%m/%d %H:%M:%S", "2026/11/28 12:00:01 [error] 7#7: *1 connect() failed", 1795867201.0),
        ("%Y-%m-%dT%H:%M:%S.%fZ", "Traceback (most recent call last):", None),
        ("%Y-%m-%dT%H:%M:%S.%fZ", "2026-13-45T12:00:01.250Z", None),
    ],
)
def test_the_time_of_a_line_is_found(module: Any, form: str, text: str, seconds: float | None) -> None:
    assert module("pergola_agent").moment_of(form)(text) == seconds


@pytest.mark.parametrize(
    ("cgroup", "files", "percent"),
    [
        ("0::/system.slice/x.service", {"memory.max": "max", "memory.current": "1"}, 25.0),
        ("0::/c/system.slice/x.service", {"c/memory.max": "102400", "c/memory.current": "61440", "c/memory.stat": "anon 1\ninactive_file 10240"}, 50.0),
        ("3:memory:/d/system.slice/x.service", {"memory/d/memory.limit_in_bytes": "102400", "memory/d/memory.usage_in_bytes": "92160", "memory/d/memory.stat": "total_inactive_file 0"}, 90.0),
    ],
    ids=["machine", "container", "container of version 1"],
)  # fmt: skip
def test_memory_is_that_of_the_machine_or_of_the_container(
    module: Any, tmp_path: Path, cgroup: str, files: dict[str, str], percent: float
) -> None:
    content = {"proc/meminfo": "MemTotal: 400 kB\nMemAvailable: 300 kB\n", "proc/self/cgroup": f"9:cpu:/x\n{cgroup}\n"}
    for name, text in {**content, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert module("pergola_agent").memory(tmp_path) == percent


# ---------------------------------------------------------------- the feed


def entry(identifier: str, message: Any, **more: Any) -> dict[str, Any]:
    return {"SYSLOG_IDENTIFIER": identifier, "MESSAGE": message, "PRIORITY": "6", "__CURSOR": "c1", "__REALTIME_TIMESTAMP": "1795867201250000", **more}  # fmt: skip


@pytest.fixture
def lines(module: Any, tmp_path: Path) -> Any:
    feed = module("pergola_feed")
    return feed.Lines({**told("x")["feed"], "logs": str(tmp_path)}, tmp_path / "cursor", feed.Restarts())


def test_what_apps_write_stays_as_it_is_and_the_rest_becomes_json(lines: Any, tmp_path: Path) -> None:
    import logging

    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "gone wrong", None, None)
    written = JsonFormatter(app="wine", slot="a", release="1").format(record)
    lines.take(entry("pergola-api-wine-a", written))
    lines.take(entry("pergola-ui-wine-b", list("naïve".encode()), PRIORITY="3"))
    lines.take(entry("systemd", "pergola-api@wine-a.service: killed", UNIT="pergola-api@wine-a.service"))
    lines.take(entry("noise", "left out", PRIORITY="7"))
    lines.save()
    assert (tmp_path / "wine.log").read_text().splitlines()[0] == written
    second = json.loads((tmp_path / "wine.log").read_text().splitlines()[1])
    assert second == {"ts": "2026-11-28T12:00:01.250Z", "level": "error", "app": "wine", "slot": "b", "service": "ui", "message": "naïve"}  # fmt: skip
    (other,) = (json.loads(one) for one in (tmp_path / "host.log").read_text().splitlines())
    assert (other["service"], other["unit"], other["level"]) == ("systemd", "pergola-api@wine-a.service", "info")


def test_the_place_in_the_journal_is_kept_after_the_lines(lines: Any, module: Any, tmp_path: Path) -> None:
    lines.take(entry("pergola-api-wine-a", "{}", __CURSOR="c7"))
    assert not (tmp_path / "cursor").exists()
    lines.save()
    assert (tmp_path / "cursor").read_text() == "c7"
    again = type(lines)({**told("x")["feed"], "logs": str(tmp_path)}, tmp_path / "cursor", lines.restarts)
    assert again.cursor == "c7"


def test_files_do_not_grow(module: Any, tmp_path: Path) -> None:
    log = module("pergola_feed").Log(tmp_path / "a.log", limit=1000)
    for number in range(200):
        log.write(f"line {number:03} {'x' * 20}")
    log.flush()
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"a.log", "a.log.1"}
    assert max(sizes.values()) < 1100


class App:
    """An app's metrics on a unix socket."""

    def __init__(self, path: Path) -> None:
        self.text = ""
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = owner.text.encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
                pass

            def address_string(self) -> str:
                return "socket"

        self.server = UnixStreamServer(str(path), Handler)  # type: ignore[arg-type]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def numbers(module: Any, tmp_path: Path) -> Iterator[tuple[Any, App]]:
    """An app that counts, and the feed that looks at it."""
    served = App(tmp_path / "api")
    about = {
        "metrics": {"Latency": 60, "Errors": 300, "Depth": 60},
        "api": str(tmp_path / "api"),
        "screens": [],
        "sessions": "",
        "identifiers": [],
    }
    feed = module("pergola_feed")
    yield feed.Numbers({"apps": {"wine": about}, "certificate": "", "fleet": "main"}, feed.Restarts()), served
    served.server.shutdown()
    served.server.server_close()


def test_a_histogram_becomes_its_mean_a_counter_its_growth_and_a_restart_is_no_growth(numbers: Any) -> None:
    looks, served = numbers

    def look(now: float, count: int, total: int, errors: int) -> dict[str, float]:
        served.text = f'Latency_count{{le="1"}} {count}\nLatency_sum {total}\nErrors_total{{a="1"}} {errors}\nErrors_total{{a="2"}} 0\nDepth 7\n'
        looks.look(now)
        return {name: value for (name, _, _), value in looks.gauges.items() if name != "ServiceRestarts"}

    assert look(0, 100, 100_000, 5) == {"Errors": 0, "Depth": 7}, "what was before is nobody's"
    assert look(15, 110, 105_000, 6) == {"Latency": 500, "Errors": 1, "Depth": 7}
    assert look(30, 110, 105_000, 6)["Latency"] == 500, "still within its minute"
    assert "Latency" not in look(90, 110, 105_000, 6), "nothing was asked in the last minute: no value"
    assert look(100, 4, 4000, 2) == {"Latency": 1000, "Errors": 3, "Depth": 7}, "a new release counts from zero"
    assert look(700, 4, 4000, 2)["Errors"] == 0


def test_an_app_that_is_down_has_no_numbers_and_is_told_once(numbers: Any, capsys: Any) -> None:
    looks, served = numbers
    served.text = "Depth 7\n"
    looks.look(0)
    served.server.server_close()
    served.server.shutdown()
    looks.look(15)
    looks.look(30)
    assert looks.gauges == {("ServiceRestarts", "Fleet", "main"): 0}, "that is known without the app"
    assert capsys.readouterr().out.count("wine does not tell its numbers") == 1


def test_sessions_are_told_while_the_api_is_down(numbers: Any, tmp_path: Path) -> None:
    looks, served = numbers
    screen = App(tmp_path / "ui")
    screen.text = "active_sessions 3\n"
    looks.settings["apps"]["wine"] |= {"screens": [str(tmp_path / "ui")], "sessions": "/_stcore/metrics"}
    served.server.shutdown()
    served.server.server_close()
    looks.look(0)
    screen.server.shutdown()
    screen.server.server_close()
    assert looks.gauges["LiveSessions", "App", "wine"] == 3


def test_the_gauges_are_served_in_prometheus_format(numbers: Any, module: Any) -> None:
    looks, served = numbers
    served.text = "Depth 7\n"
    looks.look(0)
    serving: HTTPServer = module("pergola_feed").server(looks, 0)
    assert isinstance(serving, ThreadingHTTPServer)
    assert serving.server_address[0] == "127.0.0.1"
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    text = module("pergola_agent").scraped(f"127.0.0.1:{serving.server_address[1]}")
    serving.shutdown()
    serving.server_close()
    assert text == (
        '# TYPE Depth gauge\nDepth{App="wine"} 7.0\n# TYPE ServiceRestarts gauge\nServiceRestarts{Fleet="main"} 0\n'
    )


def test_services_that_end_by_themselves_are_counted_for_five_minutes(lines: Any, module: Any) -> None:
    program = module("pergola_feed")
    looks = program.Numbers(
        {"apps": {"wine": {"metrics": {}, "screens": []}}, "certificate": "", "fleet": "main"}, lines.restarts
    )

    def count() -> float:
        looks.look(0)
        return float(looks.gauges["ServiceRestarts", "Fleet", "main"])

    def happens(ago: float, unit: str = "pergola-ui@wine-b.service", **more: Any) -> None:
        said = {"UNIT": unit, "MESSAGE_ID": program.RESTART, "__REALTIME_TIMESTAMP": f"{(time.time() - ago) * 1e6:.0f}"}
        lines.take(entry("systemd", "Scheduled restart job, restart counter is at 1.", **{**said, **more}))

    assert count() == 0
    happens(301 / program.SPEED)
    assert count() == 0, "read again from the journal after a restart of the feed, and long over"
    happens(1)
    happens(1, unit="nginx.service")
    happens(1, MESSAGE_ID="7d4958e842da4a758f6c1cdc7b36dcc5")
    assert count() == 1
    lines.take(entry("pergola-ui-wine-b", "{}", MESSAGE_ID=program.RESTART, UNIT="pergola-ui@wine-b.service"))
    assert count() == 1, "an app cannot say it of itself"


def test_the_certificate_that_the_host_shows_is_watched(module: Any, tmp_path: Path) -> None:
    program, files = module("pergola_feed"), [str(tmp_path / name) for name in ("key.pem", "cert.pem")]
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-subj",
        "/CN=x",
        "-days",
        "30",
    ]
    subprocess.run([*make, "-keyout", files[0], "-out", files[1]], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files[1], files[0])
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as serving:
        serving.socket = context.wrap_socket(serving.socket, server_side=True)
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        looks = program.Numbers(
            {"apps": {}, "certificate": f"127.0.0.1:{serving.server_address[1]}", "fleet": "main"}, program.Restarts()
        )
        looks.look(0)
        serving.shutdown()
    assert looks.gauges["CertificateDays", "Fleet", "main"] == pytest.approx(30, abs=0.01)
    looks.look(15)
    assert ("CertificateDays", "Fleet", "main") in looks.gauges, "kept until it is looked at again"


def test_a_certificate_that_cannot_be_seen_is_not_told(module: Any) -> None:
    program = module("pergola_feed")
    looks = program.Numbers({"apps": {}, "certificate": "127.0.0.1:9", "fleet": "main"}, program.Restarts())
    looks.look(0)
    assert {metric for metric, _, _ in looks.gauges} == {"ServiceRestarts"}


# ---------------------------------------------------------------- AWS's own agent


def test_a_package_that_another_key_signed_is_refused(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real keys and signatures, served as the bucket does."""
    machine = subprocess.run(
        ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True
    ).stdout.strip()
    home, bucket = tmp_path / "gpg", tmp_path / "bucket"
    folder = bucket / "debian" / machine / "latest"
    home.mkdir(mode=0o700)
    folder.mkdir(parents=True)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--passphrase", "", "--yes"]

    def run(*words: str) -> str:
        return subprocess.run([*gpg, *words], check=True, capture_output=True, text=True).stdout

    package = folder / "amazon-cloudwatch-agent.deb"
    package.write_bytes(b"a package")
    prints = {}
    for name in ("ours", "other"):
        run("--quick-generate-key", name, "ed25519", "sign", "never")
        prints[name] = run("--list-keys", "--with-colons", name).split("fpr:::::::::")[1].split(":")[0]
        (bucket / f"{name}.gpg").write_text(run("--armor", "--export", name))
    run("--local-user", "ours", "--output", f"{package}.sig", "--detach-sign", str(package))
    url, program = bucket.as_uri(), module("agent_fetch")

    def fetched(key: str, fingerprint: str) -> int:
        monkeypatch.setattr(
            sys, "argv", ["agent_fetch", url, f"{url}/{key}.gpg", fingerprint, str(tmp_path / "kept.deb")]
        )
        return int(program.main())

    assert fetched("other", prints["other"]) == 1, "another key"
    assert fetched("ours", prints["other"]) == 1, "another fingerprint"
    assert not (tmp_path / "kept.deb").exists()
    assert fetched("ours", prints["ours"]) == 0
    assert (tmp_path / "kept.deb").read_bytes() == b"a package"
    package.write_bytes(b"a packagE")
    assert fetched("ours", prints["ours"]) == 1, "changed on the way"
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)


def test_the_service_runs_until_a_signal(host: Host) -> None:
    """The program itself, killed and started again: each line once."""
    (host.folder / "agent.json").write_text(json.dumps(host.config))
    text = (
        (ROOT / FILES[0] / "pergola_agent.py")
        .read_text()
        .replace("/etc/pergola/agent.json", str(host.folder / "agent.json"))
    )
    (host.folder / "pergola_agent.py").write_text(text)
    (host.folder / "user_data.py").write_text((ROOT / FILES[1] / "user_data.py").read_text())
    environment = {**os.environ, "STATE_DIRECTORY": str(host.folder), "REHEARSAL_SPEED": "50"}

    def started() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, str(host.folder / "pergola_agent.py")], env=environment)

    def until(number: int) -> None:
        deadline = time.monotonic() + 20
        while len(host.arrived()) < number:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    first = started()
    host.write(1, 2)
    until(2)
    first.terminate()
    assert first.wait(10) == 0
    host.write(3)
    second = started()
    until(3)
    second.terminate()
    assert second.wait(10) == 0
    assert host.arrived() == [line(1), line(2), line(3)]
