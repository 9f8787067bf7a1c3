"""About: how good the models are, on what they were measured, and what they cannot do."""

from collections.abc import Mapping
from html import escape
from typing import Any, Final

import plotly.graph_objects as go
import streamlit as st

from app.core import panels
from app.core.client import ApiError
from app.core.settings import get_settings
from app.vision.screens import common
from app.vision.settings import VisionSettings

_CLEAN: Final = "#2f7d4f"
_DIRTY: Final = "#c2541f"


def page(chosen: common.Chosen) -> None:
    """The tab."""
    try:
        with st.spinner("Asking the models…"):
            info = chosen.asking.model_info()
    except ApiError as error:
        common.show_problem(error)
        return
    name = chosen.question.model_type
    details: Mapping[str, Any] = info["model_details"][name]
    st.subheader(f"The {name} model", anchor=False)
    if not details["available"]:
        panels.empty("This model is missing. `python -m app.vision.train` makes one.", "model_training")
        return
    measured, data = details["metrics"], details["data"]
    common.tiles(
        [
            ("Balanced accuracy", f"{measured['balanced_accuracy']:.1%}", None),
            ("Right when certain", f"{measured['accuracy_when_certain']:.1%}", "outside the uncertain band"),
            ("Uncertain", f"{measured['uncertain']:.1%}", None),
            ("Calibration error", f"{measured['ece']:.3f}", "expected calibration error; 0 is perfect"),
        ]
    )
    st.caption(
        f"Measured on {measured['pictures']} pictures of {measured['pictures'] // 2} drawn dishes that the model had not seen. "
        "Photographs differ from drawings: see below."
    )
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("**Confusion**")
        _plot(_confusion(measured["confusion"]), "confusion")
    with right:
        st.markdown("**Calibration**: of answers with this confidence, how many are right")
        _plot(_calibration(measured["calibration"]), "calibration")
    st.markdown("**Found, by how dirty the dish is**")
    _table([(level.title(), f"{share:.1%}") for level, share in measured["found_by_level"].items()])
    st.markdown("**This model**")
    _table(
        [
            ("Version", details["version"]),
            ("Trained", f"{details['trained_at']}, {data['dishes']:,} dishes, seed {data['seed']}"),
            ("Speed", details["speed"]),
            ("Size", f"{details['file_size_mb']:.1f} MB; in memory {details['memory_usage']}"),
            (
                "Pictures",
                f"{', '.join(info['supported_formats'])} up to {info['max_file_size_mb']} MB and 40 million pixels",
            ),
        ]
    )
    st.markdown(
        "**What to expect.** It has learnt from drawn plates, bowls and cups, with an image encoder that knows photographs. Strong "
        "patterns, deep shadows and glass can mislead it; answers marked uncertain deserve a person's look. A picture without a "
        "dish gets a warning. Pictures are looked at and not kept."
    )
    base = get_settings(VisionSettings)
    if base.on_host:
        st.link_button("The API's description", f"{base.base_path}api/docs", icon=":material/api:")


def _confusion(rows: list[list[int]]) -> go.Figure:
    names = ["clean", "dirty"]
    shares = [[count / max(1, sum(row)) for count in row] for row in rows]
    figure = go.Figure(
        go.Heatmap(
            z=shares,
            x=[f"called {name}" for name in names],
            y=[f"is {name}" for name in names],
            text=[
                [f"{count}<br>{share:.0%}" for count, share in zip(*pair, strict=True)]
                for pair in zip(rows, shares, strict=True)
            ],
            texttemplate="%{text}",
            textfont={"size": 15},
            colorscale=[[0, "rgba(128,128,128,0.10)"], [1, "rgba(47,125,79,0.55)"]],
            zmin=0,
            zmax=1,
            showscale=False,
            hoverinfo="skip",
        )
    )
    figure.update_yaxes(autorange="reversed")
    return _dressed(figure)


def _calibration(bins: list[dict[str, Any]]) -> go.Figure:
    figure = go.Figure(
        [
            go.Scatter(x=[0.5, 1], y=[0.5, 1], mode="lines", line={"dash": "dot", "color": "grey"}, hoverinfo="skip"),
            go.Scatter(
                x=[row["confidence"] for row in bins],
                y=[row["accuracy"] for row in bins],
                customdata=[row["count"] for row in bins],
                mode="lines+markers",
                line={"color": _CLEAN},
                marker={"size": [6 + min(14, row["count"] / 12) for row in bins], "color": _DIRTY},
                hovertemplate="confidence %{x:.0%}<br>right %{y:.0%}<br>%{customdata} pictures<extra></extra>",
            ),
        ]
    )
    figure.update_xaxes(title="confidence", tickformat=".0%", range=[0.48, 1.02])
    figure.update_yaxes(title="right", tickformat=".0%", range=[0, 1.05])
    return _dressed(figure)


def _dressed(figure: go.Figure) -> go.Figure:
    figure.update_layout(
        height=300,
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        showlegend=False,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    return figure


def _plot(figure: go.Figure, key: str) -> None:
    st.plotly_chart(figure, key=key, config={"displayModeBar": False, "staticPlot": key == "confusion"})


def _table(rows: list[tuple[str, str]]) -> None:
    body = "".join(f"<tr><th scope='row'>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in rows)
    st.html(f'<div class="vs-scroll"><table class="vs-table"><tbody>{body}</tbody></table></div>')
