"""Quality Control: who agrees with whom, what to look at, and what is good enough for the dataset."""

from typing import Any, Final

import streamlit as st

from app.ava.screens import common, figures
from app.core import asking, panels
from app.core.client import ApiError

SIZE: Final = 100
STATUSES: Final = ("all", "pending", "approved", "rejected")
FILES: Final = (
    "annotations.csv",
    "train.csv",
    "val.csv",
    "actions.pbtxt",
    "dense_proposals.pkl",
    "review.csv",
    "manifest.json",
)


def page() -> None:
    """The page."""
    common.heading("Quality Control", "Compare annotators, look at the worst frames, approve, and make the dataset.")
    with asking.problems_shown():
        project = common.choose_project()
    if project is None:
        return
    columns = st.columns(4)
    for column, (label, key) in zip(
        columns,
        (("Tasks", "tasks"), ("Annotated", "retrieved"), ("Approved", "approved"), ("Rejected", "rejected")),
        strict=True,
    ):
        column.metric(label, f"{project[key]:,}", border=True)
    if not project["retrieved"]:
        panels.empty(
            "Nothing was annotated yet. When an annotator completes a job in CVAT it appears here by itself.",
            "hourglass_empty",
        )
        return
    compare, decide, export = st.tabs(["Compare", "Decide", "Dataset"])
    with compare:
        _compare(project)
    with decide:
        _decide(project)
    with export:
        _export(project)


def _compare(project: dict[str, Any]) -> None:
    with asking.problems_shown():
        told = asking.get(f"/quality-control/projects/{project['id']}/tasks", only="overlap", page_size=5000)
    pairs = _pairs(told["tasks"])
    if not pairs:
        panels.empty("No clip has annotations of two people yet, so there is nothing to compare.", "compare")
        return
    if st.button(f"Compare all {len(pairs)} pairs", icon=":material/groups:", type="primary"):
        try:
            with st.spinner("Comparing…"):
                st.session_state["whole"] = asking.ask(
                    "POST", f"/quality-control/projects/{project['id']}/run-iaa-check", timeout=300
                ).json()
            asking.forget()
        except ApiError as error:
            asking.show_problem(error)
    whole = st.session_state.get("whole")
    if whole and whole["project_id"] == project["id"]:
        _whole(whole)
    done = {tuple(row["task_ids"]): row for row in told["pairs"]}
    st.subheader("One clip", anchor=False)
    chosen = st.selectbox(
        "Two annotators of a clip", list(pairs), format_func=lambda pair: _pair_name(pairs[pair], done.get(pair))
    )
    if st.button("Compare these two", icon=":material/compare:"):
        try:
            st.session_state["check"] = asking.ask(
                "POST", "/quality-control/run-iaa-check", json={"task_ids": list(chosen)}
            ).json()
            asking.forget()
        except ApiError as error:
            asking.show_problem(error)
    found = st.session_state.get("check")
    if found and tuple(found["task_ids"]) == chosen:
        _found(found)


def _pairs(tasks: list[dict[str, Any]]) -> dict[tuple[int, int], tuple[dict[str, Any], dict[str, Any]]]:
    by_clip: dict[str, list[dict[str, Any]]] = {}
    for task in tasks:
        if task["retrieved_at"] is not None:
            by_clip.setdefault(task["clip"], []).append(task)
    return {
        (first["id"], second["id"]): (first, second)
        for its in by_clip.values()
        for number, first in enumerate(its)
        for second in its[number + 1 :]
    }


def _pair_name(pair: tuple[dict[str, Any], dict[str, Any]], done: dict[str, Any] | None) -> str:
    first, second = pair
    words = f"{first['clip']}: {first['annotator']} and {second['annotator']}"
    return (
        words
        if done is None
        else f"{words} · IoU {common.number(done['average_iou'])}, kappa {common.number(done['macro_avg_kappa'])}"
    )


