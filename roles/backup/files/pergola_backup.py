#!/usr/bin/python3
"""pergola-backup: consistent, encrypted backups of the apps of this host, and the way back.

A backup is a snapshot that restic keeps: encrypted, checksummed, without repeating what it has. A SQLite database is copied by SQLite's
own backup, a PostgreSQL one dumped, both with what each table holds; a folder is kept with the checksum of each file. So a restore can say
whether it equals what was backed up, table by table and file by file, and ``drill`` does just that in a scratch place.

Every command may be killed and run again: nothing is replaced before what comes in its place was compared.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import hashlib
import importlib.machinery
import importlib.util
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

CONFIG = Path("/etc/pergola/backup.json")
PASSWORD = Path("/etc/pergola/backup.password")
PERGOLA = Path("/usr/local/bin/pergola")
STATE = Path("/var/lib/pergola/.backup")
CACHE = Path("/var/cache/pergola-backup")
POSTGRES = ["runuser", "-u", "postgres", "--"]
DAY = 24 * 3600
PRUNE_SECONDS = DAY
SEEN_SECONDS = 3600  # for which a snapshot in a repository elsewhere counts as there
CHECK_TRIES = 15  # minutes to wait for another host
TRIES = 4  # to back up a folder while an app writes there
INCOMPLETE = 3  # how restic ends when it could not read every file
FLOOR = 64 * 1024  # bytes; below them a backup that shrinks is no news
QUIET = False


class Failure(Exception):
    """Something went wrong, and the message says what to do; what was there is still there.

    Args:
        text: The message.
        told: What else to say to a program that asked for JSON.
    """

    def __init__(self, text: str, **told: Any) -> None:
        super().__init__(text)
        self.told = told


def say(text: str) -> None:
    """Tell whoever waits."""
    if not QUIET:
        print(f"pergola-backup: {text}", file=sys.stderr, flush=True)


def host() -> Any:
    """Return the program `pergola` of this host, which knows its slots and locks."""
    if "pergola_host" not in sys.modules:
        loader = importlib.machinery.SourceFileLoader("pergola_host", str(PERGOLA))
        spec = importlib.util.spec_from_loader("pergola_host", loader)
        if spec is None or not PERGOLA.is_file():
            raise Failure(f"{PERGOLA} is missing; run site.yml on this host first")
        module = importlib.util.module_from_spec(spec)
        sys.modules["pergola_host"] = module
        loader.exec_module(module)
    sys.modules["pergola_host"].QUIET = QUIET  # type: ignore[attr-defined]
    return sys.modules["pergola_host"]


# ---------------------------------------------------------------- settings and state


def config() -> dict[str, Any]:
    """Return what site.yml wrote: the repository and the jobs."""
    try:
        return dict(json.loads(CONFIG.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise Failure(f"{CONFIG} is missing; run site.yml on this host first") from None
    except ValueError as error:
        raise Failure(f"{CONFIG} is damaged ({error}); run site.yml again, it writes the file anew") from None


def jobs(app: str | None = None, what: str | None = None) -> list[dict[str, Any]]:
    """Return the jobs of an app (of all without one). Raises Failure when there is none."""
    every = config()["jobs"]
    found = [job for job in every if app in (None, "all", job["app"]) and what in (None, job["what"])]
    if not found:
        known = ", ".join(sorted({f"{job['app']} {job['what']}" for job in every})) or "nothing"
        raise Failure(f"there is no backup of {app} {what or ''}".rstrip() + f"; this host backs up: {known}")
    return found


def state_file(job: Mapping[str, Any]) -> Path:
    """Return where the last runs of a job are told."""
    return STATE / f"{job['app']}-{job['what']}.json"


def read_state(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of a job's last runs; nothing of a file that is damaged."""
    try:
        return dict(json.loads(state_file(job).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}


def known_files(app: str) -> dict[str, Any]:
    """Return the files of the last backup of an app's storage."""
    try:
        return dict(json.loads((STATE / f".{app}-files.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}


def write(path: Path, content: Mapping[str, Any], mode: int = 0o644) -> None:
    """Replace a file in one step. The status page reads what is told of runs: only root sees more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent == STATE:
        path.parent.chmod(0o755)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(json.dumps(content, sort_keys=True, indent=1) + "\n", encoding="utf-8")
    new.chmod(mode)
    new.replace(path)


def moment(seconds: float) -> str:
    """Return a time as UTC, ISO 8601."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def instant(text: str) -> float:
    """Return the seconds of a time such as 2026-01-31T04:00:00Z; without a zone it is UTC. Raises Failure."""
    try:
        # restic's own times have nanoseconds, of which Python reads six digits
        time_ = dt.datetime.fromisoformat(re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", text.replace("Z", "+00:00")))
    except ValueError:
        raise Failure(f"{text!r} is no time; write it as 2026-01-31T04:00:00Z (UTC), or leave it out") from None
    return (time_ if time_.tzinfo else time_.replace(tzinfo=dt.UTC)).timestamp()


@contextlib.contextmanager
def alone(wait: float = 3600) -> Iterator[None]:
    """Let one backup, restore or drill go on at a time; the kernel lets go of a dead one's lock."""
    module = host()
    try:
        with module.locked(".backup", wait):
            yield
    except module.Failure as error:
        raise Failure(str(error)) from error


@contextlib.contextmanager
def scratch(name: str, near: Path | None = None) -> Iterator[Path]:
    """Give an empty folder that only root can read; it is gone afterwards, and what a killed run left too."""
    folder = (near or STATE) / f".work-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ---------------------------------------------------------------- restic


def repository(app: str) -> str:
    """Return an app's repository: each has its own, so that one can be given away or damaged without the others."""
    return f"{config()['repository'].rstrip('/')}/{app}"


def password() -> Path:
    """Return the file with the password of the repositories. Where none was given and no other host uses them, it is made."""
    settings = config()
    path = Path(settings.get("password_file") or PASSWORD)
    if path.is_file() and path.stat().st_size > 0:
        return path
    if settings.get("shared"):
        raise Failure(
            f"{path} is missing: the password of the environment, which a host gets when it configures itself; "
            "what it said then is in /var/log/cloud-init-output.log"
        )
    if ":" not in settings["repository"]:
        made = [one.parent.name for one in Path(settings["repository"]).glob("*/config")]
        if made:
            raise Failure(
                f"{path} is missing, but there are repositories ({', '.join(made)}) that need it; "
                "put the password back: without it nothing can be restored"
            )
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(secrets.token_urlsafe(32))
        stream.flush()
        os.fsync(stream.fileno())
    return path


def is_there(app: str, state: dict[str, Any]) -> bool:
    """Whether the last snapshot is where it was: nothing new is no news only then. A repository elsewhere is asked once an hour."""
    password()
    path, name = repository(app), state["snapshot"]
    if ":" not in path:
        return any((Path(path) / "snapshots").glob(f"{name}*"))
    if time.time() - state.get("seen", 0) < SEEN_SECONDS:
        return True
    found = _restic(app, "cat", "snapshot", name).returncode == 0
    if found:
        state["seen"] = time.time()
    return found


def restic(app: str, *arguments: str, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run restic on an app's repository, which is made where there is none. Raises Failure with what it said.

    Asking first would cost as much as the work itself: each call derives its key anew, by design slowly. So it is only asked for
    what went wrong.
    """
    for _ in range(3):
        done = _restic(app, *arguments, cwd=cwd)
        if done.returncode == 0:
            return done
        said = f"{done.stdout} {done.stderr}"
        if "wrong password" in said:
            raise Failure(f"{password()} does not open {repository(app)}; put the right password back")
        if re.search(r"Is there a repository|unable to open config file", said):
            say(f"{app}: making {repository(app)}")
            made = _restic(app, "init")
            if made.returncode != 0:
                raise Failure(f"{repository(app)} cannot be used: {reason_of(made)}")
            for job in jobs(app):  # what was kept in an older one has to come again, new or not
                if state := read_state(job):
                    write(state_file(job), {key: value for key, value in state.items() if key != "mark"})
        elif "already locked" in said:
            _restic(app, "unlock")  # removes only locks whose holder is dead, or silent for half an hour
        else:
            break
    if check:
        raise Failure(f"restic {arguments[0]} of {app} failed: {reason_of(done)}")
    return done


def _restic(app: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "RESTIC_REPOSITORY": repository(app),
        "RESTIC_PASSWORD_FILE": str(password()),
        "RESTIC_CACHE_DIR": str(CACHE),
        "RESTIC_PROGRESS_FPS": "0.1",
        "GOMAXPROCS": "1",  # it is never in a hurry, the apps are
    }
    if config().get("region"):
        environment["AWS_DEFAULT_REGION"] = config()["region"]
    try:
        return subprocess.run(
            ["restic", *arguments], env=environment, cwd=cwd, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise Failure("restic is not installed; run site.yml again (Debian: apt-get install restic)") from None


def reason_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last sentences of a program that failed."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return "; ".join(lines[-4:]) or f"exit code {done.returncode}"


def snapshots(app: str, what: str | None = None) -> list[dict[str, Any]]:
    """Return an app's snapshots, the oldest first."""
    tags = [f"--tag={what}"] if what else []
    found = json.loads(restic(app, "snapshots", "--json", *tags).stdout or "[]") or []
    return sorted(found, key=lambda row: instant(row["time"]))


def snapshot_of(app: str, told: str) -> str:
    """Return the name of the snapshot that restic says it made."""
    for line in told.splitlines():
        row = json.loads(line)
        if row.get("message_type") == "summary":
            return str(row["snapshot_id"][:8])
    raise Failure(f"restic backup of {app} ended without a snapshot: {told[-300:]}")


def keep(job: Mapping[str, Any], state: dict[str, Any]) -> None:
    """Forget what is older than the manifest wants, and free its space."""
    days = job["keep_days"]
    steps = {"within": min(days, 2), "within-hourly": min(days, 14), "within-daily": days}
    rules = ["--keep-last=2", *(f"--keep-{step}={length}d" for step, length in steps.items())]
    tags = [f"--tag={tag}" for tag in (job["what"], f"safety-{job['what']}")]
    restic(job["app"], "forget", "--prune", *tags, "--group-by=tags", *rules)
    state["pruned"] = time.time()


# ---------------------------------------------------------------- what is backed up


def digest(rows: Iterator[Any]) -> dict[str, Any]:
    """Return how many rows there are and a checksum of all of them."""
    count, checksum = 0, hashlib.sha256()
    for row in rows:
        checksum.update(repr(row).encode())
        count += 1
    return {"rows": count, "sha256": checksum.hexdigest()}


def sqlite_tables(path: Path) -> dict[str, Any]:
    """Return what each table of a SQLite file holds. Raises Failure when the file is damaged."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            database.text_factory = bytes
            sound = database.execute("PRAGMA quick_check").fetchone()[0]
            if sound != b"ok":
                raise Failure(f"{path.name} is damaged: {sound.decode(errors='replace')[:200]}")
            names = database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY 1"
            ).fetchall()
            tables = {}
            for (name,) in names:
                quoted = '"' + name.decode().replace('"', '""') + '"'
                tables[name.decode()] = digest(iter(database.execute(f"SELECT * FROM {quoted}")))  # noqa: S608 - quoted
            return tables
    except sqlite3.DatabaseError as error:
        raise Failure(f"{path.name} is damaged: {error}") from error


def copy_sqlite(source: Path, target: Path) -> int:
    """Copy a SQLite database that is in use, as it is at one moment; return the bytes it uses: deleting rows does not shrink its file."""
    if not source.is_file():
        raise Failure(f"{source} is not there; has the app been started?")
    try:
        with (
            contextlib.closing(sqlite3.connect(f"file:{source}?mode=rw", uri=True, timeout=60)) as live,
            contextlib.closing(sqlite3.connect(target)) as copy,
        ):
            live.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
            pages, free, size = (
                copy.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
            )
            return int((pages - free) * size)
    except sqlite3.DatabaseError as error:
        raise Failure(
            f"{source} cannot be copied: {error}; `pergola-backup restore` brings the last good one back"
        ) from error


class Session:
    """A psql that stays in one transaction: a dump and the checksums of the tables see the same moment."""

    def __init__(self, database: str) -> None:
        command = [*POSTGRES, "psql", "--no-psqlrc", "--quiet", "-At", "-v", "ON_ERROR_STOP=1", "-d", database]
        self._errors = open(os.devnull, "w") if QUIET else None  # noqa: SIM115, PTH123 - closed with the session
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, cwd="/"
        )
        self._database = database

    def ask(self, statement: str) -> list[str]:
        """Return the lines of an answer."""
        asked, told = self._process.stdin, self._process.stdout
        if asked is None or told is None:  # both are pipes
            raise Failure("psql has no input or output")
        try:
            asked.write(f"{statement};\n\\echo --done--\n")
            asked.flush()
        except BrokenPipeError:
            raise Failure(f"PostgreSQL does not let us into {self._database}; see: journalctl -u postgresql") from None
        lines: list[str] = []
        for line in told:
            if line == "--done--\n":
                return lines
            lines.append(line.rstrip("\n"))
        raise Failure(f"PostgreSQL ended the session with {self._database}; see: journalctl -u postgresql")

    def __enter__(self) -> Self:
        self.ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._process.communicate(timeout=60)
        if self._errors:
            self._errors.close()

    def tables(self) -> dict[str, Any]:
        """Return what each table holds: its rows, and a sum of their hashes that does not depend on their order."""
        found = {}
        for line in self.ask("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables "
                             "WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"):  # fmt: skip
            hashes = "coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)"
            (row,) = self.ask(f"SELECT count(*), {hashes} FROM {line} t")  # noqa: S608 - format() quoted it
            rows, _, checksum = row.partition("|")
            found[line] = {"rows": int(rows), "hash": checksum}
        return found


def postgres(*command: str, stdin: Any = None) -> str:
    """Run a program as PostgreSQL's own user."""
    done = subprocess.run([*POSTGRES, *command], stdin=stdin, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode != 0:
        raise Failure(f"{command[0]} failed: {reason_of(done)}")
    return done.stdout


def dump_postgresql(database: str, target: Path) -> dict[str, Any]:
    """Dump a database and return what its tables held at that moment."""
    with Session(database) as session:
        (snapshot,) = session.ask("SELECT pg_export_snapshot()")
        with target.open("wb") as stream:
            done = subprocess.run(
                [*POSTGRES, "pg_dump", f"--snapshot={snapshot}", "--format=custom", "--compress=0", database],
                stdout=stream, stderr=subprocess.PIPE, check=False, cwd="/",
            )  # fmt: skip
        if done.returncode != 0:
            raise Failure(f"pg_dump of {database} failed: {done.stderr.decode(errors='replace').strip()[-500:]}")
        return session.tables()


def load_postgresql(archive: Path, database: str, owner: str) -> None:
    """Put a dump in the place of all that a database holds, in one transaction: wholly or not at all."""
    head = f'DROP SCHEMA IF EXISTS public CASCADE; CREATE SCHEMA public AUTHORIZATION "{owner}";\n'
    listed = subprocess.run(["pg_restore", "--list", str(archive)], capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        raise Failure(f"{archive.name} is no dump: {reason_of(listed)}")
    with scratch("load", archive.parent) as folder:
        # the schema is made above: with the same name the dump's own would be refused
        wanted = [line for line in listed.stdout.splitlines() if not re.search(r" SCHEMA - public ", line)]
        (folder / "list").write_text("\n".join(wanted), encoding="utf-8")
        script = folder / "load.sql"
        with script.open("wb") as stream:
            stream.write(head.encode())
            stream.flush()
            made = subprocess.run(
                ["pg_restore", f"--use-list={folder / 'list'}", "--file=-", str(archive)],
                stdout=stream, stderr=subprocess.PIPE, check=False,
            )  # fmt: skip
        if made.returncode != 0:
            raise Failure(f"{archive.name} cannot be read: {made.stderr.decode(errors='replace').strip()[-500:]}")
        with script.open("rb") as stream:
            flags = ["--no-psqlrc", "--quiet", "--single-transaction", "-v", "ON_ERROR_STOP=1"]
            postgres("psql", *flags, "-d", database, stdin=stream)


def files_in(folder: Path, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the size, time and checksum of each file below a folder; one that is known and unchanged is not read again."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        name = str(path.relative_to(folder))
        try:
            before = path.stat()
            old = (known or {}).get(name)
            if old and (old["bytes"], old["time"]) == (before.st_size, before.st_mtime_ns):
                found[name] = old
                continue
            checksum = hashlib.sha256()
            with path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    checksum.update(block)
        except FileNotFoundError:  # removed meanwhile
            continue
        found[name] = {"bytes": before.st_size, "time": before.st_mtime_ns, "sha256": checksum.hexdigest()}
    return found


def differences(held: Mapping[str, Any], found: Mapping[str, Any], noun: str) -> list[str]:
    """Return how what was restored differs from what was backed up, a sentence each."""
    told = []
    for name in sorted({*held, *found}):
        if name not in found:
            told.append(f"{noun} {name} is missing")
        elif name not in held:
            told.append(f"{noun} {name} is one too many")
        else:
            old, new = (
                {key: value for key, value in row.items() if key != "time"} for row in (held[name], found[name])
            )
            if old != new:
                counts = (
                    f" ({old['rows']} rows, now {new['rows']})" if "rows" in old and old["rows"] != new["rows"] else ""
                )
                told.append(f"{noun} {name} is not as it was{counts}")
    return told


# ---------------------------------------------------------------- commands


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Back up one thing of an app, or all of it. What fails is told at the end: the rest is backed up all the same."""
    done, failed = [], []
    with alone(options.wait):
        for job in jobs(options.app, options.what):
            state = read_state(job)
            try:
                done.append(back_up(job, state))
            except (Failure, OSError) as error:
                state["failed"] = {"time": moment(time.time()), "reason": str(error).splitlines()[0]}
                write(state_file(job), state)
                failed.append(f"{job['app']} {job['what']}: {error}")
    if failed:
        raise Failure("\n".join(failed), backups=done)
    return {"changed": True, "backups": done}


def back_up(job: Mapping[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Make one backup and note it."""
    began, app, what = time.time(), job["app"], job["what"]
    with scratch(f"{app}-{what}") as folder:
        contents, paths, size = gathered(job, folder)
        mark = hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()
        same = state.get("mark") == mark and bool(state.get("snapshot")) and is_there(app, state)
        if not same:
            state["snapshot"], state["seen"] = stored(job, folder, contents, paths), began
    before = state.get("bytes", size)
    if not same:
        state["previous_bytes"], state["bytes"] = before, size
    state["shrunk"] = has_shrunk(state, before, began)
    held = held_in(contents)
    state.update(app=app, what=what, time=moment(began), mark=mark, held=held)
    state.setdefault("first", state["time"])
    state.pop("failed", None)
    try:
        if began - state.get("pruned", 0) >= PRUNE_SECONDS:
            keep(job, state)
    except Failure as error:  # what was backed up is safe all the same
        state["failed"] = {
            "time": moment(time.time()),
            "reason": f"old backups are not removed: {error}".splitlines()[0],
        }
        say(f"{app} {what}: {state['failed']['reason']}")
    state["seconds"] = round(time.time() - began, 1)
    write(state_file(job), state)
    say(f"{app} {what}: {held}, {size} bytes, " + ("nothing new" if same else f"snapshot {state['snapshot']}"))
    if state["shrunk"]:
        say(
            f"{app} {what}: WARNING: it is less than half of the {state['largest']['bytes']} bytes before; was something lost?"
        )
    shown = ("app", "what", "time", "bytes", "held", "snapshot", "seconds", "shrunk")
    return {key: state[key] for key in shown if key in state}


def gathered(job: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], list[str], int]:
    """Bring together what is to be kept: its list of contents, the paths (those in the scratch folder without theirs), its bytes."""
    if job["what"] == "storage":
        source = Path(job["storage"])
        if not source.is_dir():
            return {"files": {}}, [], 0
        files = files_in(source, known_files(job["app"]))
        write(STATE / f".{job['app']}-files.json", files, 0o600)
        return {"files": files}, [str(source)], sum(row["bytes"] for row in files.values())
    if job["kind"] == "postgresql":
        tables = dump_postgresql(job["database"], folder / "database.dump")
        return {"tables": tables}, ["database.dump"], (folder / "database.dump").stat().st_size
    size = copy_sqlite(Path(job["database"]), folder / "database.sqlite")
    return {"tables": sqlite_tables(folder / "database.sqlite")}, ["database.sqlite"], size


def held_in(contents: Mapping[str, Any]) -> str:
    """Return in words how much a list of contents names."""
    if "files" in contents:
        return f"{len(contents['files']) + len(contents.get('moving', []))} files"
    return f"{len(contents['tables'])} tables, {sum(table['rows'] for table in contents['tables'].values())} rows"


def stored(job: Mapping[str, Any], folder: Path, contents: dict[str, Any], paths: list[str], tag: str = "") -> str:
    """Make a snapshot of what was gathered, with its list of contents; return its name.

    An app goes on writing while restic reads its folder. A file that changed or went away meanwhile is named as ``moving`` in the next
    attempt's list: it is kept as restic found it, and is not compared. One that came later is no part of the backup.
    """
    app, source, moving = job["app"], job.get("storage", ""), set[str]()
    for _ in range(TRIES):
        files = contents.get("files", {})
        listed = {**contents}
        if "files" in contents:
            listed["files"] = {name: row for name, row in files.items() if name not in moving}
            listed["moving"] = sorted(moving & {*files})
        (folder / "contents.json").write_text(json.dumps(listed, sort_keys=True), encoding="utf-8")
        flags = ["--json", f"--tag={tag or job['what']}", "--host=pergola"]
        done = restic(app, "backup", *flags, "contents.json", *paths, cwd=folder, check=False)
        if done.returncode not in (0, INCOMPLETE):
            raise Failure(f"restic backup of {app} failed: {reason_of(done)}")
        name = snapshot_of(app, done.stdout)
        now = files_in(Path(source), files) if "files" in contents and paths else {}
        changed = {one for one, row in listed.get("files", {}).items() if now.get(one) != row}
        if not changed and done.returncode == 0:
            return name
        restic(app, "forget", name)
        if not changed and not moving:
            raise Failure(f"restic could not read all of {app} {job['what']}: {reason_of(done)}")
        moving |= changed
        contents = {**contents, "files": now}
    raise Failure(
        f"{source} changes faster than it is read ({', '.join(sorted(moving)[:5])}); back it up when {app} is quieter, or stop it meanwhile"
    )


def has_shrunk(state: dict[str, Any], before: int, now: float) -> bool:
    """Whether a backup has less than half the bytes of the one before, or of any within a day: also what is lost step by step."""
    size, largest = state["bytes"], state.get("largest")
    if not largest or now - largest["at"] >= DAY:
        largest = {"bytes": before, "at": now}
    if size >= largest["bytes"]:
        largest = {"bytes": size, "at": now}
    state["largest"] = largest
    return bool(largest["bytes"] > FLOOR and size * 2 < largest["bytes"])


def prune(options: argparse.Namespace) -> dict[str, Any]:
    """Forget what is older than the manifests want, and free its space; cron's runs do it once a day."""
    with alone(options.wait):
        for job in jobs(options.app, options.what):
            state = read_state(job)
            _restic(job["app"], "unlock")
            keep(job, state)
            write(state_file(job), state)
            say(
                f"{job['app']} {job['what']}: kept for {job['keep_days']} days: {len(snapshots(job['app'], job['what']))} backups"
            )
    return {"changed": True}


def chosen(job: Mapping[str, Any], at: str | None, snapshot: str | None = None) -> dict[str, Any]:
    """Return the last snapshot of a job, the last one at a time, or the one that is named. Raises Failure."""
    app, what = job["app"], job["what"]
    if snapshot:
        named = [
            row
            for tag in (what, f"safety-{what}")
            for row in snapshots(app, tag)
            if len(snapshot) >= 4 and row["id"].startswith(snapshot)
        ]
        if len(named) != 1:
            raise Failure(f"{app} {what} has no snapshot {snapshot}; see: pergola-backup list {app}")
        return named[0]
    every = snapshots(app, what)
    found = [row for row in every if at is None or instant(row["time"]) <= instant(at)]
    if not found:
        oldest = (
            f"; the oldest is of {every[0]['time'][:19]}Z" if every else f"; make one: pergola-backup run {app} {what}"
        )
        raise Failure(f"there is no backup of {app} {what}" + (f" at {at}" if at else "") + oldest)
    return found[-1]


def fetch(job: Mapping[str, Any], snapshot: Mapping[str, Any], folder: Path) -> tuple[Path, dict[str, Any]]:
    """Bring a snapshot into a scratch folder and compare it with what it says it holds; return where it is, and its contents.

    Raises:
        Failure: It cannot be read, or differs; with each table and file that does.
    """
    restic(job["app"], "restore", snapshot["id"], f"--target={folder}")
    listing = next(iter(folder.rglob("contents.json")), None) if job["what"] != "storage" else None
    if listing is None:
        # the folder itself may hold a file of that name: ours is in the work folder
        listing = next((path for path in folder.rglob("contents.json") if path.parent.name.startswith(".work-")), None)
    if listing is None:
        raise Failure(
            f"the backup {snapshot['short_id']} of {job['app']} {job['what']} has no list of contents: "
            "it was damaged already when it was kept; choose another with --at"
        )
    contents = json.loads(listing.read_text(encoding="utf-8"))
    if job["what"] == "storage":
        place = folder / Path(job["storage"]).relative_to("/")
        place.mkdir(parents=True, exist_ok=True)
        moving = {*contents.get("moving", [])}
        for name in {*files_in(place)} - {*contents["files"]} - moving:  # it came after the list was made
            (place / name).unlink()
        found = {name: row for name, row in files_in(place).items() if name not in moving}
        told = differences(contents["files"], found, "file")
    elif job["kind"] == "postgresql":
        place, told = listing.parent / "database.dump", []  # compared where it can be loaded
    else:
        place = listing.parent / "database.sqlite"
        told = differences(contents["tables"], sqlite_tables(place), "table")
    if told:
        raise Failure(
            f"the backup {snapshot['short_id']} of {job['app']} {job['what']} is not what was backed up: "
            + "; ".join(told[:20])
        )
    return place, contents


def restore(options: argparse.Namespace) -> dict[str, Any]:
    """Bring an app back to a backup: what is there now is kept aside first, and the app serves again at the end."""
    if options.at:
        instant(options.at)
    module, done = host(), []
    wanted = jobs(options.app, options.what)
    if options.snapshot and len(wanted) != 1:
        raise Failure("a snapshot is one thing of one app: pergola-backup restore <app> <what> --snapshot <name>")
    with alone(options.wait):
        for app in sorted({job["app"] for job in wanted}):
            mine = [job for job in wanted if job["app"] == app]
            with module.locked(app, options.wait), contextlib.ExitStack() as stack:
                ready = []
                for job in mine:
                    near = Path(job["storage"]).parent if job["what"] == "storage" else None
                    folder = stack.enter_context(scratch(f"restore-{app}-{job['what']}", near))
                    say(f"{app} {job['what']}: fetching")
                    snapshot = chosen(job, options.at, options.snapshot)
                    ready.append((job, snapshot, *fetch(job, snapshot, folder)))
                with stopped(app):
                    for job, snapshot, place, contents in ready:
                        safety = "not kept" if options.without_safety else put_aside(job)
                        put_back(job, place, contents)
                        held = held_in(contents)
                        say(
                            f"{app} {job['what']}: back to {snapshot['time'][:19]}Z ({held}); what was there before: {safety}"
                        )
                        row = {"app": app, "what": job["what"], "time": f"{snapshot['time'][:19]}Z", "held": held}
                        done.append({**row, "snapshot": snapshot["short_id"], "safety": safety})
    return {"changed": True, "restored": done}


@contextlib.contextmanager
def stopped(name: str) -> Iterator[None]:
    """Stop an app's services while its data is replaced, and start what was live again whatever happens."""
    module = host()
    app, state = module.app_plan(name), module.read_state(name)
    slots = [slot for slot, held in state["slots"].items() if held]
    say(f"{name}: stopping")
    for slot in slots:
        module.stop_slot(app, slot)
    try:
        yield
    finally:
        if state["live"]:
            say(f"{name}: starting again")
            module.start_slot(app, state["live"]["slot"], app["kinds"])
            try:
                module.wait_ready(app, state["live"]["slot"], 120)
            except module.Failure as error:
                raise Failure(f"{name} does not serve after the restore: {error}") from error


def put_aside(job: Mapping[str, Any]) -> str:
    """Keep what is there now, sound or not, as a snapshot that can be restored like any other; return its name.

    A damaged SQLite database is kept as it is, without a list of contents. Of a damaged PostgreSQL database there is no such copy.
    """
    app, what = job["app"], job["what"]
    tag = f"safety-{what}"
    with scratch(f"safety-{app}") as folder:
        try:
            contents, paths, _ = gathered(job, folder)
            return stored(job, folder, contents, paths, tag)
        except Failure as error:
            if what == "storage" or job["kind"] == "postgresql":
                raise Failure(
                    f"what {app} has now cannot be kept aside, so nothing was replaced: {error}; "
                    "to give it up, say --without-safety"
                ) from error
        source = Path(job["database"])
        paths = [str(path) for end in ("", "-wal", "-shm") if (path := source.with_name(source.name + end)).is_file()]
        if not paths:
            return "nothing"
        return snapshot_of(
            app, restic(app, "backup", "--json", f"--tag={tag}", "--host=pergola", *paths, cwd=folder).stdout
        )


def put_back(job: Mapping[str, Any], place: Path, contents: Mapping[str, Any]) -> None:
    """Replace what is there by what was fetched; compared once more where it now is."""
    if job["what"] == "database" and job["kind"] == "postgresql":
        load_postgresql(place, job["database"], job["user"])
        with Session(job["database"]) as session:
            told = differences(contents["tables"], session.tables(), "table")
        if told:
            raise Failure(f"{job['app']}: the restored database differs: {'; '.join(told)}")
        return
    account = pwd.getpwnam(job["user"])
    if job["what"] == "database":
        target = Path(job["database"])
        new = target.with_name(f".{target.name}.restored")
        with place.open("rb") as source, new.open("wb") as stream:
            shutil.copyfileobj(source, stream, 1 << 20)
            stream.flush()
            os.fsync(stream.fileno())
        os.chown(new, account.pw_uid, account.pw_gid)
        new.chmod(0o600)
        for end in ("-wal", "-shm", "-journal"):  # they belong to what is replaced
            target.with_name(target.name + end).unlink(missing_ok=True)
        new.replace(target)
        return
    target = Path(job["storage"])
    for path in [place, *place.rglob("*")]:
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
    old = target.with_name(f".{target.name}.before")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.replace(old)
    place.replace(target)
    shutil.rmtree(old, ignore_errors=True)


def drill(options: argparse.Namespace) -> dict[str, Any]:
    """Restore the last backup of everything into a scratch place and compare it; touches nothing that serves."""
    rows, unsound = [], dict[str, str]()
    with alone(options.wait):
        for app in sorted({job["app"] for job in jobs(options.app, options.what)}):
            checked = restic(app, "check", check=False)
            if checked.returncode:
                unsound[app] = f"the repository is not sound: {reason_of(checked)}"
        for job in jobs(options.app, options.what):
            began = time.time()
            row: dict[str, Any] = {"app": job["app"], "what": job["what"]}
            try:
                snapshot = chosen(job, None)
                row["time"] = f"{snapshot['time'][:19]}Z"
                with scratch(f"drill-{job['app']}") as folder:
                    row["held"] = rehearse(job, snapshot, folder)
                    row["bytes"] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                row["equal"] = True
                # a quiet app's last snapshot is old, and holds all the same: what counts is when it was last found to be current
                row["rpo_seconds"] = round(began - instant(read_state(job).get("time", row["time"])))
            except (Failure, OSError) as error:
                row["equal"], row["reason"] = False, str(error)
            if job["app"] in unsound:
                row["equal"], row["reason"] = (
                    False,
                    "; ".join([unsound[job["app"]], *filter(None, [row.get("reason")])]),
                )
            row["rto_seconds"] = round(time.time() - began, 1)
            say(
                f"{row['app']} {row['what']}: "
                + (f"equal ({row['held']}), {row['rto_seconds']} s" if row["equal"] else f"FAILED: {row['reason']}")
            )
            rows.append(row)
    good = all(row["equal"] for row in rows)
    drilled = {(row["app"], row["what"]) for row in rows}
    names = {(job["app"], job["what"]) for job in jobs()}
    rest = [
        row for row in last_drill() if (row["app"], row["what"]) in names - drilled
    ]  # a drill of one app says nothing of others
    told = {"time": moment(time.time()), "good": good and all(row["equal"] for row in rest), "rows": rest + rows}
    write(STATE / "drill.json", told)
    if not good:
        bad = [f"{row['app']} {row['what']}: {row['reason']}" for row in rows if not row["equal"]]
        raise Failure("the drill found backups that do not restore:\n" + "\n".join(bad))
    return {"changed": False, "time": told["time"], "good": good, "rows": rows}


def last_drill() -> list[dict[str, Any]]:
    """Return what the last drills found."""
    try:
        return list(json.loads((STATE / "drill.json").read_text(encoding="utf-8"))["rows"])
    except (FileNotFoundError, ValueError, KeyError):
        return []


def rehearse(job: Mapping[str, Any], snapshot: Mapping[str, Any], folder: Path) -> str:
    """Restore one snapshot into a scratch folder or database, compare, and return what it holds."""
    place, contents = fetch(job, snapshot, folder)
    if job["what"] == "storage":
        return held_in(contents)
    if job["kind"] == "postgresql":
        name = f"{job['database']}_drill"
        postgres("dropdb", "--if-exists", "--force", name)
        postgres("createdb", "--template=template0", name)
        try:
            load_postgresql(place, name, job["user"])
            with Session(name) as session:
                told = differences(contents["tables"], session.tables(), "table")
        finally:
            postgres("dropdb", "--if-exists", "--force", name)
        if told:
            raise Failure("; ".join(told))
    return held_in(contents)


def listing(options: argparse.Namespace) -> dict[str, Any]:
    """List the backups of an app, or of all."""
    rows = []
    for app in sorted({job["app"] for job in jobs(options.app)}):
        rows += [
            {
                "app": app,
                "time": f"{row['time'][:19]}Z",
                "snapshot": row["short_id"],
                "what": ",".join(row.get("tags") or []),
            }
            for row in snapshots(app)
        ]
    if not options.json:
        for row in rows:
            print(f"{row['app']:<12} {row['time']}  {row['snapshot']}  {row['what']}")
    return {"changed": False, "backups": rows}


def check(options: argparse.Namespace) -> dict[str, Any]:
    """Read every byte of the repositories (or a sample of them) and compare checksums."""
    bad = []
    data = f"--read-data-subset={options.sample}%" if options.sample else "--read-data"
    with alone(options.wait):
        for app in sorted({job["app"] for job in jobs(options.app)}):
            for _ in range(CHECK_TRIES):
                done = restic(app, "check", data, check=False)
                if done.returncode == 0 or "already locked" not in f"{done.stdout} {done.stderr}":
                    break
                say(f"{app}: another host writes there; waiting")
                time.sleep(60)
            say(f"{app}: " + ("sound" if done.returncode == 0 else f"DAMAGED: {reason_of(done)}"))
            if done.returncode:
                bad.append(f"{app}: {reason_of(done)}")
    if bad:
        raise Failure("repositories are damaged: " + "\n".join(bad) + "\nmake a new backup now: pergola-backup run")
    return {"changed": False}


def age(options: argparse.Namespace) -> dict[str, Any]:
    """Tell how old each backup is, and fail when one is too old, has shrunk or failed."""
    rows, late = [], []
    for job in jobs(options.app):
        state = read_state(job)
        hours = (time.time() - instant(state["time"])) / 3600 if "time" in state else None
        installed = (time.time() - CONFIG.stat().st_mtime) / 3600
        row = {
            "app": job["app"],
            "what": job["what"],
            "limit": job["too_old_hours"],
            "shrunk": bool(state.get("shrunk")),
            "bytes": state.get("bytes"),
        }
        row["hours"] = None if hours is None else round(hours, 2)
        row["since"] = round(installed if hours is None else hours, 3)  # what a metric of it shows
        row["late"] = (installed if hours is None else hours) > job["too_old_hours"]
        rows.append(row)
        if row["late"]:
            late.append(
                f"{row['app']} {row['what']} is older than {row['limit']:g} hours"
                if hours is not None
                else f"{row['app']} {row['what']} was never backed up"
            )
        if row["shrunk"]:
            late.append(f"{row['app']} {row['what']} shrank to less than half within a day")
        if not options.json:
            shown = "never" if hours is None else f"{hours:.2f} h"
            marks = "".join(f"  {key.upper()}" for key in ("late", "shrunk") if row[key])
            print(f"{row['app']:<12} {row['what']:<10} {shown:>10}  limit {row['limit']:g} h{marks}")
    if late:
        raise Failure("; ".join(late), backups=rows)
    return {"changed": False, "backups": rows}


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(
        prog="pergola-backup", description="Back up the apps of this host, and bring them back."
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print the result as one line of JSON")
    common.add_argument("--quiet", action="store_true", help="say nothing but errors")
    common.add_argument(
        "--wait",
        type=float,
        default=3600,
        metavar="S",
        help="wait so long for another run to end (default %(default)s)",
    )
    commands = top.add_subparsers(dest="action", required=True, metavar="command")

    def add(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text, parents=[common])
        one.set_defaults(function=function)
        one.add_argument("app", nargs="?", help="one app (default: all of them; so does the word all)")
        return one

    what = {"nargs": "?", "choices": ("database", "storage"), "help": "only this (default: both)"}
    add("run", run, "back up now").add_argument("what", **what)  # type: ignore[arg-type]
    one = add("restore", restore, "bring an app back to a backup; what is there now is kept aside first")
    one.add_argument("what", **what)  # type: ignore[arg-type]
    one.add_argument(
        "--at", metavar="TIME", help="the last backup at this time, such as 2026-01-31T04:00:00Z (default: the last)"
    )
    one.add_argument("--snapshot", metavar="NAME", help="this one of the list; a safety copy too")
    one.add_argument(
        "--without-safety", action="store_true", help="do not keep what is there now: when it cannot be read any more"
    )
    add("drill", drill, "restore everything into a scratch place and compare").add_argument("what", **what)  # type: ignore[arg-type]
    add("list", listing, "the backups there are")
    add("check", check, "read every byte of the repositories and compare checksums").add_argument(
        "--sample",
        type=int,
        choices=range(1, 101),
        metavar="PERCENT",
        help="read only so much of the data, each time another part",
    )
    add("prune", prune, "forget what is older than the manifests want, and free its space").add_argument("what", **what)  # type: ignore[arg-type]
    add("age", age, "how old the backups are; fails when one is too old")
    return top


def main() -> int:
    """Run one command."""
    global QUIET  # noqa: PLW0603 - one switch of a command-line tool
    options = parser().parse_args()
    QUIET = options.quiet
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt("stopped by SIGTERM")))
    if os.geteuid() != 0:
        print("pergola-backup: this needs root; run it with sudo", file=sys.stderr)
        return 1
    os.umask(0o077)
    try:
        result = options.function(options)
    except (
        Failure,
        OSError,
        subprocess.SubprocessError,
        getattr(sys.modules.get("pergola_host"), "Failure", Failure),
    ) as error:
        if options.json:
            print(json.dumps({"changed": False, "failed": True, "msg": str(error), **getattr(error, "told", {})}))
        print(f"pergola-backup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print(f"pergola-backup: interrupted ({error or 'Ctrl-C'}); run the same command again", file=sys.stderr)
        return 130
    if options.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
