"""gunicorn's settings for every API; workers and timeouts come from ``GUNICORN_CMD_ARGS``, which the host's plan computes.

On a host gunicorn takes the socket that systemd opened; on a laptop it listens on 127.0.0.1:8000.
"""

from pathlib import Path
from typing import Any, Final

from app.core import logs, metrics
from app.core.settings import get_settings

_settings: Final = get_settings()

bind = "127.0.0.1:8000"
control_socket_disable = True  # systemd steers it; both slots would share one path
worker_class = "uvicorn_worker.UvicornWorker"
accesslog = None  # app.core.api writes one JSON line a request
forwarded_allow_ips = ""  # app.core.asgi believes nginx, and only on the unix socket
# the heartbeat file; on a disk it can stall a worker
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - gunicorn makes the file safely
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {
            "()": "app.core.logs.JsonFormatter",
            "app": _settings.app,
            "slot": _settings.slot,
            "release": _settings.release,
        },
    },
    # the name by which logs.configure() finds and replaces it: two handlers would print every line twice
    "handlers": {"pergola": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}},
    "root": {"level": _settings.log_level, "handlers": ["pergola"]},
    "loggers": {
        "gunicorn.error": {"level": "INFO", "handlers": ["pergola"], "propagate": False},
        "gunicorn.access": {"level": "WARNING", "handlers": [], "propagate": False},
    },
}


def post_worker_init(_worker: Any) -> None:
    """Give the worker's lines the one handler that `app.core.logs` makes, uvicorn's among them."""
    logs.configure()


def child_exit(_server: Any, worker: Any) -> None:
    """Forget the gauges of a worker that is gone."""
    metrics.forget_worker(worker.pid)
