"""Shared by all scenarios: ``host`` is each of the scenario's containers in turn, and a failed test shows its journal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
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


@pytest.fixture(scope="module", params=containers())
def host(request: pytest.FixtureRequest) -> Any:
    """Give a host through `docker exec`, which is ten times as fast as through Ansible."""
    return testinfra.get_host(f"docker://{request.param}")


@pytest.fixture
def neighbour(host: Any) -> Any:
    """Give another host of the scenario on the same network: what the firewall shows to the world."""
    others = [name for name in containers() if name != host.backend.name]
    if not others:
        pytest.skip("needs two hosts: run without --platform-name")
    return testinfra.get_host(f"docker://{others[0]}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Add the host's journal to the report of a failed test."""
    outcome: Any = yield
    report = outcome.get_result()
    host = getattr(item, "funcargs", {}).get("host")
    if report.when == "call" and report.failed and host is not None:
        report.sections.append((f"journal of {host.backend.name}", host_journal.journal(host.backend.name)))
