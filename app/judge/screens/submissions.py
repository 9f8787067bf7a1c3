"""Submissions: add one or many, filter, delete."""

import streamlit as st

from app.core import panels
from app.core.client import ApiError
from app.judge.screens import common

STATUSES = ("all", "pending", "cloning", "analyzing", "completed", "failed", "timeout", "disqualified")


def page() -> None:
    """The page."""
    common.heading("Submissions", "Add teams yourself, or let them submit.")
    hack_id = common.choose_hackathon()["hack_id"]
    with st.expander("Add submissions", icon=":material/add:"), st.form("add", clear_on_submit=False):
        lines = st.text_area(
            "One submission a line: team, repository, members",
            placeholder="Night Owls, https://github.com/owls/votes, Ada, Bo",
            height=140,
        )
        if st.form_submit_button("Add", type="primary", icon=":material/add:"):
            _add(hack_id, lines)
    left, right = st.columns(2)
    status = left.selectbox("Status", STATUSES)
    wanted = right.text_input("Search", placeholder="team or repository").strip().lower()
    with common.problems_shown():
        rows = common.every(
            f"/hackathons/{hack_id}/submissions", "submissions", status=None if status == "all" else status
        )
    found = [row for row in rows if wanted in f"{row['team_name']} {row['repo_url']}".lower()]
    if not found:
        panels.empty(
            "There is no such submission." if rows or status != "all" else "No team has submitted yet.", "inbox"
        )
        return
    common.table(
        ("Team", "Repository", "Members", "Status", "Score"),
        [
            (
                row["team_name"],
                row["repo_url"].removeprefix("https://"),
                ", ".join(row.get("team_members", [])),
                row["status"],
                "–" if row["overall_score"] is None else f"{row['overall_score']:.2f}",
            )
            for row in common.pages(found, "submissions")
        ],
    )
    names = {row["sub_id"]: row["team_name"] for row in found}
    with st.expander("Delete", icon=":material/delete:"):
        chosen = st.selectbox("Submission", list(names), format_func=lambda one: names[one])
        sure = st.checkbox("Yes, delete it with its scorecard", key=f"sure-{chosen}")
        if st.button("Delete", type="primary", icon=":material/delete_forever:", disabled=not sure):
            try:
                common.change("DELETE", f"/submissions/{chosen}")
            except ApiError as error:
                common.show_problem(error)
                return
            st.rerun()


def _add(hack_id: str, lines: str) -> None:
    rows = []
    for number, line in enumerate(filter(str.strip, lines.splitlines()), 1):
        parts = [part.strip() for part in line.split(",")]
        if len(parts) < 2:
            st.warning(f"Line {number} has no repository: write team, repository.", icon=":material/edit:")
            return
        rows.append({"team_name": parts[0], "repo_url": parts[1], "team_members": [one for one in parts[2:] if one]})
    if not rows:
        st.warning("Write at least one line.", icon=":material/edit:")
        return
    try:
        told = common.change("POST", f"/hackathons/{hack_id}/submissions", json={"submissions": rows})
    except ApiError as error:
        if error.status == 422:
            st.warning(common.wrong_submission(error), icon=":material/edit:")
        else:
            common.show_problem(error)
        return
    st.success(
        f"{told['created']} added, {told['hackathon_submission_count']} in total.", icon=":material/check_circle:"
    )
