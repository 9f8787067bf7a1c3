"""The timeout ladder: the outer always outlives the inner."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core import ladder


def test_an_empty_host_has_a_ladder() -> None:
    rungs = ladder.compute([])
    assert rungs.longest_request_seconds == 30
    assert ladder.broken_rungs(rungs) == []


def test_the_longest_request_decides() -> None:
    rungs = ladder.compute([5, 300, 30])
    assert rungs.longest_request_seconds == 300
    assert rungs.balancer_idle_seconds == 305
    assert rungs.nginx_keepalive_seconds == 320
    assert (rungs.graceful_seconds, rungs.stop_seconds) == (305, 315)
    assert rungs.deregistration_seconds == 900, "sessions stay on a host that leaves until the drain ceiling"
    assert ladder.compute([5, 300], drain_seconds=60).deregistration_seconds == 300


def test_an_operators_values_are_kept() -> None:
    rungs = ladder.compute([30], drain_seconds=40, balancer_idle_seconds=120, deregistration_seconds=45)
    assert (rungs.drain_seconds, rungs.balancer_idle_seconds, rungs.deregistration_seconds) == (40, 120, 45)
    assert rungs.nginx_keepalive_seconds == 135
    assert ladder.broken_rungs(rungs) == []


@given(st.lists(st.integers(1, 3600), max_size=8), st.integers(0, 100_000))
def test_every_computed_ladder_holds(seconds: list[int], drain: int) -> None:
    rungs = ladder.compute(seconds, drain_seconds=drain)
    assert ladder.broken_rungs(rungs) == []
    assert rungs.gunicorn_keepalive_seconds > rungs.upstream_keepalive_seconds
    assert rungs.nginx_keepalive_seconds > rungs.balancer_idle_seconds > rungs.longest_request_seconds
    assert min(rungs.websocket_read_seconds, rungs.balancer_idle_seconds) > rungs.streamlit_ping_seconds
    assert max(seconds, default=0) <= rungs.deregistration_seconds <= 3600, "a target group allows an hour"
    assert max(seconds, default=0) < rungs.graceful_seconds < rungs.stop_seconds
    assert rungs.balancer_idle_seconds <= 4000, "a load balancer allows 4000 seconds"


LONG = {"longest_request_seconds": 60, "graceful_seconds": 65, "stop_seconds": 75, "drain_seconds": 60}


@pytest.mark.parametrize(
    ("change", "sentence", "figures"),
    [
        (
            {"gunicorn_keepalive_seconds": 0},
            "gunicorn keep-alive must outlive nginx's upstream keep-alive",
            "gunicorn_keepalive_seconds = 0, upstream_keepalive_seconds = 0",
        ),
        (
            {"nginx_keepalive_seconds": 60},
            "nginx keep-alive must outlive the balancer's idle timeout",
            "nginx_keepalive_seconds = 60, balancer_idle_seconds = 60",
        ),
        (
            {"websocket_read_seconds": 20},
            "nginx's WebSocket read timeout must outlive Streamlit's ping",
            "websocket_read_seconds = 20, streamlit_ping_seconds = 20",
        ),
        (
            {"balancer_idle_seconds": 20},
            "the balancer's idle timeout must outlive Streamlit's ping",
            "balancer_idle_seconds = 20, streamlit_ping_seconds = 20",
        ),
        (
            LONG,
            "the balancer's idle timeout must outlive the longest request",
            "balancer_idle_seconds = 60, longest_request_seconds = 60",
        ),
        (
            {"deregistration_seconds": 9, "drain_seconds": 9},
            "the longest request must fit into the deregistration delay",
            "longest_request_seconds = 10, deregistration_seconds = 9",
        ),
        (
            {"deregistration_seconds": 30},
            "the drain ceiling must fit into the deregistration delay",
            "drain_seconds = 900, deregistration_seconds = 30",
        ),
        (
            {"graceful_seconds": 10},
            "the graceful stop must outlive the longest request",
            "graceful_seconds = 10, longest_request_seconds = 10",
        ),
        (
            {"stop_seconds": 15},
            "the graceful stop must end before systemd's TimeoutStopSec",
            "graceful_seconds = 15, stop_seconds = 15",
        ),
        ({"drain_seconds": -1}, "the drain ceiling cannot be negative", "drain_seconds = -1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_each_broken_rung_is_named_with_its_figures(change: dict[str, int], sentence: str, figures: str) -> None:
    assert ladder.broken_rungs(replace(ladder.compute([10]), **change)) == [f"{sentence} ({figures})"]


def test_every_rung_is_computed_in_one_place() -> None:
    assert set(ladder.compute([]).as_dict()) == {
        "streamlit_ping_seconds",
        "longest_request_seconds",
        "balancer_idle_seconds",
        "nginx_keepalive_seconds",
        "upstream_keepalive_seconds",
        "gunicorn_keepalive_seconds",
        "websocket_read_seconds",
        "graceful_seconds",
        "stop_seconds",
        "deregistration_seconds",
        "drain_seconds",
    }
