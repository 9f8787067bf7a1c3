"""Log in with a key, or with e-mail and password."""

import streamlit as st

from app.core.client import ApiError
from app.judge.screens import common


def page() -> None:
    """The page."""
    common.heading("VibeJudge", "Judge the repositories of a hackathon by rules, and see who wrote what.")
    left, _ = st.columns([3, 2])
    with left:
        with st.expander("Advanced", icon=":material/dns:"):
            url = st.text_input(
                "API URL",
                common.default_url(),
                placeholder="this server's own API",
                help="Of another server with the same API, with /api/v1 at its end.",
            )
        url = url.strip().rstrip("/")
        by_key, by_password = st.tabs(["API key", "E-mail and password"])
        with by_key, st.form("login-key"):
            key = st.text_input("API key", type="password", placeholder="vj_live_…")
            if st.form_submit_button("Log in", type="primary", icon=":material/lock_open:"):
                _try(key.strip(), url)
        with by_password, st.form("login-password"):
            email = st.text_input("E-mail address", autocomplete="email")
            password = st.text_input("Password", type="password", autocomplete="current-password")
            if st.form_submit_button("Log in with password", type="primary", icon=":material/lock_open:"):
                _by_password(email.strip(), password, url)
        st.caption("No account yet? Register above. Teams submit without one.")


def _try(key: str, url: str) -> None:
    if not key:
        st.warning("Give your API key.", icon=":material/key:")
        return
    if not common.may_choose(url):
        st.warning("This server's screens may not use another API; leave the API URL as it was.", icon=":material/dns:")
        return
    try:
        common.log_in(key, url)
    except ApiError as error:
        if error.status == 401:
            st.error(f"**This key does not open anything.** {error}.", icon=":material/key_off:")
        else:
            common.show_problem(error)
        return
    st.rerun()


def _by_password(email: str, password: str, url: str) -> None:
    if not email or not password:
        st.warning("Give your e-mail address and your password.", icon=":material/key:")
        return
    if not common.may_choose(url):
        st.warning("This server's screens may not use another API; leave the API URL as it was.", icon=":material/dns:")
        return
    try:
        key = common.open_door(email, password, url)
    except ApiError as error:
        if error.status in {401, 422}:
            st.error("E-mail address or password is not right.", icon=":material/key_off:")
        else:
            common.show_problem(error)
        return
    _try(key, url)
