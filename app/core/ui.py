"""Serves an app's Streamlit script as an ASGI application.

    uvicorn app.core.ui:app --fd 3      on a host: one process for each slot, PERGOLA_APP names the app
    python -m app.core.ui wine          on a laptop

Around Streamlit it adds three things: `<base path>health/ready`, which runs the script for real (Streamlit itself says "ok"
for a broken one); the slot cookie, which keeps a visitor in the slot where his session lives; and `Secure` on every cookie
when the visitor came over https.
"""

import argparse
import asyncio
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

# Streamlit counts its sessions itself; this process must not write into the API workers' metric files
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core import access, logs, manifest, remembering
from app.core.asgi import believe_nginx, through_proxy
from app.core.ladder import STREAMLIT_PING_SECONDS
from app.core.settings import Settings, clear_settings, get_settings

if TYPE_CHECKING:
    from streamlit.runtime import Runtime
    from streamlit.starlette import App as StreamlitApp

log = logging.getLogger(__name__)

ROOT: Final = Path(__file__).resolve().parents[2]
"""The folder that holds `app/`: the release on a host, the project on a laptop."""

RUN_SECONDS: Final = 30.0
"""How long the script may take in a readiness check."""

_GOOD_FOR: Final = 5.0
_BAD_FOR: Final = 1.0

THEME: Final = {
    "primaryColor": "#3f6f4a",
    "baseRadius": "medium",
    "light.primaryColor": "#37683f",
    "light.backgroundColor": "#fbfaf7",
    "light.secondaryBackgroundColor": "#f1efe8",
    "light.textColor": "#22261f",
    "dark.primaryColor": "#47814f",
    "dark.linkColor": "#8fc79a",
    "dark.backgroundColor": "#161a16",
    "dark.secondaryBackgroundColor": "#20261f",
    "dark.textColor": "#e9ece4",
}
"""One look for all apps, the portal's own colours; both modes keep a contrast of at least 4.5 for text (white on a primary button too)."""


class UiError(Exception):
    """The screen cannot be served; the message says what to change."""


@dataclass(frozen=True)
class Verdict:
    """What a run of the script showed."""

    ready: bool
    reason: str
    seconds: float
    at: float
    raised: bool = False


def build(settings: Settings | None = None, *, root: Path = ROOT) -> "Screen":
    """The ASGI application of the app that `settings` name. Raises UiError."""
    settings = settings or get_settings()
    about = manifest.load(root / "app" / settings.app)
    if "ui" not in about.data:
        raise UiError(f"app {about.name} has no screen: its manifest has no `ui`")
    script = root / about.data["ui"]["script"]
    if not script.is_file():
        raise UiError(f"app {about.name}: there is no script {script}; correct apps/{about.name}/ui/script")
    base_path = settings.base_path if "base_path" in settings.model_fields_set else about.path
    _adopt_streamlit_logs()
    logs.configure(settings=settings)
    _configure_streamlit(
        base_path=base_path,
        upload_bytes=manifest.parse_size(about.data["limits"]["upload"]),
        on_host=settings.on_host,
        theme=about.data["ui"]["theme"],
    )
    from streamlit.starlette import App as StreamlitApp  # noqa: PLC0415 - after the log handlers and the configuration

    screen = Screen(
        StreamlitApp(script),
        app_name=about.name,
        script=script,
        base_path=base_path,
        slot=settings.slot,
        release=settings.release,
    )
    prefix = settings.api_prefix or f"{base_path}api"
    screen.protect(access.rules_of(about, api_prefix=prefix, base_path=base_path))
    return screen


def theme_options(theme: str) -> dict[str, str]:
    """Streamlit's theme options: one look for all apps, in both modes or always in one of them."""
    if theme == "system":
        return {f"theme.{key}": value for key, value in THEME.items()}
    own = {key: value for key, value in THEME.items() if not key.startswith(("light.", "dark."))}
    chosen = {key.removeprefix(f"{theme}."): value for key, value in THEME.items() if key.startswith(f"{theme}.")}
    # without sections for light and dark Streamlit offers visitors no other mode
    return {f"theme.{key}": value for key, value in {"base": theme, **own, **chosen}.items()}


