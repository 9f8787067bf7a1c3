"""The data: same schema on both databases, no corruption by a kill, backups that restore, no way into another environment."""

import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from app.core import artefacts, database, migrate
from app.core.database import engine, session
from app.core.migrate import histories, pending, upgrade
from app.core.settings import clear_settings, get_settings
from app.core.storage import FolderStorage
from app.drawings import backups, environment, work
from app.drawings.backups import BackupError, Keeper, app_tables
from app.drawings.environment import NAMES, WrongEnvironment, check_places
from app.drawings.service import moment
from app.drawings.settings import DrawingsSettings
from app.drawings.tables import Analysis, Drawing, Embedding, Setting
from tests.unit.core.test_postgresql import server  # noqa: F401 - a PostgreSQL of its own
from tests.unit.processes import forget
from tests.unit.schema import shape

from .conftest import V1, picture, upload


def row(number: int) -> Drawing:
    return Drawing(
        id=f"{number:032x}", filename=f"{number}.png", storage_key=f"drawings/{number}.png", sha256="0" * 64, format="PNG",
        size_bytes=1, width=224, height=224, ink=0.1, age_years=5.5, subject_index=3, source="upload", created_at=float(number),
    )  # fmt: skip


def embedding(number: int) -> Embedding:
    return Embedding(
        drawing_id=f"{number:032x}", encoder="e", visual=b"\0\xff" * 2560, subject=bytes(256), created_at=1.5
    )


@pytest.fixture
def postgres(server: str) -> Iterator[str]:  # noqa: F811 - the fixture
    from sqlalchemy import text

    with session(server) as db:
        db.execute(text("DROP SCHEMA public CASCADE"))
        db.execute(text("CREATE SCHEMA public"))
    yield server
    engine(server).dispose()


def test_the_same_migrations_make_the_same_schema_on_both_databases(postgres: str) -> None:
    lite = get_settings().database_url
    for url in (lite, postgres):
        assert len(upgrade(url, histories("drawings"))) == 2
        assert pending(url, histories("drawings")) == []
        assert upgrade(url, histories("drawings")) == []
    assert shape(lite) == shape(postgres)
    assert {table.name for table in app_tables()} <= set(shape(lite))
    for table in app_tables():
        assert set(shape(lite)[table.name]["columns"]) == {column.name for column in table.columns}  # type: ignore[index]


def test_sqlite_has_wal_foreign_keys_and_patience() -> None:
    migrate.ensure(get_settings())
    with session() as db:
        told = {
            name: db.connection().exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "foreign_keys", "busy_timeout")
        }
    assert told == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 15000}


def test_a_writer_killed_fifty_times_corrupts_nothing(state: Path) -> None:
    """A child writes drawings with their embeddings and says which are committed; it is killed -9 somewhere, fifty times."""
    migrate.ensure(get_settings())
    path = state / "drawings.db"
    chance = random.Random(7)  # noqa: S311 - when to kill is no secret
    done, begun = 0, 0
    for _ in range(50):
        engine().dispose()
        database.engine.cache_clear()
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            number = begun
            while True:
                number += 1
                with session() as db:
                    db.add(row(number))
                    db.flush()
                    db.add(embedding(number))
                os.write(write, f"{number}\n".encode())
        os.close(write)
        with os.fdopen(read, "rb") as told:
            first = told.readline()
            time.sleep(chance.uniform(0, 0.02))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            lines = [first, *told.read().splitlines()]
        done = int(lines[-1])
        with sqlite3.connect(path) as look:
            assert look.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert look.execute("PRAGMA foreign_key_check").fetchall() == []
            (highest,) = look.execute("SELECT MAX(created_at) FROM drawing").fetchone()
            (drawings,) = look.execute("SELECT COUNT(*) FROM drawing").fetchone()
            (embeddings,) = look.execute("SELECT COUNT(*) FROM embedding").fetchone()
        look.close()
        assert int(highest) in {done, done + 1}  # what was told is there; at most the one being told is more
        assert drawings == embeddings == int(highest)
        begun = int(highest)
    assert begun >= 50


@pytest.fixture
def keeper(storage: FolderStorage) -> Keeper:
    settings = get_settings(DrawingsSettings)
    migrate.ensure(settings)
    with session() as db:
        for number in range(1, 30):
            db.add(row(number))
        db.flush()
        db.add(embedding(1))
        db.add(Setting(name="a word", value="ä\n\u2028 ☃"))
    return Keeper(settings, storage, "local")


def rows(url: str = "") -> dict[str, list[tuple[object, ...]]]:
    with session(url, read_only=True) as db:
        return {
            table.name: [tuple(r) for r in db.execute(select(table).order_by(*table.primary_key.columns))]
            for table in app_tables()
        }


