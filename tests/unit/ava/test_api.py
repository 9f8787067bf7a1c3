"""Every route: what it promises, and what it says when it cannot."""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.ava import post_annotation_service
from app.ava.attributes import Profile
from app.ava.boxes import Box
from app.ava.cvat_xml import write
from app.core.storage import FolderStorage

from .conftest import SIZE, box, frame_zip, give_clips
from .cvat_stand_in import Cvat

CLIPS = [f"walk_clip_{number:03d}" for number in range(5)]
ASKED = {"project_name": "street", "annotators": ["ann", "bob"], "overlap_percentage": 40, "clips": CLIPS}


@pytest.fixture
def clips(api: TestClient, storage: FolderStorage, tmp_path: Path) -> None:
    give_clips(storage, tmp_path / "in", *CLIPS, frames=3)


@pytest.fixture
def project(api: TestClient, clips: None) -> int:
    return int(api.post("/projects", json=ASKED).json()["project"]["id"])


def tasks(api: TestClient, project: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get(f"/quality-control/projects/{project}/tasks").json()["tasks"]
    return found


def annotated(api: TestClient, project: int, profile: Profile) -> list[dict[str, Any]]:
    """Give every task its annotations, as the worker does; the second annotator is a little off."""
    for task in tasks(api, project):
        off = 3.0 if task["role"] == "overlap" else 0.0
        boxes = [
            box(track, frame, 400.0 * track + off, phone_usage=("texting", "no_phone")[track])
            for track in range(2)
            for frame in range(3)
        ]
        post_annotation_service.keep(task["id"], write(task["clip"], boxes, profile, frames=3, size=SIZE), 1.0)
    return tasks(api, project)


def test_the_plan_is_previewed_edited_stored_and_never_made_twice(api: TestClient, clips: None) -> None:
    plan = api.post("/projects/preview", json=ASKED).json()
    assert (plan["clips"], plan["overlap_clips"], len(plan["assignments"])) == (5, 2, 7)
    assert abs(plan["loads"][0]["total"] - plan["loads"][1]["total"]) <= 1
    assert api.get("/quality-control/projects").json() == {"projects": []}  # nothing is stored by looking
    edited = [{"clip": clip, "annotator": "ann", "role": "primary"} for clip in CLIPS] + [
        {"clip": CLIPS[0], "annotator": "bob", "role": "overlap"}
    ]
    first = api.post("/projects", json={**ASKED, "assignments": edited})
    assert (first.status_code, first.json()["created"]) == (201, True)
    again = api.post("/projects", json={**ASKED, "assignments": edited})
    assert (again.status_code, again.json()["created"]) == (200, False)
    assert again.json()["project"]["id"] == first.json()["project"]["id"]
    assert api.post("/projects", json=ASKED).status_code == 409
    assert (
        api.post("/projects", json={**ASKED, "org_slug": "acme"}).status_code == 201
    )  # another organisation, another project
    found = tasks(api, first.json()["project"]["id"])
    assert {(task["clip"], task["annotator"], task["role"]) for task in found} == {
        (one["clip"], one["annotator"], one["role"]) for one in edited
    }


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"annotators": ["ann"]}, 400, "needs a second annotator"),
        ({"overlap_percentage": 7}, 400, "steps of 5"),
        ({"overlap_percentage": 200}, 422, "overlap_percentage"),
        ({"annotators": []}, 422, "annotators"),
        ({"annotators": ["ann", "ann"]}, 400, "there twice"),
        ({"clips": ["nowhere_clip_000"], "overlap_percentage": 0}, 400, "upload nowhere_clip_000.zip first"),
        ({"clips": ["walk"]}, 400, "not the name of a clip"),
        ({"clips": []}, 400, "clips (their names) or s3_keys"),
        ({"s3_keys": ["a/x_clip_000.zip"]}, 400, "clips (their names) or s3_keys"),
        ({"project_name": ""}, 422, "project_name"),
        ({"colour": "red"}, 422, "colour"),
        ({"annotators_per_clip": 3}, 400, "choose 2 to 2"),
    ],
)
def test_a_project_that_cannot_be_is_refused_and_nothing_is_stored(
    api: TestClient, clips: None, changes: dict[str, Any], status: int, said: str
) -> None:
    answer = api.post("/projects", json={**ASKED, **changes})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert said in answer.json()["detail"]
    assert api.get("/quality-control/projects").json() == {"projects": []}


