"""The live dashboard: four tiles, the table, and judging one or all with a cost to confirm and a bar to watch. It refreshes itself."""

from typing import Any

import streamlit as st

from app.core import panels
from app.core.client import ApiError
from app.judge.screens import common

_ENDED = {"completed", "failed", "cancelled"}


def page() -> None:
    """The page."""
    common.heading("Live dashboard", "Submissions as they come and are judged. It refreshes itself.")
    hackathon = common.choose_hackathon()
    _live(hackathon["hack_id"])
    _ask_for_analysis(hackathon["hack_id"])


@st.fragment(run_every=common.EVERY_SECONDS)
def _live(hack_id: str) -> None:
    """What changes by itself: alone in its fragment, so that no form beside it is disturbed."""
    try:
        stats = common.get(f"/hackathons/{hack_id}/stats")
        _tiles(stats)
        if stats["hackathon_status"] == "analyzing" or st.session_state.get("watched") == hack_id:
            _progress(hack_id)
        rows = common.every(f"/hackathons/{hack_id}/submissions", "submissions")
    except ApiError as error:
        common.show_problem(error)
        return
    if not rows:
        panels.empty(
            "No team has submitted yet. Add submissions, or activate the hackathon and share the Submit page.", "inbox"
        )
        return
    shown = common.pages(rows, "live")
    common.table(
        ("Team", "Status", "Score", "Rank", "Cost", "Since", "Remark"),
        [
            (
                row["team_name"],
                row["status"],
                "–" if row["overall_score"] is None else f"{row['overall_score']:.2f}",
                str(row["rank"] or "–"),
                common.dollars(row["total_cost_usd"]),
                common.when(row["created_at"]),
                row["error_message"] or row["disqualification_reason"] or "",
            )
            for row in shown
        ],
    )


def _tiles(stats: dict[str, Any]) -> None:
    tiles = (
        ("Submissions", stats["submission_count"]),
        ("Verified", stats["verified_count"]),
        ("Pending", stats["pending_count"]),
        ("Participants", stats["participant_count"]),
    )
    for column, (name, value) in zip(st.columns(4), tiles, strict=True):
        column.metric(name, value, border=True)


def _progress(hack_id: str) -> None:
    try:
        state = common.tell("GET", f"/hackathons/{hack_id}/analyze/status")
    except ApiError as error:
        if error.status != 404:
            raise
        return
    told = state["progress"]
    done = f"{told['completed']} completed, {told['failed']} failed, {told['total_submissions']} in total"
    if state["status"] in _ENDED:
        if st.session_state.get("watched") == hack_id:
            common.forget()
            del st.session_state["watched"]
            st.rerun()
        return
    st.session_state["watched"] = hack_id
    now = f" · judging {state['current_submission']}" if state["current_submission"] else " · waiting for the worker"
    st.progress(
        min(1.0, told["percent_complete"] / 100), f"{done}{now} · {common.dollars(state['cost_so_far'])} so far"
    )
    for failure in state["errors"][:3]:
        st.caption(f"{common.plain(failure['team_name'])}: {failure['error']}")


def _ask_for_analysis(hack_id: str) -> None:
    st.subheader("Judge", anchor=False)
    with common.problems_shown():
        rows = [
            row
            for row in common.every(f"/hackathons/{hack_id}/submissions", "submissions")
            if row["status"] in {"pending", "failed", "timeout"}
        ]
    if not rows:
        st.caption("Nothing is pending.")
        return
    names = {row["sub_id"]: row["team_name"] for row in rows}
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    everything = f"All pending ({len(rows)})"
    chosen = left.selectbox("What to judge", [everything, *names], format_func=lambda one: names.get(one, one))
    body = {} if chosen == everything else {"submission_ids": [chosen]}
    if right.button("Estimate the cost", icon=":material/calculate:", width="stretch"):
        with common.problems_shown():
            told = common.tell("POST", f"/hackathons/{hack_id}/analyze/estimate", json=body)
        st.session_state["estimate"] = {"hack_id": hack_id, "body": body, "told": told}
    _confirm(hack_id)


def _confirm(hack_id: str) -> None:
    kept = st.session_state.get("estimate")
    if not kept or kept["hack_id"] != hack_id:
        return
    told, check = kept["told"]["estimate"], kept["told"]["budget_check"]
    cost = told["total_cost_usd"]
    with st.container(border=True):
        st.markdown(
            f"Judging **{told['total_submissions']}** costs about **{common.dollars(cost['expected'])}** "
            f"({common.dollars(cost['low'])} to {common.dollars(cost['high'])}) and takes about "
            f"**{max(1, round(told['estimated_duration_minutes']))} min**.".replace("$", "\\$")
        )
        if not check["within_budget"]:
            st.warning("That is more than what is left of the budget.", icon=":material/savings:")
        yes, no = st.columns(2)
        if yes.button(
            "Start judging",
            type="primary",
            icon=":material/gavel:",
            disabled=not check["within_budget"],
            width="stretch",
        ):
            try:
                common.change("POST", f"/hackathons/{hack_id}/analyze", json=kept["body"])
            except ApiError as error:
                common.show_problem(error)
                return
            del st.session_state["estimate"]
            st.session_state["watched"] = hack_id
            st.rerun()
        if no.button("Leave it", width="stretch"):
            del st.session_state["estimate"]
            st.rerun()
