"""Plotly figures from the API's numbers; imported late, so that the first page does not wait."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Numbers = Mapping[str, Any]


@dataclass(frozen=True)
class Palette:
    """Colours that can be seen on the page: of single series, of many, from one end over the middle to the other."""

    wine: str
    green: str
    gold: str
    text: str
    series: tuple[str, ...]
    diverging: tuple[str, str, str]


LIGHT: Final = Palette(
    wine="#8c2f4b",
    green="#37683f",
    gold="#b8860b",
    text="#22261f",
    series=(
        "#8c2f4b", "#37683f", "#b8860b", "#3d6a94", "#c4704f", "#6f5a8e", "#5f9e8f", "#a6a14e", "#d08fa3", "#7c4a2d",
        "#7d8fa3", "#2f4858",
    ),
    diverging=("#3d6a94", "#f4f1ea", "#8c2f4b"),
)  # fmt: skip
DARK: Final = Palette(
    wine="#d97a98",
    green="#8fc79a",
    gold="#e0b64a",
    text="#e9ece4",
    series=(
        "#d97a98", "#8fc79a", "#e0b64a", "#7fb0dc", "#e09a7a", "#b39ddb", "#7fc8b8", "#cfca72", "#f0b9c8", "#b98560",
        "#a9bacb", "#6f93a8",
    ),
    diverging=("#7fb0dc", "#2a302a", "#d97a98"),
)  # fmt: skip


def ratings(numbers: Numbers, palette: Palette = LIGHT) -> Any:
    """Boxes of points for each country, the best at the top."""
    return _boxes(numbers["rows"], "points", palette.green, "")


def variety_prices(numbers: Numbers, palette: Palette = LIGHT) -> Any:
    """Boxes of prices for each grape, the dearest at the top."""
    return _boxes(numbers["rows"], "price", palette.gold, "$")


def price_points(numbers: Numbers, palette: Palette = LIGHT) -> Any:
    """A dot for each review, and the line through them."""
    go = _go()
    rows = numbers["rows"]
    figure = go.Figure(
        go.Scattergl(
            x=[row["points"] for row in rows],
            y=[row["price"] for row in rows],
            mode="markers",
            marker={"color": palette.wine, "size": 7, "opacity": 0.4},
            customdata=[(row["country"], row["variety"]) for row in rows],
            hovertemplate="%{customdata[0]}, %{customdata[1]}<br>%{x} points, $%{y:.0f}<extra></extra>",
        )
    )
    if numbers["line"]:
        line = numbers["line"]
        figure.add_scatter(
            x=line["points"], y=line["price"], mode="lines", line={"color": palette.green, "width": 3}, hoverinfo="skip"
        )
    figure.update_xaxes(title="points")
    figure.update_yaxes(title="price", tickprefix="$", rangemode="tozero")
    return _laid_out(figure, 380)


def mean_price(numbers: Numbers, palette: Palette = LIGHT) -> Any:
    """A bar for each country."""
    rows = list(reversed(numbers["rows"]))
    figure = _go().Figure(
        _go().Bar(
            y=[row["name"] for row in rows],
            x=[row["mean"] for row in rows],
            orientation="h",
            marker_color=palette.wine,
            text=[f"${row['mean']:.2f}" for row in rows],
            customdata=[row["reviews"] for row in rows],
            hovertemplate="%{y}: $%{x:.2f}, %{customdata} notes<extra></extra>",
        )
    )
    figure.update_xaxes(title="mean price", tickprefix="$")
    return _laid_out(figure, _height(len(rows)))


def varieties(numbers: Numbers, palette: Palette = LIGHT) -> Any:
    """Stacked bars: the most frequent grapes, by country."""
    go = _go()
    figure = go.Figure(
        [
            go.Bar(
                y=numbers["varieties"],
                x=series["counts"],
                name=series["country"],
                orientation="h",
                marker_color=palette.series[place % len(palette.series)],
                hovertemplate=f"%{{y}}, {series['country']}: %{{x}}<extra></extra>",
            )
            for place, series in enumerate(numbers["series"])
        ]
    )
    figure.update_layout(barmode="stack", legend={"orientation": "h", "y": -0.12, "x": 0, "traceorder": "normal"})
    figure.update_xaxes(title="notes", title_standoff=4)
    figure.update_yaxes(autorange="reversed")
    return _laid_out(figure, _height(len(numbers["varieties"])) + 120, legend=True)


def correlations(numbers: Numbers, palette: Palette = LIGHT) -> Any:
    """Pearson's correlations of the numeric columns."""
    text = [["" if value is None else f"{value:.2f}" for value in row] for row in numbers["matrix"]]
    return _heat(
        numbers["names"],
        numbers["names"],
        numbers["matrix"],
        text,
        list(zip((0.0, 0.5, 1.0), palette.diverging, strict=True)),
        (-1, 1),
    )


def tone(numbers: Numbers, palette: Palette = LIGHT) -> Any:
    """How many notes have which tone."""
    edges = numbers["edges"]
    middles = [(low + high) / 2 for low, high in itertools.pairwise(edges)]
    figure = _go().Figure(
        _go().Bar(
            x=middles,
            y=numbers["counts"],
            marker_color=[palette.wine if middle < 0 else palette.green for middle in middles],
            hovertemplate="tone about %{x:.2f}: %{y} notes<extra></extra>",
        )
    )
    figure.update_layout(bargap=0.05)
    figure.update_xaxes(title="tone, from scathing to glowing", range=[-1, 1])
    figure.update_yaxes(title="notes")
    return _laid_out(figure, 380)


