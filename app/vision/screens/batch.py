"""Many pictures: progress on the way, counts, a table, and a CSV to take home."""

import csv
import io
from collections.abc import Sequence
from html import escape
from typing import Any, Final

import streamlit as st

from app.core import panels
from app.core.client import ApiError
from app.vision.screens import common

MOST: Final = 50
AT_A_TIME: Final = 5


def page(chosen: common.Chosen) -> None:
    """The tab."""
    files = st.file_uploader(
        f"Pictures of dishes, up to {MOST}",
        type=common.TYPES,
        accept_multiple_files=True,
        max_upload_size=common.UPLOAD_MB,
        key="batch_files",
    )
    if not files:
        st.session_state.pop("batch", None)
        panels.empty("Drop several pictures. You get a table and a CSV.", "photo_library")
        return
    if len(files) > MOST:
        st.warning(f"These are {len(files)} pictures; the first {MOST} will be classified.", icon=":material/info:")
    if st.button(f"Classify {min(len(files), MOST)} pictures", type="primary", icon=":material/play_arrow:"):
        _run([(file.name, file.getvalue()) for file in files[:MOST]], chosen)
    rows: list[dict[str, Any]] | None = st.session_state.get("batch")
    if rows:
        _show(rows)


def _run(files: Sequence[tuple[str, bytes]], chosen: common.Chosen) -> None:
    st.session_state.pop("batch", None)
    bar = st.progress(0.0, "Sending…")
    rows: list[dict[str, Any]] = []
    try:
        for start in range(0, len(files), AT_A_TIME):
            rows += chosen.asking.batch(files[start : start + AT_A_TIME], chosen.question)
            bar.progress(len(rows) / len(files), f"{len(rows)} of {len(files)} pictures")
    except ApiError as error:
        bar.empty()
        common.show_problem(error)
        return
    bar.empty()
    st.session_state["batch"] = rows


def _show(rows: Sequence[dict[str, Any]]) -> None:
    labels = [row["predicted_class"] for row in rows]
    common.tiles(
        [
            ("Clean", str(labels.count("clean")), None),
            ("Dirty", str(labels.count("dirty")), None),
            ("Uncertain", str(sum(bool(row["uncertain"]) for row in rows)), "better let a person look"),
            ("No answer", str(labels.count(None)), "the note says why"),
        ]
    )
    st.download_button(
        "Download as CSV",
        as_csv(rows),
        "dishes.csv",
        "text/csv",
        type="primary",
        icon=":material/download:",
        on_click="ignore",
    )
    body = "".join(
        f"<tr><td>{escape(row['filename'])}</td><td>{(row['predicted_class'] or '–').title()}</td><td>"
        f"{panels.percent(row['confidence']) if row['confidence'] is not None else '–'}</td><td>{escape(_note(row))}</td></tr>"
        for row in rows
    )
    st.html(
        '<div class="vs-scroll"><table class="vs-table"><thead><tr><th>File</th><th>Prediction</th><th>Confidence</th>'
        f"<th>Note</th></tr></thead><tbody>{body}</tbody></table></div>"
    )


def _note(row: dict[str, Any]) -> str:
    if row["error"]:
        return str(row["error"])
    notes = [
        "no dish to be seen" if row["warning"] else "",
        "uncertain: better let a person look" if row["uncertain"] else "",
    ]
    return "; ".join(note for note in notes if note)


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """`filename,prediction,confidence`; a name that a spreadsheet would take for a formula is quoted."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(("filename", "prediction", "confidence"))
    for row in rows:
        name = row["filename"]
        safe = f"'{name}" if name[:1] in {"=", "+", "-", "@", "\t", "\r"} else name
        sure = "" if row["confidence"] is None else f"{row['confidence']:.4f}"
        writer.writerow((safe, row["predicted_class"] or "error", sure))
    return stream.getvalue()
