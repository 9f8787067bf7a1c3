"""What the screens share: their looks, the project in hand, numbers for reading, tables as files."""

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any, Final, Literal

import streamlit as st

from app.core import asking, panels

NA: Final = "n/a"
COLOURS: Final[Mapping[str, Literal["green", "orange", "red", "gray"]]] = {
    "Excellent": "green",
    "Good": "green",
    "Moderate": "orange",
    "Fair": "orange",
    "Poor": "red",
    NA: "gray",
}

_STYLE: Final = """
<style>
.stMainBlockContainer {max-width: 78rem; padding-top: 4.5rem; padding-bottom: 4rem;}
.av-lead {opacity: .78; margin-top: -.75rem;}
@media (max-width: 640px) {
  .stMainBlockContainer {padding-left: 1rem; padding-right: 1rem;}
  [data-testid="stHorizontalBlock"]:has(> [data-testid="stColumn"] [data-testid="stMetric"])
    {flex-direction: row; flex-wrap: wrap; gap: .6rem;}
  [data-testid="stHorizontalBlock"] > [data-testid="stColumn"]:has([data-testid="stMetric"])
    {min-width: calc(50% - .4rem); flex: 1 1 40%;}
}
</style>
"""


def dress() -> None:
    """The looks that Streamlit's theme has no word for."""
    st.html(_STYLE)


def heading(title: str, lead: str) -> None:
    """A page's title and one sentence."""
    st.title(title, anchor=False)
    st.html(f'<p class="av-lead">{escape(lead)}</p>')


def choose_project() -> dict[str, Any] | None:
    """The project in hand, the same on every page; None when there is none, and then it says so."""
    projects: list[dict[str, Any]] = asking.get("/quality-control/projects")["projects"]
    if not projects:
        panels.empty("There is no project yet. Make one under Task Creation.", "folder_open")
        return None
    by_id = {row["id"]: row for row in projects}
    kept = st.session_state.get("project")
    chosen = st.selectbox(
        "Project",
        list(by_id),
        index=list(by_id).index(kept) if kept in by_id else 0,
        format_func=lambda one: by_id[one]["name"] + (f" ({by_id[one]['org_slug']})" if by_id[one]["org_slug"] else ""),
        key=None,
    )
    st.session_state["project"] = chosen
    project = by_id[chosen]
    if project["error"]:
        st.error(f"CVAT: {plain(project['error'])}", icon=":material/error:")
    if project["failed"]:
        st.warning(f"{project['failed']} tasks wait after an error; see Progress.", icon=":material/warning:")
    return project


def number(value: float | None, form: str = ".2f") -> str:
    """A number for reading; what is undefined is n/a."""
    return NA if value is None else format(value, form)


def duration(seconds: float | None) -> str:
    """A time span for reading."""
    if seconds is None:
        return NA
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.1f} d"


def when(moment: float | None) -> str:
    """A time for reading, UTC."""
    return "–" if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M")


def plain(text: str) -> str:
    """Text that somebody else wrote, without Markdown's signs."""
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]()#+-.!|<>$:~" else sign for sign in text)


def as_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A table as a file; a text that a spreadsheet would run as a formula gets a quote before it."""
    out = io.StringIO()
    if rows:
        writer = csv.writer(out)
        writer.writerow(rows[0])
        writer.writerows([safe(value) for value in row.values()] for row in rows)
    return out.getvalue().encode()


def safe(value: Any) -> Any:
    """See `as_csv`."""
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value


def plot(figure: Any, key: str) -> None:
    """A chart in the colours of the page."""
    st.plotly_chart(figure, key=key, config={"displayModeBar": False})
