"""The screens. Run `python -m app.core.ui drawings`; the API must run too (`uvicorn app.drawings.api:app`).

With `PERGOLA_API_URL=inprocess` the API runs within the same process.
"""

from pathlib import Path

import streamlit as st

from app.drawings.screens import (
    batch,
    common,
    configuration,
    dashboard,
    demo,
    documentation,
    history,
    login,
    models,
    upload,
    usage,
)

st.set_page_config(
    page_title="Children's drawings",
    page_icon=str(Path(__file__).parent / "screens" / "icon.svg"),
    layout="wide",
)
common.dress()
inside = common.logged_in()
public = [
    st.Page(demo.page, title="Demo", icon=":material/gallery_thumbnail:", url_path="demo", default=True),
    st.Page(upload.page, title="Upload", icon=":material/upload:", url_path="upload"),
    st.Page(documentation.page, title="Documentation", icon=":material/menu_book:", url_path="documentation"),
]
protected = [
    st.Page(dashboard.page, title="Dashboard", icon=":material/dashboard:", url_path="dashboard"),
    st.Page(history.page, title="History", icon=":material/history:", url_path="history"),
    st.Page(batch.page, title="Batch", icon=":material/photo_library:", url_path="batch"),
    st.Page(configuration.page, title="Configuration", icon=":material/tune:", url_path="configuration"),
    st.Page(models.page, title="Models", icon=":material/model_training:", url_path="models"),
    st.Page(usage.page, title="Usage", icon=":material/bar_chart:", url_path="usage"),
]
if inside:
    chosen = st.navigation({"Everybody": public, "Admin": protected}, position="sidebar")
    st.sidebar.button("Log out", icon=":material/logout:", on_click=common.log_out)
else:
    chosen = st.navigation(
        [*public, st.Page(login.page, title="Log in", icon=":material/lock_open:", url_path="login")], position="top"
    )
chosen.run()
