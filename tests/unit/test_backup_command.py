"""The command pergola-backup with a real restic, on folders of a test's own: what it keeps, what it gives back, what it refuses."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "roles/backup/files/pergola_backup.py"
CODE = compile(PROGRAM.read_text(encoding="utf-8"), str(PROGRAM), "exec")
pytestmark = [
    pytest.mark.skipif(
        shutil.which("restic") is None, reason="restic is not installed (Debian: apt-get install restic)"
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="it gives files to their owner, which only root can"),
]


class Host:
    """The program with its folders below a test's own one. The services it stops and starts are a list of words."""

    def __init__(self, folder: Path, repository: str) -> None:
        self.module: Any = types.ModuleType("pergola_backup")
        exec(CODE, self.module.__dict__)  # noqa: S102 - a module of its own for each test
        self.folder, self.did = folder, []
        self.state_dir = folder / "lib/wine"
        (self.state_dir / "storage/models").mkdir(parents=True)
        (folder / "etc").mkdir()
        self.module.CONFIG = folder / "etc/backup.json"
        self.module.PASSWORD = folder / "etc/backup.password"
        self.module.STATE = folder / "lib/.backup"
        self.module.CACHE = folder / "cache"
        self.module.QUIET = True
        sys.modules["pergola_host"] = self.services()
        self.jobs = [
            {"app": "wine", "what": "database", "kind": "sqlite", "database": str(self.database), "user": "root",
             "schedule": "*/5 * * * *", "keep_days": 30, "too_old_hours": 0.167},
            {"app": "wine", "what": "storage", "kind": "folder", "storage": str(self.state_dir / "storage"), "user": "root",
             "schedule": "40 3 * * *", "keep_days": 30, "too_old_hours": 48.0},
        ]  # fmt: skip
        self.configure(repository)
        with closing(sqlite3.connect(self.database)) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)")
            database.execute('CREATE TABLE "odd "" name" (blob BLOB)')
            database.commit()
        self.add("first")
        self.model = self.state_dir / "storage/models/one.bin"
        self.model.write_bytes(b"model one" * 1000)

    @property
    def database(self) -> Path:
        return self.state_dir / "wine.db"

    def configure(self, repository: str) -> None:
        self.module.CONFIG.write_text(json.dumps({"repository": repository, "region": "", "jobs": self.jobs}))

    def services(self) -> Any:
        """Stand in for the program `pergola`, whose own tests show what it does with systemd."""
        program = compile((ROOT / "roles/apps/files/pergola.py").read_text(encoding="utf-8"), "pergola.py", "exec")
        module: Any = types.ModuleType("pergola_host")
        exec(program, module.__dict__)  # noqa: S102 - its real locks
        module.LOCKS = self.folder / "lock"
        module.app_plan = lambda name: {"name": name, "kinds": ["api"]}
        module.read_state = lambda _: {"slots": {"a": {"state": "live"}, "b": None}, "live": {"slot": "a"}}
        module.stop_slot = lambda _, slot: self.did.append(f"stop {slot}")
        module.start_slot = lambda _, slot, __: self.did.append(f"start {slot}")
        module.wait_ready = lambda *_: self.did.append("ready")
        return module

    def add(self, text: str) -> None:
        with closing(sqlite3.connect(self.database)) as database:
            database.execute("INSERT INTO notes (text) VALUES (?)", (text,))
            database.execute('INSERT INTO "odd "" name" VALUES (?)', (os.urandom(100),))
            database.commit()

    def notes(self) -> list[str]:
        with closing(sqlite3.connect(self.database)) as database:
            return [row[0] for row in database.execute("SELECT text FROM notes ORDER BY id")]

    def run(self, *arguments: str) -> dict[str, Any]:
        options: argparse.Namespace = self.module.parser().parse_args([*arguments, "--json", "--wait=20"])
        return options.function(options)  # type: ignore[no-any-return]

    def refused(self, *arguments: str) -> str:
        with pytest.raises(self.module.Failure) as caught:
            self.run(*arguments)
        return str(caught.value)

    def packs(self) -> list[Path]:
        return [path for path in (self.folder / "repository/wine/data").rglob("*") if path.is_file()]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    yield Host(tmp_path, str(tmp_path / "repository"))
    del sys.modules["pergola_host"]


