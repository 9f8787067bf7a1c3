"""The bench of deploys: its bad releases are bad in the way they say, and what it measures is what happens."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.core import manifest, migrate
from bench import bad_releases, deploys
from deploys import migrations
from tests.deploys.conftest import plain

KINDS = {kind.name: kind for kind in bad_releases.KINDS}


def test_there_are_ten_kinds_and_each_is_a_whole_app(tmp_path: Path) -> None:
    assert len(KINDS) == 10
    for number, kind in enumerate(bad_releases.KINDS):
        folder = bad_releases.copy("wine", tmp_path / str(number), "stamp", kind.change)
        assert manifest.load(folder).name == "wine", kind.name
        for name in ("api.py", "ui.py"):
            compile((folder / name).read_text(), name, "exec")
        same = [
            (folder / name).read_bytes() == (bad_releases.ROOT / "app/wine" / name).read_bytes()
            for name in ("api.py", "ui.py", "app.yml")
        ]
        added = (folder / "migrations").exists()
        assert all(same) is (kind.torn or added), f"{kind.name} changes nothing"


def test_the_wrong_port_is_asked_where_nobody_answers(tmp_path: Path) -> None:
    folder = bad_releases.copy("wine", tmp_path, "stamp", KINDS["wrong port"].change)
    assert manifest.load(folder).data["api"]["health"] == "/nowhere"


def app_with(text: str) -> TestClient:
    app = FastAPI()
    app.get("/")(lambda: "well")
    exec(text, {"app": app})  # noqa: S102 - what the bench appends to an app
    return TestClient(app)


def test_some_requests_fail() -> None:
    client = app_with(bad_releases.ERRORS.format(share=0.3))
    codes = [client.get("/").status_code for _ in range(200)]
    assert set(codes) == {200, 500}
    assert 20 < codes.count(500) < 100


def test_answers_are_late() -> None:
    client = app_with(bad_releases.LATENCY.format(seconds=0.2))
    began = time.monotonic()
    assert client.get("/").status_code == 200
    assert time.monotonic() - began >= 0.2


def test_a_crash_ends_the_process() -> None:
    text = bad_releases.CRASH.format(seconds=0.1) + "\nimport time\ntime.sleep(60)"
    assert subprocess.run([sys.executable, "-c", text], check=False, timeout=30).returncode == 3


def test_memory_leaks() -> None:
    text = bad_releases.LEAK.format(wait=0, megabytes=30) + (
        "\nimport resource, time\ntime.sleep(2.5)\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    found = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, timeout=30)
    assert int(found.stdout) > 70_000, "KiB: two or three times 30 MB, really written"


def test_the_migration_fails_and_not_by_the_check_of_deploys(tmp_path: Path) -> None:
    folder = bad_releases.copy("wine", tmp_path, "stamp", KINDS["failing migration"].change)
    versions = folder / "migrations" / "versions"
    (text,) = (path.read_text() for path in versions.glob("*.py"))
    assert list(migrations.findings(text)) == [], "it would be refused before it began"
    lines = [migrate.History("wine", versions, "alembic_version")]
    with pytest.raises(migrate.MigrationError, match="a_table_that_nobody_made"):
        migrate.upgrade(f"sqlite:///{tmp_path / 'wine.db'}", lines)


# ---------------------------------------------------------------- what is measured


def test_bars() -> None:
    bars = deploys.Bars()
    bars.hold("failed", 0, 0)
    bars.hold("requests", 20_000, 20_000, least=True)
    assert bars.missed == 0
    bars.hold("seconds", 5.1, 5)
    bars.hold("requests", 19_999, 20_000, least=True)
    assert bars.missed == 2
    assert [row[-1] for row in bars.rows] == ["held", "held", "MISSED", "MISSED"]


def test_medians_and_worst() -> None:
    assert deploys.summary([3, 1, 2]) == "2.0 / 3.0"
    assert deploys.summary([]) == "-"
    reports = [{"sent": 10, "failed": 1, "sockets_cut": 0, "longest_gap_seconds": gap} for gap in (0.1, 0.5, 0.2)]
    assert deploys.visitors_row("good", reports, [60, 70, 65]) == ["good", 3, 30, 3, 0, "0.2 / 0.5", "65.0 / 70.0"]


@pytest.mark.parametrize(
    ("reason", "weight"), [("taken back: at weight 50: in alarm: x", 50), ("taken back: not ready after 9 s", 0)]
)
def test_the_share_that_visitors_had(reason: str, weight: int) -> None:
    assert deploys.highest_weight(deploys.Outcome(1, 1.0, [], {"msg": reason})) == weight


def test_parts_are_those_that_can_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert deploys.arguments([]).parts == list(deploys.PARTS)
    assert deploys.arguments(["--no-bodies"]).parts == list(deploys.BODILESS)
    assert deploys.arguments(["--parts", "bad,times"]).parts == ["bad", "times"]
    for wrong in (["--parts", "god"], ["--no-bodies", "--parts", "bad"], ["--repeat", "0"]):
        with pytest.raises(SystemExit):
            deploys.arguments(wrong)
    assert "there are killed, times" in capsys.readouterr().err


class Emulated:
    """The environment of these tests as a ground of the bench."""

    def __init__(self, environment: Any) -> None:
        self.environment = environment

    def describe(self, number: int) -> dict[str, Any]:
        spec = self.environment.spec(f"release {number % 2}", lease_seconds=2, bake_seconds=0.5)
        return dict(json.loads(json.dumps(plain(spec))))

    def engine(self) -> Any:
        return self.environment.quiet()


def test_each_point_of_a_deploy_comes(environment: Any) -> None:
    done = deploys.command("deploy", Emulated(environment).describe(1))
    assert (done.code, done.result["changed"]) == (0, True)
    assert len(deploys.POINTS) == 12
    seconds = [done.at(point.pattern) for point in deploys.POINTS]
    assert None not in seconds, done.lines
    assert seconds == sorted(seconds, key=float), "in this order"


def test_a_killed_deploy_is_clean_after_a_second_run(environment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploys, "POINTS", [point for point in deploys.POINTS if point.name == "weight 50, watched"])
    bars = deploys.Bars()
    ((name, dead, clean, _, wrong),) = deploys.killed(Emulated(environment), 1, bars)
    assert (name, dead, clean, wrong) == ("weight 50, watched", "1 of 1", "1 of 1", "")
    assert bars.missed == 0
    history = environment.quiet().store.history()
    assert sorted(row["ended"] for row in history) == ["live", "taken back"]


def test_what_is_unclean_is_seen(environment: Any) -> None:
    ground = Emulated(environment)
    description = ground.describe(1)
    assert "another release" in deploys.unclean(ground.engine(), description)
    deploys.command("deploy", description)
    assert deploys.unclean(ground.engine(), description) == ""
    ground.engine().store.write(deploys.CURRENT, {"fleets": {}})
    assert deploys.unclean(ground.engine(), description) == "a deploy is still under way"
