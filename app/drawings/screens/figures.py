"""Plotly figures from the API's numbers; imported late, so that the first page does not wait."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Numbers = Mapping[str, Any]


@dataclass(frozen=True)
class Palette:
    """Colours that can be seen on the page."""

    usual: str
    unusual: str
    quiet: str
    text: str


LIGHT: Final = Palette(usual="#37683f", unusual="#c4572e", quiet="#8a9a8c", text="#22261f")
DARK: Final = Palette(usual="#8fc79a", unusual="#f08a5d", quiet="#7c8a7e", text="#e9ece4")


def parts(rows: Sequence[Numbers], palette: Palette) -> Any:
    """The percentile of each part of a score, with the line above which it is rare."""
    go = _go()
    names = [str(row["part"]) for row in reversed(rows)]
    values = [float(row["percentile"]) for row in reversed(rows)]
    colours = [palette.unusual if value >= 95 else palette.usual for value in values]
    figure = go.Figure(
        go.Bar(
            x=values,
            y=names,
            orientation="h",
            marker_color=colours,
            text=[f"{value:.0f}" for value in values],
            textposition="auto",
            hovertemplate="%{y}: more different than %{x:.1f} of 100<extra></extra>",
        )
    )
    figure.add_vline(x=95, line={"dash": "dot", "color": palette.text, "width": 1})
    figure.update_xaxes(range=[0, 101], title="more different than … of 100 drawings")
    return _laid_out(figure, 210)


def groups(rows: Sequence[Numbers], palette: Palette) -> Any:
    """Analyses of each age group: usual and unusual ones."""
    go = _go()
    names = [str(row["age_group"]) for row in rows]
    above = [int(row["anomalies"]) for row in rows]
    below = [int(row["analyses"]) - int(row["anomalies"]) for row in rows]
    figure = go.Figure(
        [
            go.Bar(x=names, y=below, name="usual", marker_color=palette.usual),
            go.Bar(x=names, y=above, name="unusual", marker_color=palette.unusual),
        ]
    )
    figure.update_layout(barmode="stack")
    figure.update_xaxes(title="age in years", type="category")
    return _laid_out(figure, 300, legend=True)


def counts(rows: Sequence[Numbers], palette: Palette, most: int = 12) -> Any:
    """The most frequent ones, the most frequent at the top."""
    go = _go()
    shown = list(reversed(rows[:most]))
    figure = go.Figure(
        go.Bar(
            x=[int(row["count"]) for row in shown],
            y=[str(row["name"]) for row in shown],
            orientation="h",
            marker_color=palette.usual,
            hovertemplate="%{y}: %{x}<extra></extra>",
        )
    )
    return _laid_out(figure, max(200, 26 * len(shown) + 70))


def days(rows: Sequence[Numbers], series: Mapping[str, str], palette: Palette) -> Any:
    """One line a series over days; `series` gives each key its name."""
    go = _go()
    colours = (palette.usual, palette.unusual, palette.quiet)
    figure = go.Figure(
        [
            go.Scatter(
                x=[str(row["day"]) for row in rows],
                y=[int(row[key]) for row in rows],
                name=name,
                mode="lines+markers" if len(rows) <= 31 else "lines",
                line={"color": colour},
            )
            for (key, name), colour in zip(series.items(), colours, strict=False)
        ]
    )
    figure.update_yaxes(rangemode="tozero")
    return _laid_out(figure, 280, legend=len(series) > 1)


def effect(now: Sequence[Numbers], wanted: Sequence[Numbers], palette: Palette) -> Any:
    """Unusual drawings of each age group with the threshold in use and with another one."""
    go = _go()
    names = [str(row["age_group"]) for row in now]
    figure = go.Figure(
        [
            go.Bar(x=names, y=[int(row["anomalies"]) for row in now], name="now", marker_color=palette.quiet),
            go.Bar(x=names, y=[int(row["anomalies"]) for row in wanted], name="then", marker_color=palette.unusual),
        ]
    )
    figure.update_xaxes(title="age in years", type="category")
    return _laid_out(figure, 280, legend=True)


def _laid_out(figure: Any, height: int, *, legend: bool = False) -> Any:
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 12, "t": 12, "b": 8},
        showlegend=legend,
        dragmode=False,
        legend={"orientation": "h", "y": 1.12, "x": 0},
    )
    figure.update_xaxes(automargin=True, fixedrange=True)
    figure.update_yaxes(automargin=True, fixedrange=True)
    return figure


def _go() -> Any:
    from plotly import graph_objects  # noqa: PLC0415 - a second that the first page does not need

    return graph_objects
