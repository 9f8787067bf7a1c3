"""The portal: what it says of apps that work, break, hang, or are not there."""

import asyncio
import datetime as dt
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi import FastAPI

from app.core import manifest, plan
from app.core.settings import clear_settings, get_settings
from app.portal import api, operation, site, watch
from app.portal.watch import State

ROOT = Path(__file__).resolve().parents[3]


class Apps:
    """Apps on unix sockets that answer what a test tells them to, and a plan that names them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plan = folder / "site.json"
        self.entries: list[dict[str, Any]] = []
        self.calendar: list[dict[str, Any]] = []
        self.answers: dict[str, dict[str, tuple[int, str, float]]] = {}
        self.asked: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def add(self, name: str, *, kinds: tuple[str, ...] = ("api", "ui"), path: str = "", **more: Any) -> None:
        self.entries.append(
            {
                "name": name,
                "title": name.title(),
                "summary": f"What {name} does.",
                "icon": "🍷",
                "path": path or f"/{name}/",
                "api_prefix": "" if path == "/" else f"/{name}/api",
                "kinds": list(kinds),
                "routes": {"api": str(self.folder / f"{name}.api"), "ui": str(self.folder / f"{name}.ui")},
                "manifest": {"api": {"health": "/healthz"}},
                **more,
            }
        )
        self.write()

    def write(self) -> None:
        self.plan.write_text(json.dumps({"environment": "production", "apps": self.entries, "calendar": self.calendar}))

    def serve(self, name: str, table: dict[str, tuple[int, str] | tuple[int, str, float]]) -> None:
        if name not in self.answers:
            coroutine = asyncio.start_unix_server(lambda r, w: self._answer(name, r, w), str(self.folder / name))
            asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)
        self.answers[name] = {path: (*row, 0.0)[:3] for path, row in table.items()}  # type: ignore[misc]

    async def _answer(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, target, _ = (await reader.readline()).decode().split(" ")
        while (await reader.readline()).strip():
            pass
        path = target.split("?")[0]
        self.asked.append(f"{name}{path}")
        status, body, seconds = self.answers[name].get(path, (404, "", 0.0))
        await asyncio.sleep(seconds)
        if status:  # 0: hang up
            writer.write(
                f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
            )
        writer.close()

    def good(self, name: str, kinds: tuple[str, ...] = ("api", "ui")) -> None:
        if "api" in kinds:
            self.serve(f"{name}.api", {"/health/status": (200, status_of(name))})
        if "ui" in kinds:
            self.serve(f"{name}.ui", screen_of(name))

    def close(self) -> None:
        async def end() -> None:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


def status_of(name: str, *, ready: bool = True) -> str:
    told = {"app": name, "release": "r42", "ready": ready, "requests": 1234567, "uptime_seconds": 5.0}
    return json.dumps(told | {"checks": {"reason": "postgresql://user:hunter2@db is down"}})


def screen_of(name: str, *, ready: bool = True) -> dict[str, tuple[int, str] | tuple[int, str, float]]:
    return {
        f"/{name}/_stcore/metrics": (200, "# TYPE active_sessions gauge\nactive_sessions 3\n# EOF\n"),
        f"/{name}/health/ready": (200 if ready else 503, json.dumps({"release": "r42", "reason": "hunter2"})),
    }


@pytest.fixture
def apps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Apps]:
    for name in list(os.environ):
        if name.startswith("PERGOLA_"):
            monkeypatch.delenv(name)
    made = Apps(tmp_path)
    monkeypatch.setenv("PERGOLA_APP", "portal")
    monkeypatch.setenv("PERGOLA_SLOT", "a")
    monkeypatch.setenv("PERGOLA_RELEASE", "p1")
    monkeypatch.setenv("PERGOLA_BASE_PATH", "/")
    monkeypatch.setenv("PERGOLA_SITE", str(made.plan))
    clear_settings()
    made.add("portal", kinds=("api",), path="/")
    yield made
    made.close()
    clear_settings()


THROUGH_NGINX = {"X-Forwarded-For": "192.0.2.1"}


def ask(*paths: str, app: FastAPI | None = None, **headers: str) -> list[httpx.Response]:
    made = app or api.build()

    async def go() -> list[httpx.Response]:
        transport = httpx.ASGITransport(made)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://host", headers=headers, timeout=30
        ) as client:
            return [await client.get(path) for path in paths]

    return asyncio.run(go())


def card(name: str) -> dict[str, Any]:
    (answer,) = ask("/api/apps")
    return next(view for view in answer.json()["apps"] if view["name"] == name)


def test_a_working_app_has_a_card_with_everything(apps: Apps) -> None:
    apps.add("wine")
    apps.good("wine")
    (answer,) = ask("/api/apps")
    told = answer.json()
    assert told["summary"] == "The app is working."
    assert told["state"] == "up"
    assert told["apps"] == [
        {
            "name": "wine",
            "title": "Wine",
            "summary": "What wine does.",
            "icon": "🍷",
            "url": "/wine/",
            "docs_url": "/wine/api/docs",
            "health_url": "/wine/api/health/status",
            "state": "up",
            "label": "Working",
            "reason": "",
            "release": "r42",
            "requests": 1234567,
            "sessions": 3,
            "services": [
                {"kind": "api", "name": "API", "state": "up", "label": "Working"},
                {"kind": "ui", "name": "Screen", "state": "up", "label": "Working"},
            ],
        }
    ]


def test_an_app_with_only_one_service(apps: Apps) -> None:
    apps.add("judge", kinds=("api", "worker"))
    apps.add("board", kinds=("ui",))
    apps.good("judge", ("api",))
    apps.good("board", ("ui",))
    judge, board = card("judge"), card("board")
    assert (judge["url"], judge["sessions"], judge["state"]) == ("/judge/api/docs", None, "up")
    assert (board["docs_url"], board["health_url"], board["requests"]) == ("", "/board/health/ready", None)
    assert board["release"] == "r42"


@pytest.mark.parametrize(
    ("api_answers", "ui_answers", "state", "reason"),
    [
        ({"/health/status": (200, status_of("wine", ready=False))}, screen_of("wine"), "degraded", "The API is not ready."),
        ({"/health/status": (200, status_of("wine"))}, screen_of("wine", ready=False), "degraded", "The screen does not run."),
        ({"/health/status": (500, "hunter2")}, screen_of("wine", ready=False), "broken", "The API reports an error. The screen does not run."),
        ({"/health/status": (200, "<html>hunter2")}, screen_of("wine"), "degraded", "something else than its state"),
        ({"/health/status": (200, "{}")}, screen_of("wine"), "degraded", "something else than its state"),
        ({"/health/status": (200, "[]")}, screen_of("wine"), "degraded", "something else than its state"),
        ({"/health/status": (0, "")}, screen_of("wine"), "degraded", "The API does not answer."),
        ({"/health/status": (0, "")}, {"/wine/_stcore/metrics": (0, "")}, "down", "The API does not answer. The screen does not answer."),
        ({"/health/status": (200, status_of("wine"))}, {"/wine/_stcore/metrics": (200, "nothing")}, "degraded", "The screen reports an error."),
        ({"/healthz": (200, "ok")}, screen_of("wine"), "up", ""),
        ({"/healthz": (500, "no")}, screen_of("wine"), "degraded", "The API reports an error."),
    ],
)  # fmt: skip
def test_every_way_to_fail_has_a_state_and_a_harmless_sentence(
    apps: Apps, api_answers: Any, ui_answers: Any, state: str, reason: str
) -> None:
    apps.add("wine")
    apps.serve("wine.api", api_answers)
    apps.serve("wine.ui", ui_answers)
    told = card("wine")
    assert told["state"] == state
    assert reason in told["reason"]
    assert (told["reason"] == "") is (state == "up")
    assert "hunter2" not in json.dumps(told)


def test_what_was_never_released_and_what_died(apps: Apps) -> None:
    apps.add("wine")
    assert (card("wine")["state"], card("wine")["reason"]) == ("absent", "No release of it is on this host yet.")
    for kind in ("api", "ui"):
        (apps.folder / f"wine.{kind}").touch()  # a path, and nobody listens
    assert card("wine")["state"] == "down"


def test_an_app_that_hangs_does_not_hold_up_the_page(apps: Apps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "FIRST_LOOK_SECONDS", 0.2)
    apps.add("slow")
    apps.add("wine")
    apps.good("wine")
    apps.serve("slow.api", {"/health/status": (200, status_of("slow"), 8.0)})
    apps.serve("slow.ui", screen_of("slow"))
    made = api.build()
    began = time.monotonic()
    (page,) = ask("/", app=made)
    assert time.monotonic() - began < 1.9
    assert re.search(r'data-app="slow" data-state="checking"', page.text)
    assert re.search(r'data-app="wine" data-state="up"', page.text)
    assert "Checking the apps." in page.text
    monkeypatch.setattr(watch, "ANSWER_SECONDS", 0.3)
    told = card("slow")
    assert told["state"] == "degraded"
    assert told["reason"] == "The API takes too long to answer."


def test_many_visitors_ask_an_app_once(apps: Apps) -> None:
    apps.add("wine")
    apps.good("wine")
    made = api.build()

    async def crowd() -> None:
        transport = httpx.ASGITransport(made)
        async with httpx.AsyncClient(transport=transport, base_url="http://host", timeout=30) as client:
            await asyncio.gather(*(client.get(path) for path in ["/", "/api/apps", "/health/status"] * 10))

    asyncio.run(crowd())
    assert sorted(apps.asked) == ["wine.api/health/status", "wine.ui/wine/_stcore/metrics", "wine.ui/wine/health/ready"]


def test_the_script_is_not_run_every_five_seconds_and_again_after_an_outage(
    apps: Apps, monkeypatch: pytest.MonkeyPatch
) -> None:
    apps.add("wine")
    apps.good("wine")
    moment = 1000.0
    monkeypatch.setattr(watch.time, "monotonic", lambda: moment)
    app = site.load(apps.plan).shown[0]

    async def go() -> None:
        nonlocal moment
        watcher = watch.Watcher((app,))
        runs = lambda: sum(line.endswith("health/ready") for line in apps.asked)  # noqa: E731 - a count, three times
        for _ in range(10):
            assert (await watcher.look(app)).state is State.UP
            moment += 5.5
        assert runs() == 1
        moment += 10
        await watcher.look(app)
        assert runs() == 2
        apps.serve("wine.ui", {})
        moment += 6
        assert (await watcher.look(app)).state is State.DEGRADED
        apps.good("wine")
        moment += 6
        assert (await watcher.look(app)).state is State.UP
        assert runs() == 3
        await watcher.close()

    asyncio.run(go())


def test_health_is_shallow_and_ready_is_deep(apps: Apps) -> None:
    apps.add("wine")
    apps.serve("wine.api", {"/health/status": (200, status_of("wine"))})
    apps.serve("wine.ui", screen_of("wine", ready=False))
    for path in ("/health", "/health/live"):
        (answer,) = ask(path, **THROUGH_NGINX)
        assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    assert apps.asked == []
    (host,) = ask("/health/ready", **THROUGH_NGINX)
    assert host.status_code == 503
    assert host.headers["content-type"] == "application/problem+json"
    assert host.json()["apps"] == {"wine": "degraded"}
    assert host.json()["detail"] == "Wine: The screen does not run."
    apps.good("wine")
    (host,) = ask("/health/ready", **THROUGH_NGINX)
    assert host.json() == {"status": "ready", "scope": "host", "apps": {"wine": "up"}}


def test_a_release_of_the_portal_does_not_wait_for_other_apps(apps: Apps) -> None:
    apps.add("wine")
    own, host, portal = ask("/health/ready", "/health/ready?scope=host", "/health/ready?scope=portal")
    assert (own.status_code, own.json()["scope"]) == (200, "portal")
    assert host.status_code == 503
    assert portal.status_code == 200
    (wrong,) = ask("/health/ready?scope=nonsense")
    assert wrong.status_code == 422


def test_status_lists_everything(apps: Apps) -> None:
    apps.add("wine")
    apps.good("wine")
    (answer,) = ask("/health/status")
    told = answer.json()
    assert (told["status"], told["environment"], told["release"]) == ("ready", "production", "p1")
    assert [view["name"] for view in told["apps"]] == ["wine"]


class Page(HTMLParser):
    """What a page loads, links and labels."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_loads_only_its_own_files_and_no_inline_code(apps: Apps) -> None:
    apps.add("wine", title='<script>alert("x")</script>', summary="Tom & Jerry's")
    apps.good("wine")
    made = api.build()
    (answer,) = ask("/", app=made)
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "&lt;script&gt;alert(" in answer.text
    assert "Tom &amp; Jerry" in answer.text
    page = Page(answer.text)
    assert all(script.get("src", "").startswith("/static/portal.js?v=") for script in page.all("script"))
    assert not any(key.startswith("on") or key == "style" for _, attributes in page.tags for key in attributes)
    assert page.all("style") == []
    for address in [entry["src"] for entry in page.all("script")] + [entry["href"] for entry in page.all("link")]:
        (file,) = ask(str(address), app=made)
        assert file.status_code == 200
        assert "immutable" in file.headers["cache-control"]
    (stale,) = ask("/static/portal.css?v=old", app=made)
    assert stale.headers["cache-control"] == "no-cache"


