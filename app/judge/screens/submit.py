"""Submit a repository: for everybody."""

import streamlit as st

from app.core import panels
from app.core.client import ApiError
from app.judge.screens import common


def page() -> None:
    """The page."""
    common.heading("Submit your project", "One public repository a team. You need no account.")
    with common.problems_shown():
        rows = common.tell("GET", "/public/hackathons")["hackathons"]
    if not rows:
        panels.empty("No hackathon takes submissions at the moment.", "event_busy")
        return
    known = {row["hack_id"]: row for row in rows}
    left, _ = st.columns([3, 2])
    with left:
        chosen = st.selectbox("Hackathon", list(known), format_func=lambda one: known[one]["name"])
        if known[chosen]["description"]:
            st.markdown(common.plain(known[chosen]["description"]))
        if known[chosen]["end_date"]:
            st.caption(f"Open until {common.when(known[chosen]['end_date'])} UTC.")
        with st.form("submit"):
            team = st.text_input("Team name", max_chars=50, help="Letters, digits, spaces, - and _.")
            url = st.text_input("Repository", max_chars=300, placeholder="https://github.com/team/project")
            members = st.text_area("Members (optional)", help="One name a line, as in git.", height=100)
            sent = st.form_submit_button("Submit", type="primary", icon=":material/send:")
        if not sent:
            return
        names = [line.strip() for line in members.splitlines() if line.strip()]
        body = {"team_name": team.strip(), "repo_url": url.strip(), "team_members": names}
        try:
            told = common.tell("POST", f"/public/hackathons/{chosen}/submissions", json=body)
        except ApiError as error:
            if error.status == 422:
                st.warning(common.wrong_submission(error), icon=":material/edit:")
            else:
                common.show_problem(error)
            return
        st.success(f"**{told['team_name']} is in.** Your receipt: {told['sub_id']}", icon=":material/check_circle:")
