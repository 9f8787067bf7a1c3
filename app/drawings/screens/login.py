"""The way in: on a host the login page (its cookie is what nginx asks for), on a laptop a form."""

import streamlit as st

from app.core.client import ApiError, api_client
from app.core.settings import get_settings
from app.drawings.screens import common


def page() -> None:
    """The page."""
    settings = get_settings()
    common.heading("Log in", "Dashboard, history, batches, configuration, models and usage are for the admin.")
    if settings.on_host:
        target = f"{settings.api_prefix}/auth/login?redirect={settings.base_path}dashboard"
        with st.container(border=True):
            st.html(f'<a href="{target}" target="_self">Go to the login page</a>')
        return
    with st.form("login", border=True):
        password = st.text_input("Admin password", type="password", autocomplete="current-password")
        sent = st.form_submit_button("Log in", icon=":material/lock_open:")
    if sent and password:
        try:
            told = api_client().post("/auth/api/login", json={"password": password}).json()
        except ApiError as error:
            st.error(str(error), icon=":material/lock:")
            return
        st.session_state["token"] = told["session_token"]
        st.rerun()
