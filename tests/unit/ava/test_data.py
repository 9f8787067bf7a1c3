"""The tables: one migration, the same schema on both databases, and the same work on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app.ava import post_annotation_service, quality_control, service
from app.ava.attributes import Profile
from app.ava.cvat_xml import write
from app.ava.service import Wanted
from app.ava.settings import AvaSettings
from app.ava.tables import Project, Task
from app.ava.uploads import Uploads
from app.ava.work import Work
from app.core.database import Base, engine, session
from app.core.migrate import histories, pending, upgrade
from app.core.settings import get_settings
from app.core.storage import FolderStorage
from tests.unit.core.test_postgresql import server  # noqa: F401 - a PostgreSQL of its own
from tests.unit.processes import forget
from tests.unit.schema import shape

from .conftest import SIZE, box, give_clips


@pytest.fixture
def postgres(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:  # noqa: F811 - the fixture
    with session(server) as db:
        db.execute(text("DROP SCHEMA public CASCADE"))
        db.execute(text("CREATE SCHEMA public"))
    yield server
    engine(server).dispose()


def test_the_same_migration_makes_the_same_schema_on_both_databases(postgres: str) -> None:
    lite = get_settings().database_url
    for url in (lite, postgres):
        assert len(upgrade(url, histories("ava"))) == 2
        assert pending(url, histories("ava")) == []
        assert upgrade(url, histories("ava")) == []
    assert shape(lite) == shape(postgres)
    from app.ava import tables

    ours = [
        table
        for table in Base.metadata.sorted_tables
        if table.name in {m.__tablename__ for m in vars(tables).values() if hasattr(m, "__tablename__")}
    ]
    assert len(ours) == 8
    for table in ours:
        assert set(shape(lite)[table.name]["columns"]) == {column.name for column in table.columns}  # type: ignore[index]


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_work_is_the_same_on_both(
    database: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    storage: FolderStorage,
    tmp_path: Path,
    profile: Profile,
) -> None:
    if database == "postgresql":
        monkeypatch.setenv("PERGOLA_DATABASE_URL", request.getfixturevalue("postgres"))
        forget()
    give_clips(storage, tmp_path / "in", "a_clip_000", "a_clip_001", frames=3)
    project, new = service.create(Wanted("street", ["ann", "bob"], 100, ["a_clip_000", "a_clip_001"]), storage, profile)
    assert new
    with session(read_only=True) as db:
        tasks = list(db.query(Task).order_by(Task.id))
    for task in tasks:
        boxes = [box(1, frame, phone_usage="texting") for frame in range(3)]
        assert post_annotation_service.keep(task.id, write(task.clip, boxes, profile, frames=3, size=SIZE), 1.0)
        assert not post_annotation_service.keep(task.id, write(task.clip, boxes, profile, frames=3, size=SIZE), 2.0)
    assert quality_control.check_project(project.id)["pairs"] == 2
    settings = get_settings(AvaSettings)
    work = Work(settings, storage, Uploads(settings, storage))
    first, second = (work._take(Project, Project.cvat_project_id.is_(None)) for _ in range(2))
    assert first is not None
    assert second is None  # taken
    with session(read_only=True) as db:
        assert {row["retrieved"] for row in service.project_rows(db)} == {4}


def test_two_workers_never_take_one_task(
    postgres: str, monkeypatch: pytest.MonkeyPatch, storage: FolderStorage, tmp_path: Path, profile: Profile
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    monkeypatch.setenv("PERGOLA_DATABASE_URL", postgres)
    forget()
    names = [f"a_clip_{number:03d}" for number in range(12)]
    give_clips(storage, tmp_path / "in", *names, frames=1)
    service.create(Wanted("street", ["ann"], 0, names), storage, profile)
    settings = get_settings(AvaSettings)

    def take(_: int) -> Any:
        work = Work(settings, storage, Uploads(settings, storage))
        found = []
        while (row := work._take(Task, Task.status == "planned")) is not None:
            found.append(row.id)
        return found

    with ThreadPoolExecutor(4) as pool:
        taken = [one for its in pool.map(take, range(4)) for one in its]
    assert sorted(taken) == sorted(set(taken))
    assert len(taken) == 12
