"""What all tabs share: the sidebar, an answer on the page, and saying well what is empty, late or wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

import streamlit as st

from app.core import panels
from app.core.client import ApiError
from app.core.settings import get_settings
from app.vision.model import DEFAULT, MODEL_TYPES
from app.vision.screens.asking import Asking, Question, in_process, over_http
from app.vision.settings import VisionSettings

TYPES: Final = ["jpg", "jpeg", "png", "webp"]
UPLOAD_MB: Final = 10

_MODELS: Final = {
    "fast": "Fast: the smallest, 10 ms",
    "balanced": "Balanced: for most",
    "accurate": "Accurate: looks twice",
}
_BANDS: Final = ((0.8, "High"), (0.6, "Medium"), (0.0, "Low"))
_STYLE: Final = """
<style>
.stMainBlockContainer {max-width: 72rem; padding-top: 3.5rem; padding-bottom: 4rem;}
.vs-lead {opacity: .75; margin: -.75rem 0 .25rem;}
.vs-card {border: 1px solid color-mix(in srgb, currentColor 18%, transparent); border-radius: .75rem; padding: 1rem 1.25rem;}
.vs-label {font-size: 2.2rem; line-height: 1.15; font-weight: 700; margin: 0; display: flex; gap: .7rem;
  align-items: center; flex-wrap: wrap;}
.vs-dot {width: 1.1rem; height: 1.1rem; border-radius: 50%; flex: none;}
.vs-band {font-size: .95rem; font-weight: 600; border-radius: 999px; padding: .2rem .7rem;
  background: color-mix(in srgb, currentColor 10%, transparent);}
