"""Settings: profile, keys, use."""

from typing import Any

import streamlit as st

from app.core import panels
from app.core.client import ApiError
from app.judge.screens import common, figures


def page() -> None:
    """The page."""
    common.heading("Settings", "Who you are, your keys, your use.")
    with common.problems_shown():
        me = common.get("/organizers/me")
        keys = common.get("/api-keys")["api_keys"]
        usage = common.get("/usage/summary")
    profile, own_keys, use = st.tabs(["Profile", "API keys", "Usage"])
    with profile:
        _profile(me)
    with own_keys:
        _keys(keys)
    with use:
        _usage(usage)


def _profile(me: dict[str, Any]) -> None:
    limits = me.get("limits", {})
    rows = [
        ("Name", me["name"]),
        ("E-mail", me["email"]),
        ("Organization", me.get("organization") or "–"),
        ("Tier", me.get("tier", "–")),
    ]
    if limits:
        rows.append(
            ("Allows", f"{limits['requests_per_second']} requests a second, {limits['requests_per_day']:,} a day")
        )
        rows.append(("Spent", f"{common.dollars(me['spent_usd'])} of {common.dollars(limits['budget_usd'])}"))
    common.table(("", ""), rows)


def _keys(keys: list[dict[str, Any]]) -> None:
    made = st.session_state.get("made-key")
    if made:
        st.success("Your new key. It is shown this once: copy it to a safe place.", icon=":material/key:")
        st.code(made, language=None)
        st.button("I have it", on_click=lambda: st.session_state.pop("made-key", None))
    common.table(
        ("Name", "Begins with", "State", "Made", "Ends", "Last used"),
        [
            (
                one["name"],
                one["prefix"],
                "expired" if one.get("expired") else "active" if one["active"] else "revoked",
                common.when(one["created_at"]),
                common.when(one["expires_at"]),
                common.when(one["last_used_at"]),
            )
            for one in common.pages(keys, "keys", 20)
        ],
    )
    left, right = st.columns(2, gap="large")
    with left, st.form("new-key"):
        name = st.text_input("Name of a new key", max_chars=100)
        days = st.number_input("Days it lives (0: no end)", 0, 3650, 0)
        if st.form_submit_button("Create key", type="primary", icon=":material/add:"):
            if not name.strip():
                st.warning("Give the key a name.", icon=":material/edit:")
            else:
                _act("POST", "/api-keys", {"name": name, "expires_in_days": days or None})
    with right:
        live = {one["api_key_id"]: f"{one['name']} ({one['prefix']}…)" for one in keys if one["active"]}
        if not live:
            panels.empty("No key is active.", "key_off")
            return
        chosen = st.selectbox("Key", list(live), format_func=lambda one: live[one])
        if st.button("Rotate: a new one, the old lives 7 more days", icon=":material/autorenew:"):
            _act("POST", f"/api-keys/{chosen}/rotate", None)
        sure = st.checkbox("Yes, revoke it now", key=f"sure-{chosen}")
        if st.button("Revoke", icon=":material/block:", disabled=not sure):
            _act("DELETE", f"/api-keys/{chosen}", None)


def _act(method: str, path: str, body: dict[str, Any] | None) -> None:
    try:
        told = common.change(method, path, **({} if body is None else {"json": body}))
    except ApiError as error:
        common.show_problem(error)
        return
    if told and "api_key" in told:
        st.session_state["made-key"] = told["api_key"]
    st.rerun()


def _usage(usage: dict[str, Any]) -> None:
    rows = usage["daily_breakdown"]
    if not rows:
        panels.empty("No request has been counted yet.", "bar_chart")
        return
    figures.plot(figures.days(rows), "usage")
    st.caption(
        f"{usage.get('total_requests', sum(row['requests'] for row in rows))} requests since {usage.get('start_date', rows[0]['date'])}"
    )
    with common.problems_shown():
        data = common.text("/usage/export")
    st.download_button("Download as CSV", data, "usage.csv", "text/csv", icon=":material/download:", on_click="ignore")
