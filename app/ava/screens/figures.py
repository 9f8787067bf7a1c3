"""The charts."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

FIRST: Final = "#2f7d4f"
SECOND: Final = "#d2691e"
STATUS_COLOURS: Final = {
    "planned": "#9aa39a",
    "created": "#9aa39a",
    "uploaded": "#9aa39a",
    "imported": "#9aa39a",
    "ready": "#6f93b8",
    "in_progress": "#d9a441",
    "completed": "#7fb08a",
    "retrieved": "#2f7d4f",
}


def _go() -> Any:
    import plotly.graph_objects as go  # noqa: PLC0415 - takes a while to load; the first page does not need it

    return go


def _laid_out(figure: Any, height: int, *, legend: bool = False) -> Any:
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        showlegend=legend,
        legend={"orientation": "h", "y": 1.12, "x": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    return figure


def loads(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Tasks of each annotator."""
    go = _go()
    names = [row["annotator"] for row in rows]
    bars = [
        go.Bar(x=names, y=[row[key] for row in rows], name=key, marker_color=colour)
        for key, colour in (("primary", FIRST), ("overlap", SECOND))
    ]
    figure = go.Figure(bars)
    figure.update_layout(barmode="stack")
    figure.update_xaxes(type="category")
    figure.update_yaxes(title="tasks")
    return _laid_out(figure, 260, legend=True)


def statuses(counts: Mapping[str, int]) -> Any:
    """How many tasks are how far."""
    go = _go()
    known = [name for name in STATUS_COLOURS if counts.get(name)]
    figure = go.Figure(
        go.Bar(
            x=[counts[name] for name in known],
            y=[name.replace("_", " ") for name in known],
            orientation="h",
            marker_color=[STATUS_COLOURS[name] for name in known],
            text=[counts[name] for name in known],
            textposition="auto",
        )
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title="tasks")
    return _laid_out(figure, 90 + 38 * len(known))


def completed(moments: Sequence[float], total: int) -> Any:
    """Tasks that were finished, over time."""
    go = _go()
    times = [moment * 1000 for moment in moments]
    figure = go.Figure(
        go.Scatter(
            x=times, y=list(range(1, len(times) + 1)), mode="lines+markers", line={"shape": "hv", "color": FIRST}
        )
    )
    figure.add_hline(y=total, line={"dash": "dot", "width": 1})
    figure.update_xaxes(type="date")
    figure.update_yaxes(title="finished tasks", rangemode="tozero")
    return _laid_out(figure, 280)


def kappas(details: Mapping[str, Mapping[str, Any]]) -> Any:
    """Kappa of each attribute with its interval; those that are undefined are left out."""
    go = _go()
    known = [(name, row) for name, row in details.items() if row["value"] is not None]
    figure = go.Figure(
        go.Bar(
            x=[row["value"] for _, row in known],
            y=[name.replace("_", " ") for name, _ in known],
            orientation="h",
            marker_color=[FIRST if row["value"] >= 0.4 else SECOND for _, row in known],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [
                    (row["high"] if row["high"] is not None else row["value"]) - row["value"] for _, row in known
                ],
                "arrayminus": [
                    row["value"] - (row["low"] if row["low"] is not None else row["value"]) for _, row in known
                ],
            },
        )
    )
    figure.add_vline(x=0.4, line={"dash": "dot", "width": 1})
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(
        title="Cohen's kappa, 95 % interval", range=[min(-0.05, *(row["value"] for _, row in known)), 1.02]
    )
    return _laid_out(figure, 90 + 34 * len(known))


def frame(
    picture: bytes | None, size: tuple[int, int], boxes: Sequence[tuple[str, Sequence[float] | None, str]]
) -> Any:
    """A frame with boxes: name, corners, colour of each."""
    go = _go()
    figure = go.Figure()
    width, height = size
    if picture is not None:
        figure.add_layout_image(
            source="data:image/jpeg;base64," + base64.b64encode(picture).decode(),
            x=0, y=0, sizex=width, sizey=height, xref="x", yref="y", sizing="stretch", layer="below",
        )  # fmt: skip
    for number, (name, corners, colour) in enumerate(boxes):
        if corners is None:
            continue
        left, top, right, bottom = corners
        figure.add_trace(
            go.Scatter(
                x=[left, right, right, left, left],
                y=[top, top, bottom, bottom, top],
                mode="lines",
                name=name,
                # one may hide the other
                line={"color": colour, "width": 3, "dash": "dot" if number else "solid"},
                hoverinfo="name",
            )
        )
    figure.update_xaxes(range=[0, width], visible=False, constrain="domain")
    figure.update_yaxes(range=[height, 0], visible=False, scaleanchor="x")
    return _laid_out(figure, 320, legend=True)
