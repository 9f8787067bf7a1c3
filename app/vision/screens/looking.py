"""One picture: from a file, from the camera, or from the gallery."""

import io
from typing import Final

import streamlit as st

from app.core import panels
from app.vision.dishes import Level, draw
from app.vision.screens import common

GALLERY: Final[tuple[tuple[str, int, Level | None], ...]] = (
    ("Plate", 39, None),
    ("Plate with leftovers", 24, "heavy"),
    ("Bowl", 27, None),
    ("Bowl with leftovers", 32, "heavy"),
    ("Cup", 55, None),
    ("Used cup", 6, "heavy"),
    ("Patterned plate", 37, None),
    ("A little dirty", 1, "light"),
)
"""Name, seed and level of the pictures in the gallery."""


def upload(chosen: common.Chosen) -> None:
    """A file, by drag and drop or chosen."""
    left, right = st.columns(2, gap="large")
    with left:
        file = st.file_uploader(
            "Picture of a dish",
            type=common.TYPES,
            max_upload_size=common.UPLOAD_MB,
            key="upload",
            help="JPEG, PNG or WebP, up to 10 MB",
        )
        if file is not None:
            _picture(file.getvalue(), file.name)
    with right:
        if file is None:
            panels.empty("Choose a picture, or drop one. The answer will stand here, with a heat map.", "dinner_dining")
        else:
            common.classify_and_show(file.name, file.getvalue(), chosen)


def camera(chosen: common.Chosen) -> None:
    """A photograph taken now; the camera is asked for only after a click."""
    if not st.session_state.get("camera_on"):
        panels.empty("The camera starts when you say so. The picture is looked at and not kept.", "photo_camera")
        st.button("Start the camera", type="primary", icon=":material/photo_camera:", on_click=_start_camera)
        return
    left, right = st.columns(2, gap="large")
    with left:
        taken = st.camera_input("Hold a dish before the camera", key="camera")
    with right:
        if taken is None:
            panels.empty("Take a picture; the answer will stand here.", "photo_camera")
        else:
            common.classify_and_show("camera.jpg", taken.getvalue(), chosen)


def _start_camera() -> None:
    st.session_state["camera_on"] = True


def demo(chosen: common.Chosen) -> None:
    """A gallery of drawn dishes: one click, one answer."""
    picked = st.session_state.get("demo")
    if picked is None:
        st.markdown("Choose a dish. All of these are drawn; none was used for training.")
        _gallery()
        return
    name, seed, level = GALLERY[picked]
    data = _drawn(seed, level)
    st.button("All pictures", icon=":material/arrow_back:", on_click=_pick, args=(None,))
    left, right = st.columns(2, gap="large")
    with left:
        _picture(data, name)
    with right:
        common.classify_and_show(f"{name}.jpg", data, chosen)


def _gallery() -> None:
    with st.container(key="gallery"):
        for place, (name, seed, level) in enumerate(GALLERY):
            with st.container():
                st.image(_drawn(seed, level), width="stretch", alt=name)
                st.button(name, key=f"demo_{place}", on_click=_pick, args=(place,), width="stretch")


def _pick(place: int | None) -> None:
    st.session_state["demo"] = place


@st.cache_data(show_spinner=False, max_entries=32)
def _drawn(seed: int, level: Level | None) -> bytes:
    stream = io.BytesIO()
    draw(DEMO_SEEDS + seed, level=level).image.save(stream, "JPEG", quality=90)
    return stream.getvalue()


DEMO_SEEDS: Final = 5_000_000_000
"""Far from every training's dishes (see `app.vision.training.seeds_of`)."""


def _picture(data: bytes, name: str) -> None:
    with st.container(key="original"):
        try:
            st.image(data, width="stretch", caption=name, alt=f"The picture {name}")
        except (OSError, ValueError):
            st.caption(f"{name} cannot be shown.")
