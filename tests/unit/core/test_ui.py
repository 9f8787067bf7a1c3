"""The Streamlit server: base path, WebSocket, deep readiness, slot cookie."""

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import InvalidStatus
from websockets.sync.client import unix_connect

ROOT = Path(__file__).resolve().parents[3]
GOOD = """
import streamlit as st
st.title("Hello")
if "seen" not in st.session_state:
    st.session_state.seen = True
    st.rerun()
"""


@dataclass
class Served:
    """A running screen."""

    client: httpx.Client
    log: Path
    socket: Path

    def lines(self) -> str:
        return self.log.read_text()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Serve a script under /hello/ as a host does: uvicorn on a unix socket it did not open itself."""
    running: list[tuple[subprocess.Popen[bytes], httpx.Client]] = []

    def start(script: str, slot: str = "a", seconds: float = 30) -> Served:
        number = len(running)
        root = tmp_path / str(number)
        folder = root / "app" / "hello"
        folder.mkdir(parents=True)
        (folder / "app.yml").write_text(
            "name: hello\ntitle: Hello\nsummary: Says hello.\nui: {script: app/hello/ui.py}\nlimits: {upload: 3M}\n"
        )
        (folder / "ui.py").write_text(textwrap.dedent(script))
        (root / "launch.py").write_text(
            "from pathlib import Path\nfrom app.core import ui\n"
            f"ui.RUN_SECONDS = {seconds}\napp = ui.build(root=Path({str(root)!r}))\n"
        )
        socket, log = root / "ui.sock", root / "log"
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("PERGOLA_")},
            "PYTHONPATH": f"{root}:{ROOT}",
            "PERGOLA_APP": "hello",
            "PERGOLA_SLOT": slot,
            "PERGOLA_RELEASE": "r1",
            "HOME": str(root),
        }
        command = [sys.executable, "-m", "uvicorn", "launch:app", "--uds", str(socket)]
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=root, env=environment, stdout=output, stderr=output)
        client = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket), verify=False), base_url="http://hello", timeout=40
        )
        running.append((process, client))
        deadline = time.monotonic() + 40
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                if client.get("/hello/_stcore/health").is_success:
                    return Served(client, log, socket)
            except httpx.TransportError:
                time.sleep(0.1)

    yield start
    for process, client in running:
        client.close()
        process.terminate()
        process.wait(20)


def test_a_good_script_is_ready_and_pins_the_visitor_to_its_slot(serve: Callable[..., Served]) -> None:
    served = serve(GOOD)
    ready = served.client.get("/hello/health/ready")
    assert ready.status_code == 200, ready.text + served.lines()
    assert ready.json()["status"] == "ready"
    assert ready.json()["release"] == "r1"
    assert served.client.get("/hello/_stcore/script-health-check").status_code == 404

    first = served.client.get("/hello/")
    assert first.status_code == 200
    assert "text/html" in first.headers["content-type"]
    assert first.headers.get_list("set-cookie") == ["pergola_slot_hello=a; Path=/hello/; HttpOnly; SameSite=Lax"]
    assert first.headers["cache-control"] == "no-store"
    assert "pergola_slot_hello" not in served.client.cookies or served.client.cookies["pergola_slot_hello"] == "a"

    served.client.cookies.clear()
    over_tls = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}
    moved = served.client.get("/hello/", headers={**over_tls, "Cookie": "pergola_slot_hello=b"})
    assert moved.headers.get_list("set-cookie") == [
        "pergola_slot_hello=a; Path=/hello/; HttpOnly; SameSite=Lax; Secure"
    ]
    kept = served.client.get("/hello/", headers={"Cookie": "other=1; pergola_slot_hello=a"})
    assert "set-cookie" not in kept.headers
    config = served.client.get("/hello/_stcore/host-config", headers=over_tls)
    assert all("Secure" in cookie for cookie in config.headers.get_list("set-cookie"))
    sessions = served.client.get("/hello/_stcore/metrics", params={"families": "active_sessions"})
    assert "active_sessions 0" in sessions.text


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        pytest.param("import streamlit\nraise RuntimeError('no model')\n", "RuntimeError: no model", id="raises"),
        pytest.param("import streamlit as st\nst.title('x'\n", "SyntaxError", id="does-not-compile"),
        pytest.param("import nothing_of_this_name\n", "ModuleNotFoundError", id="import-error"),
        pytest.param(GOOD + "raise ValueError('second run')\n", "ValueError: second run", id="raises-after-a-rerun"),
    ],
)
def test_a_broken_script_is_not_ready_and_says_why_to_the_host_only(
    serve: Callable[..., Served], script: str, reason: str
) -> None:
    served = serve(script)
    assert served.client.get("/hello/_stcore/health").text == "ok"  # which is why this check exists
    ready = served.client.get("/hello/health/ready")
    assert ready.status_code == 503, served.lines()
    assert reason in ready.json()["reason"]
    assert ready.json()["raised"] is True
    from_outside = served.client.get("/hello/health/ready", headers={"X-Forwarded-For": "192.0.2.7"})
    assert from_outside.status_code == 503
    assert reason not in from_outside.text
    assert all(line.startswith("{") for line in served.lines().splitlines()), served.lines()


def test_a_script_that_never_ends_is_not_ready(serve: Callable[..., Served]) -> None:
    served = serve("import time\nwhile True:\n    time.sleep(0.05)\n", seconds=1.5)
    ready = served.client.get("/hello/health/ready")
    assert ready.status_code == 503
    assert ready.json()["reason"] == "the script did not end within 1.5 s"
    assert ready.json()["raised"] is False, "it may be quicker the next time"
    assert served.client.get("/hello/_stcore/health").text == "ok"


def test_asking_often_runs_the_script_once(serve: Callable[..., Served], tmp_path: Path) -> None:
    count = tmp_path / "count"
    served = serve(f"import streamlit as st, time\ntime.sleep(0.3)\nopen({str(count)!r}, 'a').write('x')\n")
    with ThreadPoolExecutor(6) as pool:
        statuses = [answer.status_code for answer in pool.map(served.client.get, ["/hello/health/ready"] * 18)]
    assert statuses == [200] * 18
    assert count.read_text() == "x"


def test_no_slot_no_cookie(serve: Callable[..., Served]) -> None:
    served = serve(GOOD, slot="")
    assert "set-cookie" not in served.client.get("/hello/").headers


def test_a_visitor_gets_the_page_over_a_websocket_and_is_counted(serve: Callable[..., Served]) -> None:
    served = serve(GOOD)
    with unix_connect(
        str(served.socket), "ws://host.example/hello/_stcore/stream", subprotocols=["streamlit"]
    ) as socket:
        rerun = BackMsg()
        rerun.rerun_script.query_string = ""
        socket.send(rerun.SerializeToString())
        seen = ""
        while "Hello" not in seen:
            seen = str(ForwardMsg.FromString(socket.recv(timeout=20)))
        sessions = served.client.get("/hello/_stcore/metrics", params={"families": "active_sessions"})
        assert "active_sessions 1" in sessions.text
    # a page of another site may not open one
    evil = {"Origin": "https://evil.example", "X-Forwarded-Proto": "https"}
    with pytest.raises(InvalidStatus):
        unix_connect(str(served.socket), "ws://host.example/hello/_stcore/stream", additional_headers=evil)


def test_a_screen_is_dark_when_its_manifest_says_so() -> None:
    from app.core.ui import THEME, theme_options

    both = theme_options("system")
    assert both["theme.dark.backgroundColor"] == THEME["dark.backgroundColor"]
    assert "theme.base" not in both
    dark = theme_options("dark")
    assert dark["theme.base"] == "dark"
    assert dark["theme.backgroundColor"] == THEME["dark.backgroundColor"]
    assert not any(".light." in name or ".dark." in name for name in dark)
    assert theme_options("light")["theme.textColor"] == THEME["light.textColor"]
