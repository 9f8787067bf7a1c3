"""Reads a bare clone: its tree, its texts, its history. Nothing is checked out; odd names and encodings are survived.

What is read is bounded: so many files, so many bytes of one file and of all, so many seconds.
"""

import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from app.judge.clone import Clone, git
from app.judge.confine import Watch
from app.judge.languages import SKIPPED, language_of

READ_SECONDS: Final = 60.0
MOST_TEXT: Final = 512 * 1024
MOST_TEXTS: Final = 24 * 1024**2
MOST_READ: Final = 3000
_LISTED: Final = 64 * 1024**2
_BOT: Final = re.compile(
    r"\[bot\]|^(dependabot|renovate|github-actions|greenkeeper|snyk-bot|pre-commit-ci|semantic-release-bot|imgbot|allcontributors)\b",
    re.IGNORECASE,
)
_CO_AUTHOR: Final = re.compile(
    r"^co-authored-by:\s*(?P<name>[^<\n]{1,200}?)\s*<(?P<email>[^>\n]{1,254})>", re.IGNORECASE | re.MULTILINE
)
_NOREPLY: Final = re.compile(r"^(?:\d+\+)?([^@]+)@users\.noreply\.github\.com$")


class RepositoryError(Exception):
    """The repository cannot be judged; the text says why, for the organizer."""


@dataclass(frozen=True)
class File:
    """A regular file of the tip. `size` is in bytes; `text` is None when it is binary, too long, or was not read."""

    path: str
    size: int
    blob: str
    language: str | None = None
    text: str | None = None

    @property
    def lines(self) -> int:
        """Its lines of text."""
        return 0 if self.text is None else self.text.count("\n") + (not self.text.endswith("\n") and bool(self.text))

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Change:
    """Lines that a commit added to and took from a file."""

    path: str
    added: int
    deleted: int


@dataclass(frozen=True)
class Person:
    """Somebody who wrote."""

    name: str
    email: str

    @property
    def is_bot(self) -> bool:
        """Whether it is a program."""
        return bool(_BOT.search(self.name) or _BOT.search(self.email))


@dataclass(frozen=True)
class Commit:
    """A commit. `at` is the author's time with his zone; `committed` is the committer's, in seconds since 1970."""

    hash: str
    author: Person
    at: datetime
    committed: int
    parents: int
    subject: str
    body: str
    co_authors: tuple[Person, ...] = ()
    changes: tuple[Change, ...] = ()

    @property
    def local_hour(self) -> int:
        """The hour on the author's clock."""
        return self.at.hour

    @property
    def lines(self) -> int:
        """Lines added and deleted."""
        return sum(change.added + change.deleted for change in self.changes)


@dataclass(frozen=True)
class Repository:
    """What is known of a repository. Commits are oldest first, bots left out (`bot_commits` counts them)."""

    files: tuple[File, ...]
    commits: tuple[Commit, ...]
    bot_commits: int
    branch: str
    branches: int
    truncated: bool
    links: int
    submodules: int
    skipped: int
    by_path: dict[str, File] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        self.by_path.update((file.path, file) for file in self.files)

    @property
    def texts(self) -> Iterator[File]:
        """The files that were read."""
        return (file for file in self.files if file.text is not None)

    def people_of(self, commit: Commit) -> tuple[Person, ...]:
        """Author and co-authors of a commit, each once, without bots."""
        return tuple(dict.fromkeys(one for one in (commit.author, *commit.co_authors) if not one.is_bot))


def read(cloned: Clone, *, most_files: int, watch: Watch | None = None) -> Repository:
    """Read everything. Raises RepositoryError, and confine's TooLong and Stopped."""
    watch = watch or Watch()
    files, links, submodules, skipped = _tree(cloned.path, most_files, watch)
    files = _texts(cloned.path, files, watch)
    commits, bots = _history(cloned.path, watch)
    return Repository(
        files=tuple(files),
        commits=tuple(commits),
        bot_commits=bots,
        branch=cloned.branch,
        branches=cloned.branches,
        truncated=(cloned.path / "shallow").is_file(),
        links=links,
        submodules=submodules,
        skipped=skipped,
    )


def _tree(path: Path, most_files: int, watch: Watch) -> tuple[list[File], int, int, int]:
    done = git(
        "ls-tree", "-r", "-z", "-l", "--full-tree", "HEAD", cwd=path, seconds=READ_SECONDS, most=_LISTED, watch=watch
    )
    if done.code != 0:
        raise RepositoryError("the repository's files cannot be listed; it may be damaged")
    rows = done.out.split(b"\0")
    if done.cut or len(rows) > most_files + 1:
        raise RepositoryError(
            f"the repository has more than {most_files} files; leave out what is generated or installed"
        )
    files: list[File] = []
    links = submodules = skipped = 0
    for row in rows:
        about, _, raw = row.partition(b"\t")
        if not raw:
            continue
        mode, kind, blob, size = about.split()
        if mode == b"120000":
            links += 1
        elif kind == b"commit":
            submodules += 1
        elif kind == b"blob" and (name := _safe(raw)) is not None:
            files.append(File(name, int(size), blob.decode("ascii"), language_of(name)))
        else:
            skipped += 1
    return files, links, submodules, skipped


