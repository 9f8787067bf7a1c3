"""Task Creation: clips and proposals come in, a plan is made, looked at, edited, and kept."""

from typing import Any, Final

import streamlit as st

from app.ava.assignment_generator import names
from app.ava.screens import common, figures
from app.core import asking, panels
from app.core.client import ApiError
from app.core.settings import get_settings

SMALL_MB: Final = 200  # a screen holds what is chosen here in memory; larger files have a page of their own
LISTED: Final = 1000
COLUMNS: Final = ("clip", "annotator", "role")


def page() -> None:
    """The page."""
    common.heading("Task Creation", "From clips and proposals to tasks in CVAT: upload, plan, look, edit, create.")
    with asking.problems_shown():
        clips = asking.get("/clips", page_size=LISTED)
    columns = st.columns(3)
    columns[0].metric("Clips", f"{clips['total']:,}", border=True)
    columns[1].metric("With proposals", f"{sum(one['has_proposals'] for one in clips['clips']):,}", border=True)
    columns[2].metric("Proposed boxes", f"{sum(one['boxes'] for one in clips['clips']):,}", border=True)
    _upload(empty=not clips["total"])
    if not clips["total"]:
        panels.empty("No clips yet. Upload archives of frames, or a video, and plan with them here.", "movie")
        return
    _plan(clips)
    _review()


def _upload(*, empty: bool) -> None:
    with st.expander("Upload clips and proposals", icon=":material/upload:", expanded=empty):
        address = f"{get_settings().api_prefix or get_settings().api_url}/uploads/page"
        st.markdown(
            f"Clips of up to {SMALL_MB} MB in all may be chosen here. Larger archives and videos are sent in parts by "
            f"[the page for large files]({address})."
        )
        files = st.file_uploader(
            "Clips: archives of frames, or videos",
            ["zip", "mp4", "mov", "avi", "mkv", "webm"],
            accept_multiple_files=True,
            max_upload_size=SMALL_MB,
            key="clips-files",
        )
        if files and st.button(f"Send {len(files)} files", icon=":material/upload:"):
            _send(files)
        pickle = st.file_uploader(
            "Proposals: a pickle of boxes", ["pkl", "pickle"], max_upload_size=SMALL_MB, key="proposals-file"
        )
        if pickle is not None and st.button("Read the proposals", icon=":material/crop_free:"):
            _proposals(pickle.getvalue())
        _uploads()


def _send(files: list[Any]) -> None:
    bar = st.progress(0.0)
    for count, file in enumerate(files, 1):
        try:
            asking.ask("POST", "/uploads/file", params={"filename": file.name}, content=file.getvalue(), timeout=600)
        except ApiError as error:
            st.error(f"{common.plain(file.name)}: {error}", icon=":material/error:")
        bar.progress(count / len(files), f"{count} of {len(files)}")
    asking.forget()
    st.toast("Sent. The clips are being looked at.", icon=":material/check:")


def _proposals(data: bytes) -> None:
    try:
        told = asking.ask("POST", "/proposals", content=data, timeout=300).json()
    except ApiError as error:
        asking.show_problem(error)
        return
    asking.forget()
    st.success(
        f"{told['boxes']:,} boxes of {told['clips']} clips. {told['clipped']} were clipped to the picture, {told['dropped']} outside "
        f"of it and left out, {told['renumbered']} twice in a frame; {told['skipped_clips']} clips have no frames here.",
        icon=":material/check:",
    )


@st.fragment(run_every="5s")
def _uploads() -> None:
    # a fragment: it looks again by itself, and a form in progress keeps what was typed
    try:
        rows = asking.ask("GET", "/uploads", params={"limit": 8}).json()["uploads"]
    except ApiError as error:
        panels.problem(error)
        return
    if not rows:
        return
    st.caption("Latest uploads")
    words = {"open": "being sent", "received": "being looked at", "ready": "ready", "failed": "failed"}
    st.dataframe(
        [
            {
                "file": row["filename"],
                "MB": round(row["size_bytes"] / 1e6, 1),
                "state": words[row["state"]],
                "clips": len(row["clips"]) + len(row["known"]),
                "what is wrong": row["error"] or "",
                "when": common.when(row["created_at"]),
            }
            for row in rows
        ],
        hide_index=True,
    )


