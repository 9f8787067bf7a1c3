"""What every app's screens say alike: what is empty, what went wrong, how probable something is."""

from collections.abc import Callable

import streamlit as st

from app.core.client import ApiError


def empty(sentence: str, icon: str) -> None:
    """A place where something will be, saying what to do for it."""
    with st.container(border=True, horizontal_alignment="center"):
        st.markdown(f":material/{icon}: {sentence}")


def problem(error: ApiError) -> None:
    """What went wrong with a question to the API, in words for a visitor, with the request's id when it is the server's fault."""
    if error.status == 503:
        st.info(f"**Nearly there.** {error}", icon=":material/hourglass_top:")
    elif error.status in {0, 502, 504}:
        st.error(f"**No connection.** {error}", icon=":material/cloud_off:")
    else:
        st.error(str(error), icon=":material/error:")
    if error.request_id and error.status >= 500:
        st.caption(f"Request {error.request_id}")


def try_again(on_click: Callable[[], None] | None = None) -> None:
    """A button that runs the page anew; `on_click` is called before."""
    st.button("Try again", icon=":material/refresh:", key="retry", on_click=on_click)


def percent(share: float) -> str:
    """A probability for reading: never a false 0 % or 100 %."""
    return "<1%" if share < 0.005 else ">99%" if share > 0.995 else f"{share:.0%}"
