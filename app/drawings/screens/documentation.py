"""What this is, how it works, what it is not."""

import streamlit as st

from app.core.settings import get_settings
from app.drawings.screens import common


def page() -> None:
    """The page."""
    common.viewed("documentation")
    with common.problems_shown():
        info, word = common.get("/demo/project-info"), common.get("/demo/disclaimer")
        links = common.get("/demo/technical-links")
    common.heading("How it works", info["summary"])
    with st.container(border=True):
        st.markdown(f"**What it is not.** {word['disclaimer']}")
        st.markdown("\n".join(f"- {point}" for point in word["points"]))
    st.subheader("From a drawing to a verdict", anchor=False)
    st.markdown("\n".join(f"{number}. {step}" for number, step in enumerate(info["how_it_works"], start=1)))
    st.subheader("Reading a result", anchor=False)
    common.table(
        ("What you see", "What it means"),
        [
            ("… of 100", "So many of 100 normal drawings of this age differ less from what is common than this one."),
            ("Unusual", "The score is above the threshold, by default the 95th percentile of normal drawings."),
            ("Confidence", "How far the score is from the threshold: near it, the verdict could as well be the other."),
            ("visual, subject, both, age", "Which part speaks loudest: the picture, the subject named, or the age."),
            ("Heat map", "The score's error is a sum over 49 parts of the picture; red parts add most."),
        ],
    )
    st.subheader("Limits", anchor=False)
    st.markdown("\n".join(f"- {limit}" for limit in info["limits"]))
    st.subheader("For programs", anchor=False)
    prefix = get_settings().api_prefix
    if prefix:
        st.markdown(f"Everything here is an API with a description: [{prefix}/docs]({prefix}/docs).")
    else:
        st.markdown("Everything here is an API with a description, at `/docs` of the API.")
    st.markdown("\n".join(f"- [{link['title']}]({link['url']})" for link in links))
    st.caption(f"Model {info['model_version']}, learnt from {info['trained_on']} · {info['vision_model']}")
