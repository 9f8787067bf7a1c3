"""What happened lately; looks again every 30 seconds."""

from functools import partial
from typing import Any

import streamlit as st

from app.core import panels
from app.drawings.screens import common, figures


def page() -> None:
    """The page."""
    common.viewed("dashboard")
    common.heading("Dashboard", "Everything that was uploaded and analysed. It looks again every 30 seconds.")
    _numbers()


@st.fragment(run_every="30s")
def _numbers() -> None:
    with common.problems_shown():
        drawings, analyses = common.get("/drawings/stats"), common.get("/analysis/stats")
        latest = common.get("/drawings/history", page_size=8)["items"]
    columns = st.columns(4)
    columns[0].metric("Drawings", f"{drawings['total']:,}", border=True)
    columns[1].metric("Analyses", f"{analyses['total']:,}", border=True)
    columns[2].metric("Unusual", f"{analyses['anomaly_rate']:.1%}" if analyses["total"] else "–", border=True)
    mean = analyses["mean_seconds"]
    columns[3].metric("Seconds an analysis", "–" if mean is None else f"{mean:.2f}", border=True)
    if not drawings["total"]:
        panels.empty("No drawings yet. Upload one, or a batch, and the charts begin.", "draw")
        return
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("By age", anchor=False)
        if analyses["total"]:
            most = max(analyses["by_age_group"], key=lambda row: row["analyses"])
            st.markdown(f"Most analyses are of children of {most['age_group'].replace('-', ' to ')} years.")
            common.plot(partial(figures.groups, analyses["by_age_group"]), "dashboard-groups")
        else:
            panels.empty("Nothing was analysed yet.", "troubleshoot")
    with right:
        st.subheader("By subject", anchor=False)
        first = drawings["by_subject"][0]
        st.markdown(
            f"The most frequent subject is “{first['name']}”, {first['count']} of {drawings['total']:,} drawings."
        )
        common.plot(partial(figures.counts, drawings["by_subject"]), "dashboard-subjects")
    if analyses["total"]:
        st.subheader("The last 30 days", anchor=False)
        series = {"analyses": "analyses", "anomalies": "unusual"}
        common.plot(partial(figures.days, analyses["by_day"], series), "dashboard-days")
    st.subheader("Latest", anchor=False)
    common.table(
        ("When", "File", "Age", "Subject", "Verdict"),
        [
            (
                common.when(row["drawing"]["created_at"]),
                row["drawing"]["filename"],
                f"{row['drawing']['age_years']:g}",
                row["drawing"]["subject"],
                _verdict(row["analysis"]),
            )
            for row in latest
        ],
    )


def _verdict(analysis: dict[str, Any] | None) -> str:
    if analysis is None:
        return "not analysed"
    return (
        f"{'unusual' if analysis['is_anomaly'] else 'usual'}, {common.of_hundred(analysis['normalized_score'])} of 100"
    )
