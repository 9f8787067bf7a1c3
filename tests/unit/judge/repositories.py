"""Git repositories made for tests: known authors, times, files, through `git fast-import`, so that a thousand commits take a moment."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

START = 1_760_000_000  # a Thursday, 08:53 UTC
HOUR = 3600
ADA, BO, CY, DEE = (
    ("Ada", "ada@example.org"), ("Bo", "bo@example.org"), ("Cy", "cy@example.org"), ("Dee", "dee@example.org"))  # fmt: skip


@dataclass
class Made:
    """A commit to make. `content` None deletes a file; `modes` are git's own."""

    who: tuple[str, str]
    at: float
    message: str
    files: Mapping[str, bytes | str | None] = field(default_factory=dict)
    zone: str = "+0000"
    merge: int | None = None
    modes: Mapping[str, str] = field(default_factory=dict)
    committed: float | None = None


def build(path: Path, commits: list[Made], *, branches: tuple[str, ...] = ()) -> Path:
    """Make a bare repository with these commits on main; `merge` is the number of a commit to merge."""
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(path)], check=True, env=clean())
    out: list[bytes] = []
    for number, one in enumerate(commits, 1):
        text = one.message.encode("utf-8", "surrogateescape")
        who = f"{one.who[0]} <{one.who[1]}>"
        out.append(f"commit refs/heads/main\nmark :{number}\nauthor {who} {int(one.at)} {one.zone}\n".encode())
        out.append(f"committer {who} {int(one.at if one.committed is None else one.committed)} {one.zone}\n".encode())
        out.append(b"data %d\n%s\n" % (len(text), text))
        if number > 1:
            out.append(f"from :{number - 1}\n".encode())
        if one.merge is not None:
            out.append(f"merge :{one.merge}\n".encode())
        for name, content in one.files.items():
            quoted = (
                b'"'
                + name.encode("utf-8", "surrogateescape")
                .replace(b"\\", b"\\\\")
                .replace(b'"', b'\\"')
                .replace(b"\n", b"\\n")
                + b'"'
            )
            if content is None:
                out.append(b"D " + quoted + b"\n")
                continue
            mode = one.modes.get(name, "100644")
            if mode == "160000":
                out.append(b"M 160000 %s %s\n" % (str(content).encode(), quoted))
                continue
            data = content.encode() if isinstance(content, str) else content
            out.append(b"M %s inline %s\ndata %d\n%s\n" % (mode.encode(), quoted, len(data), data))
    out += [f"reset refs/heads/{name}\nfrom :1\n\n".encode() for name in branches]
    subprocess.run(
        ["git", "fast-import", "--quiet", "--done"],
        input=b"".join(out) + b"done\n",
        cwd=path,
        check=True,
        env=clean(),
        capture_output=True,
    )
    return path


def clean() -> dict[str, str]:
    """An environment in which git knows no configuration."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }


SOURCE = '''"""Counts votes."""


def count(votes: list[str]) -> dict[str, int]:
    """How many votes each team has."""
    found: dict[str, int] = {}
    for vote in votes:
        found[vote] = found.get(vote, 0) + 1
    return found
'''
TEST = """from app.votes import count


def test_votes_are_counted():
    assert count(["a", "b", "a"]) == {"a": 2, "b": 1}
"""
README = "# Votes\n\nIt solves the problem of counting votes.\n\n## Install\n\n    $ pip install -r requirements.txt\n\n## Usage\n\n```\npython -m app\n```\n"


def good(path: Path, count: int = 24, team: tuple[tuple[str, str], ...] = (ADA, BO)) -> Path:
    """A repository of people who take turns, in the daytime, with good messages: grade A."""
    commits = []
    for number in range(count):
        files: dict[str, bytes | str | None] = {f"app/part_{number % 8}.py": SOURCE + f"\n\nNUMBER = {number}\n"}
        if number == 0:
            files |= {"README.md": README, "requirements.txt": "fastapi==0.120.0\n", "app/votes.py": SOURCE, "tests/test_votes.py": TEST,
                      ".github/workflows/ci.yml": "on: push\n", "Dockerfile": "FROM scratch\n"}  # fmt: skip
        commits.append(
            Made(team[number % len(team)], START + number * 2400, f"Count the votes of part {number}", files)
        )
    return build(path, commits, branches=("idea",))
