"""Clean or dirty: the screens. Run `python -m app.core.ui vision`; the API may run too (`uvicorn app.vision.api:app`)."""

from pathlib import Path

import streamlit as st

from app.core.client import ApiError
from app.vision.screens import about, batch, common, looking

st.set_page_config(
    page_title="Clean or dirty?", page_icon=str(Path(__file__).parent / "screens" / "icon.svg"), layout="wide"
)
TABS = {
    "Upload": looking.upload,
    "Camera": looking.camera,
    "Demo images": looking.demo,
    "Batch": batch.page,
    "About": about.page,
}

common.dress()
common.heading()
try:
    chosen = common.sidebar()
except ApiError as error:
    common.show_problem(error)
    st.stop()
for tab, page in zip(st.tabs(list(TABS), key="tab", bind="query-params"), TABS.values(), strict=True):
    if tab.open:
        with tab:
            page(chosen)
