"""What all screens share: asking the API, who has logged in, and saying well what is empty, late or wrong."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from html import escape
from typing import Any, Final
from uuid import uuid4

import streamlit as st

from app.core import asking
from app.core.asking import ask, forget, log_out, logged_in, problems_shown, show_problem
from app.core.client import ApiError
from app.core.settings import get_settings
from app.drawings.screens import figures

__all__ = ["ask", "forget", "log_out", "logged_in", "problems_shown", "show_problem"]

V1: Final = "/api/v1"

_STYLE: Final = """
<style>
.stMainBlockContainer {max-width: 74rem; padding-top: 4.5rem; padding-bottom: 4rem;}
.dr-lead {opacity: .78; margin-top: -.75rem;}
.dr-verdict {display: inline-block; border-radius: 999px; padding: .2rem .85rem; font-weight: 650; color: var(--dr-on);}
.dr-usual {background: var(--dr-usual);} .dr-unusual {background: var(--dr-unusual);}
.dr-big {font-size: 1.9rem; line-height: 1.15; font-weight: 700; margin: .6rem 0 .1rem;}
.dr-sub {opacity: .78; margin: 0 0 .6rem;}
.dr-note {border-left: .25rem solid color-mix(in srgb, currentColor 35%, transparent); padding: .15rem 0 .15rem .8rem; opacity: .85;
  font-size: .92rem;}
.dr-scroll {overflow-x: auto;}
.dr-table {border-collapse: collapse; width: 100%; font-size: .93rem;}
.dr-table td:first-child {white-space: nowrap;}
.dr-table th {text-align: left; opacity: .7; font-weight: 600;}
.dr-table th, .dr-table td {padding: .4rem .7rem .4rem 0; vertical-align: top;
  border-bottom: 1px solid color-mix(in srgb, currentColor 14%, transparent);}
:root {--dr-usual: #37683f; --dr-unusual: #b04a22; --dr-on: #fff;}
@media (max-width: 640px) { .stMainBlockContainer {padding-left: 1rem; padding-right: 1rem;} .dr-big {font-size: 1.55rem;} }
</style>
"""


def dress() -> None:
    """The looks that Streamlit's theme has no word for."""
    st.html(_STYLE)


def tell(method: str, path: str, **options: Any) -> Any:
    """The same, as JSON."""
    return ask(method, f"{V1}{path}", **options).json()


def get(path: str, **params: Any) -> Any:
    """A GET of the API as JSON, remembered for some seconds. Raises ApiError."""
    return asking.get(f"{V1}{path}", **params)


def picture(url: str) -> bytes:
    """A picture of the API, by the address the API gave."""
    return asking.content(url.removeprefix(get_settings().api_prefix))


def viewed(page: str) -> None:
    """Count that a screen was opened, once each time somebody comes to it."""
    if st.session_state.get("page") == page or not st.context.headers.get("User-Agent"):
        return  # the second is the readiness check, which is nobody's visit
    st.session_state["page"] = page
    session = st.session_state.setdefault("visit", uuid4().hex)
    with suppress(ApiError):  # a count is no reason to show nothing
        ask("POST", f"{V1}/metrics/page-view", json={"page": page, "session": session})


def heading(title: str, lead: str) -> None:
    """A page's title and one sentence."""
    st.title(title, anchor=False)
    st.html(f'<p class="dr-lead">{escape(lead)}</p>')


def verdict(told: Mapping[str, Any]) -> None:
    """Usual or unusual, as a badge with the percentile."""
    kind, word = ("dr-unusual", "Unusual for this age") if told["is_anomaly"] else ("dr-usual", "Within what is usual")
    sure = f"confidence {told['confidence']:.0%}"
    st.html(
        f'<span class="dr-verdict {kind}" data-testid="verdict">{word}</span>'
        f'<p class="dr-big">{of_hundred(told["normalized_score"])} of 100</p>'
        f'<p class="dr-sub">It differs more than so many normal drawings of this age · {sure}</p>'
    )


def of_hundred(percentile: float) -> str:
    """A percentile for reading: never a false 0 or 100."""
    return "more than 99" if percentile > 99.5 else "fewer than 1" if percentile < 0.5 else f"{percentile:.0f}"


def note(sentence: str) -> None:
    """The disclaimer, which stands below every result."""
    st.html(f'<p class="dr-note">{escape(sentence)}</p>')


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A small table; everything in it is escaped."""
    head = "".join(f"<th scope='col'>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    st.html(
        f'<div class="dr-scroll"><table class="dr-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def plot(draw: Callable[[figures.Palette], Any], key: str) -> None:
    """A chart in the colours of the page."""
    palette = figures.DARK if st.context.theme.type == "dark" else figures.LIGHT
    st.plotly_chart(draw(palette), key=key, config={"displayModeBar": False})


def when(moment: str) -> str:
    """A time of the API for reading."""
    return f"{moment[:10]} {moment[11:16]}"