def _plan(clips: dict[str, Any]) -> None:
    st.subheader("New project", anchor=False)
    all_names = [one["name"] for one in clips["clips"]]
    with st.form("new-project", border=True):
        left, right = st.columns(2, gap="large")
        name = left.text_input("Project name", max_chars=120, key="project-name", placeholder="street, first round")
        people = left.text_area(
            "Annotators, one a line",
            key="project-people",
            height=140,
            placeholder="anna\nben",
            help="Their user names in CVAT, to the letter.",
        )
        org = left.text_input("Organisation in CVAT", key="project-org", placeholder="none: your own workspace")
        overlap = right.slider(
            "Overlap",
            0,
            100,
            20,
            5,
            format="%d %%",
            key="project-overlap",
            help="Share of the clips that several annotate.",
        )
        several = right.number_input("Annotators of an overlap clip", 2, 20, 2, key="project-several")
        seed = right.number_input(
            "Seed", 0, 2**31 - 1, 0, key="project-seed", help="The same seed makes the same plan."
        )
        part = right.multiselect("Clips", all_names, key="project-clips", placeholder=f"all {clips['total']:,}")
        sent = st.form_submit_button("Preview the plan", icon=":material/preview:", type="primary")
    if not sent:
        return
    asked = {
        "project_name": name,
        "annotators": names(people),
        "overlap_percentage": overlap,
        "clips": part or _all_names(clips),
        "org_slug": org or None,
        "annotators_per_clip": several,
        "seed": seed,
    }
    st.session_state.pop("plan", None)
    missing = [
        what
        for what, given in (("a project name", name.strip()), ("at least one annotator", asked["annotators"]))
        if not given
    ]
    if missing:
        st.warning(f"Give {' and '.join(missing)}.", icon=":material/edit:")
        return
    try:
        st.session_state["plan"] = {"asked": asked, "plan": asking.ask("POST", "/projects/preview", json=asked).json()}
    except ApiError as error:
        st.error(str(error), icon=":material/error:")


def _all_names(clips: dict[str, Any]) -> list[str]:
    found = [one["name"] for one in clips["clips"]]
    number = 1
    while len(found) < clips["total"]:
        number += 1
        more = asking.get("/clips", page_size=LISTED, page=number)["clips"]
        if not more:
            break
        found += [one["name"] for one in more]
    return found


def _review() -> None:
    kept = st.session_state.get("plan")
    if kept is None:
        return
    asked, plan = kept["asked"], kept["plan"]
    st.subheader("The plan", anchor=False)
    st.markdown(
        f"**{len(plan['assignments'])} tasks** of {plan['clips']} clips, {plan['overlap_clips']} of them for several annotators. "
        "Change what you like, then create."
    )
    left, right = st.columns([3, 2], gap="large")
    with left:
        edited = st.data_editor(
            [{key: one[key] for key in COLUMNS} for one in plan["assignments"]],
            key="plan-table",
            hide_index=True,
            num_rows="dynamic",
            height=320,
            column_config={
                "clip": st.column_config.SelectboxColumn(options=asked["clips"], required=True),
                "annotator": st.column_config.SelectboxColumn(options=asked["annotators"], required=True),
                "role": st.column_config.SelectboxColumn(options=["primary", "overlap"], required=True),
            },
        )
    with right:
        common.plot(figures.loads(plan["loads"]), "plan-loads")
    rows = [{key: row[key] for key in COLUMNS} for row in edited]
    with st.container(horizontal=True):
        create = st.button("Create the project", icon=":material/rocket_launch:", type="primary")
        st.download_button("Plan as CSV", common.as_csv(rows), "plan.csv", "text/csv", icon=":material/download:")
        if st.button("Discard", icon=":material/close:"):
            st.session_state.pop("plan")
            st.rerun()
    if create:
        _create({**asked, "assignments": rows})


def _create(asked: dict[str, Any]) -> None:
    try:
        with st.spinner("Storing the plan…"):
            told = asking.ask("POST", "/projects", json=asked).json()
    except ApiError as error:
        st.error(str(error), icon=":material/error:")
        return
    asking.forget()
    st.session_state["project"] = told["project"]["id"]
    st.session_state.pop("plan")
    word = (
        "was stored; its tasks are being put into CVAT"
        if told["created"]
        else "is there already; nothing was made twice"
    )
    st.success(
        f"The project {common.plain(told['project']['name'])} {word}. Watch it under Progress.", icon=":material/check:"
    )