def _whole(told: dict[str, Any]) -> None:
    rows = [
        {
            "annotators": " and ".join(row["annotators"]),
            "clips": row["clips"],
            "mean IoU": common.number(row["average_iou"]),
            "share ≥ 0.5": common.number(row["percent_iou_gte_05"], ".0f"),
            "F1": common.number(row["f1"]),
            "tube IoU": common.number(row["tube_iou"]),
            "mean kappa": common.number(row["macro_avg_kappa"]),
            "": row["band"],
        }
        for row in told["annotators"]
    ]
    st.dataframe(rows, hide_index=True)
    st.download_button("Table as CSV", common.as_csv(rows), "agreement.csv", "text/csv", icon=":material/download:")
    flips = ", ".join(f"{common.plain(name)} {common.number(rate, '.1%')}" for name, rate in told["flip_rates"].items())
    st.markdown(
        f"Krippendorff's alpha over all: **{common.number(told['alpha_mean'])}**. Flips from second to second: {flips}."
    )
    for row in told["annotators"]:
        for warning in row["warnings"]:
            st.warning(
                f"{' and '.join(map(common.plain, row['annotators']))}: {common.plain(warning)}",
                icon=":material/warning:",
            )


def _found(found: dict[str, Any]) -> None:
    for warning in found["warnings"]:
        st.warning(common.plain(warning), icon=":material/warning:")
    columns = st.columns(4)
    columns[0].metric("Mean IoU", common.number(found["average_iou"]), border=True)
    columns[1].metric("Overlap by half", f"{common.number(found['percent_iou_gte_05'], '.0f')} %", border=True)
    columns[2].metric("F1", common.number(found["f1"]), border=True)
    columns[3].metric("Mean kappa", common.number(found["macro_avg_kappa"]), border=True)
    st.badge(found["band"], color=common.COLOURS[found["band"]])
    drawn = [
        f"{count} boxes of {common.plain(name)}"
        for count, name in zip(found["boxes"], found["annotators"], strict=True)
    ]
    flips = [f"{common.plain(name)} flips {common.number(rate, '.1%')}" for name, rate in found["flip_rates"].items()]
    places = ", ".join(
        f"{word} {common.number(found[key])}"
        for word, key in (("precision", "precision"), ("recall", "recall"), ("tube IoU", "tube_iou"))
    )
    st.caption(f"{', '.join(drawn)}, {found['compared_annotations']} in common; {places}; {', '.join(flips)}.")
    if any(row["value"] is not None for row in found["kappa_details"].values()):
        common.plot(figures.kappas(found["kappa_details"]), "kappas")
    st.dataframe(
        [
            {
                "attribute": name,
                "kappa": common.number(row["value"]),
                "interval": common.NA if row["low"] is None else f"{row['low']:.2f} to {row['high']:.2f}",
                "boxes": row["support"],
                "labelled": row["labelled"],
                "": row["band"],
            }
            for name, row in found["kappa_details"].items()
        ],
        hide_index=True,
    )
    _worst(found)


def _worst(found: dict[str, Any]) -> None:
    st.subheader("The worst frames", anchor=False)
    if not found["worst_frames"]:
        st.markdown("All boxes are the same.")
        return
    with asking.problems_shown():
        clip = next(
            (one for one in asking.get("/clips", q=found["clip"])["clips"] if one["name"] == found["clip"]), None
        )
    if clip is None:
        return
    for start in range(0, min(len(found["worst_frames"]), 6), 2):
        for column, place in zip(st.columns(2), range(start, start + 2), strict=True):
            if place >= len(found["worst_frames"]):
                continue
            one = found["worst_frames"][place]
            with column:
                st.markdown(f"Frame {one['frame']}, IoU **{one['iou']:.2f}**")
                boxes = [
                    (name, one[key], colour)
                    for name, key, colour in zip(
                        found["annotators"], ("first", "second"), (figures.FIRST, figures.SECOND), strict=True
                    )
                ]
                common.plot(
                    figures.frame(_picture(found["clip"], one["frame"]), (clip["width"], clip["height"]), boxes),
                    f"worst-{place}",
                )


def _picture(clip: str, frame: int) -> bytes | None:
    try:
        return asking.content(f"/clips/{clip}/frames/{frame}")
    except ApiError:
        return None  # the boxes say enough


