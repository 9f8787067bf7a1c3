"""The saved queries: CloudWatch would take them, they ask for fields that the logs have, and find in real lines what they are for."""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib
import json
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from fastapi import Response
from hypothesis import given
from hypothesis import strategies as st

from app.core import cloud, manifest, plan
from app.core.api import create_api
from app.core.logs import JsonFormatter
from app.core.settings import Settings
from tests import insights

ROOT = Path(__file__).resolve().parents[3]
PATHS = {path.stem: path for path in sorted((ROOT / "files" / "queries").glob("*.txt"))}
QUERIES = {name: path.read_text(encoding="utf-8") for name, path in PATHS.items()}
BUILT = {"@timestamp", "@message", "@logStream"}  # what CloudWatch adds to each event
WORDS = [*insights.PLAIN, *insights.AGGREGATE]


def program(name: str) -> ModuleType:
    """Import a program that stands alone on a host."""
    folders = [str(ROOT / "roles" / role / "files") for role in ("aws_fleet", "cloudwatch_agent")]
    sys.path[:0] = folders
    try:
        return importlib.import_module(name)
    finally:
        del sys.path[:2]


FEED, AGENT = program("pergola_feed"), program("pergola_agent")
START = dt.datetime(2026, 11, 28, 12, tzinfo=dt.UTC)


def event(text: str, stream: str, seconds: float = 0) -> dict[str, Any]:
    """Return a log event as Insights sees it: the fields of its JSON, and CloudWatch's own."""
    try:
        fields = json.loads(text)
    except ValueError:
        fields = {}
    stamp = int((START + dt.timedelta(seconds=seconds)).timestamp() * 1000)
    return {**fields, "@timestamp": stamp, "@message": text, "@logStream": stream}


# ---------------------------------------------------------------- lines as they are written


@pytest.fixture(scope="module")
def app_lines() -> list[str]:
    """What app.core.logs writes while an API is asked: answers, a failure, a slow one."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(JsonFormatter(app="wine", slot="a", release="r1").format(record))

    api = create_api("Wine", settings=Settings(app="wine"))  # whatever app's tests ran before in this process

    @api.get("/countries")
    def countries() -> list[str]:
        return ["FR"]

    @api.get("/slow")
    async def slow() -> Response:
        await asyncio.sleep(1.05)
        return Response("late")

    @api.get("/boom")
    def boom() -> None:
        raise RuntimeError("gone wrong")

    async def ask() -> None:
        transport = httpx.ASGITransport(api, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for path in ("/countries", "/countries", "/slow", "/boom", "/health"):
                await client.get(path, headers={"X-Request-ID": f"test{path.replace('/', '-')}"})

    kept, root = Kept(), logging.getLogger()
    root.addHandler(kept)
    try:
        asyncio.run(ask())
    finally:
        root.removeHandler(kept)
    return lines


def nginx(**values: Any) -> str:
    """Return an access line in the format of nginx's template."""
    template = (ROOT / "roles/nginx/templates/nginx.conf.j2").read_text(encoding="utf-8")
    form = "".join(
        re.findall(
            r"'([^'\n]*)'",
            re.search(r"log_format pergola escape=json((?:\s*'[^']*')+);", template.replace("!&'()", "!&()"))[1],
        )
    )  # type: ignore[index]
    about = {"status": 200, "msec": "1795867200.000", "request_length": 100, "bytes_sent": 200, "request_time": "0.010",
             "request_method": "GET", "pergola_app": "wine", "pergola_kind": "ui", "time_iso8601": "2026-11-28T12:00:00+00:00", **values}  # fmt: skip
    return re.sub(r"\$(\w+)", lambda found: str(about.get(found[1], "")), form)


def system(message: str, service: str = "systemd", unit: str = "") -> str:
    """Return a line of the host's log as pergola-feed writes it."""
    entry = {"MESSAGE": message, "UNIT": unit, "__REALTIME_TIMESTAMP": "1795867200000000"}
    return str(FEED.line_of(entry, None, service, "info"))


def gauges() -> list[str]:
    """Return what the agent sends of a host's gauges."""
    wine = manifest.load_all(ROOT, ["wine"])
    told = plan.build(wine, agent={"project": "pergola", "region": "us-east-1"})["agent"]
    processor = told["config"]["logs"]["metrics_collected"]["prometheus"]["emf_processor"]
    text = 'LiveSessions{App="wine"} 7.0\nPredictionLatency{App="wine"} 12.5\nCertificateDays{Fleet="main"} 80.0\n'
    return list(AGENT.embedded(text, processor, 1795867200000))


