"""Every role on real Debian hosts in containers: check, converge, idempotence, verify."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml"))


@pytest.mark.docker
@pytest.mark.timeout(2700)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario: str) -> None:
    log = ROOT / "build" / "test" / f"molecule-{scenario}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    bin_dir = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{bin_dir}:{os.environ['PATH']}", "NO_COLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
    # two checkouts on one machine must not remove each other's hosts
    environment["PERGOLA_NAME_SUFFIX"] = f"-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:6]}"
    # nor share what molecule keeps, which it files under the checkout folder's name
    environment["MOLECULE_EPHEMERAL_DIRECTORY"] = str(ROOT / "build" / "test" / "molecule" / scenario)
    with log.open("w", encoding="utf-8") as stream:
        done = subprocess.run(
            [bin_dir / "molecule", "test", "--scenario-name", scenario],
            cwd=ROOT, env=environment, stdout=stream, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    if done.returncode != 0:
        text = log.read_text(encoding="utf-8", errors="replace")
        pytest.fail(
            f"molecule test -s {scenario} ended with {done.returncode}; the end of {log.relative_to(ROOT)}:\n{text[-8000:]}"
        )
    # no subprocess, no test: a scenario whose sequence was emptied must not pass
    assert "converge" in log.read_text(encoding="utf-8", errors="replace")
