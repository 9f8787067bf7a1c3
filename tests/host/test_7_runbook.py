"""The runbook cannot rot: its commands are run on a host, and those for AWS agree with their playbooks."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest

from tests.conftest import ROOT, LocalHost

pytestmark = [pytest.mark.host, pytest.mark.timeout(900)]
PAGE = (ROOT / "docs" / "RUNBOOK.md").read_text(encoding="utf-8")
BOX = re.compile(r"^### (?P<title>.+?)\n(?P<text>.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```sh (?P<where>host|control|cloud)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = [
    (box["title"], code["where"], line)
    for box in BOX.finditer(PAGE)
    for code in CODE.finditer(box["text"])
    for line in code["text"].splitlines()
]
BIN = ROOT / ".venv/bin"


def of(where: str) -> list[pytest.param]:  # type: ignore[valid-type]
    return [pytest.param(line, id=f"{title}: {line[:40]}") for title, place, line in COMMANDS if place == where]


@pytest.mark.parametrize("command", of("host"))
def test_a_command_on_a_host_works(local_host: LocalHost, command: str) -> None:
    done = local_host.ask(f"bash -c {shlex.quote(command)}")
    # a search that finds nothing in a journal ends with 1 and says nothing
    nothing = "--grep" in command and done.returncode == 1 and not done.stderr.strip()
    assert done.returncode == 0 or nothing, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("command", of("control"))
def test_a_command_at_the_desk_works(local_host: LocalHost, command: str) -> None:
    program, *rest = shlex.split(command)
    extra = ["-e", f"nginx_public_port={local_host.https}"] if "site.yml" in command else []
    local_host.run(str(BIN / program), *rest, *extra)


@pytest.mark.parametrize("command", of("cloud"))
def test_a_command_for_aws_agrees_with_its_playbook(command: str) -> None:
    program, playbook, *rest = shlex.split(command)
    assert program == "ansible-playbook"
    done = subprocess.run(
        [BIN / program, playbook, *rest, "--syntax-check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = (ROOT / playbook).read_text(encoding="utf-8")
    for variable in re.findall(r"-e (\w+)=", command):
        assert re.search(rf"\b{variable}\b", text), f"{playbook} knows no variable {variable}"


def test_every_alarm_has_its_page() -> None:
    table = (ROOT / "docs" / "MONITORING.md").read_text(encoding="utf-8").split("## Alarms", 1)[1].split("## ", 1)[0]
    names = [
        name for row in re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)
    ]
    assert len(names) > 8
    titles = {box["title"] for box in BOX.finditer(PAGE)}
    missing = [name for name in names if not any(title in name for title in titles) and "<metric>" not in name]
    assert missing == []
