"""VinoVoyant's screens. Run `python -m app.core.ui wine`; the API must run too (`uvicorn app.wine.api:app`)."""

from pathlib import Path

import streamlit as st

from app.wine.screens import analytics, batch, common, model, predict

st.set_page_config(
    page_title="VinoVoyant", page_icon=str(Path(__file__).parent / "screens" / "icon.svg"), layout="wide"
)
common.dress()
st.navigation(
    [
        st.Page(predict.page, title="Prediction", icon=":material/wine_bar:", url_path="predict", default=True),
        st.Page(batch.page, title="Many notes", icon=":material/table_rows:", url_path="batch"),
        st.Page(analytics.page, title="Analytics", icon=":material/bar_chart:", url_path="analytics"),
        st.Page(model.page, title="Model", icon=":material/model_training:", url_path="model"),
    ],
    position="top",
).run()
