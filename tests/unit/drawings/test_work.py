"""What runs beside the requests: each item of a batch is done once, also when workers die."""

import time
from concurrent.futures import ThreadPoolExecutor

from fastapi.testclient import TestClient
from sqlalchemy import select, update

from app.core import database, migrate
from app.core.settings import get_settings
from app.drawings.tables import BatchItem
from app.drawings.work import LEASE_SECONDS, begin_batch, finish, take

from .conftest import V1, upload


def test_every_item_is_taken_by_one_worker_only() -> None:
    migrate.ensure(get_settings())
    begin_batch([f"{number:032x}" for number in range(40)])
    taken: list[int] = []

    def worker(_: int) -> None:
        while (item := take()) is not None:
            taken.append(item.id)
            finish(item, "a" * 32, None)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(worker, range(6)))
    assert len(taken) == len(set(taken)) == 40


def test_the_item_of_a_dead_worker_is_taken_again() -> None:
    migrate.ensure(get_settings())
    begin_batch(["0" * 32])
    first = take()
    assert first is not None
    assert take() is None
    with database.session() as db:
        db.execute(update(BatchItem).values(taken_at=time.time() - LEASE_SECONDS - 1))
    again = take()
    assert again is not None
    assert again.id == first.id


def test_a_bad_item_fails_alone(admin: TestClient) -> None:
    good, gone = upload(admin), upload(admin)
    parts = admin.app.state.context  # type: ignore[attr-defined]
    parts.worker.stop()
    batch = begin_batch([gone, good, "f" * 32])
    parts.storage.delete(parts.drawings.storage.list("drawings/").__next__().key)
    while parts.worker.step():
        pass
    told = admin.get(f"{V1}/analysis/batch/{batch}/progress").json()
    assert (told["state"], told["done"], told["failed"]) == ("done", 1, 2)
    with database.session(read_only=True) as db:
        errors = [row.error for row in db.scalars(select(BatchItem)) if row.error]
    assert any("there is no drawing" in error for error in errors)
    assert any("is gone" in error for error in errors)
