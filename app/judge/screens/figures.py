"""Charts, in the colours of the dark theme."""

from collections.abc import Sequence
from typing import Any, Final

import plotly.graph_objects as go
import streamlit as st

_INK: Final = "#e9ece4"
_GRID: Final = "rgba(233,236,228,.14)"
COLOURS: Final = ("#8fc79a", "#a9c4e8", "#e6c36a", "#f0988a", "#c3a6e0")


def _dressed(figure: Any, height: int) -> Any:
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": _INK, "size": 13},
        showlegend=False,
    )
    figure.update_xaxes(gridcolor=_GRID, zeroline=False, automargin=True)
    figure.update_yaxes(gridcolor=_GRID, zeroline=False, automargin=True)
    return figure


def bars(names: Sequence[str], values: Sequence[float], what: str) -> Any:
    """Horizontal bars, the first name on top."""
    shown = go.Bar(
        x=list(values),
        y=list(names),
        orientation="h",
        marker_color=COLOURS[0],
        hovertemplate=f"%{{y}}: %{{x}} {what}<extra></extra>",
    )
    figure = go.Figure(shown)
    figure.update_yaxes(autorange="reversed")
    return _dressed(figure, 90 + 28 * len(names))


def columns(names: Sequence[str], values: Sequence[float], what: str) -> Any:
    """Vertical bars."""
    shown = go.Bar(
        x=list(names), y=list(values), marker_color=COLOURS[1], hovertemplate=f"%{{x}}: %{{y}} {what}<extra></extra>"
    )
    return _dressed(go.Figure(shown), 280)


def days(rows: Sequence[dict[str, Any]]) -> Any:
    """Requests by day, good and failed on top of each other."""
    dates = [row["date"] for row in rows]
    figure = go.Figure(
        [
            go.Bar(name="successful", x=dates, y=[row["successful"] for row in rows], marker_color=COLOURS[0]),
            go.Bar(name="failed", x=dates, y=[row["failed"] for row in rows], marker_color=COLOURS[3]),
        ]
    )
    figure.update_layout(barmode="stack", bargap=0.2 if len(rows) > 4 else 0.75)
    figure.update_xaxes(type="category")
    _dressed(figure, 280)
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.12})
    return figure


def plot(figure: Any, key: str) -> None:
    """Draw a chart."""
    st.plotly_chart(figure, key=key, config={"displayModeBar": False})