def _decide(project: dict[str, Any]) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        status = st.selectbox("Quality", STATUSES, key="decide-status", width=160)
        number = int(st.number_input("Page", 1, max(1, -(-project["tasks"] // SIZE)), key="decide-page", width=120))
    with asking.problems_shown():
        told = asking.get(
            f"/quality-control/projects/{project['id']}/tasks",
            qc_status=None if status == "all" else status,
            page=number,
            page_size=SIZE,
        )
    rows = [
        {
            "task": row["id"],
            "clip": row["clip"],
            "annotator": row["annotator"],
            "role": row["role"],
            "status": row["status"].replace("_", " "),
            "quality": row["qc_status"],
            "boxes": row["boxes"],
            "annotated": common.when(row["retrieved_at"]),
        }
        for row in told["tasks"]
    ]
    if not rows:
        panels.empty("No task is like this.", "filter_alt_off")
        return
    st.caption(f"{told['total']:,} tasks. Choose rows, then decide; the box in the head chooses all of this page.")
    event = st.dataframe(
        rows, hide_index=True, on_select="rerun", selection_mode="multi-row", key="decide-table", height=380
    )
    chosen = [rows[row]["task"] for row in event["selection"]["rows"] if row < len(rows)]
    with st.container(horizontal=True):
        for label, word, icon in (
            ("Approve", "approved", "check"),
            ("Reject", "rejected", "block"),
            ("Clear", "pending", "undo"),
        ):
            if st.button(
                f"{label} {len(chosen)}" if chosen else label,
                icon=f":material/{icon}:",
                disabled=not chosen,
                key=f"decide-{word}",
            ):
                _put(chosen, word)
        st.download_button("Tasks as CSV", common.as_csv(rows), "tasks.csv", "text/csv", icon=":material/download:")


def _put(chosen: list[int], word: str) -> None:
    try:
        told = asking.ask(
            "POST", "/quality-control/update-task-status", json={"task_ids": chosen, "new_status": word}
        ).json()
    except ApiError as error:
        st.error(str(error), icon=":material/error:")
        return
    asking.forget()
    st.toast(f"{told['updated']} tasks are {word}.", icon=":material/check:")
    st.rerun()


def _export(project: dict[str, Any]) -> None:
    if not project["approved"]:
        panels.empty("Nothing is approved yet. Approve tasks under Decide; the dataset is made of them.", "inventory_2")
    else:
        with st.form("dataset", border=True):
            share = st.slider("Videos for validation", 0, 100, 20, 5, format="%d %%", key="dataset-share")
            by = st.radio(
                "The first column names",
                ["video", "clip"],
                horizontal=True,
                key="dataset-by",
                help="The video and its second, or the clip and its second.",
            )
            if st.form_submit_button(
                f"Make the dataset of {project['approved']} tasks", icon=":material/dataset:", type="primary"
            ):
                try:
                    with st.spinner("Merging and writing…"):
                        asking.ask(
                            "POST",
                            "/datasets",
                            json={"project_id": project["id"], "val_share": share / 100, "video_ids": by},
                            timeout=300,
                        )
                    asking.forget()
                except ApiError as error:
                    st.error(str(error), icon=":material/error:")
    with asking.problems_shown():
        made = asking.get("/datasets", project_id=project["id"])["datasets"]
    for place, one in enumerate(made[:5]):
        manifest = one["manifest"]
        with st.container(border=True):
            st.markdown(
                f"**{common.when(one['created_at'])}** · {manifest['clips']} clips, {manifest['boxes']:,} boxes, "
                f"{manifest['rows']:,} rows, "
                f"{manifest['ties_for_review']} ties for review"
            )
            if place == 0:
                _downloads(one)


def _downloads(one: dict[str, Any]) -> None:
    with st.container(horizontal=True):
        for name in FILES:
            try:
                data = asking.content(f"/datasets/{one['id']}/files/{name}")
            except ApiError:
                continue
            st.download_button(name, data, name, key=f"file-{name}", icon=":material/download:")
    classes = [row for row in one["manifest"]["classes"] if row["rows"]]
    if classes:
        st.dataframe(
            [
                {"id": row["id"], "action": row["name"], "attribute": row["attribute"], "rows": row["rows"]}
                for row in classes
            ],
            hide_index=True,
            height=240,
        )