.vs-sub {opacity: .8; margin: .4rem 0 0;}
.vs-bar {display: grid; grid-template-columns: 4rem 1fr 3.5rem; gap: .6rem; align-items: center; margin: .45rem 0;}
.vs-bar > span:last-child {text-align: right; font-variant-numeric: tabular-nums;}
.vs-track {background: color-mix(in srgb, currentColor 12%, transparent); border-radius: 999px; height: .7rem; overflow: hidden;}
.vs-fill {border-radius: 999px; height: 100%; min-width: 2px;}
.vs-scale {height: .6rem; border-radius: 999px; background: linear-gradient(90deg, transparent, #ffd64a, #ff8014, #d61432);
  border: 1px solid color-mix(in srgb, currentColor 18%, transparent);}
.vs-scale-words {display: flex; justify-content: space-between; font-size: .85rem; opacity: .75; margin-top: .15rem;}
.vs-table {width: 100%; border-collapse: collapse; font-size: .95rem;}
.vs-table th, .vs-table td {text-align: left; padding: .35rem .6rem .35rem 0; vertical-align: top; overflow-wrap: anywhere;
  border-bottom: 1px solid color-mix(in srgb, currentColor 15%, transparent); font-variant-numeric: tabular-nums;}
.vs-scroll {overflow-x: auto;}
:root {--vs-clean: #2f7d4f; --vs-dirty: #c2541f;}
.st-key-gallery, .st-key-tiles {display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 1rem;}
.st-key-gallery > *, .st-key-tiles > * {width: 100% !important;}
@media (max-width: 640px) {
  .st-key-gallery, .st-key-tiles {grid-template-columns: repeat(2, minmax(0, 1fr));}
  .st-key-original {display: none;} /* the heat map shows the picture too */
  .stMainBlockContainer {padding-left: 1rem; padding-right: 1rem;}
  .stMainBlockContainer h1 {font-size: 1.9rem;}
  .vs-label {font-size: 1.8rem;}
}
</style>
"""


@dataclass(frozen=True)
class Chosen:
    """What the sidebar says."""

    asking: Asking
    question: Question
    show_probabilities: bool


def dress() -> None:
    """The looks that Streamlit's theme has no word for."""
    st.html(_STYLE)


def sidebar() -> Chosen:
    """Draw the sidebar."""
    with st.sidebar:
        st.subheader("Settings", anchor=False)
        asking = _asking()
        model_type = st.radio(
            "Model",
            MODEL_TYPES,
            index=MODEL_TYPES.index(DEFAULT),
            format_func=lambda name: _MODELS[name],
            key="model_type",
        )
        least = st.slider(
            "Minimum confidence",
            0,
            100,
            0,
            5,
            format="%d %%",
            key="min_confidence",
            help="An answer that is less sure than this is not given.",
        )
        show = st.toggle("Show probabilities", value=True, key="show_probabilities")
    return Chosen(asking, Question(model_type, least / 100), show)


def _asking() -> Asking:
    settings = get_settings(VisionSettings)
    if settings.on_host:  # a visitor does not choose which address a host asks
        st.caption("Asks this host's own API.")
        return over_http()
    way = st.radio("Ask", ["API", "In this process"], key="way", help="In this process: no API needs to run.")
    if way == "API":
        url = st.text_input("API address", settings.api_url, key="api_url")
        return over_http(url.rstrip("/"))
    with st.spinner("Loading the models…"):
        return in_process()


def heading() -> None:
    """Title and one sentence."""
    st.title("Clean or dirty?", anchor=False)
    st.html('<p class="vs-lead">Shows a picture of a plate, bowl or cup to a model, and where the dirt is.</p>')


def tiles(rows: Sequence[tuple[str, str, str | None]]) -> None:
    """Figures beside each other: name, value, explanation."""
    with st.container(key="tiles"):
        for name, value, explanation in rows:
            st.metric(name, value, help=explanation)


def show_problem(error: ApiError) -> None:
    """What went wrong, in words for a visitor, and the way on."""
    label, sure = error.problem.get("predicted_class"), error.problem.get("confidence")
    if error.status == 422 and label and sure is not None:
        st.warning(
            f"**Not sure enough.** It looks {label}, with {panels.percent(float(sure))} confidence, less than the minimum in the sidebar.",
            icon=":material/help:",
        )
        return
    if error.status in {400, 413}:
        st.error(f"**This picture cannot be used.** {error}", icon=":material/broken_image:")
        return
    panels.problem(error)
    panels.try_again()


def classify_and_show(name: str, data: bytes, chosen: Chosen) -> None:
    """Ask for one picture, and show the answer with its heat map."""
    try:
        with st.spinner("Looking…"):
            result = _classify(name, data, chosen)
    except ApiError as error:
        show_problem(error)
        return
    show_result(result, show_probabilities=chosen.show_probabilities)


def _classify(name: str, data: bytes, chosen: Chosen) -> Mapping[str, Any]:
    """Ask once for a picture and settings; the page may run again for other reasons."""
    key = (hash(data), chosen.question, type(chosen.asking).__name__)
    kept: dict[Any, Mapping[str, Any]] = st.session_state.setdefault("answers", {})
    if key not in kept:
        if len(kept) >= 16:
            kept.pop(next(iter(kept)))
        kept[key] = chosen.asking.classify(name, data, chosen.question)
    return kept[key]


def show_result(result: Mapping[str, Any], *, show_probabilities: bool) -> None:
    """An answer: the class, how sure, what to beware of, and where."""
    label, sure = str(result["predicted_class"]), float(result["confidence"])
    if result["warning"]:
        thing = escape(str(result["looks_like"]))
        st.warning(
            f"**No dish to be seen.** It looks more like: {thing}. The answer below means little.",
            icon=":material/report:",
        )
    doubt = ""
    if result["uncertain"]:
        doubt = '<p class="vs-sub">Uncertain: better let a person look.</p>'
    st.html(
        f'<div class="vs-card"><p class="vs-label"><span class="vs-dot" style="background: var(--vs-{label})"></span>{label.title()}'
        f'<span class="vs-band">{band(sure)} · {panels.percent(sure)}</span></p>'
        f'{doubt}<p class="vs-sub">{escape(result["explanation"]["sentence"])}</p>'
        f"{_bars(result['probabilities']) if show_probabilities else ''}</div>"
    )
    st.image(
        result["explanation"]["overlay"],
        width="stretch",
        caption="Heat map",
        alt="The picture with its dirty parts marked",
    )
    st.html(
        '<div class="vs-scale"></div><div class="vs-scale-words"><span>no sign of dirt</span><span>most of it</span></div>'
    )
    st.caption(f"Answered in {result['processing_time_ms']:.0f} ms")


def _bars(probabilities: Mapping[str, float]) -> str:
    rows = "".join(
        f'<div class="vs-bar"><span>{name.title()}</span><div class="vs-track"><div class="vs-fill" '
        f'style="width: {share:.1%}; background: var(--vs-{name})"></div></div><span>{panels.percent(share)}</span></div>'
        for name, share in probabilities.items()
    )
    return f'<div style="margin-top: .9rem">{rows}</div>'


def band(confidence: float) -> str:
    """High, Medium or Low."""
    return next(name for least, name in _BANDS if confidence >= least)
