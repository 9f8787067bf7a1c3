"""The plan of a host: whatever apps it has, nothing in it clashes."""

import copy
import itertools
import json
import operator
import random
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core import ladder, manifest, plan
from app.core.manifest import Manifest
from tests.modules import loaded

ROOT = Path(__file__).resolve().parents[2]


def made(name: str, **extra: Any) -> Manifest:
    raw = {"name": name, "title": name, "summary": "x", "api": {"app": f"app.{name}.api:app"}, **extra}
    return manifest.check({key: value for key, value in raw.items() if value is not None}, folder=Path("/apps") / name)


WINE = made(
    "wine",
    ui={"script": "app/wine/ui.py"},
    limits={"upload": "20M", "request_seconds": 60, "cpu": 1.5, "memory": "1G"},
    env={"WINE": "1"},
)
PORTAL = made("portal", path="/")


def app(built: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in built["apps"] if one["name"] == name)


# ---------------------------------------------------------------- what stands in it


def test_locations_are_sorted_longest_path_first() -> None:
    locations = plan.build([PORTAL, WINE])["locations"]
    assert [(one["path"], one["app"], one["kind"]) for one in locations] == [
        ("/wine/api/", "wine", "api"),
        ("/wine/", "wine", "ui"),
        ("/", "portal", "api"),
    ]
    api, ui, root = locations
    assert api == {
        "app": "wine",
        "kind": "api",
        "path": "/wine/api/",
        "strip": "/wine/api/",
        "upstream": "wine_api",
        "cookie": None,
        "websocket": False,
        "body_bytes": 20 * 2**20,
        "read_seconds": 60,
        "access": "public",
        "public": [],
        "login": "/wine/api/auth/login",
    }
    assert (ui["upstream"], ui["cookie"], ui["strip"], ui["websocket"]) == ("wine_ui", "pergola_slot_wine", None, True)
    assert (root["strip"], root["read_seconds"]) == (None, 30)


def test_a_screen_waits_as_long_as_its_longest_request() -> None:
    def read(seconds: int) -> int:
        one = made("a", api=None, ui={"script": "app/a/ui.py"}, limits={"request_seconds": seconds})
        return int(plan.build([one])["locations"][0]["read_seconds"])

    assert read(30) == ladder.compute([30]).websocket_read_seconds
    assert read(900) == 900


def test_upstreams_and_maps_of_an_app_with_a_screen() -> None:
    built = plan.build([WINE])
    route = "/run/pergola/route/wine"
    assert built["upstreams"] == [
        {"name": "wine_api", "servers": [{"socket": f"{route}/api", "backup": False}] * 2},
        {"name": "wine_ui_live", "servers": [{"socket": f"{route}/ui", "backup": False}] * 2},
        {
            "name": "wine_ui_a",
            "servers": [{"socket": f"{route}/ui-a", "backup": False}, {"socket": f"{route}/ui", "backup": True}],
        },
        {
            "name": "wine_ui_b",
            "servers": [{"socket": f"{route}/ui-b", "backup": False}, {"socket": f"{route}/ui", "backup": True}],
        },
    ]
    assert built["maps"] == [
        {
            "variable": "wine_ui",
            "cookie": "pergola_slot_wine",
            "default": "wine_ui_live",
            "a": "wine_ui_a",
            "b": "wine_ui_b",
        }
    ]


