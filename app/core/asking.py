"""How a screen asks its own API for whoever looks at it.

With his login, with what was asked a moment ago remembered, and in plain words when it fails:

    told = asking.get("/projects")             # remembered for some seconds
    asking.ask("POST", "/projects", json=...)  # never remembered
    with asking.problems_shown(): ...          # an ApiError becomes a panel with the way on
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

import streamlit as st

from app.core import auth, panels
from app.core.client import ApiError, api_client
from app.core.settings import get_settings

FRESH_SECONDS: Final = 8


def token() -> str:
    """The session of whoever has logged in: from this screen's own login, else from the login page's cookie."""
    kept = str(st.session_state.get("token", ""))
    return kept or str(st.context.cookies.get(auth.cookie_name(get_settings()), ""))


def headers(session: str) -> dict[str, str]:
    """What says who asks."""
    return {"Authorization": f"Bearer {session}"} if session else {}


def ask(method: str, path: str, **options: Any) -> Any:
    """Ask the API and give its answer. Raises ApiError."""
    return api_client().request(method, path, headers=headers(token()), **options)


@st.cache_data(ttl=FRESH_SECONDS, max_entries=200, show_spinner=False)
def _get(path: str, session: str, params: Mapping[str, Any]) -> Any:
    return api_client().get(path, params=dict(params), headers=headers(session)).json()


def get(path: str, **params: Any) -> Any:
    """A GET of the API as JSON, remembered for some seconds. Raises ApiError."""
    return _get(path, token(), {key: value for key, value in params.items() if value is not None})


@st.cache_data(ttl=120, max_entries=100, show_spinner=False)
def _content(path: str, session: str) -> bytes:
    return api_client().get(path, headers=headers(session)).content


def content(path: str) -> bytes:
    """A file of the API, remembered for two minutes. Raises ApiError."""
    return _content(path, token())


def forget() -> None:
    """Ask anew from now on."""
    _get.clear()


@st.cache_data(ttl=20, max_entries=100, show_spinner=False)
def _logged_in(session: str) -> bool:
    try:
        answer = api_client().get("/auth/status", headers=headers(session)).json()
    except ApiError:
        return False
    return bool(answer["logged_in"])


def logged_in() -> bool:
    """Whether an admin looks at this screen; the API says so."""
    session = token()
    return bool(session) and _logged_in(session)


def log_out() -> None:
    """End the session, here and on the server."""
    with suppress(ApiError):
        ask("POST", "/auth/logout")
    st.session_state.pop("token", None)
    _logged_in.clear()
    forget()


def login_form(target: str) -> None:
    """The way in: on a host the login page (its cookie is what nginx asks for), which leads on to `target`; on a laptop a form."""
    settings = get_settings()
    if settings.on_host:
        where = f"{settings.api_prefix}/auth/login?redirect={settings.base_path}{target}"
        with st.container(border=True):
            st.html(f'<a href="{where}" target="_self">Go to the login page</a>')
        return
    with st.form("login", border=True):
        password = st.text_input("Admin password", type="password", autocomplete="current-password")
        sent = st.form_submit_button("Log in", icon=":material/lock_open:")
    if sent and password:
        try:
            told = api_client().post("/auth/api/login", json={"password": password}).json()
        except ApiError as error:
            st.error(str(error), icon=":material/lock:")
            return
        st.session_state["token"] = told["session_token"]
        st.rerun()


@contextmanager
def problems_shown() -> Iterator[None]:
    """Turn an ApiError into a panel with the way on, and end the page there."""
    try:
        yield
    except ApiError as error:
        show_problem(error)
        st.stop()


def show_problem(error: ApiError, again: Callable[[], None] | None = None) -> None:
    """What went wrong, in words for a visitor, with a button to try again (which calls `again` before the page runs)."""
    if error.status == 401:
        _logged_in.clear()
        st.warning("**Your session has ended.** Please log in again.", icon=":material/lock_clock:")
    else:
        panels.problem(error)
    panels.try_again(partial(_retry, again))


def _retry(again: Callable[[], None] | None) -> None:
    forget()
    if again is not None:
        again()
