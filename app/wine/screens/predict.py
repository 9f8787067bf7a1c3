"""One note: where does this wine come from, and which words say so."""

from html import escape
from typing import Any, Final

import streamlit as st

from app.core import panels
from app.core.client import ApiError, api_client
from app.wine.screens import common
from app.wine.screens.highlight import marked

MAX_CHARACTERS: Final = 5000
HISTORY: Final = 20

EXAMPLES: Final = {
    "Peppery white": (
        (
            "White pepper, snap peas and a squeeze of grapefruit. The body is slim, the acidity bracing, and the finish has the "
            "savoury pull of fresh lentils."
        ),
        "Grüner Veltliner",
    ),
    "Mountain red": (
        (
            "Inky and ripe, with black plum, violets and a good dose of toasty oak. Plush on the palate, grown high up where the "
            "Andean nights are cold. Made for grilled beef."
        ),
        "Malbec",
    ),
    "Slate and honey": (
        (
            "Slate, lime blossom and a touch of honey. Off dry and featherlight, with a tightrope of acidity from steep river "
            "slopes; it will keep for decades."
        ),
        "Riesling",
    ),
    "Leather and dill": (
        (
            "Dried cherry, tobacco and a good rub of dill and vanilla from long barrel aging. The tannins are dry and the finish "
            "is spicy, roasted and a little scratchy."
        ),
        "Tempranillo",
    ),
    "No grape given": (
        "Passion fruit, cut grass and a jolt of lime. Pungent, zesty and as fresh as the sea wind.",
        None,
    ),
}


def page() -> None:
    """The page."""
    common.heading(
        "Where does this wine come from?", "Paste a tasting note. The model names the country and shows why."
    )
    ask, answer = st.columns([5, 6], gap="large")
    with ask:
        _ask()
    with answer:
        _answer()
    _history()


def _ask() -> None:
    st.pills(
        "Try one of these",
        list(EXAMPLES),
        key="example",
        on_change=_use_example,
    )
    with st.form("note_form", border=False):
        st.text_area(
            "Tasting note",
            key="note",
            height=190,
            max_chars=MAX_CHARACTERS,
            placeholder="Blackberry, cedar and firm tannins, with a long finish…",
        )
        st.selectbox(
            "Grape, when you know it",
            _varieties(),
            index=None,
            key="variety",
            placeholder="Optional: choose one or write it",
            accept_new_options=True,
        )
        sent = st.form_submit_button(
            "Where is it from?",
            type="primary",
            icon=":material/travel_explore:",
            width="stretch",
            shortcut="Ctrl+Enter",
        )
    if sent:
        _predict()


def _use_example() -> None:
    chosen = st.session_state.get("example")
    if chosen in EXAMPLES:
        st.session_state["note"], st.session_state["variety"] = EXAMPLES[chosen]
        _ask_again()


def _ask_again() -> None:
    """Ask in the next run of the page: a callback has no place to show anything."""
    st.session_state["pending"] = True


def _varieties() -> list[str]:
    """Grapes the model knows; an empty list while the API cannot tell (the field takes any word then)."""
    try:
        known = [row["name"] for row in common.get("/analytics")["options"]["varieties"]]
    except ApiError:
        known = []
    chosen = st.session_state.get("variety")
    return sorted({*known, *([chosen] if chosen else [])} - {"unknown"})


def _predict() -> None:
    note = (st.session_state.get("note") or "").strip()
    if not note:
        st.session_state["answer"] = {"hint": "Write a few words about the wine first."}
        return
    variety = st.session_state.get("variety") or None
    try:
        with st.spinner("Tasting…"):
            told = api_client().post("/predict", json={"description": note, "variety": variety, "top_k": 3}).json()
    except ApiError as error:
        st.session_state["answer"] = {"problem": error}
        return
    st.session_state["answer"] = {"note": note, "variety": variety, "told": told}
    history = st.session_state.setdefault("history", [])
    history.insert(0, {"note": note, "variety": variety, "told": told})
    del history[HISTORY:]


def _answer() -> None:
    if st.session_state.pop("pending", False):
        _predict()
    shown: dict[str, Any] = st.session_state.get("answer") or {}
    if "problem" in shown:
        common.show_problem(shown["problem"], _ask_again)
    elif "hint" in shown:
        st.warning(shown["hint"], icon=":material/edit_note:")
    elif not shown:
        panels.empty("The answer will be here. Write a note, or try one of the examples.", "wine_bar")
    else:
        _show(shown["note"], shown["told"])


def _show(note: str, told: dict[str, Any]) -> None:
    if told["predicted_country"] is None:
        st.warning(f"**I would rather not guess.** {told['reason']}", icon=":material/help:")
        return
    sure = told["confidence"]
    words = "Almost certain" if sure >= 0.9 else "Likely" if sure >= 0.6 else "A guess"
    bars = "".join(
        f'<div class="vv-bar {"vv-first" if place == 0 else ""}" role="img" '
        f'aria-label="{escape(row["country"])} {escape(panels.percent(row["probability"]))}"><span>{escape(row["country"])}</span>'
        f'<div class="vv-track"><div class="vv-fill" style="width:{row["probability"] * 100:.1f}%"></div></div>'
        f"<span>{escape(panels.percent(row['probability']))}</span></div>"
        for place, row in enumerate(told["top"])
    )
    st.html(
        f'<p class="vv-answer" data-testid="answer">{escape(told["predicted_country"])}</p>'
        f'<p class="vv-sub">{words}, {escape(panels.percent(sure))} · {told["latency_ms"]:.1f} ms</p>{bars}'
    )
    st.subheader("What the words say", anchor=False)
    st.html(
        f'<div class="vv-note">{marked(note, told["terms"])}</div>'
        '<p style="font-size:.9rem; opacity:.8; margin:.5rem 0 0"><span class="vv-key" '
        'style="margin-left:0; background:rgb(var(--vv-for) / .55)"></span>speaks for it'
        '<span class="vv-key" style="background:rgb(var(--vv-against) / .55)"></span>speaks against it</p>'
    )
    with st.expander("How hard each term pushed"):
        _terms(told["terms"])
        st.caption("Log-odds against the average country; the model is linear, so these are its real weights.")


def _terms(terms: list[dict[str, Any]]) -> None:
    strongest = max((abs(row["weight"]) for row in terms), default=1.0) or 1.0
    st.html(
        "".join(
            f'<div class="vv-term"><span>{escape(row["term"])}</span><div><div class="vv-push" style="width:'
            f"{max(2.0, 100 * abs(row['weight']) / strongest):.0f}%; background:rgb(var(--vv-"
            f'{"for" if row["weight"] >= 0 else "against"}) / .7)"></div></div><span>{row["weight"]:+.2f}</span></div>'
            for row in terms
        )
    )


def _history() -> None:
    history = st.session_state.get("history") or []
    if not history:
        return
    st.divider()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader("This session", anchor=False)
        if st.button("Clear", icon=":material/delete:", type="tertiary"):
            st.session_state["history"] = []
            st.rerun()
    common.table(
        ("Country", "Sure", "Grape", "Note"),
        [
            (
                row["told"]["predicted_country"] or "no answer",
                panels.percent(row["told"]["confidence"]) if row["told"]["predicted_country"] else "–",
                row["variety"] or "–",
                row["note"] if len(row["note"]) <= 120 else row["note"][:117] + "…",
            )
            for row in history
        ],
    )
