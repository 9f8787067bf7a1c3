"""Many drawings at once: upload, analyse with progress, a table to keep."""

import csv
import io
import time
from typing import Any, Final

import streamlit as st

from app.core import panels
from app.core.client import ApiError
from app.drawings.screens import common

MOST: Final = 50
_EVERY: Final = 0.7


def page() -> None:
    """The page."""
    common.viewed("batch")
    common.heading(
        "Many drawings at once", f"Up to {MOST} drawings of one age; the others go on when one cannot be read."
    )
    files = st.file_uploader(
        "Drawings",
        type=["png", "jpg", "jpeg", "bmp", "webp"],
        accept_multiple_files=True,
        max_upload_size=10,
        key="batch-files",
    )
    left, right = st.columns(2, gap="large")
    with left:
        age = st.slider("Age of the children in years", 2.0, 18.0, 6.0, 0.5, format="%g", key="batch-age")
    with right:
        with common.problems_shown():
            subjects = [row["name"] for row in common.get("/config/subjects")]
        subject = st.selectbox("What the drawings show", subjects, key="batch-subject")
    if not files:
        st.session_state.pop("batch", None)
        panels.empty("Choose some drawings to begin.", "photo_library")
        return
    if len(files) > MOST:
        st.warning(f"{len(files)} are too many: take at most {MOST} at once.", icon=":material/filter:")
        return
    if st.button(f"Analyse {len(files)} drawings", type="primary", icon=":material/play_arrow:"):
        _run([("files", (file.name, file.getvalue())) for file in files], age, subject)
    done: dict[str, Any] | None = st.session_state.get("batch")
    if done:
        _show(done)


def _run(files: list[Any], age: float, subject: str) -> None:
    st.session_state.pop("batch", None)
    bar = st.progress(0.0, f"Sending {len(files)} drawings…")
    try:
        sent = common.tell(
            "POST", "/drawings/batch/upload", files=files, data={"age_years": str(age), "subject": subject}
        )
        drawings = [row["drawing"] for row in sent["results"] if row["drawing"]]
        items: list[dict[str, Any]] = []
        if drawings:
            told = common.tell("POST", "/analysis/batch", json={"drawing_ids": [row["id"] for row in drawings]})
            while told["state"] == "running":
                bar.progress(told["progress"], f"{told['done'] + told['failed']} of {told['total']} analysed")
                time.sleep(_EVERY)
                told = common.tell("GET", f"/analysis/batch/{told['batch_id']}/progress")
            items = told["items"]
    except ApiError as error:
        bar.empty()
        common.show_problem(error)
        return
    bar.empty()
    common.forget()
    known = {row["drawing_id"]: row for row in items}
    st.session_state["batch"] = {
        "rows": [
            {
                "filename": row["filename"],
                "state": "not read" if row["error"] else _state(known[row["drawing"]["id"]]),
                "percentile": None if row["error"] else known[row["drawing"]["id"]]["normalized_score"],
                "problem": row["error"] or known[row["drawing"]["id"]]["error"] or "",
            }
            for row in sent["results"]
        ]
    }


def _state(item: dict[str, Any]) -> str:
    return item["state"] if item["is_anomaly"] is None else "unusual" if item["is_anomaly"] else "usual"


def _show(done: dict[str, Any]) -> None:
    rows = done["rows"]
    unusual = sum(row["state"] == "unusual" for row in rows)
    good = sum(row["state"] in {"usual", "unusual"} for row in rows)
    st.success(f"{good} of {len(rows)} drawings analysed, {unusual} unusual", icon=":material/check_circle:")
    out = io.StringIO()
    writer = csv.DictWriter(out, ["filename", "state", "percentile", "problem"])
    writer.writeheader()
    writer.writerows(rows)
    st.download_button(
        "Download the table",
        out.getvalue(),
        "drawings.csv",
        "text/csv",
        icon=":material/download:",
        type="primary",
        on_click="ignore",
    )
    common.table(
        ("File", "Verdict", "of 100", "Problem"),
        [
            (
                row["filename"],
                row["state"],
                "–" if row["percentile"] is None else f"{row['percentile']:.0f}",
                row["problem"],
            )
            for row in rows
        ],
    )
