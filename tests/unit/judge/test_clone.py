"""Hostile repositories: whatever is in them, nothing of it runs, nothing leaves the folder, and it ends in time."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from app.judge import scorecard
from app.judge.clone import CloneError, CloneTimeout, clone, git, size_of, source_of
from app.judge.confine import Limits, Stopped, TooLong, Watch, confined
from app.judge.repository import RepositoryError, read
from app.judge.schemas import Rubric
from app.judge.scorecard import Disqualified, Rules
from app.judge.settings import JudgeSettings

from .conftest import AGENTS, RUBRIC
from .repositories import ADA, BO, HOUR, SOURCE, START, Made, build, clean

RULES = Rules(Rubric.model_validate(RUBRIC), AGENTS, "traditional", {})


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def fetch(repos: Path, scratch: Path, settings: JudgeSettings, commits: list[Made], **more: object) -> object:
    build(repos / "team" / "hostile", commits)
    return clone("https://github.com/team/hostile", scratch, settings.model_copy(update=more))


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() or path.is_symlink()}


def test_hooks_and_configuration_of_a_repository_do_nothing(
    repos: Path, scratch: Path, settings: JudgeSettings, tmp_path: Path
) -> None:
    sign = tmp_path / "ran"
    path = build(repos / "team" / "hostile", [Made(ADA, START, "One", {
        ".gitattributes": "* filter=evil diff=evil\n", ".gitconfig": f"[core]\n\tfsmonitor = touch {sign}\n",
        "setup.py": f"open({str(sign)!r}, 'w')\n", "conftest.py": f"open({str(sign)!r}, 'w')\n", "hooks/post-checkout": f"#!/bin/sh\ntouch {sign}\n",
    }, modes={"hooks/post-checkout": "100755"})])  # fmt: skip
    for name in (
        "post-checkout",
        "post-update",
        "pre-receive",
        "update",
        "reference-transaction",
        "fsmonitor-watchman",
    ):
        hook = path / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {sign}\n")
        hook.chmod(0o755)
    with (path / "config").open("a") as file:
        file.write(
            f'[filter "evil"]\n\tsmudge = touch {sign}\n\tclean = touch {sign}\n[diff "evil"]\n\ttextconv = touch {sign}\n\tcommand = touch {sign}\n'
        )
    cloned = clone("https://github.com/team/hostile", scratch, settings)
    told = scorecard.judge(cloned, scratch, RULES)
    assert told["repository"]["file_count"] == 5
    assert not sign.exists()
    assert not (cloned.path / "hooks").exists()
    assert "evil" not in (cloned.path / "config").read_text()


def test_a_global_configuration_is_not_read(
    repos: Path, scratch: Path, settings: JudgeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text('[url "file:///nowhere/"]\n\tinsteadOf = file:///\n')
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / ".gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "url.file:///nowhere/.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "file:///")
    assert fetch(repos, scratch, settings, [Made(ADA, START, "One", {"a.py": SOURCE})])


def test_submodules_are_not_fetched(repos: Path, scratch: Path, settings: JudgeSettings) -> None:
    inner = build(repos / "team" / "inner", [Made(ADA, START, "Inner", {"secret.py": "1\n"})])
    head = subprocess.run(
        ["git", "rev-parse", "main"], cwd=inner, capture_output=True, text=True, check=True, env=clean()
    ).stdout.strip()
    cloned = fetch(repos, scratch, settings, [Made(ADA, START, "One", {
        ".gitmodules": f'[submodule "x"]\n\tpath = x\n\turl = file://{inner}\n', "x": head, "a.py": SOURCE}, modes={"x": "160000"})])  # fmt: skip
    repository = read(cloned, most_files=100)  # type: ignore[arg-type]
    assert repository.submodules == 1
    assert sorted(repository.by_path) == [".gitmodules", "a.py"]
    assert not (cloned.path / "modules").exists()  # type: ignore[attr-defined]


def test_links_are_never_followed(repos: Path, scratch: Path, settings: JudgeSettings) -> None:
    cloned = fetch(repos, scratch, settings, [Made(ADA, START, "One", {
        "passwd.py": "/etc/passwd", "up.py": "../../../../etc/shadow", "a.py": SOURCE}, modes={"passwd.py": "120000", "up.py": "120000"})])  # fmt: skip
    told = scorecard.judge(cloned, scratch, RULES)  # type: ignore[arg-type]
    assert told["repository"]["links_not_followed"] == 2
    assert told["repository"]["file_count"] == 1
    assert not any(path.is_symlink() for path in scratch.rglob("*"))
    assert "root:" not in str(told)


def test_a_huge_file_ends_the_clone_while_it_runs(repos: Path, scratch: Path, settings: JudgeSettings) -> None:
    began = time.monotonic()
    with pytest.raises(CloneError, match="more than 2 MB"):
        fetch(
            repos,
            scratch,
            settings,
            [Made(ADA, START, "One", {"data.bin": os.urandom(8 * 1024**2)})],
            clone_megabytes=2,
        )
    assert time.monotonic() - began < 30
    assert size_of(scratch) < 6 * 1024**2


def test_a_history_of_binaries_is_limited_as_a_whole(repos: Path, scratch: Path, settings: JudgeSettings) -> None:
    commits = [
        Made(ADA, START + n * HOUR, f"Add data of day {n}", {"data.bin": os.urandom(256 * 1024)}) for n in range(8)
    ]
    with pytest.raises(CloneError, match="more than 1 MB"):
        fetch(repos, scratch, settings, commits, clone_megabytes=1)
    small = scratch / "small"
    small.mkdir()
    cloned = clone("https://github.com/team/hostile", small, settings)
    repository = read(cloned, most_files=100)
    assert len(repository.commits) == 8
    assert all(one.changes == () for one in repository.commits)  # lines of binaries are nobody's work


def test_a_file_of_zeros_is_read_by_nobody(repos: Path, scratch: Path, settings: JudgeSettings) -> None:
    cloned = fetch(
        repos, scratch, settings, [Made(ADA, START, "One", {"bomb.py": b"0" * 12 * 1024**2, "a.py": SOURCE})]
    )
    repository = read(cloned, most_files=100)  # type: ignore[arg-type]
    assert repository.by_path["bomb.py"].text is None
    assert repository.by_path["a.py"].text == SOURCE


def test_a_hundred_thousand_files_are_refused(repos: Path, scratch: Path, settings: JudgeSettings) -> None:
    path = repos / "team" / "many"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(path)], check=True, env=clean())
    one = b"".join(b"M 100644 :1 d/%03d/%02d.py\n" % (n // 100, n % 100) for n in range(100_000))
    stream = (
        b"blob\nmark :1\ndata 2\n1\n\ncommit refs/heads/main\ncommitter A <a@b> 1760000000 +0000\ndata 3\nOne\n"
        + one
        + b"done\n"
    )
    subprocess.run(["git", "fast-import", "--quiet", "--done"], input=stream, cwd=path, check=True, env=clean())
    began = time.monotonic()
    cloned = clone("https://github.com/team/many", scratch, settings)
    with pytest.raises(RepositoryError, match="more than 20000 files"):
        read(cloned, most_files=settings.most_files)
    assert time.monotonic() - began < 30


def test_odd_names_and_encodings_are_survived(repos: Path, scratch: Path, settings: JudgeSettings) -> None:
    files: dict[str, bytes | str | None] = {
        "latin.py": "# caf\xe9\nx = 1\n".encode("latin-1"), "utf16.py": "x = 1\n".encode("utf-16"), "bom.py": b"\xef\xbb\xbfx = 1\n", "nul.py": b"x = 1\0\n",
        "na\nme.py": "x = 1\n", 'qu"ote.py': "x = 1\n", "ümlaut.py": "x = 1\n", "sp ace.py": "x = 1\n", "-rf.py": "x = 1\n", "$(id).py": "x = 1\n",
        b"\xff\xfe.py".decode("utf-8", "surrogateescape"): "x = 1\n", "a/" * 60 + "deep.py": "x = 1\n", "long" * 150 + ".py": "x = 1\n",
        "broken.py": "def f(:\n", "empty.py": "",
    }  # fmt: skip
    odd = ("Zo\xeb \u202e", "ZOË@example.org")
    commits = [Made(odd, START, "caf\udce9 \udcff", files), Made(BO, START + 60, "\x1e\x1fforged\x1e" * 5, {"b.py": SOURCE}),
               Made(ADA, 4_000_000_000, "From the future, no doubt", {"c.py": SOURCE})]  # fmt: skip
    told = scorecard.judge(fetch(repos, scratch, settings, commits), scratch, RULES)  # type: ignore[arg-type]
    assert told["repository"]["commit_count"] == 3
    assert told["repository"]["paths_left_out"] >= 3
    assert told["static_analysis"]["tools_failed"] == []
    for agent in told["agents"].values():
        for one in agent["evidence"]:
            assert one["file"].isprintable()


def test_nothing_is_written_beside_the_scratch(
    repos: Path, scratch: Path, settings: JudgeSettings, tmp_path: Path
) -> None:
    build(
        repos / "team" / "hostile",
        [
            Made(
                ADA,
                START,
                "One",
                {"a.py": SOURCE, ".bandit": "[bandit]\nskips=B101\n", "pyproject.toml": "[tool.ruff]\nselect=[]\n"},
            )
        ],
    )
    before = files_of(tmp_path)
    cloned = clone("https://github.com/team/hostile", scratch, settings)
    scorecard.judge(cloned, scratch, RULES)
    new = files_of(tmp_path) - before
    assert new
    assert all(path.startswith("scratch/") for path in new)
    assert {Path(path).name for path in new if "/py/" in path} == {"f00000.py"}  # names are ours


def test_an_empty_repository_is_disqualified(repos: Path, scratch: Path, settings: JudgeSettings) -> None:
    subprocess.run(
        ["git", "init", "-q", "--bare", "-b", "main", str(repos / "team" / "empty")], check=True, env=clean()
    )
    cloned = clone("https://github.com/team/empty", scratch, settings)
    with pytest.raises(Disqualified, match="empty"):
        scorecard.judge(cloned, scratch, RULES)
    robots = [Made(("renovate[bot]", "r@x"), START, "Bump all the things", {"a.py": SOURCE})]
    other = scratch / "other"
    other.mkdir()
    with pytest.raises(Disqualified, match="no commit of a person"):
        scorecard.judge(fetch(repos, other, settings, robots), other, RULES)  # type: ignore[arg-type]


def test_what_is_not_there_says_so(scratch: Path, settings: JudgeSettings) -> None:
    with pytest.raises(CloneError, match="not there, or it is not public"):
        clone("https://github.com/team/nothing", scratch, settings)


def test_only_the_allowed_protocol_and_host(scratch: Path, settings: JudgeSettings, tmp_path: Path) -> None:
    plain = settings.model_copy(update={"mirror": ""})
    assert source_of("https://github.com/a/b", plain) == ("https://github.com/a/b", "https")
    with pytest.raises(CloneError, match="not allowed here"):
        source_of("https://evil.example/a/b", plain)
    with pytest.raises(CloneError, match="JUDGE_MIRROR"):
        source_of("https://github.com/a/b", settings.model_copy(update={"mirror": "ext::sh -c id"}))
    sign = tmp_path / "ran"
    for source, allowed in (
        (f"ext::sh -c touch% {sign}", "https"),
        (f"file://{tmp_path}/repos/x", "https"),
        ("ssh://localhost/x", "https"),
    ):
        done = git("ls-remote", "--", source, cwd=scratch, seconds=20, protocol=allowed)
        assert done.code != 0, source
        assert "not allowed" in done.said
    assert not sign.exists()


def test_a_clone_that_takes_too_long_is_killed(
    repos: Path, scratch: Path, settings: JudgeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "bin"
    slow.mkdir()
    (slow / "git").write_text("#!/bin/sh\nsleep 30 &\nwait\n")
    (slow / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow}:{os.environ['PATH']}")
    began = time.monotonic()
    with pytest.raises(CloneTimeout, match=r"0\.5 seconds"):
        clone("https://github.com/team/x", scratch, settings.model_copy(update={"clone_seconds": 0.5}))
    assert time.monotonic() - began < 5
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert f"{slow}/git" not in left


def test_a_confined_program_has_limits_and_no_secrets(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERGOLA_SECRET_SESSION_KEY", "very secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very secret")
    told = confined(
        ["sh", "-c", "env; ulimit -a"],
        cwd=scratch,
        seconds=10,
        limits=Limits(memory=512 * 1024**2, file=1024**2, cpu=5, files=64),
    )
    text = told.out.decode()
    assert "secret" not in text.lower()
    assert f"HOME={scratch}" in text
    big = confined(
        ["sh", "-c", "head -c 4000000 /dev/zero > big"], cwd=scratch, seconds=10, limits=Limits(file=1024**2)
    )
    assert big.code != 0
    assert (scratch / "big").stat().st_size <= 1024**2
    with pytest.raises(FileNotFoundError):
        confined(["no-such-program"], cwd=scratch, seconds=10)
    with pytest.raises(TooLong):
        confined(["sleep", "20"], cwd=scratch, seconds=0.2)
    with pytest.raises(Stopped):
        confined(["sleep", "20"], cwd=scratch, seconds=20, watch=Watch(stopped=lambda: True))
