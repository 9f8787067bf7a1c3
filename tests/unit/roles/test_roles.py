"""What every role keeps to: a checked interface, documentation made from it, tasks that say what will be true."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.core import cloud, manifest

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted(path.parent.parent for path in ROOT.glob("roles/*/meta/main.yml"))
CLOUD_ROLES = [path for path in ROLES if path.name.startswith("aws_")]  # rehearsed by tests/rehearsal, not by molecule
HOST_ROLES = [path for path in ROLES if path not in CLOUD_ROLES]
# What a task may have besides its module.
KEYWORDS = {
    "any_errors_fatal", "args", "async", "become", "become_user", "changed_when", "check_mode", "connection", "delay",
    "delegate_to", "diff", "environment", "failed_when", "ignore_errors", "listen", "loop", "loop_control", "name",
    "no_log", "notify", "poll", "register", "retries", "run_once", "tags", "throttle", "timeout", "until", "vars",
    "when",
}  # fmt: skip
BLOCKS = ("block", "rescue", "always")


def load(path: Path) -> Any:
    """Return the YAML file ``path``, or None when there is none."""
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None


def options(role: Path) -> dict[str, Any]:
    """Return the variables that the role's argument_specs declare."""
    return load(role / "meta" / "argument_specs.yml")["argument_specs"]["main"].get("options") or {}


def defaults(role: Path) -> dict[str, Any]:
    """Return the role's defaults."""
    return load(role / "defaults" / "main.yml") or {}


