"""The screens. Run `python -m app.core.ui ava`; the API must run too (`uvicorn app.ava.api:app`).

With `PERGOLA_API_URL=inprocess` the API runs within the same process.
"""

import streamlit as st

from app.ava.screens import common, login, progress, quality_control, task_creation
from app.core import asking

st.set_page_config(page_title="AVA Dataset Management", page_icon="🎬", layout="wide")
common.dress()
if asking.logged_in():
    chosen = st.navigation(
        [
            st.Page(
                task_creation.page, title="Task Creation", icon=":material/add_task:", url_path="tasks", default=True
            ),
            st.Page(quality_control.page, title="Quality Control", icon=":material/fact_check:", url_path="quality"),
            st.Page(progress.page, title="Progress", icon=":material/monitoring:", url_path="progress"),
        ],
        position="sidebar",
    )
    st.sidebar.button("Log out", icon=":material/logout:", on_click=asking.log_out)
else:
    chosen = st.navigation([st.Page(login.page, title="Log in", icon=":material/lock_open:")], position="hidden")
chosen.run()
