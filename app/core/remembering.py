"""Lets a screen remember something of a visitor beyond a reload: who has logged in, for example.

    remembering.remember(api_key, days=7)      # this script run tells the browser to fetch its cookie
    remembering.recall()                       # after a reload: the same text, or ""
    remembering.forget()

The cookie is HttpOnly and sealed (AES-GCM, the secret `session_key`), so neither a script in the page nor anybody who finds it can read
it, and any slot and release of the app can open it. Streamlit cannot set cookies: the page exchanges a ticket, good for once and for a
minute, for the cookie at `<base path>session`. Needs the package cryptography.
"""

import base64
import hashlib
import json
import os
import secrets
import threading
import time
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from app.core.settings import get_settings, secret

PATH: Final = "session"
TICKET_SECONDS: Final = 60.0
MOST_TICKETS: Final = 10_000
MOST_TEXT: Final = 2000
DAY: Final = 86400

_NONCE: Final = 12
_tickets: dict[str, tuple[float, str, float]] = {}
_lock: Final = threading.Lock()


def cookie_name(app: str) -> str:
    """Name of the cookie: one for each app, since all apps share a host name."""
    return f"pergola_session_{app}"


def seal(text: str, until: float) -> str:
    """Text that only this app can read again, until then (seconds since 1970)."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - only apps that remember have it

    nonce = secrets.token_bytes(_NONCE)
    data = json.dumps({"text": text, "until": until}).encode()
    sealed = AESGCM(_key()).encrypt(nonce, data, get_settings().app.encode())
    return base64.urlsafe_b64encode(nonce + sealed).decode().rstrip("=")


def unseal(sealed: str) -> str:
    """The text, or empty when it was not sealed here or its time is over."""
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    try:
        raw = base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
        told = json.loads(AESGCM(_key()).decrypt(raw[:_NONCE], raw[_NONCE:], get_settings().app.encode()))
        return str(told["text"]) if float(told["until"]) > time.time() else ""
    except (InvalidTag, ValueError, KeyError, TypeError):
        return ""


def _key() -> bytes:
    given = secret("session_key")
    return hashlib.sha256((given or _own_key(get_settings().state_dir / "session_key")).encode()).digest()


def _own_key(path: Path) -> str:
    """A key of this machine's own, on a laptop where nobody gave one; made once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
    return path.read_text("ascii")


def remember(text: str, days: float) -> None:
    """Let the visitor's browser keep this. Call it in a script run that goes on to draw the page."""
    if len(text) > MOST_TEXT:
        raise ValueError(f"at most {MOST_TEXT} characters can be remembered")
    _send(ticket(text, days))


def forget() -> None:
    """Let the visitor's browser forget it."""
    _send(ticket("", 0))


def recall() -> str:
    """What was remembered; empty when there is nothing."""
    import streamlit as st  # noqa: PLC0415 - only inside a screen

    return unseal(str(st.context.cookies.get(cookie_name(get_settings().app), "")))


def ticket(text: str, days: float) -> str:
    """Something good for once that the browser exchanges for its cookie."""
    made, now = secrets.token_urlsafe(32), time.monotonic()
    with _lock:
        for old in [name for name, (end, _, _) in _tickets.items() if end < now]:
            del _tickets[old]
        while len(_tickets) >= MOST_TICKETS:
            _tickets.pop(next(iter(_tickets)))
        _tickets[made] = (now + TICKET_SECONDS, text, days)
    return made


def _send(made: str) -> None:
    import streamlit as st  # noqa: PLC0415 - only inside a screen

    where = json.dumps(f"{get_settings().base_path}{PATH}")
    body = json.dumps(json.dumps({"ticket": made}))
    call = f"fetch({where}, {{method: 'POST', headers: {{'Content-Type': 'application/json'}}, body: {body}}})"
    st.html(f"<script>{call};</script>", unsafe_allow_javascript=True)


async def answer(app: str, base_path: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Exchange a ticket for the cookie."""
    await (await _answer(Request(scope, receive), app, base_path))(scope, receive, send)


async def _answer(request: Request, app: str, base_path: str) -> Response:
    # another site's page can send neither this type of content without being asked first, nor a ticket it was not given
    kind = request.headers.get("content-type", "").split(";")[0]
    if request.method != "POST" or kind != "application/json":
        return PlainTextResponse("Not Found", 404)
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return PlainTextResponse("This request came from another site.", 403)
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > 1000:
            return PlainTextResponse("Too long", 413)
    try:
        given = str(json.loads(body)["ticket"])
    except (ValueError, KeyError, TypeError):
        return PlainTextResponse("There is no ticket in this request.", 400)
    with _lock:
        end, text, days = _tickets.pop(given, (0.0, "", 0.0))
    if end < time.monotonic():
        return PlainTextResponse("This ticket is used up.", 410)
    told = Response(status_code=204, headers={"Cache-Control": "no-store"})
    name, secure = cookie_name(app), request.url.scheme == "https"
    if text:
        value, age = seal(text, time.time() + days * DAY), int(days * DAY)
        told.set_cookie(name, value, max_age=age, path=base_path, secure=secure, httponly=True, samesite="strict")
    else:
        told.delete_cookie(name, path=base_path, secure=secure, httponly=True, samesite="strict")
    return told