def test_clips_may_be_named_by_their_keys(api: TestClient, storage: FolderStorage, tmp_path: Path, cvat: Cvat) -> None:
    storage.adopt("batch/7/run_clip_000.zip", frame_zip(tmp_path / "run_clip_000.zip", "run_clip_000", 4))
    asked = {
        "project_name": "keys",
        "annotators": ["ann"],
        "overlap_percentage": 0,
        "s3_keys": ["batch/7/run_clip_000.zip"],
    }
    assert api.post("/projects", json=asked).status_code == 201
    missing = api.post("/projects", json={**asked, "project_name": "x", "s3_keys": ["batch/7/other_clip_000.zip"]})
    assert "has no 'batch/7/other_clip_000.zip'" in missing.json()["detail"]
    assert (
        api.post("/projects", json={**asked, "project_name": "x", "s3_keys": ["../../etc/x_clip_000.zip"]}).status_code
        == 400
    )
    assert api.get("/clips").json()["clips"][0]["name"] == "run_clip_000"


def test_an_annotator_that_cvat_does_not_have_is_said_at_once(
    cvat: Cvat, make_api: Any, storage: FolderStorage, tmp_path: Path
) -> None:
    from .conftest import logged_in

    api = logged_in(make_api())
    give_clips(storage, tmp_path / "in", *CLIPS, frames=3)
    cvat.add_users("ann", "bobby")
    answer = api.post("/projects", json=ASKED)
    assert (answer.status_code, answer.json()["detail"].startswith("CVAT has no user 'bob'")) == (400, True)
    cvat.add_users("bob")
    assert api.post("/projects", json=ASKED).status_code == 201


def test_comparing_two_tasks(api: TestClient, project: int, profile: Profile) -> None:
    pair = [task["id"] for task in tasks(api, project) if task["overlap_group"] == 1]
    assert len(pair) == 2
    answer = api.post("/quality-control/run-iaa-check", json={"task_ids": pair})
    assert (answer.status_code, "no annotations yet" in answer.json()["detail"]) == (404, True)
    annotated(api, project, profile)
    told = api.post("/quality-control/run-iaa-check", json={"task_ids": pair}).json()
    assert told["average_iou"] == pytest.approx(97 / 103)
    assert told["percent_iou_gte_05"] == 100
    assert told["kappa_scores"]["phone_usage"] == pytest.approx(1)
    assert told["kappa_scores"]["time_context"] is None
    assert told["macro_avg_kappa"] == pytest.approx(1)
    assert told["compared_annotations"] == 6
    assert sorted(told["flip_rates"]) == ["ann", "bob"]
    assert told["flip_rates"]["ann"] == 0
    assert told["warnings"] == []
    assert len(told["worst_frames"]) == 6
    pairs = api.get(f"/quality-control/projects/{project}/tasks").json()["pairs"]
    assert (pairs[0]["task_ids"], pairs[0]["fresh"]) == (pair, True)
    post_annotation_service.keep(pair[0], write(CLIPS[0], [], profile, frames=3, size=SIZE), 2.0)
    assert not api.get(f"/quality-control/projects/{project}/tasks").json()["pairs"][0]["fresh"]
    post_annotation_service.keep(pair[1], write(CLIPS[0], [], profile, frames=3, size=SIZE), 2.0)
    assert api.post("/quality-control/run-iaa-check", json={"task_ids": pair}).status_code == 404  # two empty jobs


@pytest.mark.parametrize(
    ("ids", "status"),
    [([], 400), ([1], 400), ([1, 1], 400), ([1, 2, 3], 400), ([1, 10**6], 404), ([0, 1], 422), (["x", 1], 422)],
)
def test_comparing_needs_two_tasks_of_one_clip(api: TestClient, project: int, ids: list[Any], status: int) -> None:
    assert api.post("/quality-control/run-iaa-check", json={"task_ids": ids}).status_code == status


