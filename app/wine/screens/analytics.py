"""The reviews that the model learnt from, as charts, each with the sentence that it proves."""

from functools import partial
from typing import Any

import streamlit as st

from app.core import panels
from app.wine.screens import common, figures


def page() -> None:
    """The page."""
    common.heading(
        "What the reviews say", "Everything the model in service was trained on. The filters apply to every chart."
    )
    with common.problems_shown():
        everything = common.get("/analytics")
        params = _filters(everything["options"])
        told = common.get("/analytics", params) if params else everything
    st.caption(f"{told['reviews']:,} of {told['of']:,} notes · {told['source']}")
    if not told["reviews"]:
        panels.empty("No note passes these filters. Widen one of them.", "filter_alt_off")
        return
    charts = told["charts"]
    _pair(
        ("Ratings by country", charts["ratings"], figures.ratings, "ratings"),
        ("Price against points", charts["price_points"], figures.price_points, "price-points"),
    )
    _pair(
        ("Mean price by country", charts["mean_price"], figures.mean_price, "mean-price"),
        ("Price by grape", charts["variety_prices"], figures.variety_prices, "variety-prices"),
    )
    common.chart(
        "The 20 most frequent grapes",
        charts["varieties"]["insight"],
        partial(figures.varieties, charts["varieties"]),
        "varieties",
    )
    _pair(
        ("What goes with what", charts["correlations"], figures.correlations, "correlations"),
        ("Tone of the notes", charts["tone"], figures.tone, "tone"),
    )


def _pair(*charts: tuple[str, dict[str, Any], Any, str]) -> None:
    for column, (title, numbers, draw, key) in zip(st.columns(len(charts), gap="large"), charts, strict=True):
        with column:
            common.chart(title, numbers["insight"], partial(draw, numbers), key)


def _filters(options: dict[str, Any]) -> dict[str, Any]:
    """What was chosen, as the API wants it; empty when nothing is."""
    params: dict[str, Any] = {}
    with st.expander("Filters", icon=":material/filter_alt:"):
        left, right = st.columns(2)
        params["country"] = left.multiselect(
            "Countries", [row["name"] for row in options["countries"]], placeholder="All countries", key="f-country"
        )
        params["variety"] = right.multiselect(
            "Grapes", [row["name"] for row in options["varieties"]], placeholder="All grapes", key="f-variety"
        )
        for column, name, label, format_ in (
            (left, "points", "Points", "%d"),
            (right, "price", "Price in US dollars", "$%d"),
        ):
            ends = options[name]
            if ends is None or ends[0] == ends[1]:
                continue
            low, high = int(ends[0]), int(-(-ends[1] // 1))
            chosen = column.slider(label, low, high, (low, high), format=format_, key=f"f-{name}")
            if chosen[0] > low:
                params[f"min_{name}"] = chosen[0]
            if chosen[1] < high:
                params[f"max_{name}"] = chosen[1]
    return {name: value for name, value in params.items() if value not in ([], None)}
