"""The same commands as on a fleet, on a host that Ansible talks to."""

from __future__ import annotations

import subprocess

import pytest

from tests.conftest import ROOT, LocalHost

pytestmark = [pytest.mark.host, pytest.mark.timeout(900)]


def play(local_host: LocalHost, name: str, *flags: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    line = [str(ROOT / ".venv/bin/ansible-playbook"), f"playbooks/{name}.yml", "-i", "inventories/local"]
    return local_host.run(*line, "-e", f"nginx_public_port={local_host.https}", *flags, check=check)


def told(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join((done.stdout + done.stderr).replace("|", " ").split())


def test_deploy_and_rollback_move_between_the_slots(local_host: LocalHost) -> None:
    before = local_host.app("wine")["release"]
    new = local_host.install_changed("wine", lambda folder: (folder / "new.txt").write_text("new") and None)
    local_host.pergola("deploy", "wine", new)
    play(local_host, "rollback", "-e", "app=wine")
    assert local_host.app("wine")["release"] == before
    play(local_host, "rollback", "-e", "app=wine", "-e", f"release={new}")
    assert local_host.app("wine")["release"] == new
    shown = told(play(local_host, "history"))
    assert f"rollback {new} -> live" in shown
    assert new in told(play(local_host, "status"))
    play(local_host, "deploy")
    assert local_host.app("wine")["release"] == before, "what this checkout has"


@pytest.mark.parametrize(
    ("name", "flags", "says"),
    [
        ("rollback", [], "Say which: -e app=<app>"),
        ("rollback", ["-e", "app=beer"], "portal has "),
        ("rollback", ["-e", "app=all", "-e", "release=abc"], "Say which: -e app=<app>"),
        ("deploy", ["-e", "release=abc"], "playbooks/rollback.yml -e app=<app> -e release=<id>"),
        ("release", [], "local is not on AWS and has no artefact bucket"),
    ],
)
def test_what_cannot_be_done_here_says_what_can(local_host: LocalHost, name: str, flags: list[str], says: str) -> None:
    before = local_host.app("wine")["release"]
    done = play(local_host, name, *flags, check=False)
    assert done.returncode != 0
    assert says in told(done)
    assert local_host.app("wine")["release"] == before
