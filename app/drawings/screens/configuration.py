"""The threshold, with its effect before it is saved; and the backups."""

from functools import partial
from typing import Any

import streamlit as st

from app.core import panels
from app.core.client import ApiError
from app.drawings.screens import common, figures


def page() -> None:
    """The page."""
    common.viewed("configuration")
    common.heading(
        "Configuration", "From which percentile on a drawing is called unusual, and the backups of the database."
    )
    _threshold()
    st.divider()
    _backups()


def _threshold() -> None:
    st.subheader("Threshold", anchor=False)
    with common.problems_shown():
        now = common.get("/config/threshold")
    wanted = st.slider(
        "Percentile",
        50.0,
        99.9,
        float(now["percentile"]),
        0.1,
        format="%.1f",
        key="percentile",
        help="So many of 100 normal drawings stay below. Scores are not computed again.",
    )
    with common.problems_shown():
        then = common.get("/config/threshold", percentile=wanted)
    changed = abs(wanted - now["percentile"]) > 1e-9
    difference = then["anomalies"] - now["anomalies"]
    columns = st.columns(3)
    columns[0].metric("Unusual now", f"{now['anomalies']:,}", border=True)
    columns[1].metric(
        "Unusual then",
        f"{then['anomalies']:,}",
        f"{difference:+,}" if changed else None,
        delta_color="off",
        border=True,
    )
    columns[2].metric("Expected false alarms", f"{100 - wanted:.1f}%", border=True)
    if now["analyses"]:
        common.plot(partial(figures.effect, now["groups"], then["groups"]), "threshold-effect")
    else:
        panels.empty("The effect on your drawings shows here once some were analysed.", "bar_chart")
    if st.button("Save the threshold", type="primary", icon=":material/save:", disabled=not changed):
        try:
            common.tell("PUT", "/config/threshold", json={"percentile": wanted})
        except ApiError as error:
            st.error(str(error), icon=":material/error:")
            return
        common.forget()
        st.toast(f"Saved: the {wanted:g}th percentile.", icon=":material/check_circle:")
        st.rerun()
    common.table(
        ("Age group", "Threshold", "Analyses", "Unusual then"),
        [
            (row["age_group"], f"{row['threshold']:.3f}", f"{row['analyses']:,}", f"{row['anomalies']:,}")
            for row in then["groups"]
        ],
    )


def _backups() -> None:
    st.subheader("Backups", anchor=False)
    with common.problems_shown():
        told = common.get("/backup/")
    st.markdown(f"Every {told['every_hours']:g} hours, sealed and checked. A restore makes a safety copy first.")
    if st.button("Back up now", icon=":material/backup:"):
        _do(lambda: common.tell("POST", "/backup/"), "Backed up.")
    rows: list[dict[str, Any]] = told["backups"]
    if not rows:
        panels.empty("No backup yet. The first is made within a minute of the start.", "backup")
        return
    common.table(
        ("When (UTC)", "Why", "Rows", "Size"),
        [
            (common.when(row["created_at"]), row["reason"], f"{row['rows']:,}", f"{row['size_bytes'] / 1024:,.0f} KB")
            for row in rows[:8]
        ],
    )
    with st.expander("Check or restore one", icon=":material/settings_backup_restore:"):
        chosen = st.selectbox(
            "Backup",
            rows,
            format_func=lambda row: f"{common.when(row['created_at'])} · {row['reason']} · {row['rows']:,} rows",
        )
        with st.container(horizontal=True):
            if st.button("Check it", icon=":material/verified:"):
                _do(lambda: _verified(chosen["id"]), "It can be restored.")
            sure = st.checkbox("Replace everything that is in the database now")
            if st.button("Restore it", icon=":material/restore:", disabled=not sure):
                _do(lambda: common.tell("POST", "/backup/restore", json={"backup_id": chosen["id"]}), "Restored.")


def _verified(identity: str) -> None:
    told = common.tell("POST", f"/backup/{identity}/verify")
    if not told["good"]:
        raise ApiError(f"This backup cannot be restored: {told['problem']}")


def _do(action: Any, word: str) -> None:
    try:
        with st.spinner("Working…"):
            action()
    except ApiError as error:
        st.error(str(error), icon=":material/error:")
        return
    common.forget()
    st.toast(word, icon=":material/check_circle:")
    st.rerun()
