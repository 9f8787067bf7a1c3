"""How long backups and restores of a database and a folder of a given size take, with a real restic on this machine.

    python bench/backup.py [--gigabytes 1] [--folder /var/tmp]

It runs the command `pergola-backup` on a SQLite database and a folder of files that do not compress, half the size each: a first backup,
one where nothing is new, one where a hundredth is new, a drill, and a restore with its safety copy. The services are not there: what
their stop and start add is in the table "one host". Ends with 1 when the restore takes longer than five minutes for each GB.
"""

import argparse
import os
import sqlite3
import sys
import tempfile
import time
import types
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BAR_SECONDS = 300.0  # to restore 1 GB
MEGABYTE = 1_000_000


def program(folder: Path) -> Any:
    """Return the command as a module whose folders are below ``folder``."""
    path = ROOT / "roles/backup/files/pergola_backup.py"
    module: Any = types.ModuleType("pergola_backup")
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), module.__dict__)  # noqa: S102 - the project's own file
    module.CONFIG, module.PASSWORD = folder / "backup.json", folder / "password"
    module.STATE, module.CACHE, module.PERGOLA = (
        folder / "state",
        folder / "cache",
        ROOT / "roles/apps/files/pergola.py",
    )
    module.QUIET = True
    module.host().LOCKS = folder / "locks"
    module.stopped = lambda _: nullcontext()
    module.host().app_plan = lambda name: {"name": name}
    return module


def fill(database: Path, storage: Path, megabytes: int) -> None:
    """Add rows and files of random bytes, half each."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, content BLOB)")
        for _ in range(max(1, megabytes // 2)):
            connection.executemany("INSERT INTO rows (content) VALUES (?)", ((os.urandom(1000),) for _ in range(1000)))
        connection.commit()
    for _ in range(max(1, megabytes // 2)):
        (storage / os.urandom(8).hex()).write_bytes(os.urandom(MEGABYTE))


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of data in all (default %(default)s)")
    parser.add_argument("--folder", type=Path, help="where there is room for four times as much")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("bench/backup.py: restoring gives files to their owner, so it needs root", file=sys.stderr)
        return 64
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        (storage := folder / "lib/bench/storage").mkdir(parents=True)
        database = folder / "lib/bench/bench.db"
        module = program(folder)
        common = {"app": "bench", "user": "root", "keep_days": 30, "too_old_hours": 1}
        jobs = [
            {**common, "what": "database", "kind": "sqlite", "database": str(database)},
            {**common, "what": "storage", "kind": "folder", "storage": str(storage)},
        ]
        module.write(module.CONFIG, {"repository": str(folder / "repositories"), "region": "", "jobs": jobs})
        fill(database, storage, round(options.gigabytes * 1000))
        print(f"{options.gigabytes:g} GB, half a SQLite database, half {len(list(storage.iterdir()))} files\n")
        print("| step | seconds |\n|---|---:|")

        def timed(step: str, work: Callable[..., Any], *arguments: str) -> float:
            began = time.monotonic()
            work(module.parser().parse_args([*arguments, "--json"]))
            seconds = time.monotonic() - began
            print(f"| {step} | {seconds:.1f} |", flush=True)
            return seconds

        timed("first backup", module.run, "run")
        timed("backup, nothing new", module.run, "run")
        fill(database, storage, round(options.gigabytes * 10))
        timed("backup, a hundredth new", module.run, "run")
        timed("drill: restored and compared", module.drill, "drill")
        took = timed("restore, with its safety copy", module.restore, "restore")
    limit = BAR_SECONDS * options.gigabytes
    print(f"\nrestore: {took:.1f} s of at most {limit:.0f} s")
    return int(took > limit)


if __name__ == "__main__":
    sys.exit(main())
