"""Order, parts and reports of the whole test run.

``make test`` runs everything in a few processes side by side. What belongs to one place (the host, a molecule scenario) stays in
one process and in order; long places start first.
"""

from __future__ import annotations

import gc
import os
import ssl
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

from prober.hosts import ContainerHost

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = Path(os.environ.get("PERGOLA_SHARED_DATA", ROOT.parent / "shared" / "data"))

# Folders of tests that share one thing: the tests' own host, an emulated cloud. A molecule scenario shares nothing, and begins early: it is
# what takes longest after these.
PLACES = {"host": "host", "browser": "host", "deploys": "deploys", "rehearsal": "rehearsal"}

# Niceness of the other tests: a third of a processor's share for those of the clouds, which keep time too, and a tenth for the rest.
BEHIND = {"deploys": 5, "rehearsal": 5}
FAR_BEHIND = 10
HOST_SHARES = 8192  # of the host's container; every other one has 1024


def _part(nodeid: str) -> str:
    parts = nodeid.split("/")
    return parts[1] if len(parts) > 2 else "unit"


class PlaceScheduling(LoadScopeScheduling):
    """Hands out a place's tests to one process, in order, and every other test by itself.

    The places have most tests and so start first. (xdist's own groups read a test's id in a way that pytest 9.2 ended.)
    """

    def _split_scope(self, nodeid: str) -> str:
        return PLACES.get(_part(nodeid), nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> PlaceScheduling:
    """Schedule by place, whatever --dist says."""
    return PlaceScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what takes longest first."""
    order = {name: number for number, name in enumerate([*PLACES, "molecule", "lint"])}
    items.sort(key=lambda item: order.get(_part(item.nodeid), len(order)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave the processors to the host's tests, which begin first, take longest and have people's patience to keep."""
    part = _part(item.nodeid)
    if "PYTEST_XDIST_WORKER" in os.environ and PLACES.get(part) != "host":
        os.nice(max(0, BEHIND.get(part, FAR_BEHIND) - os.nice(0)))


def pytest_collection_finish() -> None:
    """Take what was imported out of Python's search for garbage, which Streamlit asks for after each run of a page: a third of the seconds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the parts of the run and the seconds they took."""
    seconds: dict[str, float] = defaultdict(float)
    count: dict[str, int] = defaultdict(int)
    for outcome in ("", "passed", "failed", "error", "skipped"):  # "": what was set up and taken down
        for report in terminalreporter.stats.get(outcome, []):
            if hasattr(report, "duration"):
                part = _part(report.nodeid)
                seconds[part] += report.duration
                count[part] += report.when == "call"
    terminalreporter.section("parts (seconds of work, side by side)")
    for part in sorted(seconds, key=lambda name: -seconds[name]):
        terminalreporter.write_line(f"{part:<12} {count[part]:>5} tests {seconds[part]:>8.1f} s")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real inputs; skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real inputs at {SHARED_DATA} (PERGOLA_SHARED_DATA names another folder)")
    return SHARED_DATA


class LocalHost(ContainerHost):
    """The host that the tests own: a container beside the one of `make up-local`, with ports of its own."""

    def __init__(self) -> None:
        # while writing tests one may use a host that runs already: PERGOLA_TEST_HOST=pergola-local:8443:8480
        self.given = "PERGOLA_TEST_HOST" in os.environ
        name, https, http = os.environ.get("PERGOLA_TEST_HOST", "pergola-test:18443:18480").split(":")
        super().__init__(name)
        self.https, self.http = int(https), int(http)
        self.url = f"https://127.0.0.1:{self.https}"

    @property
    def tls(self) -> ssl.SSLContext:
        """Return TLS settings that trust the certificate the host shows now and check its name."""
        return ssl.create_default_context(cadata=ssl.get_server_certificate(("127.0.0.1", self.https)))

    def get(self, path: str, timeout: float = 60) -> httpx.Response:
        """GET a path through nginx over a new connection."""
        return httpx.get(f"{self.url}{path}", verify=self.tls, timeout=timeout)

    def post(self, path: str, body: object, timeout: float = 60) -> httpx.Response:
        """POST JSON to a path through nginx over a new connection."""
        return httpx.post(f"{self.url}{path}", json=body, verify=self.tls, timeout=timeout)

    @property
    def environment(self) -> dict[str, str]:
        """Environment that makes scripts and playbooks use this host."""
        return {
            **os.environ,
            "PERGOLA_LOCAL_HOST": self.name,
            "PERGOLA_HTTPS_PORT": str(self.https),
            "PERGOLA_HTTP_PORT": str(self.http),
            "ANSIBLE_FORCE_COLOR": "0",
        }

    def run(self, *command: str, check: bool = True, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a command of the project against this host."""
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False, timeout=timeout
        )
        if check and done.returncode != 0:
            pytest.fail(
                f"{' '.join(command)} ended with {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
            )
        return done

    def site(self, *flags: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run site.yml on this host."""
        playbook = str(ROOT / ".venv/bin/ansible-playbook")
        port = f"nginx_public_port={self.https}"
        return self.run(playbook, "site.yml", "-i", "inventories/local", "-e", port, *flags, check=check)

    def wait(self, script: str, seconds: float, what: str) -> None:
        """Wait until a script on the host succeeds."""
        deadline = time.monotonic() + seconds
        while self.ask(script).returncode:
            if time.monotonic() > deadline:
                pytest.fail(f"{what} did not come within {seconds:.0f} s\n{self.journal()}")
            time.sleep(0.2)

    def journal(self, lines: int = 120) -> str:
        """Return the end of the host's journal, without the requests that were answered quickly and well."""
        quiet = """grep -vE '"status": [123].*"duration_ms": [0-9]{1,3}[.,]'"""
        return self.ask(f"journalctl --no-pager -o short-iso -n{lines * 100} | {quiet} | tail -n{lines}").stdout


@pytest.fixture(scope="session")
def local_host() -> Iterator[LocalHost]:
    """Give the tests' own host, made from nothing by the same script as `make up-local`."""
    host = LocalHost()
    if not host.given:
        host.run("scripts/local-host", "destroy")
        host.run("scripts/local-host", "up")
        # its visitors are counted: what other tests do beside it must not be what they wait for
        host.run("docker", "update", f"--cpu-shares={HOST_SHARES}", host.name)
        host.run("scripts/up", timeout=1800)
    yield host
    if not host.given:
        host.run("scripts/local-host", "destroy")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Add the host's journal to the report of a failed test."""
    outcome: Any = yield
    report = outcome.get_result()
    host = getattr(item, "funcargs", {}).get("local_host")
    if report.when == "call" and report.failed and host is not None:
        report.sections.append((f"journal of {host.name}", host.journal()))
