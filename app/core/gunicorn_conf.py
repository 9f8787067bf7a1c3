"""gunicorn's settings for every API; workers and timeouts come from ``GUNICORN_CMD_ARGS``, which the host's plan computes."""

from __future__ import annotations

from typing import Any

from prometheus_client import multiprocess

worker_class = "uvicorn_worker.UvicornWorker"
accesslog = None  # app.core.api writes one JSON line a request
forwarded_allow_ips = "*"  # only nginx can open the socket
worker_tmp_dir = "/dev/shm"  # noqa: S108 - gunicorn's heartbeat file; on a disk it can stall a worker


def child_exit(_server: Any, worker: Any) -> None:
    """Forget the gauges of a worker that is gone."""
    multiprocess.mark_process_dead(worker.pid)
