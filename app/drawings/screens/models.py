"""The model in service, whether the operator's drawings are enough, and training anew."""

from typing import Final

import streamlit as st

from app.core.client import ApiError
from app.drawings.screens import common

POLL: Final = "2s"


def page() -> None:
    """The page."""
    common.viewed("models")
    common.heading("Models", "One for each age group, measured on drawings that it had not seen.")
    with common.problems_shown():
        told, enough = common.get("/models/age-groups"), common.get("/models/data-sufficiency")
        versions = common.get("/models/versions")
    st.caption(f"Version {told['model_version']} · trained {common.when(told['trained_at'])} · {told['source']}")
    common.table(
        ("Age group", "Drawings", "Threshold", "Method", "PCA / autoencoder (ROC-AUC by age)", "State"),
        [
            (
                group["name"],
                f"{group['samples']:,}",
                f"{group['threshold']:.3f}",
                group["method"],
                f"{group['pca_auc']:.3f} / {group['autoencoder_auc']:.3f}",
                "active" if group["active"] else "off",
            )
            for group in told["groups"]
        ],
    )
    with st.popover("Switch an age group on or off", icon=":material/toggle_on:"):
        names = {group["name"]: group["active"] for group in told["groups"]}
        chosen = st.selectbox("Age group", list(names))
        if st.button("Switch it off" if names[chosen] else "Switch it on"):
            try:
                common.tell("PUT", f"/models/age-groups/{chosen}", json={"active": not names[chosen]})
            except ApiError as error:
                st.error(str(error))
            else:
                common.forget()
                st.rerun()
    st.subheader("Your own drawings", anchor=False)
    thin = [row["age_group"] for row in enough["groups"] if not row["sufficient"]]
    if thin:
        st.warning(
            f"Not enough drawings of your own for {', '.join(thin)}: these age groups learn from drawings that a program made.",
            icon=":material/warning:",
        )
    common.table(
        ("Age group", "Drawings", "Needed", "What it means"),
        [(row["age_group"], f"{row['own_drawings']:,}", f"{row['needed']}", row["advice"]) for row in enough["groups"]],
    )
    st.caption("Import a folder with `python -m app.drawings.importer`, or label uploads as normal.")
    st.subheader("Train anew", anchor=False)
    _training()
    st.subheader("Versions", anchor=False)
    common.table(
        ("Version", "Trained", "Drawings", "State"),
        [
            (
                row["version"],
                common.when(row["trained_at"]),
                f"{row['drawings']:,}",
                "in service" if row["serving"] else f"refused: {row['refused']}" if row["refused"] else "kept",
            )
            for row in versions[:10]
        ],
    )


@st.fragment(run_every=POLL if st.session_state.get("training") else None)
def _training() -> None:
    try:
        if st.button("Train now", type="primary", icon=":material/model_training:"):
            common.tell("POST", "/models/train")
            st.session_state["training"] = True
            st.rerun()
        told = common.tell("GET", "/models/train")
    except ApiError as error:
        st.error(str(error), icon=":material/error:")
        return
    if told["state"] == "running":
        st.progress(told["share"], f"{told['sentence'].capitalize()}…")
    elif told["state"] == "done":
        st.success(f"{told['sentence']} It goes into service within seconds.", icon=":material/check_circle:")
    elif told["state"] in {"failed", "interrupted"}:
        st.error(f"{told['sentence']} {told['error'] or ''}", icon=":material/error:")
    else:
        st.caption(told["sentence"])
    running = told["state"] == "running"
    if running != bool(st.session_state.get("training")):
        st.session_state["training"] = running
        common.forget()
        st.rerun()