def _configure_streamlit(*, base_path: str, upload_bytes: int, on_host: bool, theme: str = "system") -> None:
    from streamlit import config  # noqa: PLC0415 - after the log handlers

    options: dict[str, Any] = {
        "server.baseUrlPath": base_path.strip("/"),
        "server.headless": True,
        "server.fileWatcherType": "none" if on_host else "auto",
        "server.maxUploadSize": max(1, -(-upload_bytes // 1024**2)),
        "server.enableXsrfProtection": True,
        "server.enableAgentApi": False,
        "server.enableStaticServing": False,
        "browser.gatherUsageStats": False,
        "client.toolbarMode": "minimal" if on_host else "auto",
        "client.showErrorDetails": "none" if on_host else "full",
        "client.showErrorLinks": False,
        "logger.enableRich": False,
        **theme_options(theme),
    }
    for key, value in options.items():
        config.set_option(key, value, "app.core.ui")


def _adopt_streamlit_logs() -> None:
    """Let Streamlit's lines reach our JSON handler: its loggers each print plain text by themselves."""
    from streamlit import logger as streamlit_logger  # noqa: PLC0415 - only where there is a screen

    def hand_over(logger: logging.Logger) -> None:
        own = getattr(logger, "streamlit_console_handler", None)
        if own is not None:
            logger.removeHandler(own)
        logger.propagate = True

    streamlit_logger.setup_formatter = hand_over
    streamlit_logger.update_formatter()


class Screen:
    """Streamlit with readiness, slot cookie and safe cookies around it."""

    def __init__(
        self, streamlit: "StreamlitApp", *, app_name: str, script: Path, base_path: str, slot: str, release: str
    ) -> None:
        self._streamlit: ASGIApp = streamlit
        self._ready = Readiness(lambda: streamlit._runtime, script)  # noqa: SLF001 - st.App does not hand out its runtime
        self._app_name = app_name
        self.base_path = base_path
        self._release = release
        self._slot = slot
        self._cookie = f"pergola_slot_{app_name}"

    def protect(self, rules: access.Rules) -> None:
        """Refuse every path that these rules do not open."""
        if rules.protected:
            self._streamlit = access.AccessMiddleware(self._streamlit, rules, "ui")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or WebSocket."""
        if scope["type"] in {"http", "websocket"}:
            believe_nginx(scope)
        if scope["type"] != "http":
            await self._streamlit(scope, receive, send)
            return
        path = scope["path"]
        if path == f"{self.base_path}health/ready":
            await self._answer_ready(scope, receive, send)
        elif path == f"{self.base_path}{remembering.PATH}":
            await remembering.answer(self._app_name, self.base_path, scope, receive, send)
        elif path == f"{self.base_path}_stcore/script-health-check":
            # it would run the script for anybody, as often as he likes
            await PlainTextResponse("Not Found", 404)(scope, receive, send)
        else:
            await self._streamlit(scope, receive, self._with_cookies(scope, send))

    async def _answer_ready(self, scope: Scope, receive: Receive, send: Send) -> None:
        verdict = await self._ready.check()
        # the text of an exception is for the operator on the host, not for a visitor behind nginx
        reason = "the screen does not run; its log says why" if through_proxy(scope) else verdict.reason
        body: dict[str, Any] = {
            "status": "ready" if verdict.ready else "not ready",
            "app": self._app_name,
            "release": self._release,
        }
        body |= (
            {"seconds": round(verdict.seconds, 3)} if verdict.ready else {"raised": verdict.raised, "reason": reason}
        )
        await JSONResponse(body, 200 if verdict.ready else 503, {"Cache-Control": "no-store"})(scope, receive, send)

    def _with_cookies(self, scope: Scope, send: Send) -> Send:
        secure = "; Secure" if scope["scheme"] == "https" else ""

        async def wrapped(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if secure:
                    message["headers"] = [
                        (
                            name,
                            value + b"; Secure"
                            if name.lower() == b"set-cookie" and b"secure" not in value.lower()
                            else value,
                        )
                        for name, value in message["headers"]
                    ]
                    headers = MutableHeaders(scope=message)
                if (
                    self._slot
                    and headers.get("content-type", "").startswith("text/html")
                    and self._slot_of(scope) != self._slot
                ):
                    headers.append(
                        "Set-Cookie",
                        f"{self._cookie}={self._slot}; Path={self.base_path}; HttpOnly; SameSite=Lax{secure}",
                    )
                    headers["Cache-Control"] = "no-store"  # a cached page would carry the cookie to others
            await send(message)

        return wrapped

    def _slot_of(self, scope: Scope) -> str:
        """The slot that the visitor's cookie names."""
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(Headers(scope=scope).get("cookie", ""))
        except CookieError:
            return ""
        morsel = cookies.get(self._cookie)
        return morsel.value if morsel else ""


class Readiness:
    """Runs the script as a visitor's browser would, and remembers the verdict for a moment.

    One run at a time, whoever asks: the address is public, so asking often must cost nothing.
    """

    def __init__(self, runtime: "Callable[[], Runtime | None]", script: Path) -> None:
        self._runtime = runtime
        self._script = script
        self._lock = asyncio.Lock()
        self._verdict: Verdict | None = None

    async def check(self) -> Verdict:
        """The verdict, at most 5 s old when it was good and 1 s when it was bad."""
        async with self._lock:
            verdict = self._verdict
            if verdict is None or time.monotonic() - verdict.at > (_GOOD_FOR if verdict.ready else _BAD_FOR):
                verdict = self._verdict = await self._run()
        return verdict

    async def _run(self) -> Verdict:
        began, raised = time.monotonic(), False
        try:
            async with asyncio.timeout(RUN_SECONDS):
                runtime = self._runtime()
                reason = await run_script(runtime, self._script)
                raised = bool(reason) and runtime is not None
        except TimeoutError:
            reason = f"the script did not end within {RUN_SECONDS:g} s"
        ended = time.monotonic()
        if reason:
            log.error("screen is not ready: %s", reason)
        return Verdict(not reason, reason, ended - began, ended, raised)


async def run_script(runtime: "Runtime | None", script: Path) -> str:
    """Run the script once in a session of its own; the reason why it failed, or an empty string.

    It runs inside the serving process, so it also fills the caches that the first visitor would have to wait for.
    """
    from streamlit.runtime.app_session import AppSession  # noqa: PLC0415 - Streamlit loads late
    from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager  # noqa: PLC0415
    from streamlit.runtime.script_data import ScriptData  # noqa: PLC0415
    from streamlit.runtime.scriptrunner.script_cache import ScriptCache  # noqa: PLC0415
    from streamlit.runtime.state import SCRIPT_RUN_WITHOUT_ERRORS_KEY  # noqa: PLC0415

    if runtime is None:
        return "Streamlit has not started"
    errors: list[Exception] = []
    session = AppSession(
        script_data=ScriptData(str(script)),
        uploaded_file_manager=MemoryUploadedFileManager("/unused"),
        script_cache=ScriptCache(),
        message_enqueued_callback=None,
        user_info={},
        on_script_error=errors.append,
    )
    try:
        session.request_rerun(None)
        # a script may ask for reruns, and each run "finishes": only the end of its runner is the end
        while session._scriptrunner is not None:  # noqa: ASYNC110, SLF001 - nothing public tells, nothing can be awaited
            await asyncio.sleep(0.02)
        if session.session_state[SCRIPT_RUN_WITHOUT_ERRORS_KEY]:
            return ""
        for message in session.flush_browser_queue():
            if message.HasField("session_event") and message.session_event.HasField("script_compilation_exception"):
                found = message.session_event.script_compilation_exception
                return f"{found.type}: {found.message}"[:500]
        return f"{type(errors[-1]).__name__}: {errors[-1]}"[:500] if errors else "the script failed; the log says why"
    finally:
        session.shutdown()


_app: "Screen | None" = None


def __getattr__(name: str) -> "Screen":
    """`app.core.ui:app`, built when the server asks for it, so that importing this module starts nothing."""
    global _app  # noqa: PLW0603 - one screen a process: Streamlit cannot do more
    if name != "app":
        raise AttributeError(name)
    if _app is None:
        _app = build()
    return _app


def main() -> None:
    """Serve one app's screen on this machine."""
    parser = argparse.ArgumentParser(
        prog="python -m app.core.ui", description="Serve an app's Streamlit screen on this machine."
    )
    parser.add_argument("name", help="the app: a folder in app/")
    parser.add_argument("--port", type=int, default=8501)
    parser.add_argument("--host", default="127.0.0.1")
    given = parser.parse_args()
    os.environ["PERGOLA_APP"] = given.name
    clear_settings()
    try:
        screen = build()
    except (UiError, manifest.ManifestError) as error:
        parser.exit(2, f"{error}\n")
    import uvicorn  # noqa: PLC0415 - only when this process is the server

    print(f"http://{given.host}:{given.port}{screen.base_path}", flush=True)  # noqa: T201 - the answer of a command
    uvicorn.run(screen, host=given.host, port=given.port, log_config=None, ws_ping_interval=STREAMLIT_PING_SECONDS)


if __name__ == "__main__":
    main()
