"""Many notes: a CSV goes in, the same CSV with answers comes out, with progress on the way."""

import csv
import io
from collections import Counter
from typing import Any, Final

import streamlit as st

from app.core import panels
from app.core.client import ApiError, api_client
from app.wine.screens import common

SAMPLE: Final = (
    "description,variety\n"
    '"Inky and plush, with black plum, violets and toasty oak.",Malbec\n'
    '"Passion fruit, cut grass and lime; pungent and zesty.",Sauvignon Blanc\n'
    '"Sour cherry, leather and dusty tannins, with an aniseed note.",Sangiovese\n'
    '"White pepper and green lentil over lean, stony fruit.",\n'
    '"qwertz uiop asdf",\n'
)
PREVIEW: Final = 12


def page() -> None:
    """The page."""
    common.heading("Many notes at once", "Upload a CSV with a column description, and variety when you have it.")
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    with left:
        file = st.file_uploader(
            "CSV file", type="csv", help="UTF-8, up to 10 MB and 10,000 rows. Other columns are kept."
        )
    with right:
        st.download_button(
            "Sample CSV", SAMPLE, "sample.csv", "text/csv", icon=":material/description:", width="stretch"
        )
    if file is None:
        st.session_state.pop("batch", None)
        panels.empty("Choose a file to see how many notes it has. The sample shows the form.", "upload_file")
        return
    data = file.getvalue()
    if st.button("Predict all", type="primary", icon=":material/play_arrow:"):
        _run(data, file.name)
    done: dict[str, Any] | None = st.session_state.get("batch")
    if done and done["file"] == (file.name, len(data)):
        _show(done)


def _run(data: bytes, name: str) -> None:
    st.session_state.pop("batch", None)
    bar = st.progress(0.0, "Sending the file…")
    received = bytearray()
    try:
        with api_client().stream(
            "POST", "/predict/batch", content=data, headers={"Content-Type": "text/csv", "Accept": "text/csv"}
        ) as response:
            total = int(response.headers["X-Total-Count"])
            for part in response.iter_bytes():
                received += part
                answered = min(max(received.count(b"\r\n") - 1, 0), total)
                bar.progress(answered / total, f"{answered:,} of {total:,} notes")
    except ApiError as error:
        bar.empty()
        common.show_problem(error)
        return
    bar.empty()
    st.session_state["batch"] = {"file": (name, len(data)), "csv": bytes(received)}


def _show(done: dict[str, Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(done["csv"].decode(), newline="")))
    answered = [row for row in rows if row["predicted_country"]]
    st.success(f"{len(answered):,} of {len(rows):,} notes answered", icon=":material/check_circle:")
    st.download_button(
        "Download the answers",
        done["csv"],
        "predictions.csv",
        "text/csv",
        type="primary",
        icon=":material/download:",
        on_click="ignore",
    )
    counts = Counter(row["predicted_country"] for row in answered)
    if counts:
        st.caption(" · ".join(f"{country} {count:,}" for country, count in counts.most_common()))
    common.table(
        ("Country", "Sure", "Note"),
        [
            (
                row["predicted_country"] or "no answer",
                panels.percent(float(row["confidence"])) if row["predicted_country"] else "–",
                (row["description"][:117] + "…" if len(row["description"]) > 120 else row["description"])
                + (f" ({row['reason']})" if row["reason"] else ""),
            )
            for row in rows[:PREVIEW]
        ],
    )
    if len(rows) > PREVIEW:
        st.caption(f"The first {PREVIEW} of {len(rows):,}; the download has all.")
