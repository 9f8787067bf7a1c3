"""Shared by all scenarios: ``host`` is each of the scenario's containers in turn, and a failed test shows its journal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import testinfra
import yaml

sys.path.insert(0, str(Path(__file__).parent / "shared" / "callback_plugins"))
import host_journal


def containers() -> list[str]:
    """Return the containers of this scenario, as molecule's inventory names them."""
    inventory = yaml.safe_load(Path(os.environ["MOLECULE_INVENTORY_FILE"]).read_text(encoding="utf-8"))
    return sorted(inventory["all"]["hosts"])


def connect(container: str) -> Any:
    """Return a host that is reached through `docker exec`, which is ten times as fast as through Ansible."""
    return testinfra.get_host(f"docker://{container}")


@pytest.fixture(scope="module", params=containers())
def host(request: pytest.FixtureRequest) -> Any:
    """Give each host in turn."""
    return connect(request.param)


@pytest.fixture
def neighbour(host: Any) -> Any:
    """Give another host of the scenario on the same network: what the firewall shows to the world."""
    others = [name for name in containers() if name != host.backend.name]
    if not others:
        pytest.skip("needs two hosts: run without --platform-name")
    return connect(others[0])


@pytest.fixture(scope="session")
def hosts() -> list[Any]:
    """Give all hosts, to tests that use ``play``."""
    return [connect(name) for name in containers()]


@pytest.fixture(scope="session")
def play() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs a playbook of the scenario on all hosts, side by side, with other variables."""

    def run(
        playbook: str = "converge.yml", *, flags: tuple[str, ...] = (), **variables: Any
    ) -> subprocess.CompletedProcess[str]:
        path = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"], playbook)
        inventory = os.environ["MOLECULE_INVENTORY_FILE"]
        return subprocess.run(
            ["ansible-playbook", *flags, "--inventory", inventory, "--extra-vars", json.dumps(variables), str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )

    return run


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Add the journals of the hosts to the report of a failed test."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.when != "call" or not report.failed:
        return
    arguments = getattr(item, "funcargs", {})
    for host in arguments.get("hosts") or [arguments.get("host")]:
        if host is not None:
            report.sections.append((f"journal of {host.backend.name}", host_journal.journal(host.backend.name)))
