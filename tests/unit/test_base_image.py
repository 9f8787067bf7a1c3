"""`scripts/base-image` builds once, says what it does, and names the fix when it cannot."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "cat", "cut", "env", "mktemp", "rm", "sed", "sh", "sha256sum", "tee")

# Stands for the docker client: keeps a list of images in a file, and a log of what it was asked.
DOCKER = r"""#!/usr/bin/env bash
set -eu
state=$(dirname "$0")
echo "$*" >>"$state/log"
case "$1 ${2:-}" in
  'version '*)
    [ -e "$state/down" ] && { echo 'Cannot connect to the Docker daemon' >&2; exit 1; }
    echo amd64 ;;
  'image inspect') grep -qx -- "$3" "$state/images" ;;
  'tag '*) echo "$3" >>"$state/images" ;;
  'pull '*) exit 1 ;;
  'import '*) [ -s "${!#}" ] || exit 1; echo sha256:made ;;
  *) exit 64 ;;
esac
"""
MMDEBSTRAP = """#!/usr/bin/env bash
echo "$*" >>"$(dirname "$0")/mmdebstrap-log"
[ -e "$(dirname "$0")/broken" ] && { echo 'E: no mirror' >&2; exit 25; }
echo 'a root file system'
"""


class Machine:
    """A machine that has just the programs of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for tool in TOOLS:
            self._link(tool)
        self.put("unshare", "#!/bin/sh\n")
        (folder / "images").touch()

    def _link(self, tool: str) -> None:
        found = subprocess.run(["which", tool], capture_output=True, text=True, check=True).stdout.strip()
        (self.folder / tool).symlink_to(found)

    def put(self, name: str, text: str) -> None:
        for tool in ("dirname", "grep"):
            if not (self.folder / tool).exists():
                self._link(tool)
        (self.folder / name).write_text(text, encoding="utf-8")
        (self.folder / name).chmod(0o755)

    def images(self) -> list[str]:
        return (self.folder / "images").read_text(encoding="utf-8").split()

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.folder), "HOME": os.environ.get("HOME", "/"), **variables}
        return subprocess.run(
            [str(ROOT / "scripts" / "base-image"), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.put("docker", DOCKER)
    made.put("mmdebstrap", MMDEBSTRAP)
    return made


def test_it_builds_once_and_gives_the_name(machine: Machine) -> None:
    first = machine.run("trixie")
    assert first.returncode == 0, first.stderr
    assert first.stdout == "pergola/base:trixie\n"
    assert "building" in first.stderr
    fingerprinted, plain = machine.images()
    assert plain == "pergola/base:trixie"
    assert fingerprinted.startswith("pergola/base:trixie-")

    second = machine.run("trixie")
    assert second.stdout == first.stdout
    assert f"{fingerprinted} is up to date" in second.stderr
    built = (machine.folder / "mmdebstrap-log").read_text(encoding="utf-8").splitlines()
    # without a mirror mmdebstrap takes Debian's own, with updates and security
    assert [line.split()[-2:] for line in built] == [["trixie", "-"]]


def test_another_mirror_is_another_image(machine: Machine) -> None:
    machine.run("trixie")
    machine.run("trixie", PERGOLA_DEBIAN_MIRROR="http://mirror.example.org/debian/")
    assert len({image for image in machine.images() if "-" in image}) == 2
    sources = (machine.folder / "mmdebstrap-log").read_text(encoding="utf-8")
    assert "deb http://mirror.example.org/debian trixie-updates main" in sources
    assert "deb http://mirror.example.org/debian-security trixie-security main" in sources


def test_the_machines_own_certificates_and_settings_stay_out(machine: Machine) -> None:
    machine.run("trixie", SSL_CERT_FILE="/secret/bundle.pem", http_proxy="http://proxy.example.org")
    for log in ("log", "mmdebstrap-log"):
        text = (machine.folder / log).read_text(encoding="utf-8")
        assert "bundle.pem" not in text
        assert "proxy.example.org" not in text


def test_a_build_that_breaks_leaves_no_image_behind(machine: Machine) -> None:
    (machine.folder / "broken").touch()
    run = machine.run("bookworm")
    assert run.returncode == 1
    assert "building bookworm failed" in run.stderr
    assert "PERGOLA_DEBIAN_MIRROR" in run.stderr
    assert machine.images() == []


def test_a_given_image_is_used_and_nothing_is_built(machine: Machine) -> None:
    with (machine.folder / "images").open("a", encoding="utf-8") as images:
        images.write("ours:1\n")
    run = machine.run("trixie", PERGOLA_BASE_IMAGE="ours:1")
    assert run.stdout == "ours:1\n"
    assert not (machine.folder / "mmdebstrap-log").exists()


def test_a_given_image_that_is_nowhere_is_named(machine: Machine) -> None:
    run = machine.run("trixie", PERGOLA_BASE_IMAGE="ours:2")
    assert run.returncode == 1
    assert "ours:2" in run.stderr
    assert "unset PERGOLA_BASE_IMAGE" in run.stderr


def test_no_docker_is_explained(machine: Machine) -> None:
    (machine.folder / "docker").unlink()
    run = machine.run("trixie")
    assert run.returncode == 1
    assert "docker is not installed" in run.stderr
    assert "apt install docker.io" in run.stderr


def test_a_silent_daemon_is_explained(machine: Machine) -> None:
    (machine.folder / "down").touch()
    run = machine.run("trixie")
    assert run.returncode == 1
    assert "Cannot connect to the Docker daemon" in run.stderr
    assert "systemctl start docker" in run.stderr


def test_no_mmdebstrap_and_no_way_to_get_it_is_explained(machine: Machine) -> None:
    (machine.folder / "mmdebstrap").unlink()  # and there is no apt-get to install it, nor an image to build in
    run = machine.run("trixie")
    assert run.returncode == 1
    assert "sudo apt install mmdebstrap" in run.stderr
    assert "PERGOLA_BUILDER_IMAGE" in run.stderr
    assert machine.images() == []


def test_a_suite_that_is_not_supported_is_refused(machine: Machine) -> None:
    run = machine.run("buster")
    assert run.returncode == 1
    assert "'buster'" in run.stderr
    assert "trixie" in run.stderr
    assert not (machine.folder / "log").exists()
