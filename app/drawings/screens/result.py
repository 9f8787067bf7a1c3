"""One analysis, shown: the same on Upload and History."""

from functools import partial
from typing import Any, Final

import streamlit as st

from app.core.client import ApiError
from app.drawings.screens import common, figures

FORMATS: Final = {
    "PDF page": "pdf",
    "Picture (PNG)": "png",
    "Web page": "html",
    "Table (CSV)": "csv",
    "Data (JSON)": "json",
}
MEDIA: Final = {
    "pdf": "application/pdf",
    "png": "image/png",
    "html": "text/html",
    "csv": "text/csv",
    "json": "application/json",
}


def show(told: dict[str, Any], key: str) -> None:
    """The verdict, the drawing with its heat map, why, what is alike, and a file to keep."""
    analysis, why = told["analysis"], told["interpretability"]
    left, right = st.columns([5, 6], gap="large")
    with left:
        heat = st.toggle("Show what adds to the score", value=True, key=f"{key}-heat")
        with common.problems_shown():
            shown = common.picture(
                why["overlay_image_url"] if heat else why["overlay_image_url"].replace("overlay", "image")
            )
        st.image(shown, width="stretch")
        st.caption("The redder, the more a part adds to the score." if heat else "The drawing as it was uploaded.")
    with right:
        common.verdict(analysis)
        st.write(why["explanation_text"])
        with common.problems_shown():
            parts = common.get(f"/interpretability/{analysis['id']}/attribution")["parts"]
        common.plot(partial(figures.parts, parts), f"{key}-parts")
        common.note(told["disclaimer"])
    _alike(told)
    with st.expander("The numbers", icon=":material/data_object:"):
        _numbers(told, parts)
    _file(analysis["id"], key)


def _alike(told: dict[str, Any]) -> None:
    examples = told["comparison_examples"]
    if not examples:
        return
    st.subheader("Normal drawings that are alike", anchor=False)
    columns = st.columns(3)
    for column, one in zip(columns, examples, strict=False):
        with column, st.container(border=True):
            with common.problems_shown():
                st.image(common.picture(one["image_url"]), width="stretch")
            made = " · drawn by a program" if one["generated"] else ""
            st.caption(f"{one['subject']}, {one['age_years']:g} years · {one['similarity_score']:.0%} alike{made}")


def _numbers(told: dict[str, Any], parts: list[dict[str, Any]]) -> None:
    analysis = told["analysis"]
    common.table(
        ("Part", "Score", "Percentile", "What it says"),
        [(row["part"], f"{row['score']:.3f}", f"{row['percentile']:.1f}", row["sentence"]) for row in parts],
    )
    regions = told["interpretability"]["importance_regions"]
    if regions:
        common.table(
            ("Region", "Where", "Share", "Box (left, top, width, height)"),
            [
                (
                    row["region_id"].replace("_", " "),
                    row["spatial_location"],
                    f"{row['importance_score']:.0%}",
                    ", ".join(map(str, row["bounding_box"])),
                )
                for row in regions
            ],
        )
    st.caption(
        f"Score {analysis['anomaly_score']:.3f}, threshold {analysis['threshold']:.3f} · age group {analysis['age_group']} · "
        f"{analysis['method_used']} · {analysis['vision_model']} · model {analysis['model_version']}"
    )


def _file(identity: str, key: str) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox("Keep it as", list(FORMATS), key=f"{key}-format", width=220)
        form = FORMATS[chosen]
        ready = st.session_state.get(f"{key}-file")
        if ready and ready["of"] == (identity, form):
            st.download_button(
                "Download",
                ready["data"],
                f"drawing.{form}",
                MEDIA[form],
                icon=":material/download:",
                type="primary",
                on_click="ignore",
                key=f"{key}-download",
            )
        elif st.button("Prepare the file", icon=":material/draft:", key=f"{key}-prepare"):
            try:
                made = common.tell("POST", f"/interpretability/{identity}/export", json={"format": form})
                data = common.picture(made["url"])
            except ApiError as error:
                st.error(str(error))
            else:
                st.session_state[f"{key}-file"] = {"of": (identity, form), "data": data}
                st.rerun()
