"""Progress: how far a project is, how fast people are, what went wrong. It looks again by itself."""

from typing import Any

import streamlit as st

from app.ava.screens import common, figures
from app.core import asking, panels
from app.core.client import ApiError


def page() -> None:
    """The page."""
    common.heading("Progress", "How far the project is, and how fast. It looks again every 10 seconds.")
    with asking.problems_shown():
        project = common.choose_project()
    if project is None:
        return
    with st.container(horizontal=True):
        if st.button("Ask CVAT now", icon=":material/sync:"):
            try:
                asking.ask("POST", f"/quality-control/projects/{project['id']}/reconcile")
                st.toast("CVAT will be asked, and what went wrong is tried again.", icon=":material/sync:")
            except ApiError as error:
                st.error(str(error), icon=":material/error:")
    _figures(project["id"])


@st.fragment(run_every="10s")
def _figures(project: int) -> None:
    with asking.problems_shown():
        told = asking.get("/metrics/summary", project_id=project)
        failed = asking.get(f"/quality-control/projects/{project}/tasks", only="error", page_size=50)
    total = told["tasks"]
    columns = st.columns(4)
    columns[0].metric("Finished tasks", f"{told['completed']:,} of {total:,}", border=True)
    columns[1].metric("Clips an annotator-hour", common.number(told["clips_per_annotator_hour"], ".1f"), border=True)
    columns[2].metric(
        "Makespan" if told["finished"] else "So far", common.duration(told["makespan_seconds"]), border=True
    )
    columns[3].metric("Wait in the queue", common.duration(told["queue_wait_seconds"]), border=True)
    st.progress(told["completed"] / total if total else 0.0)
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Tasks", anchor=False)
        common.plot(figures.statuses(told["by_status"]), "progress-status")
    with right:
        st.subheader("Finished over time", anchor=False)
        if told["completed_at"]:
            common.plot(figures.completed(told["completed_at"], total), "progress-time")
        else:
            panels.empty("Nothing is finished yet.", "timeline")
    st.subheader("Annotators", anchor=False)
    rows = [
        {
            "annotator": row["annotator"],
            "finished": row["completed"],
            "tasks": row["tasks"],
            "hours": common.number(row["hours"]),
            "clips an hour": common.number(row["clips_per_hour"], ".1f"),
        }
        for row in told["annotators"]
    ]
    st.dataframe(rows, hide_index=True)
    st.download_button("Table as CSV", common.as_csv(rows), "annotators.csv", "text/csv", icon=":material/download:")
    _errors(failed)


def _errors(failed: dict[str, Any]) -> None:
    if not failed["total"]:
        return
    st.subheader("What went wrong", anchor=False)
    st.caption("Each is tried again by itself, after a longer while each time.")
    st.dataframe(
        [{"clip": row["clip"], "annotator": row["annotator"], "what": row["error"]} for row in failed["tasks"]],
        hide_index=True,
    )
