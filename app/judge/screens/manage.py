"""Manage: activate a hackathon, change its words, delete it."""

import streamlit as st

from app.core.client import ApiError
from app.judge.screens import common


def page() -> None:
    """The page."""
    common.heading("Manage", "Open a hackathon, change it, or delete it.")
    row = common.choose_hackathon()
    path = f"/hackathons/{row['hack_id']}"
    with common.problems_shown():
        told = common.get(path)
        costs = common.get(f"{path}/costs")
    common.table(
        ("Status", "Start", "End", "Submissions", "Budget", "Spent"),
        [
            (
                told["status"],
                common.when(told["start_date"]),
                common.when(told["end_date"]),
                str(told["submission_count"]),
                common.dollars(told["budget_limit_usd"]),
                common.dollars(costs["total_cost_usd"]),
            )
        ],
    )
    if told["status"] == "draft":
        st.info("It is a draft: teams cannot submit yet.", icon=":material/edit_note:")
        if st.button("Activate", type="primary", icon=":material/play_arrow:"):
            _do("POST", f"{path}/activate", None)
    with st.form("change"):
        name = st.text_input("Name", told["name"], max_chars=200)
        description = st.text_area("Description", told["description"], max_chars=2000)
        budget = st.number_input("Budget in US dollars", 0.01, 10000.0, float(told["budget_limit_usd"] or 50.0), 1.0)
        if st.form_submit_button("Save", icon=":material/save:"):
            _do("PUT", path, {"name": name, "description": description, "budget_limit_usd": budget})
    with st.expander("Delete", icon=":material/delete:"):
        st.markdown("It disappears with its submissions, and a running analysis ends.")
        sure = st.checkbox(f"Yes, delete {common.plain(told['name'])}", key=f"sure-{row['hack_id']}")
        if st.button("Delete the hackathon", type="primary", icon=":material/delete_forever:", disabled=not sure):
            _do("DELETE", path, None)


def _do(method: str, path: str, body: dict[str, object] | None) -> None:
    try:
        common.change(method, path, **({} if body is None else {"json": body}))
    except ApiError as error:
        common.show_problem(error)
        return
    st.rerun()