def _safe(raw: bytes) -> str | None:
    """A path that can be shown: UTF-8, printable, not absurdly long or deep."""
    try:
        path = raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if len(path) > 400 or path.count("/") > 40 or not path.isprintable():
        return None
    return path if not {"", ".", ".."} & set(path.split("/")) else None


def _texts(path: Path, files: Sequence[File], watch: Watch) -> list[File]:
    """The same files, those with text read: sources and documents first, up to the limits."""
    wanted = [file for file in files if 0 < file.size <= MOST_TEXT and not SKIPPED.search(file.path)]
    wanted.sort(key=lambda file: (file.language is None, file.path.count("/"), file.path))
    chosen: list[File] = []
    total = 0
    for file in wanted[:MOST_READ]:
        if total + file.size > MOST_TEXTS:
            break
        total += file.size
        chosen.append(file)
    asked = "".join(f"{file.blob}\n" for file in chosen).encode("ascii")
    done = git(
        "cat-file",
        "--batch",
        cwd=path,
        seconds=READ_SECONDS,
        stdin=asked,
        most=MOST_TEXTS + 256 * MOST_READ,
        watch=watch,
    )
    texts: dict[str, str] = {}
    rest = memoryview(done.out)
    raw = done.out
    at = 0
    for file in chosen:
        end = raw.find(b"\n", at)
        head = raw[at:end].split() if end >= 0 else []
        if len(head) != 3:  # the object is missing
            at = end + 1 if end >= 0 else len(raw)
            continue
        size = int(head[2])
        data = bytes(rest[end + 1 : end + 1 + size])
        at = end + 1 + size + 1
        if (text := _decoded(data)) is not None:
            texts[file.blob] = text
    return [
        File(file.path, file.size, file.blob, file.language, texts.get(file.blob)) if file.blob in texts else file
        for file in files
    ]


def _decoded(data: bytes) -> str | None:
    """Text in whatever encoding; None when it is binary."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError:
            return None
    if b"\0" in data:
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _history(path: Path, watch: Watch) -> tuple[list[Commit], int]:
    # nobody can guess these, so no message can pretend to be a commit
    between, field_end = f"<{secrets.token_hex(16)}>", f"<{secrets.token_hex(16)}>"
    form = between + field_end.join(("%H", "%an", "%ae", "%aI", "%ct", "%P", "%s", "%b")) + field_end
    done = git(
        "log",
        "--numstat",
        "-z",
        "--no-ext-diff",
        "--no-textconv",
        "--no-renames",
        "--no-mailmap",
        "--encoding=UTF-8",
        f"--format={form}",
        "--max-count=1000",
        "HEAD",
        "--",
        cwd=path,
        seconds=READ_SECONDS,
        most=_LISTED,
        watch=watch,
    )
    if done.code != 0:
        raise RepositoryError("the repository's history cannot be read; it may be damaged")
    edge = set((path / "shallow").read_text("ascii").split()) if (path / "shallow").is_file() else set()
    commits: list[Commit] = []
    bots = 0
    for part in done.out.decode("utf-8", "replace").split(between)[1:]:
        commit = _commit(part.split(field_end), edge)
        if commit is None:
            continue
        if commit.author.is_bot:
            bots += 1
        else:
            commits.append(commit)
    commits.sort(key=lambda one: (one.at.timestamp(), one.committed))
    return commits, bots


def _commit(fields: Sequence[str], edge: set[str]) -> Commit | None:
    if len(fields) < 9:
        return None
    identity, name, email, at, committed, parents, subject, body = fields[:8]
    try:
        when = datetime.fromisoformat(at)
        seconds = int(committed)
        when.timestamp()
    except (ValueError, OverflowError):  # somebody's clock was in another age
        return None
    if abs(when.utcoffset() or timedelta()) > timedelta(hours=18):
        return None
    # the oldest commit of a shallow clone seems to add every file there is
    changes = () if identity in edge else tuple(_changes(fields[8]))
    co_authors = tuple(
        dict.fromkeys(
            Person(found["name"].strip(), _address(found["email"])) for found in _CO_AUTHOR.finditer(f"{body}\n")
        )
    )
    return Commit(
        identity,
        Person(name.strip() or "unknown", _address(email)),
        when,
        seconds,
        len(parents.split()),
        subject,
        body,
        co_authors,
        changes,
    )


def _address(email: str) -> str:
    """An address to compare people by: GitHub's own private ones are the login."""
    low = email.strip().lower()
    found = _NOREPLY.match(low)
    return f"{found[1]}@github" if found else low


def _changes(text: str) -> Iterator[Change]:
    for row in text.split("\0"):
        parts = row.strip("\n").split("\t", 2)
        if len(parts) == 3 and parts[0].isdigit() and parts[1].isdigit():  # "-" is a binary file
            yield Change(parts[2], int(parts[0]), int(parts[1]))
