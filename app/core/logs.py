"""Structured logs: one JSON object a line on stderr, each with the id of the request it belongs to."""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

from app.core.settings import Settings, get_settings

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Id of the request being served; empty outside one."""

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}
_THEIRS: Final = ("uvicorn", "uvicorn.error", "gunicorn", "gunicorn.error", "streamlit")
_SILENT: Final = ("uvicorn.access", "gunicorn.access")
_QUIET: Final = ("httpx", "httpcore", "botocore", "boto3", "s3transfer", "urllib3", "alembic")


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON. Keys given as `extra=` become keys of the object."""

    def __init__(self, *, app: str, slot: str, release: str) -> None:
        super().__init__()
        self._about = {"app": app, "slot": slot, "release": release}

    def format(self, record: logging.LogRecord) -> str:
        """The line for `record`."""
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            **self._about,
            "request_id": request_id.get(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((key, value) for key, value in vars(record).items() if key not in _STANDARD and key not in line)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(app: str | None = None, *, settings: Settings | None = None) -> None:
    """Send every log of this process through one JSON handler. Calling it again replaces the handler.

    The access lines of uvicorn and gunicorn are silenced: `app.core.api` writes its own with the request id.
    """
    settings = settings or get_settings()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(app=app or settings.app, slot=settings.slot, release=settings.release))
    handler.set_name("pergola")
    root = logging.getLogger()
    for old in [h for h in root.handlers if h.get_name() == "pergola"]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.log_level)
    for name in _THEIRS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)  # the root's level decides, whatever the server was told
    for name in _SILENT:
        logging.getLogger(name).disabled = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
