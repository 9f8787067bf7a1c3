"""A drawing of one's own: drop it, say the age and the subject, see the result."""

from typing import Any, Final

import streamlit as st

from app.core import panels
from app.core.client import ApiError
from app.drawings.screens import common, result

MAX_MB: Final = 10


def page() -> None:
    """The page."""
    common.viewed("upload")
    common.heading("Look at a drawing", "PNG, JPEG, BMP or WebP, at least 32 by 32 pixels and at most 10 MB.")
    file = st.file_uploader(
        "Drawing", type=["png", "jpg", "jpeg", "bmp", "webp"], key="drawing-file", max_upload_size=MAX_MB
    )
    left, right = st.columns(2, gap="large")
    with left:
        age = st.slider("Age of the child in years", 2.0, 18.0, 6.0, 0.5, format="%g")
    with right:
        subject = st.selectbox(
            "What the drawing shows", _subjects(), help="Type to search; leave it unspecified when unsure."
        )
    if file is None:
        st.session_state.pop("upload", None)
        panels.empty("Drop a drawing above to begin. It is kept until the operator deletes it.", "upload_file")
        return
    if file.size > MAX_MB * 1024 * 1024:
        st.warning(
            f"This file is larger than {MAX_MB} MB; make it smaller and try again.",
            icon=":material/photo_size_select_small:",
        )
        return
    asked = (file.file_id, age, subject)
    if st.button("Analyse", type="primary", icon=":material/troubleshoot:"):
        _analyse(file.name, file.getvalue(), age, subject, asked)
    done: dict[str, Any] | None = st.session_state.get("upload")
    if done is None:
        st.image(file, caption=file.name, width=280)
    elif "problem" in done:
        common.show_problem(done["problem"], _again)
    elif done["asked"][0] == file.file_id:
        if done["asked"] != asked:
            st.info("Age or subject have changed since: analyse again.", icon=":material/sync:")
        result.show(done["told"], "upload")


def _again() -> None:
    st.session_state.pop("upload", None)


def _subjects() -> list[str]:
    try:
        return [row["name"] for row in common.get("/config/subjects")]
    except ApiError:
        return ["unspecified"]


def _analyse(name: str, data: bytes, age: float, subject: str, asked: tuple[Any, ...]) -> None:
    try:
        with st.spinner("Looking at the drawing…"):
            drawing = common.tell(
                "POST",
                "/drawings/upload",
                files={"file": (name, data)},
                data={"age_years": str(age), "subject": subject},
            )
            told = common.tell("POST", f"/analysis/analyze/{drawing['id']}")
    except ApiError as error:
        st.session_state["upload"] = {"problem": error}
        return
    st.session_state["upload"] = {"asked": asked, "told": told}
