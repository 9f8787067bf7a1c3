"""Register; the key is shown once."""

import streamlit as st

from app.core.client import ApiError
from app.judge.screens import common


def page() -> None:
    """The page."""
    common.heading("Register", "For who runs hackathons. Teams submit without an account.")
    made = st.session_state.get("registered")
    if made:
        _show(made)
        return
    left, _ = st.columns([3, 2])
    with left, st.form("register"):
        name = st.text_input("Your name", max_chars=200, autocomplete="name")
        email = st.text_input("E-mail address", max_chars=254, autocomplete="email")
        organization = st.text_input("Organization (optional)", max_chars=200, autocomplete="organization")
        password = st.text_input(
            "Password", type="password", max_chars=200, help="At least 8 characters.", autocomplete="new-password"
        )
        sent = st.form_submit_button("Register", type="primary", icon=":material/person_add:")
    if not sent:
        return
    if not name.strip() or "@" not in email or len(password) < 8:
        st.warning(
            "Give your name, your e-mail address, and a password of at least 8 characters.", icon=":material/edit:"
        )
        return
    body = {"name": name, "email": email.strip(), "organization": organization.strip() or None, "password": password}
    try:
        st.session_state["registered"] = common.tell("POST", "/organizers", json=body)
    except ApiError as error:
        common.show_problem(error)
        return
    st.rerun()


def _show(made: dict[str, str]) -> None:
    st.success(f"Welcome, {made['name']}.", icon=":material/check_circle:")
    st.markdown("**Your API key.** It is shown this once: copy it to a safe place.")
    st.code(made["api_key"], language=None)
    st.button(
        "I have it, take me in", type="primary", icon=":material/login:", on_click=_enter, args=(made["api_key"],)
    )


def _enter(key: str) -> None:
    st.session_state.pop("registered", None)
    st.session_state.update(api_key=key, promise="remember")
