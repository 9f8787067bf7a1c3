"""The screens. Run `python -m app.core.ui judge`; the API must run too (`uvicorn app.judge.api:app`), and the worker to judge.

With `PERGOLA_API_URL=inprocess` the API runs within the same process; with `API_BASE_URL=https://…/api/v1` they use any server that has
this API.
"""

from pathlib import Path

import streamlit as st

from app.judge.screens import (
    common,
    create,
    dashboard,
    intelligence,
    login,
    manage,
    register,
    results,
    settings,
    submissions,
    submit,
)

st.set_page_config(page_title="VibeJudge", page_icon=str(Path(__file__).parent / "screens" / "icon.svg"), layout="wide")
common.dress()
public = [
    st.Page(submit.page, title="Submit", icon=":material/upload:", url_path="submit"),
]
if common.logged_in():
    chosen = st.navigation(
        {
            "Hackathon": [
                st.Page(
                    dashboard.page, title="Live dashboard", icon=":material/monitoring:", url_path="live", default=True
                ),
                st.Page(results.page, title="Results", icon=":material/leaderboard:", url_path="results"),
                st.Page(intelligence.page, title="Intelligence", icon=":material/insights:", url_path="intelligence"),
                st.Page(submissions.page, title="Submissions", icon=":material/folder_shared:", url_path="submissions"),
            ],
            "Organizer": [
                st.Page(create.page, title="Create hackathon", icon=":material/add_circle:", url_path="create"),
                st.Page(manage.page, title="Manage", icon=":material/tune:", url_path="manage"),
                st.Page(settings.page, title="Settings", icon=":material/key:", url_path="settings"),
                *public,
            ],
        },
        position="sidebar",
    )
    st.sidebar.button("Log out", icon=":material/logout:", on_click=common.log_out)
else:
    chosen = st.navigation(
        [
            st.Page(login.page, title="Log in", icon=":material/lock_open:", url_path="login", default=True),
            st.Page(register.page, title="Register", icon=":material/person_add:", url_path="register"),
            *public,
        ],
        position="top",
    )
common.keep_promises()
chosen.run()