def test_a_restored_database_equals_its_source_table_by_table(keeper: Keeper) -> None:
    before = rows()
    made = keeper.make("manual")
    assert made.meta["tables"]["drawing"] == 29
    with session() as db:
        db.query(Drawing).filter(Drawing.created_at > 10).delete()
        db.add(row(99))
        db.query(Setting).delete()
    changed = rows()
    safety, _ = keeper.restore(made)
    assert rows() == before
    assert [one.meta["reason"] for one in keeper.list()] == ["safety", "manual"]
    keeper.restore(safety)
    assert rows() == changed


def test_a_backup_goes_from_sqlite_to_postgresql_and_back(
    keeper: Keeper, postgres: str, monkeypatch: pytest.MonkeyPatch, storage: FolderStorage
) -> None:
    before = rows()
    made = keeper.make("move")
    upgrade(postgres, histories("drawings"))
    monkeypatch.setenv("PERGOLA_DATABASE_URL", postgres)
    clear_settings()
    there = Keeper(get_settings(DrawingsSettings), storage, "local")
    there.restore(made)
    assert rows(postgres) == before
    assert keeper.verify(there.make("back")).digests == keeper.verify(made).digests


@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
def test_work_is_taken_once_on_both_databases(
    where: str, state: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "postgresql":
        monkeypatch.setenv("PERGOLA_DATABASE_URL", request.getfixturevalue("postgres"))
        clear_settings()
    upgrade(get_settings().database_url, histories("drawings"))
    with session() as db:
        db.add(row(1))
    assert work.take() is None
    work.begin_batch([row(1).id])
    item = work.take()
    assert item is not None
    assert work.take() is None, "somebody has it"
    work.finish(item, None, "unreadable")
    assert work.take() is None


def test_a_backup_is_one_moment_while_somebody_writes(keeper: Keeper) -> None:
    with backups._reading(keeper.settings.database_url) as connection:
        first, _ = backups.dump(connection)
        with session() as db:
            db.add(row(500))
        again, _ = backups.dump(connection)
    assert first == again
    assert keeper.make("after").meta["tables"]["drawing"] == 30


def test_a_damaged_or_foreign_backup_changes_nothing(
    keeper: Keeper, storage: FolderStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, good = rows(), keeper.make("good")
    sealed = storage.get(good.key)
    assert b"drawing" not in sealed
    torn = artefacts.save(storage, backups.ARTEFACT, sealed[:-1] + bytes([sealed[-1] ^ 1]), good.meta)
    with pytest.raises(BackupError, match="another key, or damaged"):
        keeper.restore(torn)
    short = artefacts.save(storage, backups.ARTEFACT, sealed, {**good.meta, "tables": {"drawing": 1}})
    with pytest.raises(BackupError, match="does not hold the rows"):
        keeper.restore(short)
    other = artefacts.save(storage, backups.ARTEFACT, sealed, {**good.meta, "environment": "production"})
    with pytest.raises(BackupError, match="of environment production"):
        keeper.restore(other)
    monkeypatch.setenv("PERGOLA_SECRET_BACKUP_KEY", "another")
    with pytest.raises(BackupError, match="another key"):
        keeper.restore(good)
    assert rows() == before


def test_backups_by_time_and_by_schedule(keeper: Keeper) -> None:
    first, second = keeper.make("one"), keeper.make("two")
    assert keeper.find(None, second.created).id == second.id
    assert keeper.find(None, second.created - timedelta(microseconds=1)).id == first.id
    with pytest.raises(BackupError, match="there is no backup at or before"):
        keeper.find(None, first.created - timedelta(seconds=1))
    assert backups.parse_time("2026-11-23T06:00:00Z") == datetime(2026, 11, 23, 6, tzinfo=UTC)
    assert keeper.settings.backup_hours == 6
    assert [keeper.due() for _ in range(3)] == [True, False, False]
    with session() as db:
        last = db.get(Setting, "backup_at")
        assert last is not None
        last.value = str(time.time() - 6 * 3600 - 1)
    assert [keeper.due() for _ in range(2)] == [True, False]


def test_backups_over_the_api(admin: TestClient) -> None:
    identity = upload(admin)
    made = admin.post(f"{V1}/backup/")
    assert made.status_code == 201
    assert made.json()["tables"]["drawing"] == 1
    assert admin.get(f"{V1}/backup/{made.json()['id']}").json() == made.json()
    assert admin.post(f"{V1}/backup/{made.json()['id']}/verify").json()["good"]
    gone = upload(admin, picture(2))
    with session(read_only=True) as db:
        assert db.get(Drawing, gone) is not None
    told = admin.post(f"{V1}/backup/restore", json={"at": moment(time.time())})
    assert told.status_code == 200, told.text
    assert told.json()["safety_copy"] in {one["id"] for one in admin.get(f"{V1}/backup/").json()["backups"]}
    assert admin.get(f"{V1}/drawings/{identity}").status_code == 200
    assert admin.get(f"{V1}/drawings/{gone}").status_code == 404
    assert admin.post(f"{V1}/backup/restore", json={}).status_code == 400
    assert admin.post(f"{V1}/backup/restore", json={"at": "yesterday"}).status_code == 400
    assert admin.post(f"{V1}/backup/restore", json={"backup_id": "none"}).status_code == 404


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "local"),
        ({"AWS_REGION": "eu-central-1"}, "production"),
        ({"AWS_REGION": " "}, "local"),
        ({"APP_ENVIRONMENT": "local", "AWS_REGION": "eu-central-1"}, "local"),
        ({"APP_ENVIRONMENT": " Production "}, "production"),
        ({"APP_ENVIRONMENT": "staging"}, "staging"),
        ({"APP_ENVIRONMENT": "", "AWS_REGION": "x"}, "production"),
    ],
)
def test_which_environment(variables: dict[str, str], name: str) -> None:
    assert environment.environment(variables) == name


