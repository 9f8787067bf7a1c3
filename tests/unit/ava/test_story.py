"""End to end, with the real SDK: proposals, tasks, a scripted annotator, the webhook, quality control, the dataset."""

import csv
import io
import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.ava.proposals import read_pickle
from app.core.storage import FolderStorage

from .conftest import do_work, give_clips
from .cvat_stand_in import Annotator, Cvat


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(("proposals_10_clips.pkl", 10, 660)),
        pytest.param(("proposals_725_clips.pkl", 725, 31_482), marks=[pytest.mark.long, pytest.mark.timeout(3600)]),
    ],
)
def test_from_proposals_to_a_dataset(  # noqa: PLR0915 - one story, read from top to bottom
    case: tuple[str, int, int],
    cvat: Cvat,
    api: TestClient,
    reachable: str,
    storage: FolderStorage,
    tmp_path: Path,
    shared_data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, count, boxes = case
    settings = api.app.state.context.settings  # type: ignore[attr-defined]
    monkeypatch.setattr(settings, "webhook_url", f"{reachable}/webhooks/cvat")
    data = (shared_data / "ava" / source).read_bytes()
    clips = sorted(read_pickle(data))
    assert len(clips) == count
    give_clips(storage, tmp_path / "in", *clips)
    told = api.post("/proposals", content=data).json()
    assert (told["clips"], told["boxes"], told["dropped"], told["renumbered"]) == (count, boxes, 0, 0)

    # a name that another contains: users are found by their exact name
    cvat.add_users("ann", "anna", "bob", "carol")
    asked = {
        "project_name": "street",
        "annotators": ["ann", "bob", "carol"],
        "overlap_percentage": 40,
        "clips": clips,
        "seed": 4,
    }
    made = api.post("/projects", json=asked)
    assert made.status_code == 201, made.text
    plan = made.json()["plan"]
    overlap = count * 4 // 10
    assert plan["overlap_clips"] == overlap
    assert len(plan["assignments"]) == count + overlap
    assert api.post("/projects", json=asked).status_code == 200
    do_work(api)
    assert len(cvat.tasks) == count + overlap
    assert len(cvat.webhooks) == 1
    project = made.json()["project"]["id"]

    # no ghost boxes: what is seen in CVAT is what was proposed, clip by clip
    first = {}
    for one in plan["assignments"]:
        job = cvat.job_of(one["clip"], one["annotator"])
        first.setdefault(one["clip"], cvat.visible(job))
        assert cvat.visible(job) == first[one["clip"]]
    assert sum(first.values()) == boxes

    tasks = api.get(f"/quality-control/projects/{project}/tasks", params={"page_size": 5000}).json()["tasks"]
    assert {task["status"] for task in tasks} == {"ready"}
    options = {one["name"]: one["options"] for one in api.get("/attributes").json()["attributes"]}
    for one in plan["assignments"]:
        job = cvat.job_of(one["clip"], one["annotator"])
        cvat.begin(job, seconds=60)
        cvat.annotate(job, Annotator(options, one["clip"], careless=0.05 if one["role"] == "overlap" else 0.0))
        cvat.complete(job, seconds=600)
    assert set(cvat.deliveries) == {200}
    do_work(api)
    tasks = api.get(f"/quality-control/projects/{project}/tasks", params={"page_size": 5000}).json()["tasks"]
    assert {task["status"] for task in tasks} == {"retrieved"}
    assert sum(task["boxes"] for task in tasks if task["role"] == "primary") == boxes

    found = api.post(f"/quality-control/projects/{project}/run-iaa-check").json()
    assert found["pairs"] == overlap
    pairs: dict[str, list[int]] = {}
    for task in tasks:
        if task["overlap_group"]:
            pairs.setdefault(task["clip"], []).append(task["id"])
    for ids in list(pairs.values())[:10]:
        checked = api.post("/quality-control/run-iaa-check", json={"task_ids": ids}).json()
        assert checked["average_iou"] > 0.7  # two pixels are much of a small box
        assert checked["compared_annotations"] > 0
    for between in found["annotators"]:
        assert between["average_iou"] > 0.9
        assert between["percent_iou_gte_05"] > 97
        assert 0.7 < between["macro_avg_kappa"] < 1
        assert between["warnings"] == []

    summary = api.get("/metrics/summary", params={"project_id": project}).json()
    assert summary["completed"] == count + overlap
    assert summary["finished"]
    assert summary["clips_per_annotator_hour"] == pytest.approx(6, rel=0.01)  # ten minutes each
    assert summary["queue_wait_seconds"] > 0

    assert api.post("/datasets", json={"project_id": project}).status_code == 400  # nothing is approved yet
    ids = [task["id"] for task in tasks]
    approved = api.post("/quality-control/update-task-status", json={"task_ids": ids, "new_status": "approved"}).json()
    assert approved["updated"] == count + overlap
    built = api.post("/datasets", json={"project_id": project}).json()
    manifest = built["manifest"]
    assert manifest["clips"] == count
    assert manifest["boxes"] == boxes
    rows = list(csv.reader(io.StringIO(api.get(f"/datasets/{built['id']}/files/annotations.csv").text)))
    assert len(rows) == manifest["rows"]
    assert {len(row) for row in rows} == {8}
    assert all(
        0 <= float(r[2]) < float(r[4]) <= 1
        and 0 <= float(r[3]) < float(r[5]) <= 1
        and 1 <= int(r[6]) <= 50
        and int(r[7]) >= 1
        for r in rows
    )
    per_box: dict[tuple[str, str, str], set[tuple[str, ...]]] = {}
    for row in rows:
        per_box.setdefault((row[0], row[1], row[7]), set()).add(tuple(row[2:6]))
    assert len(per_box) == boxes
    assert {len(texts) for texts in per_box.values()} == {1}  # the text of a box is the same in each of its rows
    assert manifest["rows"] + 1 * manifest["ties_for_review"] == boxes * 8
    assert json.loads(api.get(f"/datasets/{built['id']}/files/manifest.json").text) == manifest
    summary = api.get("/metrics/summary", params={"project_id": project}).json()
    assert summary["events"]["export_time"] == count + overlap
