"""Every drawing, with filters; one of them in full."""

from typing import Any, Final

import streamlit as st

from app.core import panels
from app.core.client import ApiError
from app.drawings.screens import common, result

VERDICTS: Final = {"all": None, "unusual": True, "usual": False}
SIZE: Final = 10


def page() -> None:
    """The page."""
    common.viewed("history")
    common.heading("History", "Every drawing with its latest analysis. Choose one to see it in full.")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        words = st.text_input("Name or task", key="history-words", placeholder="part of the name", width=220)
        verdict = st.selectbox("Verdict", list(VERDICTS), key="history-verdict", width=140)
        ages = st.slider("Age", 2.0, 18.0, (2.0, 18.0), 0.5, format="%g", key="history-ages", width=260)
    wanted = (words, verdict, ages)
    if st.session_state.get("history-wanted") != wanted:
        st.session_state["history-wanted"] = wanted
        st.session_state["history-page"] = 1
    number = int(st.session_state.get("history-page", 1))
    with common.problems_shown():
        told = common.get(
            "/drawings/history",
            page=number,
            page_size=SIZE,
            q=words or None,
            is_anomaly=VERDICTS[verdict],
            age_min=ages[0],
            age_max=ages[1],
        )
    if not told["items"]:
        panels.empty("No drawing fits. Widen the filters, or upload one.", "image_search")
        return
    _list(told)
    _turn(told)
    chosen = st.session_state.get("history-chosen")
    if chosen:
        _one(chosen)


def _list(told: dict[str, Any]) -> None:
    for row in told["items"]:
        drawing, analysis = row["drawing"], row["analysis"]
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            st.markdown(
                f"**{_plain(drawing['filename'])}**  \n{drawing['age_years']:g} years · {drawing['subject']} · "
                f"{common.when(drawing['created_at'])}",
                width="stretch",
            )
            if analysis is None:
                st.badge("not analysed", color="gray")
            else:
                word = "unusual" if analysis["is_anomaly"] else "usual"
                st.badge(
                    f"{word} · {analysis['normalized_score']:.0f}",
                    color="orange" if analysis["is_anomaly"] else "green",
                )
            if st.button("Open", key=f"open-{drawing['id']}", icon=":material/open_in_full:"):
                st.session_state["history-chosen"] = drawing["id"]
                st.rerun()


def _turn(told: dict[str, Any]) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button("Newer", disabled=told["page"] <= 1, icon=":material/chevron_left:"):
            st.session_state["history-page"] = told["page"] - 1
            st.rerun()
        st.caption(f"Page {told['page']} of {told['pages']} · {told['total']:,} drawings")
        if st.button("Older", disabled=told["page"] >= told["pages"], icon=":material/chevron_right:"):
            st.session_state["history-page"] = told["page"] + 1
            st.rerun()


def _one(identity: str) -> None:
    st.divider()
    with common.problems_shown():
        known = common.get(f"/analysis/drawing/{identity}")
    with st.container(horizontal=True):
        if st.button("Analyse again" if known else "Analyse", icon=":material/troubleshoot:", type="primary"):
            _do(lambda: common.tell("POST", f"/analysis/analyze/{identity}", json={"force_reanalysis": bool(known)}))
        if st.button("Close", icon=":material/close:"):
            st.session_state.pop("history-chosen")
            st.rerun()
        with st.popover("Delete", icon=":material/delete:"):
            st.markdown("The drawing, its analyses and its file are deleted for good.")
            if st.button("Delete it", type="primary"):
                st.session_state.pop("history-chosen")
                _do(lambda: common.ask("DELETE", f"{common.V1}/drawings/{identity}"))
    if not known:
        panels.empty("This drawing was not analysed yet.", "troubleshoot")
        return
    result.show(known[0], "history")
    _remarks(known[0]["analysis"]["id"], known[0]["interpretability"]["importance_regions"])


def _remarks(identity: str, regions: list[dict[str, Any]]) -> None:
    st.subheader("Remarks", anchor=False)
    with common.problems_shown():
        for row in common.get(f"/interpretability/{identity}/annotations"):
            st.markdown(
                f"{_plain(row['text'])}  \n:gray[{row['region_id'] or 'whole drawing'} · {common.when(row['created_at'])}]"
            )
    with st.form("remark", border=False, clear_on_submit=True):
        said = st.text_area("A remark", max_chars=2000, placeholder="What an expert sees…")
        where = st.selectbox("About", ["whole drawing", *(row["region_id"] for row in regions)])
        if st.form_submit_button("Add", icon=":material/add_comment:") and said.strip():
            body = {"text": said.strip(), "region_id": None if where == "whole drawing" else where}
            _do(lambda: common.tell("POST", f"/interpretability/{identity}/annotate", json=body))


def _plain(text: str) -> str:
    """A text of a visitor as it is: no link, no picture, no heading."""
    return "".join(f"\\{character}" if character in r"\`*_{}[]()#+-.!|<>~$:" else character for character in text)


def _do(action: Any) -> None:
    try:
        with st.spinner("Working…"):
            action()
    except ApiError as error:
        st.error(str(error), icon=":material/error:")
        return
    common.forget()
    st.rerun()
