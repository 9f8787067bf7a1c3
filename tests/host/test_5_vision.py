"""The vision app on a host: through nginx, a hundred at once, within its memory."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from app.vision.dishes import draw
from tests.conftest import LocalHost

pytestmark = [pytest.mark.host, pytest.mark.timeout(600)]
SINGLE = "/vision/api/api/v1/classify/single"
SHOW = (
    "systemctl show -p MemoryMax -p MemoryCurrent -p NRestarts -p Result -p MainPID pergola-api@vision-{slot}.service"
)


def pictures() -> list[tuple[bytes, str]]:
    """Files of drawn dishes and what they are."""
    found = []
    for number, level in ((39, None), (24, "heavy"), (27, None), (32, "heavy")):
        stream = io.BytesIO()
        draw(5_000_000_000 + number, level=level).image.resize((1200, 1200)).save(stream, "JPEG")  # type: ignore[arg-type]
        found.append((stream.getvalue(), "dirty" if level else "clean"))
    return found


def unit_state(host: LocalHost) -> dict[str, str]:
    """What systemd knows of the live API's service."""
    slot = host.app("vision")["slot"]
    shown = host.sh(SHOW.format(slot=slot)).split()
    return {"slot": slot, **{name: value for name, _, value in (line.partition("=") for line in shown)}}


def test_a_hundred_at_once_are_answered_within_the_memory(local_host: LocalHost) -> None:
    # exactly as many as the API lets one visitor ask in a minute
    good, files = 96, pictures()
    before, began = unit_state(local_host), local_host.sh("date +%s").strip()
    sent = [(files[number % len(files)][0], 200) for number in range(good)]
    sent += [(b"no picture", 400), (b"", 400), (files[0][0][:500], 400), (bytes(11 * 1024 * 1024), 413)]
    with httpx.Client(base_url=local_host.url, verify=local_host.tls, timeout=300) as client:

        def ask(number: int) -> httpx.Response:
            form = {"model_type": "fast", "explain": str(number == 0)}
            return client.post(SINGLE, files={"image": ("dish.jpg", sent[number][0])}, data=form)

        with ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(ask, range(100)))
        assert client.get("/vision/api/health/ready").status_code == 200
        assert client.get("/vision/").status_code == 200
    assert [answer.status_code for answer in answers] == [status for _, status in sent], [
        answer.text for answer in answers if answer.status_code not in {200, 400, 413}
    ][:3]
    labels = [answer.json()["result"]["predicted_class"] for answer in answers[:good]]
    assert labels == [files[number % len(files)][1] for number in range(good)]
    assert answers[0].json()["result"]["explanation"]["overlay"].startswith("data:image/jpeg")
    for answer in answers[:good]:
        assert {"x-request-id", "x-processing-time", "x-ratelimit-remaining"} <= set(answer.headers)
    state = unit_state(local_host)
    assert int(state["MemoryCurrent"]) < int(state["MemoryMax"]) == 1024**3
    assert (state["NRestarts"], state["Result"], state["MainPID"]) == (
        before["NRestarts"],
        "success",
        before["MainPID"],
    )
    ended = (
        f"journalctl -u pergola-api@vision-{state['slot']} --since=@{began} | grep -cE 'oom-kill|SIGKILL|WORKER TIMEOUT'"
        " || test $? = 1"
    )
    assert local_host.sh(ended).strip() == "0", "a worker was ended that took too much, of memory or of time"