def tasks(role: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give all tasks and handlers of the role, those in blocks too, with the place where each stands."""
    files = [*role.glob("tasks/**/*.yml"), *role.glob("handlers/**/*.yml")]
    waiting = [(str(path.relative_to(ROOT)), task) for path in sorted(files) for task in load(path) or []]
    while waiting:
        place, task = waiting.pop(0)
        inner = [(place, each) for key in BLOCKS for each in task.get(key) or []]
        waiting[:0] = inner
        yield place, task


def test_there_are_roles() -> None:
    assert {role.name for role in ROLES} >= {"baseline", "nginx", "apps", "postgresql", "backup"}


@pytest.fixture(params=ROLES, ids=lambda role: role.name)
def role(request: pytest.FixtureRequest) -> Path:
    """Give each role in turn."""
    path: Path = request.param
    return path


def test_defaults_and_argument_specs_have_the_same_variables(role: Path) -> None:
    optional = {name for name, option in options(role).items() if not option.get("required")}
    assert set(defaults(role)) == optional


def test_a_default_in_the_specs_is_the_default(role: Path) -> None:
    specified = {name: option["default"] for name, option in options(role).items() if "default" in option}
    assert specified == {name: defaults(role).get(name) for name in specified}


def test_every_variable_has_a_type_and_says_what_it_is(role: Path) -> None:
    waiting = list(options(role).items())
    while waiting:
        name, option = waiting.pop()
        assert option.get("type"), f"{name} has no type"
        assert option.get("description"), f"{name} has no description"
        assert option["type"] != "list" or option.get("elements"), f"{name} does not say what its elements are"
        waiting += (option.get("options") or {}).items()


def test_every_default_stands_under_a_comment_that_says_why_one_would_change_it(role: Path) -> None:
    silent = []
    commented = False
    for line in (role / "defaults" / "main.yml").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            commented = True
        elif not line:  # a comment serves the variables up to the next empty line
            commented = False
        elif (match := re.match(r"([a-z_]+):", line)) and not commented:
            silent.append(match[1])
    assert silent == []


def test_variables_carry_the_name_of_their_role(role: Path) -> None:
    foreign = [name for name in options(role) if not name.startswith(f"{role.name}_")]
    assert foreign == []
    private = load(role / "vars" / "main.yml") or {}
    registered = [name for _, task in tasks(role) if (name := task.get("register"))]
    facts = [name for _, task in tasks(role) for name in task.get("ansible.builtin.set_fact") or {}]
    exposed = [name for name in [*private, *registered, *facts] if not name.startswith(f"__{role.name}_")]
    assert [name for name in exposed if name != "cacheable"] == []


def test_every_task_has_a_name_and_the_full_name_of_its_module(role: Path) -> None:
    faults = []
    for place, task in tasks(role):
        name = task.get("name", "")
        if not re.match(r"[A-Z]", name):
            faults.append(f"{place}: a task without a name, or with one that is no sentence: {name or task}")
        modules = [key for key in task if key not in KEYWORDS and not key.startswith("with_")]
        if set(modules) & set(BLOCKS):
            continue
        ours = {path.stem for path in [*ROOT.glob("plugins/modules/*.py"), *role.glob("library/*.py")]}
        if len(modules) != 1 or (modules[0].count(".") < 2 and modules[0] not in ours):
            faults.append(f"{place}: {name}: not one module by its full name, but {', '.join(modules) or 'none'}")
    assert faults == []


def test_a_role_reads_no_private_variable_of_another(role: Path) -> None:
    others = [other.name for other in ROLES if other != role]
    files = [
        path
        for folder in ("tasks", "handlers", "templates", "vars", "defaults")
        for path in role.glob(f"{folder}/**/*")
    ]
    reads = [
        f"{path.relative_to(ROOT)} reads {name}"
        for path in files
        if path.is_file()
        for name in re.findall(r"\b__[a-z0-9_]+", path.read_text(encoding="utf-8"))
        if any(name.startswith(f"__{other}_") for other in others)
    ]
    assert reads == []


@pytest.mark.parametrize("role", CLOUD_ROLES, indirect=True, ids=lambda role: role.name)
def test_a_cloud_role_gets_each_of_its_variables_from_the_plan(role: Path) -> None:
    given = load(ROOT / "playbooks" / "vars" / f"{role.name}.yml")
    section = role.name.removeprefix("aws_")
    wanted = {name for name in options(role) if not name.endswith("_hide")}  # a switch for finding faults, not a plan
    assert given == {name: f"{{{{ cloud.{section}.{name.removeprefix(f'{role.name}_')} }}}}" for name in wanted}
    plan = cloud.build({}, manifest.load_all(ROOT, ["portal", "wine"]))[section]
    assert {name.removeprefix(f"{role.name}_") for name in given} <= set(plan)
    assert f"role: {role.name}," in (ROOT / "playbooks" / "cloud.yml").read_text(encoding="utf-8")


@pytest.mark.parametrize("role", HOST_ROLES, indirect=True, ids=lambda role: role.name)
def test_every_role_of_hosts_has_a_scenario_that_checks_converges_and_verifies(role: Path) -> None:
    """One of its own, or a file of tests in that of a role that it works with."""
    own = ROOT / "molecule" / role.name
    guests = [path.parents[1] for path in (ROOT / "molecule").glob(f"*/tests/test_{role.name}.py")]
    scenario = own if own.is_dir() else next(iter(guests), own)
    assert load(scenario / "molecule.yml"), f"{scenario.name}/molecule.yml is missing or empty"
    applied = (scenario / "converge.yml").read_text(encoding="utf-8")
    assert re.search(rf"(?:role|name): {role.name}$", applied, re.MULTILINE), f"{scenario.name}/converge.yml lacks it"
    assert list(scenario.glob("tests/test_*.py")), f"molecule/{scenario.name}/tests has no test"


def test_the_shared_sequence_previews_before_it_changes_and_changes_nothing_twice() -> None:
    sequence = load(ROOT / ".config" / "molecule" / "config.yml")["scenario"]["test_sequence"]
    kept = [step for step in sequence if step in {"create", "check", "converge", "idempotence", "verify"}]
    assert kept == ["create", "check", "converge", "idempotence", "verify"]
