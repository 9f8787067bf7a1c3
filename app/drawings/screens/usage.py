"""How much the app is used, and how well it runs."""

from functools import partial

import streamlit as st

from app.core import panels
from app.drawings.screens import common, figures


def page() -> None:
    """The page."""
    common.viewed("usage")
    common.heading("Usage", "Counted without names or addresses: pages, days, countries.")
    days = st.segmented_control("Period", [7, 30, 90], default=30, format_func=lambda n: f"{n} days") or 30
    with common.problems_shown():
        told = common.get("/metrics/usage", days=days)
        speed = common.get("/metrics/performance")
    columns = st.columns(3)
    columns[0].metric("Page views", f"{told['page_views']:,}", border=True)
    columns[1].metric("Visits", f"{told['sessions']:,}", border=True)
    columns[2].metric("Analyses", f"{told['analyses']:,}", border=True)
    if told["page_views"] or told["analyses"]:
        series = {"page_views": "page views", "analyses": "analyses", "sessions": "visits"}
        common.plot(partial(figures.days, told["days"], series), "usage-days")
        left, right = st.columns(2, gap="large")
        with left:
            st.subheader("Pages", anchor=False)
            if told["pages"]:
                common.plot(partial(figures.counts, told["pages"]), "usage-pages")
        with right:
            st.subheader("Countries", anchor=False)
            names = [{**row, "name": "unknown" if row["name"] == "ZZ" else row["name"]} for row in told["countries"]]
            if names:
                common.plot(partial(figures.counts, names), "usage-countries")
    else:
        panels.empty("Nothing was counted in this period.", "bar_chart")
    st.subheader("Since this release started", anchor=False)
    answers, work = speed["response_seconds"], speed["processing_seconds"]
    common.table(
        ("What", "How many", "Mean", "Half below", "95 of 100 below"),
        [
            ("Requests", f"{speed['requests']:,}", *_seconds(answers)),
            ("Analyses", f"{speed['analyses']:,}", *_seconds(work)),
            ("Failed on our side", f"{speed['errors']:,}", "", "", ""),
        ],
    )


def _seconds(spread: dict[str, float | None]) -> tuple[str, str, str]:
    def shown(value: float | None) -> str:
        return "–" if value is None else f"{value * 1000:,.0f} ms"

    return shown(spread["mean"]), shown(spread["p50"]), shown(spread["p95"])
