"""The scripts that people and CI call: help, wrong options, what they print when something is wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TOOLS = (
    "bash",
    "cat",
    "cp",
    "cut",
    "dirname",
    "env",
    "git",
    "grep",
    "mktemp",
    "printf",
    "rm",
    "sed",
    "sleep",
    "sort",
    "xargs",
)


def run(*command: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "scripts").iterdir() if path.is_file()))
def test_every_script_says_what_it_does_and_does_nothing(script: str) -> None:
    program = [sys.executable, ROOT / "scripts" / script] if script.endswith(".py") else [ROOT / "scripts" / script]
    done = run(*program, "--help")
    assert done.returncode == 0, done.stderr
    assert script in done.stdout
    assert len(done.stdout.splitlines()) >= 3
    assert "set -E" not in done.stdout


@pytest.mark.parametrize(
    ("script", "says"), [("test-vagrant", "--help"), ("vagrant-box", "--help"), ("lint", "Parts: ")]
)
def test_a_wrong_argument_says_what_is_right(script: str, says: str) -> None:
    done = run(ROOT / "scripts" / script, "--frobnicate")
    assert done.returncode == 1
    assert "'--frobnicate' is not a" in done.stderr
    assert says in done.stderr


def test_the_box_refuses_a_disk_that_is_too_small() -> None:
    done = run(ROOT / "scripts" / "vagrant-box", PERGOLA_BOX_GIB="1")
    assert done.returncode == 1
    assert "PERGOLA_BOX_GIB is '1'" in done.stderr


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("Inst openssl [3.5.1-1] (3.5.4-1~deb13u1 Debian-Security:13/stable-security [amd64])", 1, "  openssl 3.5.1-1 -> 3.5.4-1~deb13u1"),
        ("Inst tzdata [2026a] (2026b Debian:13.3/stable [all])", 0, "no security update is waiting for the 180 packages of an-image"),
    ],
)  # fmt: skip
def test_an_image_that_lacks_a_security_update_is_told(tmp_path: Path, line: str, code: int, says: str) -> None:
    docker = tmp_path / "docker"  # what apt-get answers in a container
    docker.write_text(f"#!/bin/sh\nprintf '%s\\n' '{line}' 'packages 180'\n")
    docker.chmod(0o755)
    done = run(ROOT / "scripts" / "audit", "image", "an-image", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == code
    assert says in done.stdout + done.stderr


class Project:
    """A folder with scripts/lint and stand-ins for the linters."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / ".venv" / "bin"
        self.bin.mkdir(parents=True)
        (root / "scripts").mkdir()
        shutil.copy2(ROOT / "scripts" / "lint", root / "scripts" / "lint")
        # the machine's own linters must not answer for the stand-ins
        (root / "bin").mkdir()
        for name in TOOLS:
            found = shutil.which(name)
            assert found, name
            (root / "bin" / name).symlink_to(found)
        (root / ".gitignore").write_text(".venv/\nbin/\n", encoding="utf-8")
        subprocess.run(["git", "init", "-q", root], check=True)

    def tool(self, name: str, body: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        path.chmod(0o755)

    def lint(self, *parts: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.root / "scripts" / "lint", *parts],
            env={"PATH": str(self.root / "bin"), "HOME": str(self.root)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_lint_fails_when_one_part_fails_and_shows_what_it_said(project: Project) -> None:
    project.tool("ruff", 'test "$1" = format || { echo "a.py:1:1: X001 wrong"; exit 1; }')
    done = project.lint("ruff", "format")
    assert done.returncode == 1
    assert "a.py:1:1: X001 wrong" in done.stdout
    assert "1 of 2 failed" in done.stderr
    assert any(line.split()[0] == "format" and line.endswith("ok") for line in done.stdout.splitlines())


def test_lint_prints_each_part_with_its_seconds(project: Project) -> None:
    project.tool("ruff", "exit 0")
    project.tool("mypy", "sleep 1")
    done = project.lint("ruff", "mypy")
    assert done.returncode == 0, done.stderr
    seconds = {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("  ")}
    assert set(seconds) == {"ruff", "mypy"}
    assert seconds["mypy"] >= 1
    assert "2 parts in order" in done.stdout


def test_lint_says_which_tool_is_missing(project: Project) -> None:
    done = project.lint("mypy")
    assert done.returncode == 1
    assert "mypy is not installed." in done.stdout
    assert "make venv" in done.stdout


def test_lint_says_that_it_skips_vagrant(project: Project) -> None:
    done = project.lint("vagrant")
    assert done.returncode == 0
    assert "skipped: Vagrant is not installed" in done.stdout


def test_shellcheck_reads_scripts_by_their_first_line(project: Project) -> None:
    project.tool("shellcheck", 'printf "%s\\n" "$@"; exit 1')
    for name, text in {
        "scripts/tool": "#!/usr/bin/env bash\n",
        "deep/er/hook": "#!/bin/sh -e\n",
        "lib.sh": "true\n",
        "program": "#!/usr/bin/env python3\n",
        "notes.md": "#!/bin/sh\n",
        "blob": "\0\1\2\n",
    }.items():
        path = project.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    done = project.lint("shellcheck")
    listed = {line.strip() for line in done.stdout.splitlines() if line.startswith("    ")}
    assert listed == {"scripts/lint", "scripts/tool", "deep/er/hook", "lib.sh"}


def test_pre_commit_runs_parts_that_exist() -> None:
    parts = set(run(ROOT / "scripts" / "lint", "none").stderr.split("Parts: ")[1].split())
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    named = {word for hook in hooks for word in hook["entry"].split()[1:]}
    assert named
    assert named <= parts
    assert any(hook["entry"] == "scripts/lint" for hook in hooks)


def test_the_vagrant_host_runs_what_the_local_host_runs_as_far_as_it_has_memory() -> None:
    local, vagrant = (
        yaml.safe_load((ROOT / "inventories" / name / "group_vars" / "all.yml").read_text(encoding="utf-8"))
        for name in ("local", "vagrant")
    )
    for key in ("pergola_environment", "pergola_drain_seconds"):
        assert vagrant[key] == local[key]
    assert {"portal", "wine"} <= set(vagrant["pergola_apps"]) <= set(local["pergola_apps"])


def test_collections_are_those_of_the_locked_ansible() -> None:
    wanted = yaml.safe_load((ROOT / "requirements.yml").read_text(encoding="utf-8"))["collections"]
    done = run(
        "ansible-galaxy", "collection", "list", "--format", "yaml", PATH=f"{ROOT}/.venv/bin:{os.environ['PATH']}"
    )
    folders = yaml.safe_load(done.stdout)
    installed = {name: about["version"] for folder in folders.values() for name, about in folder.items()}
    assert {one["name"]: one["version"] for one in wanted} == {
        one["name"]: installed.get(one["name"]) for one in wanted
    }
