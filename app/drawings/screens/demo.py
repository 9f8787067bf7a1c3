"""Three samples with what the model says about them."""

import streamlit as st

from app.drawings.screens import common


def page() -> None:
    """The page."""
    common.viewed("demo")
    common.heading(
        "Is this drawing unusual for the child's age?",
        "A model compares a drawing with others of the same age, says how sure it is, and shows why.",
    )
    with common.problems_shown(), st.spinner("Looking at three drawings…"):
        told = common.get("/demo/samples")
        facts = common.get("/demo/statistics")
    heat = st.toggle("Show what adds to the score", value=True)
    for column, one in zip(st.columns(3, gap="medium"), told["samples"], strict=True):
        with column, st.container(border=True):
            st.subheader(one["title"], anchor=False)
            with common.problems_shown():
                st.image(common.picture(one["overlay_image_url" if heat else "image_url"]), width="stretch")
            st.caption(f"Handed in as: {one['subject']}, {one['age_years']:g} years")
            common.verdict(one)
            st.write(one["explanation_text"])
    common.note(told["disclaimer"])
    columns = st.columns(4)
    for column, (label, value) in zip(
        columns,
        (
            ("Age groups", f"{facts['age_groups']}"),
            ("Subjects", f"{facts['subjects']}"),
            ("Drawings learnt from", f"{facts['training_drawings']:,}"),
            ("Drawings analysed", f"{facts['drawings_analyzed']:,}"),
        ),
        strict=True,
    ):
        column.metric(label, value, border=True)