def test_an_app_of_the_plan() -> None:
    wine = app(plan.build([WINE], environment="staging"), "wine")
    assert (wine["user"], wine["root"], wine["state_dir"]) == (
        "pergola-wine",
        "/opt/pergola/wine",
        "/var/lib/pergola/wine",
    )
    assert (wine["kinds"], wine["path"], wine["api_prefix"]) == (["api", "ui"], "/wine/", "/wine/api")
    assert (wine["memory_bytes"], wine["upload_bytes"], wine["cpu_percent"]) == (2**30, 20 * 2**20, 150)
    assert (wine["graceful_seconds"], wine["stop_seconds"], wine["request_seconds"]) == (65, 75, 60)
    assert wine["private_network"] is True
    assert wine["slots"]["a"] == {
        "link": "/opt/pergola/slots/wine-a",
        "api_unit": "pergola-api@wine-a.service",
        "api_socket_unit": "pergola-api@wine-a.socket",
        "api_socket": "/run/pergola/sock/wine-a.api.sock",
        "ui_unit": "pergola-ui@wine-a.service",
        "ui_socket_unit": "pergola-ui@wine-a.socket",
        "ui_socket": "/run/pergola/sock/wine-a.ui.sock",
    }
    assert wine["environment"] == {
        "PERGOLA_APP": "wine",
        "PERGOLA_ENV": "staging",
        "APP_ENVIRONMENT": "staging",
        "PERGOLA_BASE_PATH": "/wine/",
        "PERGOLA_API_PREFIX": "/wine/api",
        "PERGOLA_STATE_DIR": "/var/lib/pergola/wine",
        "PERGOLA_STORAGE": "file:///var/lib/pergola/wine/storage",
        "PERGOLA_DATABASE_URL": "sqlite:////var/lib/pergola/wine/core.db",
        "PERGOLA_SITE": "/etc/pergola/site.json",
        "PERGOLA_ASGI": "app.wine.api:app",
        "GUNICORN_CMD_ARGS": "--workers=1 --timeout=65 --graceful-timeout=65 --keep-alive=5",
        "WINE": "1",
    }


@pytest.mark.parametrize(
    ("database", "url"),
    [
        ("none", "sqlite:////var/lib/pergola/wine/core.db"),
        ("sqlite", "sqlite:////var/lib/pergola/wine/wine.db"),
        ("postgresql", "postgresql+psycopg2:///pergola_wine?host=/run/postgresql"),
    ],
)
def test_the_database_of_an_app(database: str, url: str) -> None:
    built = plan.build([made("wine", database=database)])
    assert built["apps"][0]["environment"]["PERGOLA_DATABASE_URL"] == url


def test_the_app_at_the_root_watches_the_others() -> None:
    built = plan.build([PORTAL, WINE])
    assert (app(built, "portal")["watches_others"], app(built, "wine")["watches_others"]) == (True, False)
    assert app(built, "portal")["environment"]["PERGOLA_API_PREFIX"] == ""


def test_who_needs_a_network_gets_one() -> None:
    assert plan.build([made("a")])["apps"][0]["private_network"] is True
    assert plan.build([made("a", network="outbound")])["apps"][0]["private_network"] is False
    assert plan.build([made("a", buckets=["data"])])["apps"][0]["private_network"] is False
    # the metadata service is for what reaches a bucket of AWS
    for storage, asks in ((None, False), ("s3://data", True)):
        apps = plan.build([made("a", buckets=["data"]), made("b")], storage=storage)["apps"]
        assert [app["asks_metadata"] for app in apps] == [asks, False]


def test_the_packages_an_app_asks_for_reach_the_role() -> None:
    assert plan.build([made("a")])["apps"][0]["packages"] == []
    assert plan.build([made("a", packages=["git"])])["apps"][0]["packages"] == ["git"]


def test_a_worker_has_no_socket() -> None:
    slot = plan.build([made("a", worker={"module": "app.a.w"})])["apps"][0]["slots"]["b"]
    assert slot["worker_unit"] == "pergola-worker@a-b.service"
    assert "worker_socket" not in slot
    assert "worker_socket_unit" not in slot


def test_the_plan_holds_nothing_of_the_control_nodes_folders() -> None:
    assert "/apps" not in json.dumps(plan.build([WINE, PORTAL]))


def test_a_tiny_share_of_a_processor_is_not_nothing() -> None:
    assert plan.build([made("a", limits={"cpu": 0.001})])["apps"][0]["cpu_percent"] == 1


# ---------------------------------------------------------------- what is refused