@pytest.fixture(scope="module")
def events(app_lines: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Log groups with what was written into them."""
    unit = "pergola-api@wine-a.service"
    later = json.dumps({**json.loads(app_lines[0]), "release": "r2", "slot": "b"})
    hosts = [
        *(event(nginx(request_time=seconds, pergola_path="/wine/"), "i-1/nginx") for seconds in ("0.010", "0.020", "0.900")),
        event(nginx(request_time="60.0", http_upgrade="websocket"), "i-1/nginx"),
        *(event(nginx(status=status, pergola_path="/wine/api/predict", pergola_kind="api"), "i-1/nginx") for status in (502, 200, 200)),
        *(event(nginx(status=status, pergola_path="/wine/static/a.js"), "i-1/nginx") for status in (200, 304, 304, 304)),
        event(nginx(status=503, pergola_path="/health", remote_addr="10.0.0.1"), "i-2/nginx"),
        event("2026/11/28 12:00:01 [error] 7#7: *1 connect() failed", "i-1/nginx-errors"),
        event(system(f"Starting {unit} - Pergola wine-a API...", unit=unit), "i-1/system", 1),
        event(system(f"Started {unit} - Pergola wine-a API.", unit=unit), "i-1/system", 3.5),
        event(system(f"{unit}: A process of this unit has been killed by the OOM killer.", unit=unit), "i-1/system", 5),
        event(system(f"{unit}: Scheduled restart job, restart counter is at 1.", unit=unit), "i-1/system", 6),
        event(system("Out of memory: Killed process 4711 (python)", service="kernel"), "i-1/system", 5),
        event(system("Startup finished in 4s."), "i-2/system", 400),
        *(event(line, "i-1/metrics") for line in gauges()),
    ]  # fmt: skip
    return {"apps": [*(event(line, "i-1/app") for line in app_lines), event(later, "i-1/app", 60)], "host": hosts}


# ---------------------------------------------------------------- what they find


def one(rows: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    """Return the one row with these values."""
    found = [row for row in rows if wanted.items() <= row.items()]
    assert len(found) == 1, rows
    return found[0]


def errors(rows: list[dict[str, Any]]) -> None:
    (row,) = rows
    assert (row["app"], row["level"], row["request_id"]) == ("wine", "error", "test-boom")
    assert "RuntimeError: gone wrong" in row["exception"]


def response_times(rows: list[dict[str, Any]]) -> None:
    row = one(rows, app="wine", kind="ui")
    assert row["requests"] == 8, "the WebSocket is none"
    assert row["longest"] == 0.9
    assert row["p50"] == 0.01


def slowest_paths(rows: list[dict[str, Any]]) -> None:
    assert rows[0]["route"] == "/slow"
    assert rows[0]["p95_ms"] > 1000
    assert one(rows, route="/countries")["calls"] == 3


def health_checks(rows: list[dict[str, Any]]) -> None:
    assert rows == [
        {"status": 503, "path": "/health", "@logStream": "i-2/nginx", "refused": 1, "last": 1795867200000.0}
    ]


def scaling(rows: list[dict[str, Any]]) -> None:
    assert [(row["hosts"], row["lines"]) for row in sorted(rows, key=lambda row: row["bin(5m)"])] == [(1, 5), (1, 1)]


def api_calls(rows: list[dict[str, Any]]) -> None:
    assert (rows[0]["route"], rows[0]["method"], rows[0]["calls"], rows[0]["clients"]) == ("/countries", "GET", 3, 1)


def start_up_time(rows: list[dict[str, Any]]) -> None:
    (row,) = rows
    assert (row["unit"], row["seconds"], row["lines"]) == ("pergola-api@wine-a.service", 2.5, 2)


def memory(rows: list[dict[str, Any]]) -> None:
    assert {row["service"] for row in rows} == {"systemd", "kernel"}
    assert len(rows) == 2


def sessions(rows: list[dict[str, Any]]) -> None:
    (row,) = rows
    assert (row["App"], row["most"]) == ("wine", 7)


def deployments(rows: list[dict[str, Any]]) -> None:
    assert [(row["release"], row["slot"]) for row in rows] == [("r2", "b"), ("r1", "a")]


def error_rate(rows: list[dict[str, Any]]) -> None:
    (row,) = rows
    assert (row["requests"], row["failed"]) == (12, 2)
    assert row["percent"] == pytest.approx(100 / 6)


def errors_and_restarts(rows: list[dict[str, Any]]) -> None:
    (row,) = rows
    assert (row["errors"], row["restarts"]) == (1, 1)


def slow_requests(rows: list[dict[str, Any]]) -> None:
    (row,) = rows
    assert (row["path"], row["status"], row["request_id"]) == ("/slow", 200, "test-slow")


def cache_hits(rows: list[dict[str, Any]]) -> None:
    assert rows == [{"app": "wine", "answers": 4, "hits": 3, "percent": 75}]


FOUND: dict[str, Callable[[list[dict[str, Any]]], None]] = {
    check.__name__.replace("_", "-"): check
    for check in (errors, response_times, slowest_paths, health_checks, scaling, api_calls, start_up_time, memory, sessions,
                  deployments, error_rate, errors_and_restarts, slow_requests, cache_hits)
}  # fmt: skip


def test_there_are_fourteen() -> None:
    assert set(FOUND) == set(QUERIES)
    assert len(QUERIES) == 14


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_finds_what_it_is_for(name: str, events: dict[str, list[dict[str, Any]]]) -> None:
    asked = QUERIES[name].splitlines()[1].removeprefix("# logs: ").split(", ")
    rows = insights.run(insights.parse(QUERIES[name]), [row for part in asked for row in events[part]])
    FOUND[name](rows)


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_asks_for_fields_that_the_logs_have(name: str, events: dict[str, list[dict[str, Any]]]) -> None:
    asked = QUERIES[name].splitlines()[1].removeprefix("# logs: ").split(", ")
    known = {field for part in asked for row in events[part] for field in row} | BUILT
    assert insights.parse(QUERIES[name]).names() - known == set()


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_says_what_it_is_for_and_whose_logs_it_asks(name: str) -> None:
    about, asked, *_ = QUERIES[name].splitlines()
    assert re.fullmatch(r"# [A-Z].*\.", about)
    assert re.fullmatch(r"# logs: (apps|host|apps, host)", asked)


def test_the_plan_has_each_with_its_log_groups() -> None:
    built = cloud.build({}, manifest.load_all(ROOT, ["portal", "wine"]), environment="test", account="123456789012")[
        "monitoring"
    ]
    found = {row["name"]: row for row in built["queries"]}
    assert set(found) == {f"pergola-test/{name}" for name in QUERIES}
    assert all(name.startswith(built["query_prefix"]) for name in found)
    assert found["pergola-test/errors"]["log_groups"] == ["/pergola/test/portal", "/pergola/test/wine"]
    assert found["pergola-test/memory"]["log_groups"] == ["/pergola/test/host"]
    assert {name for row in found.values() for name in row["log_groups"]} <= {
        row["name"] for row in built["log_groups"]
    }
    assert all(len(row["query"]) <= 10_000 for row in found.values()), "CloudWatch's limit"


# ---------------------------------------------------------------- the parser itself


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("fields @timestamp | fliter a = 1", "expected fields or filter"),
        ('filter level = "error', "at: '\"error'"),
        ("filter a like x", "expected a regular expression"),
        ("stats percentile(a, 95)", "a function that we do not know: percentile"),
        ("filter a in [1, 2", "expected ]"),
        ("sort", "expected name"),
        ("limit many", "expected number"),
        ("fields a b", "expected | or the end"),
        ("fields (a + 1", "expected )"),
    ],
)
def test_what_is_no_query_is_refused_with_the_place(text: str, complaint: str) -> None:
    with pytest.raises(insights.QueryError, match=re.escape(complaint)):
        insights.parse(text)


@pytest.mark.parametrize(
    ("condition", "row", "holds"),
    [
        ('a = "1"', {"a": 1}, True),
        ("a > 9", {"a": "10"}, True),
        ('a != "x"', {}, True),
        ("a < 1", {}, False),
        ("not a = 1 and b = 2", {"a": 2, "b": 2}, True),
        ("(a = 1 or b = 2) and c = 3", {"a": 1, "c": 4}, False),
        ("a = 1 or b = 2 and c = 3", {"a": 1, "c": 4}, True),
        ("(a + 1) * 2 = 6", {"a": 2}, True),
        (r"path like /^\/a\/(b|c)$/", {"path": "/a/c"}, True),
        ('a in ["x", 2]', {"a": "2"}, True),
        ("ispresent(a)", {"a": 0}, True),
    ],
)
def test_conditions(condition: str, row: dict[str, Any], holds: bool) -> None:
    assert bool(insights.run(insights.parse(f"filter {condition}"), [row])) is holds


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40))
def test_aggregates_agree_with_plain_python(values: list[float]) -> None:
    query = insights.parse(
        "stats count(*) as n, sum(x) as total, avg(x) as mean, min(x) as low, max(x) as high, pct(x, 50) as half"
    )
    (row,) = insights.run(query, [{"x": value, "@timestamp": 0} for value in values])
    assert (row["n"], row["low"], row["high"]) == (len(values), min(values), max(values))
    assert row["total"] == pytest.approx(sum(values))
    assert row["mean"] == pytest.approx(sum(values) / len(values))
    assert row["low"] <= row["half"] <= row["high"]