def test_the_page_can_be_read_aloud(apps: Apps) -> None:
    apps.add("wine")
    apps.good("wine")
    page = Page(ask("/")[0].text)
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    assert len(page.all("main")) == 1
    assert page.all("a")[0] == {"class": "skip", "href": "#content"}
    assert any(entry.get("role") == "status" for entry in page.all("p"))
    assert page.all("article") == [{"aria-labelledby": "app-wine"}]
    assert all(entry.get("aria-hidden") == "true" for entry in page.all("svg"))
    assert all(entry.get("aria-label") for entry in page.all("nav"))


def test_an_empty_host_says_how_to_begin(apps: Apps) -> None:
    (page,) = ask("/")
    assert page.status_code == 200
    assert "Nothing grows here yet" in page.text
    assert ask("/api/apps")[0].json()["summary"] == "There are no apps on this host yet."
    assert ask("/health/ready", **THROUGH_NGINX)[0].status_code == 200


@pytest.mark.parametrize(
    "broken", ["{", "[]", '{"apps": []}', '{"environment": "x", "apps": [{}]}', '{"environment": "x", "apps": 5}']
)
def test_a_broken_plan_is_a_page_and_a_problem_and_heals(
    apps: Apps, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = apps.plan.read_text()
    apps.plan.write_text(broken)
    made = api.build()
    page, listed, ready, live = ask("/", "/api/apps", "/health/ready", "/health", app=made)
    assert page.status_code == 503
    assert "The plan of this host cannot be read" in page.text
    assert str(apps.plan) not in page.text  # the address of a file is for the log
    assert listed.status_code == ready.status_code == 503
    assert listed.headers["content-type"] == "application/problem+json"
    assert live.status_code == 200
    apps.plan.write_text(good)
    monkeypatch.setattr(api, "QUICK_SECONDS", 0.0)
    assert ask("/", app=made)[0].status_code == 200


def test_a_new_plan_is_seen_without_a_restart(apps: Apps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "QUICK_SECONDS", 0.0)
    made = api.build()
    assert ask("/api/apps", app=made)[0].json()["apps"] == []
    apps.add("wine")
    assert [view["name"] for view in ask("/api/apps", app=made)[0].json()["apps"]] == ["wine"]


def test_a_wrong_address_is_a_page_for_people_and_a_problem_for_programs(apps: Apps) -> None:
    (page,) = ask("/nowhere", Accept="text/html,*/*")
    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "There is nothing at this address" in page.text
    for path, accept in (
        ("/nowhere", "*/*"),
        ("/api/nowhere", "text/html"),
        ("/static/../api.py", "*/*"),
        ("/static/api.py", "*/*"),
    ):
        (problem,) = ask(path, Accept=accept)
        assert (problem.status_code, problem.headers["content-type"]) == (404, "application/problem+json")
    assert ask("/favicon.ico")[0].headers["content-type"].startswith("image/svg")


def test_a_laptop_without_a_plan_shows_the_apps_of_the_project(apps: Apps, tmp_path: Path) -> None:
    found = site.load(tmp_path / "missing.json", root=ROOT)
    expected = sorted(path.parent.name for path in (ROOT / "app").glob("*/app.yml"))
    assert sorted(app.name for app in found.apps) == expected
    assert "portal" not in [app.name for app in found.shown]
    folder = tmp_path / "app" / "bad"
    folder.mkdir(parents=True)
    (folder / "app.yml").write_text("name: bad\ntitel: Bad\n")
    with pytest.raises(site.SiteError, match="apps/bad/title"):
        site.load(tmp_path / "missing.json", root=tmp_path)


def test_the_real_plan_is_understood(apps: Apps) -> None:
    told = plan.build(manifest.load_all(ROOT, ["portal"]))
    apps.plan.write_text(json.dumps(told))
    found = site.load(apps.plan)
    assert [app.name for app in found.apps] == ["portal"]
    assert found.apps[0].api == Path(told["apps"][0]["routes"]["api"])
    assert found.apps[0].is_portal
    assert get_settings().app == "portal"


def view(title: str, state: State) -> api.AppView:
    return api.AppView.model_construct(title=title, state=state)


@pytest.mark.parametrize(
    ("states", "sentence", "worst"),
    [
        ([], "There are no apps on this host yet.", State.ABSENT),
        ([State.UP, State.UP], "All 2 apps are working.", State.UP),
        ([State.UP, State.DOWN], "1 of 2 apps are working. B needs attention.", State.DOWN),
        (
            [State.ABSENT, State.DEGRADED, State.BROKEN],
            "0 of 3 apps are working. A, B and C need attention.",
            State.BROKEN,
        ),
        ([State.UP, State.CHECKING], "Checking the apps.", State.CHECKING),
    ],
)
def test_the_sentence_at_the_top(states: list[State], sentence: str, worst: State) -> None:
    views = [view("ABC"[n], state) for n, state in enumerate(states)]
    assert api._sentence(views) == sentence
    assert api._worst(views) is worst


def test_the_module_hands_out_its_app_by_name(apps: Apps) -> None:
    try:
        assert api.app is api.app
    finally:
        vars(api).pop("app", None)
    with pytest.raises(AttributeError):
        _ = api.nothing


# ---------------------------------------------------------------- the status page


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the commands of the host keep their state, and a folder for the portal's own record."""
    folder = tmp_path / "pergola"
    (folder / ".backup").mkdir(parents=True)
    (folder / ".host").mkdir()
    monkeypatch.setattr(operation, "HOST_STATE", folder)
    monkeypatch.setattr(operation, "_resources", lambda: iter(()))  # of the machine that runs the tests
    monkeypatch.setenv("PERGOLA_STATE_DIR", str(tmp_path / "state"))
    clear_settings()
    return folder


def ago(seconds: float) -> str:
    return dt.datetime.fromtimestamp(time.time() - seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


BACKUPS = [{"what": "database", "too_old_hours": 0.167}, {"what": "storage", "too_old_hours": 48.0}]


def tell(kept: Path, name: str, **told: Any) -> None:
    (kept / ".backup" / f"{name}.json").write_text(json.dumps(told))


def texts(app: FastAPI | None = None) -> list[tuple[bool, str]]:
    (answer,) = ask("/api/status", app=app)
    return [(alarm["urgent"], alarm["text"]) for alarm in answer.json()["alarms"]]


def test_the_status_page_tells_deploys_backups_and_the_drill(apps: Apps, kept: Path) -> None:
    apps.add("wine", backups=BACKUPS)
    apps.good("wine")
    (kept / ".host/wine.json").write_text(
        json.dumps({"live": {"since": "2026-01-31T04:05:06Z"}, "history": [{"by": "hunter2"}]})
    )
    tell(kept, "wine-database", time=ago(120), bytes=5)
    tell(kept, "wine-storage", time=ago(5 * 3600))
    tell(
        kept,
        "drill",
        time=ago(3 * 86400),
        good=True,
        rows=[{"rto_seconds": 2.5, "rpo_seconds": 30}, {"rto_seconds": 7, "rpo_seconds": 9}],
    )
    page, data = ask("/status", "/api/status")
    assert page.status_code == data.status_code == 200
    for text in (
        "Wine",
        "2026-01-31 04:05 UTC",
        "r42",
        "120 s ago",
        "5 h ago",
        "No alarm is open",
        "the slowest within 7 s",
        "3 days ago",
    ):
        assert text in page.text.replace("2 min ago", "120 s ago"), text
    assert "hunter2" not in page.text + data.text
    assert data.json()["drill"] == {
        "days": pytest.approx(3, abs=0.01),
        "good": True,
        "rto_seconds": 7.0,
        "rpo_seconds": 30.0,
    }
    assert [row["in_order"] for row in data.json()["apps"][0]["backups"]] == [True, True]


def test_maintenance_is_told_with_its_last_run_and_result(apps: Apps, kept: Path) -> None:
    apps.add("wine")
    apps.good("wine")
    apps.calendar = [
        {"name": name, "title": title, "limit_hours": 48.0}
        for name, title in (
            ("digest", "Log digest"),
            ("check", "Backups verified"),
            ("new", "Capacity report"),
            ("old", "Cost report"),
        )
    ]
    apps.write()
    (kept / ".jobs").mkdir()
    for name, told in {
        "digest": {"time": ago(3 * 3600), "good": True, "text": "4 errors in 2 apps"},
        "check": {"time": ago(7200), "good": False, "said": "hunter2"},
        "old": {"time": ago(9 * 86400), "good": True},
    }.items():
        (kept / ".jobs" / f"{name}.json").write_text(json.dumps(told))
    page, data = ask("/status", "/api/status")
    assert [row["in_order"] for row in data.json()["jobs"]] == [True, False, True, False]
    for text in ("3 h ago, in order", "4 errors in 2 apps", "2 h ago, failed", "not yet", "9 days ago, late"):
        assert text in page.text, text
    assert "hunter2" not in page.text + data.text
    assert texts() == [
        (False, "Maintenance: the last run of “Backups verified” failed."),
        (False, "Maintenance: “Cost report” has not run for too long."),
    ]


def test_what_is_not_in_order_is_an_alarm_and_the_urgent_come_first(apps: Apps, kept: Path) -> None:
    apps.add("wine", backups=BACKUPS)
    apps.serve("wine.api", {"/health/status": (0, "")})
    apps.serve("wine.ui", screen_of("wine"))
    tell(kept, "wine-database", time=ago(3600), failed={"reason": "hunter2"})
    tell(kept, "wine-storage", time=ago(60), shrunk=True, failed={"reason": "hunter2"})
    tell(kept, "drill", time=ago(60), good=False, rows=[])
    assert texts() == [
        (True, "Wine: The API does not answer."),
        (True, "Wine: the last backup of its database is too old."),
        (True, "Wine: the backup of its storage shrank to less than half."),
        (True, "The last drill found a backup that does not restore."),
        (False, "Wine: the last run of the backup of its storage failed."),
    ]


def test_what_was_never_backed_up_is_an_alarm_once_the_app_is_older_than_the_limit(apps: Apps, kept: Path) -> None:
    apps.add("wine", backups=BACKUPS)
    apps.good("wine")
    assert texts() == []
    (kept / ".host/wine.json").write_text(json.dumps({"live": {"since": ago(3600)}}))
    assert texts() == [(True, "Wine: its database was never backed up.")]


def test_a_drill_that_nobody_repeats_is_told(apps: Apps, kept: Path) -> None:
    tell(kept, "drill", time=ago(20 * 86400), good=True, rows=[])
    assert texts() == [(False, "The last drill of the backups was 20 days ago.")]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"time": 5, "live": 3}', '{"time": "never", "live": {"since": null}}']
)
def test_damaged_state_files_are_as_none(apps: Apps, kept: Path, content: str) -> None:
    apps.add("wine", backups=BACKUPS)
    apps.good("wine")
    for file in (".host/wine.json", ".backup/wine-database.json", ".backup/drill.json"):
        (kept / file).write_text(content)
    page, data = ask("/status", "/api/status")
    assert page.status_code == 200
    assert data.json()["alarms"] == []
    assert data.json()["drill"] is None


