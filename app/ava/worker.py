"""The worker: `python -m app.ava.worker`. On a host systemd runs it; on a laptop the API has a thread for it."""

import logging
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import Final

from app.ava.context import Context
from app.ava.work import Work
from app.core import logs

log = logging.getLogger(__name__)

_SWEEP_SECONDS: Final = 600.0


@dataclass
class Worker:
    """Works until it is told to stop; ends after the thing at hand."""

    work: Work
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, in a thread."""
        self._thread = threading.Thread(target=self.run, name="work", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the thing at hand."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)

    def run(self) -> None:
        """Work."""
        swept = 0.0
        while not self._stop.is_set():
            worked = False
            try:
                if time.monotonic() - swept > _SWEEP_SECONDS or not swept:
                    swept = time.monotonic()
                    self.work.uploads.sweep()
                worked = self.work.step()
            except Exception:  # the worker must outlive a database that is restarting
                log.exception("work failed", extra={"event": "work_failed"})
            if not worked:
                self._stop.wait(self.work.settings.work_seconds)


def main() -> None:
    """Run until systemd says stop."""
    parts = Context.read()
    logs.configure(settings=parts.settings)
    worker = Worker(parts.work)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    log.info("worker begins", extra={"event": "worker"})
    worker.run()


if __name__ == "__main__":
    main()