def test_what_was_lost_comes_back(host: Host) -> None:
    (backup, files) = host.run("run")["backups"]
    assert backup["held"] == "2 tables, 2 rows"
    assert files["held"] == "1 files"
    host.add("lost again")
    host.model.write_bytes(b"overwritten")
    (host.model.parent / "new.bin").write_bytes(b"x")
    restored = host.run("restore", "wine")["restored"]
    assert host.notes() == ["first"]
    assert host.model.read_bytes() == b"model one" * 1000
    assert not (host.model.parent / "new.bin").exists()
    assert [row["held"] for row in restored] == ["2 tables, 2 rows", "1 files"]
    assert host.did == ["stop a", "start a", "ready"]
    assert not list(host.folder.glob("lib/**/.work-*")), "no scratch stays"


def test_what_was_there_before_a_restore_is_kept_aside(host: Host) -> None:
    host.run("run")
    host.add("written since")
    (row,) = host.run("restore", "wine", "database")["restored"]
    assert host.notes() == ["first"]
    target = host.folder / "aside"
    host.module.restic("wine", "restore", row["safety"], f"--target={target}")
    (copy,) = target.rglob("database.sqlite")
    with closing(sqlite3.connect(copy)) as database:
        assert database.execute("SELECT count(*) FROM notes").fetchone() == (2,)