def test_tasks_of_two_clips_are_not_compared(api: TestClient, project: int, profile: Profile) -> None:
    found = annotated(api, project, profile)
    ids = [next(task["id"] for task in found if task["clip"] == clip) for clip in CLIPS[:2]]
    assert (
        "compare tasks of one clip"
        in api.post("/quality-control/run-iaa-check", json={"task_ids": ids}).json()["detail"]
    )


def test_comparing_a_whole_project(api: TestClient, project: int, profile: Profile) -> None:
    assert api.post(f"/quality-control/projects/{project}/run-iaa-check").status_code == 404
    annotated(api, project, profile)
    told = api.post(f"/quality-control/projects/{project}/run-iaa-check").json()
    assert (told["pairs"], told["clips"], told["clips_without_boxes"]) == (2, 2, [])
    assert told["annotators"][0]["annotators"] == ["ann", "bob"]
    assert told["annotators"][0]["clips"] == 2
    assert told["alphas"]["phone_usage"] == pytest.approx(1)
    assert told["alphas"]["time_context"] is None
    assert api.post("/quality-control/projects/99/run-iaa-check").status_code == 404


def test_approving_rejecting_and_clearing_is_for_all_or_none(api: TestClient, project: int, profile: Profile) -> None:
    ids = [task["id"] for task in tasks(api, project)]

    def put(status: str, chosen: list[int]) -> int:
        return int(
            api.post("/quality-control/update-task-status", json={"task_ids": chosen, "new_status": status}).status_code
        )

    assert put("approved", ids) == 400  # nothing is annotated yet
    annotated(api, project, profile)
    assert put("approved", [*ids, 10**6]) == 404
    assert {task["qc_status"] for task in tasks(api, project)} == {"pending"}
    assert put("approved", [*ids, ids[0]]) == 200
    assert put("rejected", ids[:2]) == 200
    assert put("pending", ids[:1]) == 200
    assert put("maybe", ids) == 422
    assert [task["qc_status"] for task in sorted(tasks(api, project), key=lambda task: task["id"])] == [
        "pending",
        "rejected",
        *["approved"] * 5,
    ]
    found = api.get(
        f"/quality-control/projects/{project}/tasks", params={"qc_status": "rejected", "page_size": 1}
    ).json()
    assert (found["total"], len(found["tasks"])) == (1, 1)
    row = api.get("/quality-control/projects").json()["projects"][0]
    assert (row["approved"], row["rejected"], row["retrieved"]) == (5, 1, 7)


def test_only_what_was_approved_is_in_the_dataset(api: TestClient, project: int, profile: Profile) -> None:
    found = annotated(api, project, profile)
    assert api.post("/datasets", json={"project_id": project}).status_code == 400
    chosen = [task for task in found if task["role"] == "primary"][:3]
    api.post(
        "/quality-control/update-task-status",
        json={"task_ids": [task["id"] for task in chosen], "new_status": "approved"},
    )
    made = api.post(
        "/datasets", json={"project_id": project, "excluded_timestamps": [{"video_id": "walk", "timestamp": 0}]}
    )
    assert made.status_code == 201
    manifest = made.json()["manifest"]
    assert manifest["clips"] == 3
    assert manifest["left_out"]["excluded_timestamps"] == 2
    identity = made.json()["id"]
    for name, told in manifest["files"].items():
        answer = api.get(f"/datasets/{identity}/files/{name}")
        assert len(answer.content) == told["bytes"]
        assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
    assert api.get("/datasets", params={"project_id": project}).json()["datasets"][0] == made.json()
    assert api.get(f"/datasets/{identity}").json() == made.json()
    for path in (f"/datasets/{'0' * 32}", f"/datasets/{identity}/files/none.csv"):
        assert api.get(path).status_code == 404
    assert api.get(f"/datasets/{identity}/files/..%2f..%2fava.db").status_code in {404, 422}
    assert api.post("/datasets", json={"project_id": 99}).status_code == 404