def test_an_unknown_environment_is_an_error() -> None:
    with pytest.raises(WrongEnvironment, match="expected one of"):
        environment.environment({"APP_ENVIRONMENT": "prod"})


segments = st.lists(st.sampled_from([*NAMES, "..", ".", "", "a", "%2e%2e", "LOCAL", "local/..", "x y"]), max_size=4)


buckets = st.sampled_from(["bucket", *(f"team-{name}-0123-data" for name in NAMES), "team-staging-production"])


@given(
    here=st.sampled_from(NAMES),
    bucket=buckets,
    path=segments,
    used=st.sampled_from(["111", "222", ""]),
    known=st.booleans(),
)
def test_production_data_is_not_reachable_from_other_settings(
    here: str, bucket: str, path: list[str], used: str, known: bool
) -> None:
    """Whatever the storage's address: it is opened only when its bucket's name or its first folder is the environment's, and no way leads out."""
    storage = f"s3://{bucket}/{'/'.join(path)}"
    production = "111" if known else ""
    try:
        check_places(
            here, storage=storage, database_url="sqlite:////x/y.db", production_account=production, account=lambda: used
        )
    except WrongEnvironment:
        return
    from posixpath import normpath
    from urllib.parse import unquote, urlsplit

    reached = normpath(unquote(urlsplit(storage).path)).strip("/").split("/")
    assert (bucket == "bucket" and reached[0] == here) or here in bucket.split("-")
    assert ".." not in reached
    assert not (set(bucket.split("-")) & set(NAMES)) - {here}
    if known and here != "production":
        assert used != production
    if known and here == "production":
        assert used == production


@given(here=st.sampled_from(NAMES), host=st.sampled_from(["db.internal", "10.0.0.5"]), other=st.sampled_from(NAMES))
def test_a_database_elsewhere_carries_its_environments_name(here: str, host: str, other: str) -> None:
    url = f"postgresql+psycopg2://u@{host}/pergola_{other}_drawings"
    try:
        check_places(here, storage="file:///x", database_url=url)
    except WrongEnvironment:
        assert other != here
    else:
        assert other == here


def test_the_places_of_a_fleet_carry_its_environments_name() -> None:
    """What the cloud plan gives an app: a bucket and a server of its environment, a folder and a database of its own name."""
    places = {
        "storage": "s3://pergola-staging-123456789012-data/drawings",
        "database_url": "postgresql+psycopg2://pergola_drawings_0a1b2c3d:x@pergola-staging-db.c1.us-east-1.rds.amazonaws.com:5432/pergola_drawings",
    }
    check_places("staging", **places)
    with pytest.raises(WrongEnvironment, match="is not of environment production"):
        check_places("production", **places)
    with pytest.raises(WrongEnvironment, match="is not of environment local"):
        check_places("local", storage="file:///x", database_url=places["database_url"])


@pytest.mark.parametrize("first", NAMES[:3])
@pytest.mark.parametrize("second", NAMES[:3])
def test_data_is_stamped_by_who_used_it_first(
    first: str, second: str, storage: FolderStorage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    migrate.ensure(get_settings())
    environment.stamp(first, storage)
    environment.stamp(first, storage)
    if first == second:
        environment.stamp(second, storage)
        return
    with pytest.raises(WrongEnvironment, match=f"is of environment {first}"):
        environment.stamp(second, storage)
    fresh = FolderStorage(tmp_path / "fresh")
    with pytest.raises(WrongEnvironment, match="the database is of"):
        environment.stamp(second, fresh)
    monkeypatch.setenv("PERGOLA_DATABASE_URL", f"sqlite:///{tmp_path}/other.db")
    forget()
    migrate.ensure(get_settings())
    with pytest.raises(WrongEnvironment, match="the storage is of"):
        environment.stamp(second, storage)


def test_analyses_go_with_their_drawing(admin: TestClient) -> None:
    identity = upload(admin)
    admin.post(f"{V1}/analysis/analyze/{identity}")
    admin.delete(f"{V1}/drawings/{identity}")
    with session(read_only=True) as db:
        assert db.query(Analysis).count() == db.query(Embedding).count() == 0
