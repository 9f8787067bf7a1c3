"""What all screens share: asking the API with a key, who has logged in, which hackathon, and saying well what is empty, late or wrong."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from html import escape
from typing import Any, Final

import httpx
import streamlit as st

from app.core import panels, remembering
from app.core.client import ApiClient, ApiError, api_client
from app.core.settings import get_settings

V1: Final = "/api/v1"
FRESH_SECONDS: Final = 30
EVERY_SECONDS: Final = 5
LOGIN_SECONDS: Final = 5.0
KEEP_DAYS: Final = 7.0
PAGE_ROWS: Final = 50

_STYLE: Final = """
<style>
.stMainBlockContainer {max-width: 80rem; padding-top: 4.5rem; padding-bottom: 4rem;}
.vj-lead {opacity: .78; margin-top: -.75rem;}
.vj-badge {display: inline-block; border-radius: 999px; padding: .15rem .75rem; font-weight: 650; border: 1px solid currentColor;}
.vj-good {color: #8fc79a;} .vj-fine {color: #a9c4e8;} .vj-weak {color: #e6c36a;} .vj-bad {color: #f0988a;}
.vj-scroll {overflow-x: auto;}
.vj-table {border-collapse: collapse; width: 100%; font-size: .93rem;}
.vj-table th {text-align: left; opacity: .75; font-weight: 600; white-space: nowrap;}
.vj-table th, .vj-table td {padding: .4rem .9rem .4rem 0; vertical-align: top;
  border-bottom: 1px solid color-mix(in srgb, currentColor 14%, transparent);}
@media (max-width: 640px) { .stMainBlockContainer {padding-left: 1rem; padding-right: 1rem;} }
</style>
"""


def dress() -> None:
    """The looks that Streamlit's theme has no word for."""
    st.html(_STYLE)


def default_url() -> str:
    """The API's address, with /api/v1: the operator's, or empty for this app's own API."""
    return os.environ.get("API_BASE_URL", "").strip().rstrip("/")


def may_choose(url: str) -> bool:
    """Whether the screens may ask a server at this address: on a host only the operator's, so that nobody sends it elsewhere."""
    if url in {"", default_url()}:
        return True
    allowed = os.environ.get("JUDGE_API_URLS", "").split()
    return url.startswith(("http://", "https://")) and (url in allowed or not get_settings().on_host)


@lru_cache(maxsize=16)
def _client(url: str) -> ApiClient:
    return ApiClient(base_url=url, timeout=httpx.Timeout(60.0, connect=5.0))


def _ask(method: str, path: str, key: str, url: str, **options: Any) -> httpx.Response:
    client, prefix = (_client(url), "") if url else (api_client(), V1)
    headers = {"X-API-Key": key} if key else {}
    return client.request(method, f"{prefix}{path}", headers=headers, **options)


def base_url() -> str:
    """The address in use; empty for this app's own API."""
    return str(st.session_state.get("api_url", default_url()))


def api_key() -> str:
    """The key of whoever has logged in: from this session, else from the browser's sealed cookie."""
    if "api_key" not in st.session_state:
        kept = remembering.recall().split("\n")
        st.session_state["api_key"] = kept[0]
        if len(kept) > 1 and may_choose(kept[1]):
            st.session_state["api_url"] = kept[1]
    return str(st.session_state["api_key"])


def logged_in() -> bool:
    """Whether somebody has logged in; the API decides with every answer whether the key is still good."""
    return bool(api_key())


def log_in(key: str, url: str) -> None:
    """Check a key by what the dashboard asks first (5 s), and keep it. Raises ApiError."""
    _ask("GET", "/hackathons", key, url, params={"limit": 1}, timeout=LOGIN_SECONDS)
    st.session_state.update(api_key=key, api_url=url, promise="remember")


def open_door(email: str, password: str, url: str) -> str:
    """A new key for whoever knows the password. Raises ApiError."""
    body = {"email": email, "password": password}
    return str(_ask("POST", "/organizers/login", "", url, json=body, timeout=LOGIN_SECONDS).json()["api_key"])


def log_out() -> None:
    """Forget the key here and in the browser."""
    for name in list(st.session_state):
        del st.session_state[name]
    st.session_state.update(api_key="", promise="forget")
    forget()


def keep_promises() -> None:
    """Tell the browser to keep or to forget the key: in a run that draws a page, since a callback cannot."""
    promise = st.session_state.pop("promise", "")
    if promise == "remember":
        remembering.remember(f"{api_key()}\n{base_url()}", KEEP_DAYS)
    elif promise == "forget":
        remembering.forget()


def tell(method: str, path: str, **options: Any) -> Any:
    """Ask the API and give its JSON, None when there is none. Raises ApiError."""
    answer = _ask(method, path, api_key(), base_url(), **options)
    return answer.json() if answer.content else None


def change(method: str, path: str, **options: Any) -> Any:
    """The same for what changes something: what was read before is asked anew."""
    answer = tell(method, path, **options)
    forget()
    return answer


@st.cache_data(ttl=FRESH_SECONDS, max_entries=500, show_spinner=False)
def _get(path: str, key: str, url: str, params: Mapping[str, Any]) -> Any:
    return _ask("GET", path, key, url, params=dict(params)).json()


def get(path: str, **params: Any) -> Any:
    """A GET of the API as JSON, remembered for 30 s. Raises ApiError."""
    return _get(path, api_key(), base_url(), {name: value for name, value in params.items() if value is not None})


def text(path: str, **params: Any) -> str:
    """A GET that gives text. Raises ApiError."""
    return _ask("GET", path, api_key(), base_url(), params=params).text


def every(path: str, name: str, **params: Any) -> list[dict[str, Any]]:
    """All rows of a list that turns pages. Raises ApiError."""
    rows: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = get(path, limit=100, cursor=cursor, **params)
        rows += page[name]
        cursor = page["next_cursor"]
        if not page["has_more"]:
            return rows


def forget() -> None:
    """Ask anew from now on."""
    _get.clear()


@contextmanager
def problems_shown() -> Iterator[None]:
    """Turn an ApiError into a panel with the way on, and end the page there."""
    try:
        yield
    except ApiError as error:
        show_problem(error)
        st.stop()


def show_problem(error: ApiError, again: Callable[[], None] | None = None) -> None:
    """What went wrong, as a plain sentence, with the way on."""
    if error.status == 401:
        st.warning(f"**Please log in again.** {error}.", icon=":material/lock_clock:")
        st.button("Log in", icon=":material/lock_open:", on_click=log_out, key="log-in-again")
        return
    if error.status == 402:
        st.warning(f"**Over budget.** {error}", icon=":material/savings:")
        return
    panels.problem(error)
    if error.status in {0, 429, 502, 503, 504}:
        panels.try_again(partial(_retry, again))


def _retry(again: Callable[[], None] | None) -> None:
    forget()
    if again is not None:
        again()


def heading(title: str, lead: str) -> None:
    """A page's title and one sentence."""
    st.title(title, anchor=False)
    st.html(f'<p class="vj-lead">{escape(lead)}</p>')


def choose_hackathon() -> dict[str, Any]:
    """The hackathon that these pages are about; ends the page when there is none."""
    with problems_shown():
        rows = every("/hackathons", "hackathons")
    if not rows:
        panels.empty("You have no hackathon yet. Create one to begin.", "emoji_events")
        st.stop()
    known = {row["hack_id"]: row for row in rows}
    kept = st.session_state.get("hack_kept")
    index = list(known).index(kept) if kept in known else 0
    chosen = st.selectbox(
        "Hackathon",
        list(known),
        index=index,
        format_func=lambda hack_id: f"{known[hack_id]['name']} · {known[hack_id]['status']}",
    )
    st.session_state["hack_kept"] = chosen
    return known[chosen]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table for reading; everything in it is escaped."""
    head = "".join(f"<th scope='col'>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    st.html(
        f'<div class="vj-scroll"><table class="vj-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def pages(rows: Sequence[Any], name: str, size: int = PAGE_ROWS) -> Sequence[Any]:
    """The rows of the page that was chosen; draws the chooser when there are several."""
    count = max(1, -(-len(rows) // size))
    if count == 1:
        return rows
    number = int(st.number_input(f"Page of {count}", 1, count, 1, key=f"page-{name}"))
    return rows[(number - 1) * size : number * size]


_WORDS: Final = {
    "strong_contender": ("vj-good", "Strong contender"),
    "solid_submission": ("vj-fine", "Solid submission"),
    "needs_improvement": ("vj-weak", "Needs improvement"),
    "concerns_flagged": ("vj-bad", "Concerns flagged"),
}


def recommended(name: str) -> str:
    """A recommendation for reading."""
    return _WORDS.get(name, ("", name.replace("_", " ").capitalize()))[1]


def badge(name: str) -> None:
    """A recommendation as a badge."""
    kind = _WORDS.get(name, ("vj-fine", ""))[0]
    st.html(f'<span class="vj-badge {kind}" data-testid="recommendation">{escape(recommended(name))}</span>')


def words(name: str) -> str:
    """A name of the API for reading."""
    return name.replace("_", " ").capitalize()


def when(moment: str | None) -> str:
    """A time of the API for reading."""
    return f"{moment[:10]} {moment[11:16]}" if moment else "–"


def dollars(value: float | None) -> str:
    """US dollars for reading."""
    return "–" if value is None else f"${value:,.3f}" if abs(value) < 10 else f"${value:,.2f}"


def plain(said: str) -> str:
    """Somebody's text, none of it read as Markdown."""
    return "".join(f"\\{one}" if one in "\\`*_{}[]()#+-.!|<>~:$" else one for one in said)


def wrong_submission(error: ApiError) -> str:
    """What is wrong with a submission, in the words of the form."""
    told = str(error)
    if "team_name" in told:
        return "A team's name has letters, digits, spaces, - and _, at most 50."
    if "repo_url" in told:
        return "Give the repository as https://github.com/team/project."
    return told
