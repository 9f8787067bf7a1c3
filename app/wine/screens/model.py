"""The model in service: how good it is, whether it means what it says, how it came here, and training it anew."""

from datetime import datetime
from functools import partial
from typing import Any, Final

import streamlit as st

from app.core.client import ApiError, api_client
from app.wine.screens import common, figures

POLL: Final = "1s"


def page() -> None:
    """The page."""
    common.heading("The model", "Measured on notes that it had not seen.")
    with common.problems_shown():
        told = common.get("/model")
        versions = common.get("/model/versions")
    _measures(told)
    _charts(told)
    _versions(versions)
    _about(told)
    st.divider()
    _admin()


def _measures(told: dict[str, Any]) -> None:
    with_variety, note_only = told["metrics"]["with_variety"], told["metrics"]["note_only"]
    columns = st.columns(4)
    for column, key, label, explained in (
        (columns[0], "accuracy", "Accuracy", "Share of right answers."),
        (columns[1], "macro_f1", "Macro-F1", "Mean F1 of the countries: rare ones count as much as frequent ones."),
        (columns[2], "log_loss", "Log-loss", "Mean of -ln of the right country's probability; lower is better."),
        (columns[3], "ece", "Calibration error", "Mean distance between how sure it is and how often it is right."),
    ):
        column.metric(
            label,
            f"{with_variety[key]:.3f}",
            delta=f"{note_only[key]:.3f} without the grape",
            delta_color="off",
            delta_arrow="off",
            help=explained,
            border=True,
        )
    trained = datetime.fromisoformat(told["trained_at"]).strftime("%d %B %Y, %H:%M UTC")
    st.caption(
        f"Version {told['version']} · trained {trained} · {told['data']['notes']:,} notes · {told['evaluation']['method']}"
    )


def _charts(told: dict[str, Any]) -> None:
    measured = told["metrics"]["with_variety"]
    left, right = st.columns([6, 5], gap="large")
    with left:
        common.chart(
            "Confusion matrix",
            _most_confused(told["classes"], measured["confusion"]),
            partial(figures.confusion, told["classes"], measured["confusion"]),
            "confusion",
        )
    with right:
        common.chart(
            "Calibration", _calibrated(measured), partial(figures.calibration, measured["calibration"]), "calibration"
        )


def _most_confused(classes: list[str], matrix: list[list[int]]) -> str:
    pairs = [
        (count, classes[truth], classes[answer])
        for truth, row in enumerate(matrix)
        for answer, count in enumerate(row)
        if truth != answer and count
    ]
    if not pairs:
        return "No note was mistaken."
    count, truth, answer = max(pairs)
    notes = "note" if count == 1 else "notes"
    return f"The most frequent mistake: {truth} taken for {answer}, {count} {notes} of {sum(matrix[classes.index(truth)])}."


def _calibrated(measured: dict[str, Any]) -> str:
    mean = sum(row["confidence"] * row["notes"] for row in measured["calibration"]) / measured["notes"]
    gap = mean - measured["accuracy"]
    side = "more sure than right" if gap > 0 else "more right than sure"
    return f"On average it is {mean:.1%} sure and {measured['accuracy']:.1%} right, so a little {side} (by {abs(gap):.1%})."


def _versions(versions: list[dict[str, Any]]) -> None:
    st.subheader("Versions", anchor=False)
    if len(versions) > 1:
        common.plot(partial(figures.history, versions), "history")
    else:
        st.caption("One version so far: the chart over the versions begins with the second.")
    common.table(
        ("Version", "Accuracy", "Macro-F1", "ECE", "Notes", "State"),
        [
            (
                row["version"],
                f"{row['accuracy']:.3f}",
                f"{row['macro_f1']:.3f}",
                f"{row['ece']:.3f}",
                f"{row['notes']:,}",
                "in service" if row["serving"] else f"refused: {row['refused']}" if row["refused"] else "kept",
            )
            for row in versions[:10]
        ],
    )


def _about(told: dict[str, Any]) -> None:
    with st.expander("What it was trained on and with", icon=":material/info:"):
        data, cleaning = told["data"], told["data"]["cleaning"]
        st.markdown(
            f"**Data:** {data['source']}, {data['notes']:,} notes. Dropped: {cleaning['without_text']} without text, "
            f"{cleaning['without_country']} without country, {cleaning['duplicates']} duplicates. "
            f"{cleaning['price_filled']} missing prices filled with the median. SHA-256 `{data['sha256'][:16]}…`"
        )
        st.markdown("**Countries:** " + ", ".join(f"{name} {count:,}" for name, count in data["by_class"].items()))
        st.markdown(
            "**Text:** " + ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in told["backend"].items())
        )
        st.markdown("**Made with:** " + ", ".join(f"{name} {value}" for name, value in told["libraries"].items()))
        st.markdown(f"**Artefact:** SHA-256 `{told['sha256'][:16]}…`, {told['features']:,} features")


def _admin() -> None:
    st.subheader("Train anew", anchor=False)
    token = st.session_state.get("admin")
    if not token:
        _login()
        return
    st.markdown("Takes the reviews in the storage, or the starter corpus. The new model goes into service by itself.")
    _training(token)


def _login() -> None:
    with st.form("login", border=True):
        password = st.text_input("Admin password", type="password", autocomplete="current-password")
        if st.form_submit_button("Log in", icon=":material/lock_open:") and password:
            try:
                told = api_client().post("/auth/api/login", json={"password": password}).json()
            except ApiError as error:
                st.error(str(error), icon=":material/lock:")
                return
            st.session_state["admin"] = told["session_token"]
            st.rerun()


@st.fragment(run_every=POLL)
def _training(token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    try:
        if st.button("Train now", type="primary", icon=":material/model_training:"):
            api_client().post("/admin/retrain", headers=headers)
        told = api_client().get("/admin/retrain", headers=headers).json()
    except ApiError as error:
        if error.status == 401:
            st.session_state.pop("admin", None)
            st.rerun()
        st.error(str(error), icon=":material/error:")
        return
    if told["state"] == "running":
        st.session_state["trained"] = None
        st.progress(told["share"], f"{told['sentence'].capitalize()}…")
    elif told["state"] == "done":
        st.success(told["sentence"], icon=":material/check_circle:")
        if st.session_state.get("trained", told["version"]) is None:
            _take_new(told["version"])
    elif told["state"] in {"failed", "interrupted"}:
        st.error(f"{told['sentence']} {told['error'] or ''}", icon=":material/error:")
    else:
        st.caption(told["sentence"])


def _take_new(version: str) -> None:
    """Show the whole page again once the new model is in service."""
    common.get.clear()
    if api_client().get("/model").json()["version"] == version:
        st.session_state["trained"] = version
        st.rerun()
    st.caption("Going into service…")
