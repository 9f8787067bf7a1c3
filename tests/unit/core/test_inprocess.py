"""An API within the process of its screen: the same requests, its lifespan included."""

import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI, HTTPException

from app.core.client import ApiClient, ApiError
from app.core.inprocess import InProcess


def made(told: list[str]) -> FastAPI:
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        told.append("started")
        yield
        told.append("stopped")

    app = FastAPI(lifespan=lifespan)

    @app.post("/twice")
    async def twice(number: int) -> int:
        return 2 * number

    @app.get("/missing")
    def missing() -> None:
        raise HTTPException(404, "There is none.")

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("a detail")

    return app


def test_requests_are_answered_and_the_lifespan_runs() -> None:
    told: list[str] = []
    transport = InProcess(made(told))
    with ApiClient(base_url="http://demo", transport=transport) as client:
        assert told == ["started"]
        assert client.post("/twice", params={"number": 21}).json() == 42
        with pytest.raises(ApiError, match="There is none") as missing:
            client.get("/missing")
        assert missing.value.status == 404
        with pytest.raises(ApiError) as broken:
            client.get("/broken")
        assert broken.value.status == 500
    assert told == ["started", "stopped"]


def test_an_api_that_cannot_start_says_so() -> None:
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        raise OSError("no database")
        yield

    with pytest.raises(RuntimeError, match="could not be started") as error:
        httpx.Client(transport=InProcess(FastAPI(lifespan=lifespan)))
    assert "no database" in str(error.value.__cause__)