def test_proposals_of_clips_that_are_here(api: TestClient, clips: None) -> None:
    table = [[10.0, 10, 60, 90, 0.9, 1], [-4, 10, 60, 90, 0.9, 2]]
    data = pickle.dumps(
        {CLIPS[0]: {f"{CLIPS[0]}_frame_0001.jpg": table}, "other_clip_000": {"other_clip_000_frame_0000.jpg": table}}
    )
    told = api.post("/proposals", content=data).json()
    assert told == {"clips": 1, "boxes": 2, "clipped": 1, "dropped": 0, "renumbered": 0, "skipped_clips": 1}
    assert api.get("/clips", params={"q": CLIPS[0]}).json()["clips"][0]["boxes"] == 2
    late = pickle.dumps({CLIPS[0]: {f"{CLIPS[0]}_frame_0009.jpg": table}})
    answer = api.post("/proposals", content=late)
    assert "frame 9, but the clip has 3" in answer.json()["detail"]
    assert api.get("/clips", params={"q": CLIPS[0]}).json()["clips"][0]["boxes"] == 2  # what was there stays
    assert "could run code" in api.post("/proposals", content=b"cos\nsystem\n(S'id'\ntR.").json()["detail"]


def test_frames_and_clips(api: TestClient, clips: None) -> None:
    answer = api.get(f"/clips/{CLIPS[0]}/frames/2")
    assert (answer.headers["content-type"], answer.content[:3]) == ("image/jpeg", b"\xff\xd8\xff")
    assert api.get(f"/clips/{CLIPS[0]}/frames/3").status_code == 404
    assert api.get("/clips/none_clip_000/frames/0").status_code == 404
    page = api.get("/clips", params={"page": 2, "page_size": 2}).json()
    assert ([one["name"] for one in page["clips"]], page["total"]) == (CLIPS[2:4], 5)
    assert api.get("/clips", params={"q": "_"}).json()["total"] == 5
    assert api.get("/clips", params={"q": "%"}).json()["total"] == 0


def test_attributes_follow_the_file(make_api: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from .conftest import logged_in

    path = tmp_path / "attributes.json"
    path.write_text(json.dumps({"ppe_helmet": {"options": ["unknown", "on", "off"]}}))
    monkeypatch.setenv("AVA_ATTRIBUTES", str(path))
    told = logged_in(make_api()).get("/attributes").json()
    assert told["actions"] == [
        {"id": 1, "name": "on", "attribute": "ppe_helmet"},
        {"id": 2, "name": "off", "attribute": "ppe_helmet"},
    ]


def test_every_route_but_the_webhook_needs_a_login(api: TestClient) -> None:
    api.headers.pop("Authorization")
    paths = api.get("/openapi.json").json()["paths"]
    asked = 0
    for path, methods in paths.items():
        if path.startswith(("/health", "/auth", "/webhooks")):
            continue
        for method in methods:
            answer = api.request(method, re.sub(r"\{\w+\}", "1", path))
            assert answer.status_code == 401, (method, path)
            asked += 1
    assert asked >= 24


def test_ready_says_what_it_has(api: TestClient) -> None:
    assert api.get("/health/ready").json()["checks"] == {"actions": 50, "cvat": False}
    assert api.get("/metrics/summary", params={"project_id": 5}).status_code == 404


def test_three_annotators_of_a_clip(api: TestClient, clips: None, profile: Profile) -> None:
    asked = {**ASKED, "annotators": ["ann", "bob", "carol"], "overlap_percentage": 100, "annotators_per_clip": 3}
    project = int(api.post("/projects", json=asked).json()["project"]["id"])
    for task in tasks(api, project):
        word = "texting" if task["annotator"] != "carol" else "no_phone"
        boxes: list[Box] = [box(0, frame, phone_usage=word) for frame in range(3)]
        post_annotation_service.keep(task["id"], write(task["clip"], boxes, profile, frames=3, size=SIZE), 1.0)
    told = api.post(f"/quality-control/projects/{project}/run-iaa-check").json()
    assert (told["pairs"], len(told["annotators"])) == (15, 3)
    assert told["alphas"]["phone_usage"] < 0.4
    ids = [task["id"] for task in tasks(api, project)]
    api.post("/quality-control/update-task-status", json={"task_ids": ids, "new_status": "approved"})
    manifest = api.post("/datasets", json={"project_id": project}).json()["manifest"]
    assert (manifest["rows"], manifest["ties_for_review"]) == (15, 0)
    assert [row["name"] for row in manifest["classes"] if row["rows"]] == ["texting"]  # two of three