def test_two_apps_at_one_location_are_both_named() -> None:
    one, two = made("wine", path="/shop/"), made("ava", path="/shop/")
    expected = "locations: /shop/api/ belongs to both ava (api) and wine (api); give one app another path"
    for pair in ((one, two), (two, one)):
        with pytest.raises(plan.PlanError) as caught:
            plan.build(pair)
        assert str(caught.value) == expected


def test_a_broken_ladder_is_refused_with_every_rung() -> None:
    with pytest.raises(plan.PlanError) as caught:
        plan.build([WINE], drain_seconds=-1, deregistration_seconds=10, balancer_idle_seconds=50)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("timeouts: ") for line in lines)


@pytest.mark.parametrize("key", ["drain_seconds", "balancer_idle_seconds", "deregistration_seconds"])
def test_seconds_may_come_from_a_command_line_as_text(key: str) -> None:
    """``--extra-vars pergola_drain_seconds=600`` hands a text over."""
    text: dict[str, Any] = {key: "900"}
    number: dict[str, Any] = {key: 900}
    assert plan.build([WINE], **text) == plan.build([WINE], **number)


@pytest.mark.parametrize("value", ["soon", "", "1.5", 1.5, True, [], "-5 ", "٣"], ids=repr)
def test_what_are_no_seconds_is_named(value: Any) -> None:
    with pytest.raises(plan.PlanError, match=r"^drain_seconds: expected a whole number of seconds such as 900, got "):
        plan.build([WINE], drain_seconds=value)


@pytest.mark.parametrize("value", ["", "Production", "a b", "x\n", "x" * 40, 5], ids=repr)
def test_what_is_no_environment_is_named(value: Any) -> None:
    with pytest.raises(plan.PlanError, match=r"^environment: expected a name such as production, got "):
        plan.build([WINE], environment=value)


# ---------------------------------------------------------------- properties