def test_uptime_is_the_share_of_good_looks_and_outlives_the_portal(
    apps: Apps, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apps.add("wine")
    apps.good("wine")
    monkeypatch.setattr(operation, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(watch, "QUICK_SECONDS", 0.0)

    async def live(seconds: float) -> None:
        app = api.build()
        async with app.router.lifespan_context(app):
            await asyncio.sleep(seconds)

    asyncio.run(live(0.5))
    (answer,) = ask("/api/status")
    assert answer.json()["apps"][0]["uptime_day"] == 1
    apps.serve("wine.api", {"/health/status": (500, "")})
    asyncio.run(live(0.5))
    (answer,) = ask("/api/status")
    assert 0 < answer.json()["apps"][0]["uptime_day"] < 1


def test_the_record_forgets_after_a_month_and_never_rounds_a_failure_away(apps: Apps, tmp_path: Path) -> None:
    apps.add("wine")
    shown = site.load(apps.plan).shown[0]
    record, now = operation.Record(tmp_path / "uptime.db"), 1_800_000_000.0
    good = watch.AppState(shown, {"api": watch.Service(State.UP)})
    bad = watch.AppState(shown, {"api": watch.Service(State.DOWN)})
    absent = watch.AppState(shown, {"api": watch.Service(State.ABSENT)})
    record.note([bad], now - 40 * 86400)
    record.note([bad], now - 25 * 86400)
    for number in range(300):
        record.note([good], now - number)
    record.note([absent], now)
    assert record.shares(operation.DAY_HOURS, now) == {"wine": 1.0}
    assert record.shares(operation.MONTH_HOURS, now) == {"wine": pytest.approx(300 / 301)}
    assert api._percent(299_999 / 300_000) == "99.99 %"
    assert api._percent(None) == "–"


def test_a_record_that_cannot_be_kept_is_no_reason_to_show_nothing(apps: Apps, kept: Path, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    apps.add("wine")
    apps.good("wine")
    page, data = ask("/status", "/api/status")
    assert page.status_code == 200
    assert data.json()["apps"][0]["uptime_day"] is None


def test_a_full_disk_of_an_apps_state_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wine").mkdir()

    class Usage(NamedTuple):
        total: int
        used: int
        free: int

    def usage(place: Path) -> Usage:
        if not Path(place).exists():
            raise FileNotFoundError(place)
        free = {tmp_path / "wine": 9}.get(Path(place), 60)
        return Usage(100, 100 - free, free)

    monkeypatch.setattr(operation, "HOST_STATE", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert "A disk is 91 % full." in [alarm.text for alarm in operation._resources()]
    monkeypatch.setattr(operation, "HOST_STATE", tmp_path / "none")
    assert not [alarm for alarm in operation._resources() if "disk" in alarm.text]