def test_any_point_in_time(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    times = []
    for text in ("second", "third"):
        host.run("run", "wine", "database")
        times.append(host.run("list", "wine")["backups"][-1]["time"])
        subprocess.run(["sleep", "1.1"], check=True)  # the list shows whole seconds
        host.add(text)
    host.run("run", "wine", "database")
    after = host.module.moment(host.module.instant(times[1]) + 1)
    host.run("restore", "wine", "database", f"--at={after}")
    assert host.notes() == ["first", "second"]
    host.run("restore", "wine", "database")
    assert host.notes() == ["first", "second", "third"], "a restore makes no backup that counts as the last one"


@pytest.mark.parametrize(
    ("at", "said"),
    [("yesterday", "write it as"), ("2001-01-01T00:00:00Z", "the oldest is of"), ("2026-99-01", "is no time")],
)
def test_a_time_that_cannot_be_is_refused_before_anything_stops(host: Host, at: str, said: str) -> None:
    host.run("run")
    assert said in host.refused("restore", "wine", f"--at={at}")
    assert host.did == []


def test_a_database_is_whole_while_it_is_written(host: Host) -> None:
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            host.add("busy")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            host.run("run", "wine", "database")
    finally:
        stop.set()
        writer.join()
    (row,) = host.run("drill", "wine", "database")["rows"]
    assert row["equal"]
    with closing(sqlite3.connect(host.database)) as database:  # both tables get a row in one transaction
        counts = database.execute(
            'SELECT (SELECT count(*) FROM notes), (SELECT count(*) FROM "odd "" name")'
        ).fetchone()
    assert counts[0] == counts[1]


def test_nothing_new_makes_no_snapshot_but_is_noted(host: Host) -> None:
    host.run("run")
    before = host.run("list")["backups"]
    host.run("run")
    assert host.run("list")["backups"] == before
    assert host.run("age")["backups"][0]["hours"] < 0.1


def test_a_backup_that_shrinks_by_half_is_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.model.write_bytes(os.urandom(400_000))
    host.run("run", "wine", "storage")
    host.model.write_bytes(b"little")
    (row,) = host.run("run", "wine", "storage")["backups"]
    assert row["shrunk"]
    assert "shrank to less than half" in host.refused("age")
    host.model.write_bytes(os.urandom(10))
    assert host.run("run", "wine", "storage")["backups"][0]["shrunk"], "it is told for a day"
    monkeypatch.setattr(host.module, "DAY", 0)
    assert not host.run("run", "wine", "storage")["backups"][0]["shrunk"], "then the size is the new one"


def test_what_is_lost_step_by_step_is_told_too(host: Host) -> None:
    """Rows that are deleted leave a SQLite file as large as it was: what counts is what it uses."""
    with closing(sqlite3.connect(host.database)) as database:
        database.executemany("INSERT INTO notes (text) VALUES (?)", (("x" * 1000,) for _ in range(500)))
        database.commit()
    assert not host.run("run", "wine", "database")["backups"][0]["shrunk"]
    told = []
    for rest in (350, 200):
        with closing(sqlite3.connect(host.database)) as database:
            database.execute("DELETE FROM notes WHERE id > ?", (rest,))
            database.commit()
        told.append(host.run("run", "wine", "database")["backups"][0]["shrunk"])
    assert told == [False, True]
    assert host.database.stat().st_size > 400_000


def flip(path: Path) -> None:
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def test_a_drill_finds_a_flipped_bit_in_a_repository(host: Host) -> None:
    host.run("run")
    assert host.run("drill")["good"]
    for pack in host.packs():
        flip(pack)
    shutil.rmtree(host.module.CACHE)  # what is read is what is in the repository
    said = host.refused("drill")
    assert "wine database" in said
    assert "backups that do not restore" in said
    assert json.loads((host.module.STATE / "drill.json").read_text())["good"] is False
    assert "damaged" in host.refused("check")


def test_a_check_reads_a_sample_and_waits_while_another_host_writes(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.run("run")
    real: Callable[..., Any] = host.module.restic
    asked: list[tuple[str, ...]] = []

    def taken(app: str, *arguments: str, cwd: Path | None = None, check: bool = True) -> Any:
        asked.append(arguments)
        if len(asked) == 1:
            return subprocess.CompletedProcess(
                [], 1, "", "unable to create lock in backend: repository is already locked"
            )
        return real(app, *arguments, cwd=cwd, check=check)

    monkeypatch.setattr(host.module, "restic", taken)
    monkeypatch.setattr(host.module.time, "sleep", lambda _: None)
    host.run("check", "--sample", "100")
    assert asked == [("check", "--read-data-subset=100%")] * 2
    monkeypatch.undo()
    for pack in host.packs():
        flip(pack)
    shutil.rmtree(host.module.CACHE)
    assert "damaged" in host.refused("check", "--sample", "100")


@pytest.mark.parametrize("what", ["database", "storage"])
def test_a_drill_names_the_table_or_file_that_differs(host: Host, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = host.module.restic

    def tampered(app: str, *arguments: str, cwd: Path | None = None, check: bool = True) -> Any:
        """Change what was listed before restic reads it, or what it gave back."""
        if arguments[0] == "backup" and cwd and what == "database":
            with closing(sqlite3.connect(cwd / "database.sqlite")) as database:
                database.execute("DELETE FROM notes")
                database.commit()
        done = real(app, *arguments, cwd=cwd, check=check)
        if arguments[0] == "restore" and what == "storage":
            (restored,) = Path(arguments[-1].partition("=")[2]).rglob("one.bin")
            restored.write_bytes(b"other")
        return done

    monkeypatch.setattr(host.module, "restic", tampered)
    host.run("run", "wine", what)
    said = host.refused("drill", "wine", what)
    assert (
        "file models/one.bin is not as it was" if what == "storage" else "table notes is not as it was (1 rows, now 0)"
    ) in said
    assert "is not what was backed up" in host.refused("restore", "wine", what)
    assert host.did == [], "a backup that differs never replaces anything"


def test_a_folder_may_change_while_it_is_backed_up(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the app writes, removes and adds between the list of contents and restic is no damage; the rest is compared."""
    real: Callable[..., Any] = host.module.restic
    folder, attempts = host.model.parent, []
    for name in ("counter", "passing"):
        (folder / name).write_text("0")

    def busy(app: str, *arguments: str, cwd: Path | None = None, check: bool = True) -> Any:
        if arguments[0] == "backup":
            attempts.append(arguments)
            (folder / "counter").write_text("more" * len(attempts))
            (folder / "passing").unlink(missing_ok=True)
            (folder / f"new-{len(attempts)}").write_text("new")
        return real(app, *arguments, cwd=cwd, check=check)

    monkeypatch.setattr(host.module, "restic", busy)
    host.run("run", "wine", "storage")
    monkeypatch.undo()
    assert len(attempts) == 2
    assert len(host.run("list", "wine")["backups"]) == 1, "an attempt that held less is forgotten"
    assert host.run("drill", "wine", "storage")["good"]
    host.model.unlink()
    host.run("restore", "wine", "storage")
    names = {path.name for path in folder.iterdir()}
    assert {"one.bin", "counter", "new-1"} <= names
    assert "new-2" not in names, "it came after the list was made"


def test_a_folder_that_never_rests_is_named(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = host.module.restic
    paths = [host.model.parent / f"{number}.bin" for number in range(host.module.TRIES)]
    for path in paths:
        path.write_text("0")
    next_one = iter(paths)

    def wild(app: str, *arguments: str, cwd: Path | None = None, check: bool = True) -> Any:
        if arguments[0] == "backup":
            next(next_one).write_text("another")
        return real(app, *arguments, cwd=cwd, check=check)

    monkeypatch.setattr(host.module, "restic", wild)
    assert "changes faster than it is read (models/0.bin" in host.refused("run", "wine", "storage")


def test_a_restore_is_undone_by_its_safety_copy(host: Host) -> None:
    host.run("run")
    host.add("written since")
    host.model.write_bytes(b"since")
    database, storage = host.run("restore", "all")["restored"]
    assert host.notes() == ["first"]
    host.run("restore", "wine", "database", f"--snapshot={database['safety']}")
    host.run("restore", "wine", "storage", f"--snapshot={storage['safety']}")
    assert host.notes() == ["first", "written since"]
    assert host.model.read_bytes() == b"since"
    assert "has no snapshot 00zz" in host.refused("restore", "wine", "storage", "--snapshot=00zz")
    assert "one thing of one app" in host.refused("restore", "wine", f"--snapshot={database['safety']}")


def test_one_that_fails_does_not_keep_the_others_from_being_backed_up(host: Host) -> None:
    host.database.unlink()
    assert host.refused("run").startswith("wine database: ")
    assert [row["what"] for row in host.run("list")["backups"]] == ["storage"]


def test_a_host_that_shares_repositories_makes_no_password_of_its_own(host: Host) -> None:
    path = host.folder / "etc/given"
    told = {
        "repository": str(host.folder / "repository"),
        "jobs": host.jobs,
        "shared": True,
        "password_file": str(path),
    }
    host.module.CONFIG.write_text(json.dumps(told))
    assert "the password of the environment" in host.refused("run")
    assert not path.exists()
    path.write_text("the same for all hosts")
    host.run("run")
    assert not host.module.PASSWORD.exists()


def test_a_damaged_database_is_named_and_the_last_good_backup_stays(host: Host) -> None:
    host.run("run", "wine", "database")
    for end in ("-wal", "-shm"):
        host.database.with_name(host.database.name + end).unlink(missing_ok=True)
    host.database.write_bytes(b"SQLite format 3\0" + os.urandom(8000))
    assert "cannot be copied" in host.refused("run", "wine", "database")
    state = json.loads((host.module.STATE / "wine-database.json").read_text())
    assert "cannot be copied" in state["failed"]["reason"]
    host.run("restore", "wine", "database")
    assert host.notes() == ["first"]
    host.run("run", "wine", "database")
    assert "failed" not in json.loads((host.module.STATE / "wine-database.json").read_text())


def test_a_lost_or_wrong_password_is_named(host: Host) -> None:
    host.run("run", "wine", "database")
    kept = host.module.PASSWORD.read_text()
    assert host.module.PASSWORD.stat().st_mode & 0o777 == 0o600
    host.module.PASSWORD.unlink()
    assert "put the password back" in host.refused("run", "wine", "database")
    assert not host.module.PASSWORD.exists(), "no new one is made for repositories that need the old one"
    host.module.PASSWORD.write_text("another")
    assert "put the right password back" in host.refused("restore", "wine")
    host.module.PASSWORD.write_text(kept)
    host.run("restore", "wine", "database")


def test_a_killed_backup_is_in_nobodys_way(host: Host) -> None:
    host.run("run", "wine", "storage")
    (host.model.parent / "big.bin").write_bytes(os.urandom(30_000_000))
    environment = {
        **os.environ, "RESTIC_REPOSITORY": str(host.folder / "repository/wine"), "RESTIC_PASSWORD_FILE": str(host.module.PASSWORD),
        "RESTIC_CACHE_DIR": str(host.module.CACHE),
    }  # fmt: skip
    process = subprocess.Popen(
        ["restic", "backup", "--quiet", "--limit-upload=500", str(host.state_dir)], env=environment
    )
    locks = host.folder / "repository/wine/locks"
    while not [path for path in locks.glob("*") if "-tmp-" not in path.name]:
        assert process.poll() is None
    process.kill()
    process.wait()
    assert list(locks.glob("*"))
    host.run("run", "wine", "storage")
    assert host.run("drill", "wine", "storage")["good"]
    host.module.PRUNE_SECONDS = 0  # pruning needs the repository for itself
    host.model.write_bytes(b"new")
    host.run("run", "wine", "storage")
    assert not list(locks.glob("*"))


def test_a_drill_of_one_thing_says_nothing_of_another(host: Host) -> None:
    host.run("run")
    host.run("drill")
    for pack in host.packs():
        flip(pack)
    shutil.rmtree(host.module.CACHE)
    host.refused("drill")
    shutil.rmtree(host.folder / "repository/wine")
    for what, good in (("database", False), ("storage", True)):  # all is well again when the last of them is
        host.run("run", "wine", what)
        host.run("drill", "wine", what)
        told = json.loads((host.module.STATE / "drill.json").read_text())
        assert (told["good"], len(told["rows"])) == (good, 2)


def test_a_repository_that_was_removed_is_made_anew(host: Host) -> None:
    host.run("run", "wine", "database")
    shutil.rmtree(host.folder / "repository/wine")
    host.run("run", "wine", "database")  # although nothing is new
    assert host.run("drill", "wine", "database")["good"]


def test_two_at_once_wait_for_each_other(host: Host) -> None:
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(host.run("run"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 3
    assert host.run("drill")["good"]


def test_a_failed_start_after_a_restore_is_told(host: Host) -> None:
    host.run("run")
    module = sys.modules["pergola_host"]

    def never(*_: Any) -> None:
        raise module.Failure("it was not ready after 120 s")

    module.wait_ready = never  # type: ignore[attr-defined]
    assert "does not serve after the restore" in host.refused("restore", "wine")


def test_unknown_names_and_missing_files_are_named(host: Host) -> None:
    assert "this host backs up: wine database, wine storage" in host.refused("run", "vine")
    assert "make one: pergola-backup run wine database" in host.refused("restore", "wine")
    host.database.unlink()
    assert "is not there" in host.refused("run", "wine", "database")
    host.module.CONFIG.write_text("{")
    assert "run site.yml again" in host.refused("run")
    host.module.CONFIG.unlink()
    assert "run site.yml" in host.refused("run")


def test_what_was_never_backed_up_is_late_only_when_the_host_is_older_than_the_limit(host: Host) -> None:
    assert [row["late"] for row in host.run("age")["backups"]] == [False, False]
    old = host.module.CONFIG.stat().st_mtime - 3600
    os.utime(host.module.CONFIG, (old, old))
    assert host.refused("age") == "wine database was never backed up"


def test_a_bucket_holds_each_app_below_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a host of the cloud: what the identity of a host allows is the app's own prefix."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address, port = server.get_host_and_port()
    for name, value in (("ACCESS_KEY_ID", "any"), ("SECRET_ACCESS_KEY", "any"), ("DEFAULT_REGION", "eu-central-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    s3 = boto3.client("s3", endpoint_url=f"http://{address}:{port}")
    s3.create_bucket(Bucket="backups", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    host = Host(tmp_path, f"s3:http://{address}:{port}/backups")
    try:
        host.run("run")
        host.add("since")
        host.run("restore", "wine", "database")
        assert host.notes() == ["first"]
        assert host.run("drill")["good"]
        host.run("prune")
        keys = [row["Key"] for row in s3.list_objects_v2(Bucket="backups")["Contents"]]
        assert {key.split("/")[0] for key in keys} == {"wine"}
        assert not [key for key in keys if "/locks/" in key]
        for key in keys:
            s3.delete_object(Bucket="backups", Key=key)
        monkeypatch.setattr(host.module, "SEEN_SECONDS", 0)
        host.run("run")  # although nothing is new
        assert host.run("drill")["good"]
    finally:
        server.stop()
        del sys.modules["pergola_host"]


def test_old_backups_are_forgotten(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = host.module.restic
    ages = iter(range(60, 0, -10))

    def dated(app: str, *arguments: str, cwd: Path | None = None, check: bool = True) -> Any:
        if arguments[0] == "backup":
            days = next(ages)
            stamp = subprocess.run(
                ["date", "-d", f"-{days} days", "+%F %T"], capture_output=True, text=True, check=True
            ).stdout.strip()
            arguments = (*arguments[:1], f"--time={stamp}", *arguments[1:])
        return real(app, *arguments, cwd=cwd, check=check)

    monkeypatch.setattr(host.module, "restic", dated)
    monkeypatch.setattr(host.module, "PRUNE_SECONDS", 0)
    for number in range(6):
        host.add(f"note {number}")
        host.run("run", "wine", "database")
    kept = host.run("list", "wine")["backups"]
    assert 3 <= len(kept) <= 4, "of 60, 50 ... 10 days, those within 30 days of the last"


def test_the_help_names_every_command() -> None:
    told = subprocess.run([sys.executable, PROGRAM, "--help"], capture_output=True, text=True, check=True).stdout
    for name in ("run", "restore", "drill", "list", "check", "prune", "age"):
        assert f"\n    {name}" in told