def confusion(classes: Sequence[str], matrix: Sequence[Sequence[int]], palette: Palette = LIGHT) -> Any:
    """Rows: the truth; columns: the answer; shade: the share of the row."""
    shares = [[count / max(sum(row), 1) for count in row] for row in matrix]
    text = [[str(count) if count else "" for count in row] for row in matrix]
    figure = _heat(list(classes), list(classes), shares, text, _rising(palette.wine), (0, 1))
    if palette is DARK:  # Plotly would write black on cells that are nearly clear
        figure.update_traces(textfont_color=palette.text)
    figure.update_xaxes(title="answer", side="bottom")
    figure.update_yaxes(title="truth")
    return figure


def calibration(rows: Sequence[Numbers], palette: Palette = LIGHT) -> Any:
    """Accuracy against confidence; on the diagonal the model means what it says."""
    go = _go()
    most = max(row["notes"] for row in rows)
    figure = go.Figure(
        [
            go.Scatter(x=[0, 1], y=[0, 1], mode="lines", line={"dash": "dot", "color": "#999"}, hoverinfo="skip"),
            go.Scatter(
                x=[row["confidence"] for row in rows],
                y=[row["accuracy"] for row in rows],
                mode="lines+markers",
                line={"color": palette.wine},
                marker={"size": [8 + 18 * (row["notes"] / most) ** 0.5 for row in rows], "opacity": 0.85},
                customdata=[row["notes"] for row in rows],
                hovertemplate="says %{x:.0%}, is right %{y:.0%}<br>%{customdata:.0f} notes<extra></extra>",
            ),
        ]
    )
    figure.update_xaxes(title="how sure it says it is", tickformat=".0%", range=[0, 1.04])
    figure.update_yaxes(title="how often it is right", tickformat=".0%", range=[0, 1.04])
    return _laid_out(figure, 420)


def history(versions: Sequence[Numbers], palette: Palette = LIGHT) -> Any:
    """Measures over the versions, oldest first."""
    go = _go()
    rows = sorted(versions, key=lambda row: row["version"])
    figure = go.Figure(
        [
            go.Scatter(
                x=[row["trained_at"] for row in rows],
                y=[row[key] for row in rows],
                name=name,
                mode="lines+markers",
                line={"color": colour},
                hovertemplate=name + " %{y:.3f}<br>%{x}<extra></extra>",
            )
            for key, name, colour in (
                ("accuracy", "accuracy", palette.green),
                ("macro_f1", "macro-F1", palette.wine),
                ("ece", "calibration error", palette.gold),
            )
        ]
    )
    figure.update_layout(legend={"orientation": "h", "y": 1.12, "x": 0})
    figure.update_yaxes(range=[0, 1.04])
    return _laid_out(figure, 340, legend=True)


def _boxes(rows: Sequence[Numbers], title: str, colour: str, prefix: str) -> Any:
    go = _go()
    rows = list(reversed(rows))
    figure = go.Figure(
        go.Box(
            y=[row["name"] for row in rows],
            q1=[row["q1"] for row in rows],
            median=[row["median"] for row in rows],
            q3=[row["q3"] for row in rows],
            lowerfence=[row["low"] for row in rows],
            upperfence=[row["high"] for row in rows],
            mean=[row["mean"] for row in rows],
            orientation="h",
            line={"color": colour, "width": 1.5},
        )
    )
    figure.update_xaxes(title=title, tickprefix=prefix)
    return _laid_out(figure, _height(len(rows)))


def _heat(
    columns: Sequence[str],
    rows: Sequence[str],
    values: Sequence[Sequence[float | None]],
    text: Sequence[Sequence[str]],
    colours: Sequence[Any],
    ends: tuple[float, float],
) -> Any:
    figure = _go().Figure(
        _go().Heatmap(
            x=columns,
            y=rows,
            z=values,
            text=text,
            texttemplate="%{text}",
            colorscale=colours,
            zmin=ends[0],
            zmax=ends[1],
            showscale=False,
            xgap=2,
            ygap=2,
            hovertemplate="%{y} / %{x}: %{text}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed")
    return _laid_out(figure, max(320, 34 * len(rows) + 110))


def _rising(colour: str) -> list[tuple[float, str]]:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return [(0.0, f"rgba({red},{green},{blue},0.03)"), (1.0, f"rgba({red},{green},{blue},0.95)")]


def _laid_out(figure: Any, height: int, *, legend: bool = False) -> Any:
    figure.update_layout(height=height, margin={"l": 8, "r": 12, "t": 12, "b": 8}, showlegend=legend, dragmode=False)
    figure.update_xaxes(automargin=True, fixedrange=True)
    figure.update_yaxes(automargin=True, fixedrange=True)
    return figure


def _height(rows: int) -> int:
    return max(220, 27 * rows + 80)


def _go() -> Any:
    from plotly import graph_objects  # noqa: PLC0415 - a second that the first page does not need

    return graph_objects
