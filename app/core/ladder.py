"""The timeout ladder: every timeout between a browser and an app, computed in one place.

A request crosses a balancer, nginx and gunicorn; each has its own idea of how long to wait. When an inner one gives up before an
outer one, clients see 502s that nobody can reproduce. So the outer always outlives the inner, and that is asserted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

STREAMLIT_PING_SECONDS = 20
"""How often uvicorn pings a Streamlit WebSocket (``uvicorn.Config.ws_ping_interval``)."""

UPSTREAM_KEEPALIVE_SECONDS = 0
"""nginx opens a new connection for each request: on a unix socket that costs microseconds, and a release switch has no race."""

DEREGISTRATION_LIMIT = 3600
"""The longest deregistration delay of a target group: after it the balancer closes the connections that are still open."""


@dataclass(frozen=True)
class Ladder:
    """All timeouts of a host, in seconds."""

    streamlit_ping_seconds: int
    longest_request_seconds: int
    balancer_idle_seconds: int
    nginx_keepalive_seconds: int
    upstream_keepalive_seconds: int
    gunicorn_keepalive_seconds: int
    websocket_read_seconds: int
    graceful_seconds: int
    stop_seconds: int
    deregistration_seconds: int
    drain_seconds: int

    def as_dict(self) -> dict[str, int]:
        """Return the rungs by name."""
        return asdict(self)


def compute(
    request_seconds: Iterable[int],
    *,
    drain_seconds: int = 900,
    balancer_idle_seconds: int | None = None,
    deregistration_seconds: int | None = None,
) -> Ladder:
    """Compute the ladder from the apps' longest requests.

    Args:
        request_seconds: ``limits.request_seconds`` of each app.
        drain_seconds: Ceiling for old Streamlit sessions after a release switch.
        balancer_idle_seconds: The balancer's idle timeout when an operator sets it; computed otherwise.
        deregistration_seconds: The target group's deregistration delay when an operator sets it; computed otherwise.
    """
    longest = max(request_seconds, default=30)
    kept = max(30, longest, min(drain_seconds, DEREGISTRATION_LIMIT))  # a balancer cuts what is open after it
    idle = balancer_idle_seconds if balancer_idle_seconds is not None else max(60, longest + 5)
    return Ladder(
        streamlit_ping_seconds=STREAMLIT_PING_SECONDS,
        longest_request_seconds=longest,
        balancer_idle_seconds=idle,
        nginx_keepalive_seconds=idle + 15,
        upstream_keepalive_seconds=UPSTREAM_KEEPALIVE_SECONDS,
        gunicorn_keepalive_seconds=5,
        websocket_read_seconds=3 * STREAMLIT_PING_SECONDS,
        graceful_seconds=longest + 5,
        stop_seconds=longest + 15,
        deregistration_seconds=deregistration_seconds if deregistration_seconds is not None else kept,
        drain_seconds=drain_seconds,
    )


def broken_rungs(ladder: Ladder) -> list[str]:
    """Return one sentence for each rung that is out of order; an empty list when the ladder holds."""
    rungs = (
        (
            ladder.gunicorn_keepalive_seconds > ladder.upstream_keepalive_seconds,
            "gunicorn keep-alive must outlive nginx's upstream keep-alive",
            ("gunicorn_keepalive_seconds", "upstream_keepalive_seconds"),
        ),
        (
            ladder.nginx_keepalive_seconds > ladder.balancer_idle_seconds,
            "nginx keep-alive must outlive the balancer's idle timeout",
            ("nginx_keepalive_seconds", "balancer_idle_seconds"),
        ),
        (
            ladder.websocket_read_seconds > ladder.streamlit_ping_seconds,
            "nginx's WebSocket read timeout must outlive Streamlit's ping",
            ("websocket_read_seconds", "streamlit_ping_seconds"),
        ),
        (
            ladder.balancer_idle_seconds > ladder.streamlit_ping_seconds,
            "the balancer's idle timeout must outlive Streamlit's ping",
            ("balancer_idle_seconds", "streamlit_ping_seconds"),
        ),
        (
            ladder.balancer_idle_seconds > ladder.longest_request_seconds,
            "the balancer's idle timeout must outlive the longest request",
            ("balancer_idle_seconds", "longest_request_seconds"),
        ),
        (
            ladder.longest_request_seconds <= ladder.deregistration_seconds,
            "the longest request must fit into the deregistration delay",
            ("longest_request_seconds", "deregistration_seconds"),
        ),
        (
            min(ladder.drain_seconds, DEREGISTRATION_LIMIT) <= ladder.deregistration_seconds,
            "the drain ceiling must fit into the deregistration delay",
            ("drain_seconds", "deregistration_seconds"),
        ),
        (
            ladder.graceful_seconds > ladder.longest_request_seconds,
            "the graceful stop must outlive the longest request",
            ("graceful_seconds", "longest_request_seconds"),
        ),
        (
            ladder.graceful_seconds < ladder.stop_seconds,
            "the graceful stop must end before systemd's TimeoutStopSec",
            ("graceful_seconds", "stop_seconds"),
        ),
        (ladder.drain_seconds >= 0, "the drain ceiling cannot be negative", ("drain_seconds",)),
    )
    seconds = ladder.as_dict()
    return [
        f"{sentence} ({', '.join(f'{name} = {seconds[name]}' for name in names)})"
        for holds, sentence, names in rungs
        if not holds
    ]
