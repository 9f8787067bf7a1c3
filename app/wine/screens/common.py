"""What all screens share: asking the API, and saying well what is empty, late or wrong."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from html import escape
from typing import Any, Final

import streamlit as st

from app.core import panels
from app.core.client import ApiError, api_client
from app.wine.screens import figures

FRESH_SECONDS: Final = 10

_STYLE: Final = """
<style>
.stMainBlockContainer {max-width: 72rem; padding-top: 4.5rem; padding-bottom: 4rem;}
.vv-lead {opacity: .75; margin-top: -.75rem;}
.vv-answer {font-size: 2.4rem; line-height: 1.15; font-weight: 700; margin: 0;}
.vv-sub {opacity: .75; margin: .15rem 0 1rem;}
.vv-bar {display: grid; grid-template-columns: minmax(5.5rem, 9rem) 1fr 3.5rem; gap: .6rem; align-items: center; margin: .35rem 0;}
.vv-bar > span:last-child {text-align: right; font-variant-numeric: tabular-nums;}
.vv-track {background: color-mix(in srgb, currentColor 12%, transparent); border-radius: 999px; height: .7rem; overflow: hidden;}
.vv-fill {background: var(--vv-accent); border-radius: 999px; height: 100%; min-width: 2px;}
.vv-bar:not(.vv-first) .vv-fill {opacity: .5;}
.vv-note {line-height: 1.9; overflow-wrap: anywhere; white-space: pre-wrap;}
.vv-note mark {color: inherit; border-radius: .25rem; padding: .1rem .15rem;}
.vv-key {display: inline-block; width: .8rem; height: .8rem; border-radius: .2rem; vertical-align: -1px; margin: 0 .25rem 0 .75rem;}
.vv-term {display: grid; grid-template-columns: minmax(7rem, 12rem) 1fr 3.5rem; gap: .6rem; align-items: center; margin: .2rem 0;}
.vv-term > span:first-child {overflow-wrap: anywhere;}
.vv-term > span:last-child {text-align: right; font-variant-numeric: tabular-nums;}
.vv-push {height: .55rem; border-radius: 999px;}
.vv-table {width: 100%; border-collapse: collapse; font-size: .95rem;}
.vv-table th, .vv-table td {text-align: left; padding: .35rem .6rem .35rem 0; vertical-align: top; overflow-wrap: anywhere;
  border-bottom: 1px solid color-mix(in srgb, currentColor 15%, transparent);}
.vv-table td {font-variant-numeric: tabular-nums;}
.vv-table th:not(:last-child), .vv-table td:not(:last-child) {white-space: nowrap; padding-right: 1.2rem;}
.vv-table td:last-child {min-width: 10rem;}
.vv-scroll {overflow-x: auto;}
:root {--vv-accent: #8c2f4b; --vv-for: 47 125 79; --vv-against: 190 75 60;}
@media (max-width: 640px) {
  .stMainBlockContainer {padding-left: 1rem; padding-right: 1rem;}
  .stMainBlockContainer h1 {font-size: 2rem;}
  .vv-answer {font-size: 2rem;}
  .vv-bar {grid-template-columns: 6rem 1fr 3.2rem;}
}
</style>
"""


def dress() -> None:
    """The looks that Streamlit's theme has no word for."""
    st.html(_STYLE)


@st.cache_data(ttl=FRESH_SECONDS, max_entries=64, show_spinner=False)
def get(path: str, params: Mapping[str, Any] | None = None) -> Any:
    """A GET of the API as JSON, remembered for some seconds. Raises ApiError."""
    return api_client().get(path, params=dict(params or {})).json()


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
    panels.problem(error)
    panels.try_again(partial(_retry, again))


def _retry(again: Callable[[], None] | None) -> None:
    get.clear()
    if again is not None:
        again()


def heading(title: str, lead: str) -> None:
    """A page's title and one sentence."""
    st.title(title, anchor=False)
    st.html(f'<p class="vv-lead">{escape(lead)}</p>')


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A small table; everything in it is escaped."""
    head = "".join(f"<th scope='col'>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    st.html(
        f'<div class="vv-scroll"><table class="vv-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def chart(title: str, insight: str, draw: Callable[[figures.Palette], Any], key: str) -> None:
    """A chart with its title and the sentence that it proves; `draw` is given the colours of the page."""
    st.subheader(title, anchor=False)
    st.markdown(insight.replace("$", r"\$"))
    plot(draw, key)


def plot(draw: Callable[[figures.Palette], Any], key: str) -> None:
    """A chart in the colours of the page."""
    st.plotly_chart(
        draw(figures.DARK if st.context.theme.type == "dark" else figures.LIGHT),
        key=key,
        config={"displayModeBar": False},
    )
