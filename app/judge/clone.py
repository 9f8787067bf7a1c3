"""Clones a submission's repository where it can do no harm.

A bare clone: nothing is checked out, so no file of it, link, attribute or filter ever becomes one on the disk. git runs confined, without
hooks, submodules, LFS, credentials, or any configuration but the one given here, over the allowed protocols only, and is killed when it
takes too long or writes too much.
"""

import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.judge.confine import Done, Limits, Stopped, TooBig, TooLong, Watch, confined
from app.judge.schemas import split_repo
from app.judge.settings import JudgeSettings

log = logging.getLogger(__name__)

_CONFIGURATION: Final = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.symlinks=false",
    "core.bigFileThreshold=2m",
    "core.askPass=",
    "credential.helper=",
    "fetch.recurseSubmodules=false",
    "submodule.recurse=false",
    "filter.lfs.smudge=",
    "filter.lfs.process=",
    "filter.lfs.required=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=30",
    "pack.threads=1",
    "protocol.allow=never",
)
_LOOK_SECONDS: Final = 0.1
_SCHEME: Final = re.compile(r"^([a-z]+)://")


class CloneError(Exception):
    """The repository cannot be had; the text says why, for the organizer."""


class CloneTimeout(CloneError):
    """It took too long."""


@dataclass(frozen=True)
class Clone:
    """A bare repository. `commit` is the tip of the default branch, empty when there is none; `branches` counts the remote's."""

    path: Path
    commit: str
    branch: str
    branches: int
    seconds: float


def _environment(protocol: str) -> dict[str, str]:
    return {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_ALLOW_PROTOCOL": protocol,
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_ASKPASS": "/bin/false",
        "SSH_ASKPASS": "/bin/false",
        "GIT_SSH_COMMAND": "/bin/false",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_PAGER": "cat",
    }


def git(
    *arguments: str,
    cwd: Path,
    seconds: float,
    protocol: str = "none",
    stdin: bytes = b"",
    most: int = 64 * 1024**2,
    limits: Limits | None = None,
    watch: Watch | None = None,
) -> Done:
    """Run git confined. Raises TooLong, Stopped, FileNotFoundError."""
    settings = [part for pair in _CONFIGURATION for part in ("-c", pair)]
    allowed = ["-c", f"protocol.{protocol}.allow=always"] if protocol != "none" else []
    return confined(
        ["git", *settings, *allowed, *arguments],
        cwd=cwd,
        seconds=seconds,
        env=_environment(protocol),
        stdin=stdin,
        most=most,
        limits=limits,
        watch=watch,
    )


def source_of(repo_url: str, settings: JudgeSettings) -> tuple[str, str]:
    """Where a repository is cloned from, and the one protocol that is allowed for it. Raises CloneError."""
    host, path = split_repo(repo_url)
    if host not in settings.hosts:
        raise CloneError(f"repositories on {host} are not allowed here")
    source = f"{settings.mirror.rstrip('/')}/{path}" if settings.mirror else f"https://{host}/{path}"
    found = _SCHEME.match(source)
    if found is None or found[1] not in {"https", "http", "file"}:
        raise CloneError("JUDGE_MIRROR must begin with https://, http:// or file://")
    return source, found[1]


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder, without following links; files may vanish meanwhile."""
    total = 0
    stack = [folder]
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(Path(entry.path))
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            continue
    return total


def clone(repo_url: str, folder: Path, settings: JudgeSettings, stopped: Callable[[], bool] = lambda: False) -> Clone:
    """Clone the default branch of a repository into `folder`/repo.git.

    Raises:
        CloneTimeout: It takes more than `clone_seconds`.
        CloneError: It is not there, not public, or has more than `clone_megabytes`.
        Stopped: The worker is asked to end.
    """
    source, protocol = source_of(repo_url, settings)
    began = time.monotonic()
    cap = settings.clone_megabytes * 1024**2
    looked = 0.0

    def look() -> None:
        nonlocal looked
        if time.monotonic() - looked > _LOOK_SECONDS:
            looked = time.monotonic()
            if size_of(folder) > cap:
                raise TooBig

    def left() -> float:
        return max(0.0, settings.clone_seconds - (time.monotonic() - began))

    # one file may not pass the cap either: git dies by itself between two looks
    limits = Limits(file=cap + 1024**2, cpu=int(settings.clone_seconds) + 1)
    watch = Watch(stopped, look)
    target = folder / "repo.git"
    try:
        heads = git(
            "ls-remote",
            "--heads",
            "--",
            source,
            cwd=folder,
            seconds=left(),
            protocol=protocol,
            limits=limits,
            watch=watch,
        )
        if heads.code != 0:
            raise CloneError(_why(heads.said, repo_url, full=False, settings=settings))
        done = git(
            "clone",
            "--bare",
            f"--depth={settings.clone_depth}",
            "--single-branch",
            "--no-tags",
            "--no-local",
            "--no-recurse-submodules",
            "--template=",
            "--quiet",
            "--",
            source,
            str(target),
            cwd=folder,
            seconds=left(),
            protocol=protocol,
            limits=limits,
            watch=watch,
        )
        if done.code != 0:
            raise CloneError(_why(done.said, repo_url, full=size_of(folder) > cap * 0.9, settings=settings))
        head = git("rev-parse", "--verify", "--quiet", "HEAD^{commit}", cwd=target, seconds=30, watch=watch)
    except TooLong as error:
        raise CloneTimeout(f"cloning took longer than {settings.clone_seconds:g} seconds") from error
    except TooBig as error:
        raise CloneError(_too_big(settings)) from error
    except FileNotFoundError as error:
        raise CloneError("git is not installed where the worker runs") from error
    commit = head.out.decode("ascii", "replace").strip() if head.code == 0 else ""
    return Clone(
        target,
        commit,
        (target / "HEAD").read_text("utf-8", "replace").strip().removeprefix("ref: refs/heads/"),
        heads.out.count(b"\n"),
        time.monotonic() - began,
    )


def _too_big(settings: JudgeSettings) -> str:
    return f"the repository has more than {settings.clone_megabytes} MB; its size is limited"


def _why(said: str, repo_url: str, *, full: bool, settings: JudgeSettings) -> str:
    """Why git could not, in a sentence without its own words: they may hold paths of this machine."""
    told = said.lower()
    if full or "file too large" in told:
        return _too_big(settings)
    log.info("a clone failed: %s", said.strip()[-500:], extra={"event": "clone_failed", "repo": repo_url})
    if any(
        word in told
        for word in (
            "not found",
            "does not exist",
            "does not appear",
            "could not read username",
            "authentication",
            "terminal prompts",
        )
    ):
        return "the repository is not there, or it is not public"
    if "could not resolve" in told or "connect" in told or "timed out" in told:
        return "the git host cannot be reached; try again later"
    if "protocol" in told or "transport" in told:
        return "the repository is served over a protocol that is not allowed"
    return "git could not clone the repository"


__all__ = ["Clone", "CloneError", "CloneTimeout", "Stopped", "clone", "git", "size_of", "source_of"]