letters, more = "abcxyz", "abcxyz0189"
names = st.builds(operator.add, st.sampled_from(letters), st.text(more, max_size=15)).filter(
    lambda name: name not in manifest.RESERVED_NAMES
)
paths = st.builds("/{}{}/".format, st.sampled_from(more), st.text(f"{more}-", max_size=30))
envs = st.dictionaries(
    st.text("ABC09_", max_size=6).map("X_{}".format),
    st.text(st.characters(blacklist_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20),
    max_size=3,
)
limits = st.fixed_dictionaries(
    {},
    optional={
        "memory": st.sampled_from(["1M", "512M", "999999G"]),
        "cpu": st.floats(0.001, 64),
        "tasks": st.integers(16, 4096),
        "upload": st.sampled_from(["1K", "10M", "2G"]),
        "request_seconds": st.integers(1, 3600),
    },
)


@st.composite
def hosts(draw: st.DrawFn) -> list[Manifest]:
    """Any valid set of apps: names and paths are distinct, one of them may be at ``/``."""
    apps = []
    chosen = draw(st.lists(names, min_size=1, max_size=6, unique=True))
    own = draw(st.lists(paths, min_size=len(chosen), max_size=len(chosen), unique=True))
    default = [draw(st.booleans()) for _ in chosen]
    at_root = draw(st.none() | st.sampled_from(chosen))
    for name, path, by_name in zip(chosen, own, default, strict=True):
        has_ui = name != at_root and draw(st.booleans())
        raw: dict[str, Any] = {"name": name, "title": name, "summary": "x", "limits": draw(limits), "env": draw(envs)}
        if has_ui:
            raw["ui"] = {"script": f"app/{name}/ui.py"}
        if not has_ui or draw(st.booleans()):
            raw["api"] = {"app": f"app.{name}.api:app", "workers": draw(st.integers(1, 32))}
        if draw(st.booleans()):
            raw["worker"] = {"module": f"app.{name}.worker"}
        raw["database"] = draw(st.sampled_from(["none", "sqlite", "postgresql"]))
        raw["path"] = "/" if name == at_root else f"/{name}/" if by_name else path
        apps.append(raw)
    taken = Counter(raw["path"] for raw in apps)
    apps = [raw for raw in apps if taken[raw["path"]] == 1 and raw["path"] not in manifest.RESERVED_PATHS] or [
        {"name": "a", "title": "a", "summary": "a", "api": {"app": "a:a"}}
    ]
    return [manifest.check(raw, folder=Path("/apps") / raw["name"]) for raw in apps]


def unique(values: Iterable[Any]) -> bool:
    return max(Counter(values).values(), default=1) == 1


def texts(value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield key
            yield from texts(child)
    elif isinstance(value, list):
        for child in value:
            yield from texts(child)
    elif isinstance(value, str):
        yield value


@given(hosts())
@settings(max_examples=50, deadline=None)
def test_nothing_clashes_in_any_plan(apps: list[Manifest]) -> None:
    built = plan.build(apps)
    slots = [slot for one in built["apps"] for slot in one["slots"].values()]
    for ending in ("_unit", "_socket_unit", "_socket"):
        found = [value for slot in slots for key, value in slot.items() if key.endswith(ending)]
        assert unique(found), ending
    assert unique(slot["link"] for slot in slots)
    for key in ("user", "root", "state_dir", "path", "name"):
        assert unique(one[key] for one in built["apps"])
    assert unique(route for one in built["apps"] for route in one["routes"].values())
    assert unique(one["path"] for one in built["locations"])
    assert unique(one["name"] for one in built["upstreams"])
    assert unique(one["variable"] for one in built["maps"])
    assert unique(one["cookie"] for one in built["maps"])
    # nginx knows upstreams and the map's variables by one name in proxy_pass
    assert unique([*(one["name"] for one in built["upstreams"]), *(one["variable"] for one in built["maps"])])


@given(hosts())
@settings(max_examples=25, deadline=None)
def test_names_fit_where_they_go(apps: list[Manifest]) -> None:
    built = plan.build(apps)
    for one in built["apps"]:
        assert len(one["user"]) <= 31, "useradd allows 32 characters with the ending NUL"
        for slot in one["slots"].values():
            for key, value in slot.items():
                if key.endswith("_socket"):
                    assert len(value.encode()) <= 107, "a unix socket's path"
                elif key.endswith("_unit"):
                    assert re.fullmatch(r"pergola-(api|ui|worker)@[a-z][a-z0-9]*-[ab]\.(service|socket)", value)
        assert all(len(route.encode()) <= 107 for route in one["routes"].values())
        assert not any("\n" in value for value in one["environment"].values())
    assert not any("\n" in text or "\0" in text for text in texts(built))
    assert json.loads(json.dumps(built, allow_nan=False)) == built, "the plan is plain data"


@given(hosts())
@settings(max_examples=25, deadline=None)
def test_a_request_meets_the_most_specific_location(apps: list[Manifest]) -> None:
    """The web server takes the longest prefix; whoever reads the list from its start finds the same one."""
    locations = plan.build(apps)["locations"]
    assert [len(one["path"]) for one in locations] == sorted((len(one["path"]) for one in locations), reverse=True)
    for one in locations:
        asked = f"{one['path']}some/page"
        first = next(other for other in locations if asked.startswith(other["path"]))
        longest = max(
            (other for other in locations if asked.startswith(other["path"])), key=lambda other: len(other["path"])
        )
        assert first is longest is one
        assert one["path"].startswith("/")
        assert one["path"].endswith("/")
        assert "//" not in one["path"]


@given(hosts())
@settings(max_examples=25, deadline=None)
def test_every_name_leads_somewhere(apps: list[Manifest]) -> None:
    built = plan.build(apps)
    upstreams = {one["name"] for one in built["upstreams"]}
    variables = {one["variable"]: one for one in built["maps"]}
    routes = {route for one in built["apps"] for route in one["routes"].values()}
    for location in built["locations"]:
        if location["kind"] == "api":
            assert location["upstream"] in upstreams
        else:
            chosen = variables[location["upstream"]]
            assert {chosen["default"], chosen["a"], chosen["b"]} <= upstreams
            assert chosen["cookie"] == location["cookie"]
    for upstream in built["upstreams"]:
        assert {server["socket"] for server in upstream["servers"]} <= routes
        assert len(upstream["servers"]) == 2, "a GET that meets a dying worker is tried once more"
        assert not upstream["servers"][0]["backup"]


@given(hosts(), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_the_order_of_apps_does_not_matter(apps: list[Manifest], chance: random.Random) -> None:
    shuffled = copy.copy(apps)
    chance.shuffle(shuffled)
    assert json.dumps(plan.build(apps)) == json.dumps(plan.build(shuffled))


@given(hosts())
@settings(max_examples=25, deadline=None)
def test_the_ladder_of_any_plan_holds(apps: list[Manifest]) -> None:
    built = plan.build(apps)
    rungs = ladder.Ladder(**built["ladder"])
    assert ladder.broken_rungs(rungs) == []
    for one in built["apps"]:
        assert one["request_seconds"] < one["graceful_seconds"] < one["stop_seconds"]
    for location in built["locations"]:
        assert location["read_seconds"] >= app(built, location["app"])["request_seconds"]


@given(hosts(), hosts())
@settings(max_examples=20, deadline=None)
def test_two_sets_together_give_a_plan_or_name_both_apps(one: list[Manifest], two: list[Manifest]) -> None:
    together = [*one, *two]
    findings = list(manifest._clashes(together))
    clash = any(a.name == b.name or a.path == b.path for a, b in itertools.combinations(together, 2))
    assert bool(findings) == clash
    if clash:
        assert all(re.match(r"apps/[a-z0-9]+", finding) for finding in findings)
    else:
        plan.build(together)


# ---------------------------------------------------------------- the filter


@pytest.fixture(scope="module")
def plugin() -> ModuleType:
    return loaded("plugins/filter/pergola.py")


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "hello"
    folder.mkdir()
    raw = {"name": "hello", "title": "Hello", "summary": "x", "api": {"app": "app.hello.api:app"}}
    (folder / "app.yml").write_text(yaml.safe_dump(raw))
    return {"path": str(folder)}


def test_the_filter_gives_the_plan(plugin: ModuleType, elsewhere: dict[str, str]) -> None:
    filters = plugin.FilterModule().filters()
    built = filters["pergola_plan"]([elsewhere], environment="staging", drain_seconds=60)
    assert [one["name"] for one in built["apps"]] == ["hello"]
    assert (built["environment"], built["ladder"]["drain_seconds"]) == ("staging", 60)


def test_the_filter_fails_with_every_finding(plugin: ModuleType, elsewhere: dict[str, str]) -> None:
    file = Path(elsewhere["path"], "app.yml")
    file.write_text(file.read_text() + "databse: x\nlimits: {cpu: 0}\n")
    with pytest.raises(AnsibleFilterError) as caught:
        plugin.pergola_plan([elsewhere, "nosuchapp"])
    for expected in (
        "apps/hello/databse: unknown key, did you mean 'database'?",
        "apps/hello/limits/cpu: ",
        "apps/nosuchapp: there is no such app",
    ):
        assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("apps", "site"), [("portal", {}), (None, {}), ([], {"drain_seconds": "x"}), ([], {"environment": ""})]
)
def test_the_filter_refuses_wrong_arguments_in_a_sentence(plugin: ModuleType, apps: Any, site: dict[str, Any]) -> None:
    with pytest.raises(AnsibleFilterError, match="expected a"):
        plugin.pergola_plan(apps, **site)


def test_the_open_paths_of_a_protected_app() -> None:
    one = made("demo", ui={"script": "app/demo/ui.py"}, access="protected", public_paths=["", "about", "api/v1/open/"])
    api, ui = plan.build([one])["locations"]
    assert api["public"] == ["/demo/api/auth/", "/demo/api/health", "/demo/api/health/", "/demo/api/v1/open/"]
    assert {"/demo/", "/demo/about", "/demo/_stcore/"} <= set(ui["public"])
    assert not any(path.startswith("/demo/api/") for path in ui["public"])
    assert api["login"] == ui["login"] == "/demo/api/auth/login"
