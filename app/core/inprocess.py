"""An app's API within the process of its screen, for a laptop: the same requests, no server."""

import asyncio
import importlib
import threading
from pathlib import Path
from typing import Any, Final

import httpx

from app.core import manifest

APPS: Final = Path(__file__).resolve().parents[1]
_START_SECONDS: Final = 120.0


class InProcess(httpx.BaseTransport):
    """Runs an ASGI application, its lifespan included, in a thread of its own and hands requests to it."""

    def __init__(self, asgi: Any) -> None:
        self._asgi = asgi
        self._inner = httpx.ASGITransport(asgi, raise_app_exceptions=False)
        self._loop = asyncio.new_event_loop()
        self._started: threading.Event = threading.Event()
        self._failed: BaseException | None = None
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._live(),), daemon=True)
        self._thread.start()
        if not self._started.wait(_START_SECONDS):
            raise RuntimeError(f"the API has not started within {_START_SECONDS:g} s")
        if self._failed is not None:
            raise RuntimeError("the API could not be started in this process") from self._failed

    async def _live(self) -> None:
        try:
            async with self._asgi.router.lifespan_context(self._asgi):
                self._started.set()
                await self._end.wait()
        except BaseException as error:
            if self._started.is_set():  # nobody waits for it any more: the thread's own report tells
                raise
            self._failed = error
        finally:
            self._started.set()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        request.read()
        again = httpx.Request(request.method, request.url, headers=request.headers, content=request.content)
        return asyncio.run_coroutine_threadsafe(self._ask(again), self._loop).result()

    async def _ask(self, request: httpx.Request) -> httpx.Response:
        answer = await self._inner.handle_async_request(request)
        body = await answer.aread()
        return httpx.Response(answer.status_code, headers=answer.headers, content=body)

    def close(self) -> None:
        """Stop the API."""
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(30)


def transport_of(app: str) -> InProcess:
    """The transport to the API that the app's manifest names."""
    module, _, attribute = manifest.load(APPS / app).data["api"]["app"].partition(":")
    return InProcess(getattr(importlib.import_module(module), attribute))
