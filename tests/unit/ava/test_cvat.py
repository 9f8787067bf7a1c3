"""CVAT through its own SDK: found before it is made, nothing twice, and clear words when it fails."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from app.ava import cvat_integration, post_annotation_service
from app.ava.attributes import Profile
from app.ava.cvat_integration import Cvat as Session
from app.ava.cvat_integration import CvatError, connect, is_signed, signature
from app.ava.cvat_xml import XmlError, read, write
from app.ava.settings import AvaSettings
from app.ava.tables import Annotation, Event, Project, Task
from app.core import database
from app.core.settings import get_settings
from app.core.storage import FolderStorage

from .conftest import SIZE, WEBHOOK_SECRET, box, do_work, frame_zip, give_clips
from .cvat_stand_in import Cvat, Trouble

CLIPS = ("a_clip_000", "a_clip_001")


def settings(**changes: Any) -> AvaSettings:
    return get_settings(AvaSettings).model_copy(update=changes)


@pytest.fixture
def session(cvat: Cvat) -> Iterator[Session]:
    with connect(settings()) as made:
        yield made


def test_users_are_found_by_their_exact_name_over_all_pages(cvat: Cvat, session: Session) -> None:
    cvat.add_users(*(f"annotator{number:02d}" for number in range(35)), "ann", "joanna")
    assert session.user_id("ann", "") == cvat.users["ann"]
    assert session.check_users(["annotator34", "annotator", "joanna"], "") == ["annotator"]
    with pytest.raises(CvatError, match="no user 'annotator'") as told:
        session.user_id("annotator", "")
    assert not told.value.again
    assert cvat.called(r"GET /api/users\?.*page=4") >= 1


def test_everything_is_found_before_it_is_made(cvat: Cvat, session: Session, profile: Profile, tmp_path: Path) -> None:
    cvat.add_users("ann")
    archive = frame_zip(tmp_path / "a_clip_000.zip", "a_clip_000")
    xml = write("a_clip_000", [box(1, 0), box(1, 1)], profile, frames=15, size=SIZE)
    told = set()
    for _ in range(2):
        project = session.ensure_project("street", profile.cvat_labels(), "")
        hook = session.ensure_webhook(project, "https://ava.example/webhooks/cvat", "s", "")
        task = session.ensure_task(project, "a_clip_000 ann", "")
        session.upload_frames(task, archive)
        session.import_annotations(task, xml)
        job = session.assign(task, session.user_id("ann", ""))
        told.add((project, hook, task, job))
    assert len(told) == 1
    assert (len(cvat.projects), len(cvat.webhooks), len(cvat.tasks), len(cvat.jobs)) == (1, 1, 1, 1)
    assert cvat.called("PATCH /api/jobs") == 1
    assert cvat.called("POST /api/jobs[?]") == 0
    label = cvat.projects[project]["labels"][0]
    assert label["name"] == "person"
    assert {one["input_type"] for one in label["attributes"]} == {"select"}
    assert cvat.webhooks[hook]["events"] == ["update:job"]
    exported = read(session.export(job))
    assert [one.frame for one in exported.boxes] == [0, 1]
    assert session.job(job).state == "new"
    assert [one.id for one in session.jobs(project, "")] == [job]


def test_the_organisation_goes_into_the_query(cvat: Cvat, session: Session, profile: Profile) -> None:
    cvat.orgs.add("acme")
    cvat.add_users("ann")
    project = session.ensure_project("street", profile.cvat_labels(), "acme")
    session.ensure_task(project, "t", "acme")
    session.user_id("ann", "acme")
    session.jobs(project, "acme")
    for pattern in ("POST /api/projects", "GET /api/projects", "POST /api/tasks", "GET /api/users", "GET /api/jobs"):
        assert cvat.called(rf"{pattern}\?.*org=acme"), pattern
    with pytest.raises(CvatError, match="no organisation nowhere"):
        session.jobs(project, "nowhere")


def test_a_large_archive_goes_up_in_chunks_and_over_a_bad_line(
    cvat: Cvat, session: Session, profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cvat_sdk.core.uploading.TUS_CHUNK_SIZE", 20_000)
    monkeypatch.setattr(
        "cvat_sdk.core.uploading.DataUploader.__init__.__kwdefaults__", {"max_request_size": 1000}, raising=False
    )
    monkeypatch.setitem(
        __import__("cvat_sdk.core.uploading", fromlist=["x"]).DataUploader.__init__.__kwdefaults__,
        "max_request_size",
        1000,
    )
    archive = frame_zip(tmp_path / "a_clip_000.zip", "a_clip_000")
    task = session.ensure_task(session.ensure_project("street", profile.cvat_labels(), ""), "t", "")
    cvat.trouble.append(Trouble(r"PATCH /api/tasks/\d+/data/", status=503, times=2))
    session.upload_frames(task, archive)
    assert len(cvat.tasks[task].frames) == 15
    assert cvat.called(r"PATCH /api/tasks/\d+/data/") == -(-archive.stat().st_size // 20_000) + 2


@pytest.mark.parametrize(
    ("trouble", "changes", "said", "again"),
    [
        (Trouble("GET /api/users", status=503, times=9), {}, "too many 503 error responses", True),
        (Trouble("GET /api/users", status=500), {}, "500, trouble on demand", True),
        (Trouble("GET /api/users", status=403), {}, "check CVAT_USERNAME", False),
        (Trouble("GET /api/users", status=400), {}, "400", False),
        (Trouble("GET /api/users", seconds=2, times=9), {"cvat_seconds": 0.2}, "does not answer", True),
    ],
)
def test_failures_are_said_and_whether_to_try_again(
    cvat: Cvat, trouble: Trouble, changes: dict[str, Any], said: str, again: bool
) -> None:
    before = cvat_integration.failures._value.get()
    with connect(settings(**changes)) as session:
        cvat.trouble.append(trouble)
        began = time.monotonic()
        with pytest.raises(CvatError, match=said) as told:
            session.user_id("ann", "")
        assert time.monotonic() - began < 4
    assert told.value.again is again
    assert cvat_integration.failures._value.get() == before + 1


def test_wrong_password_no_server_and_no_settings(cvat: Cvat, monkeypatch: pytest.MonkeyPatch) -> None:
    from pydantic import SecretStr

    with pytest.raises(CvatError, match="begin a session"), connect(settings(cvat_password=SecretStr("wrong"))):
        pass
    with (
        pytest.raises(CvatError, match="does not answer"),
        connect(settings(cvat_host="http://127.0.0.1:9", cvat_seconds=1)),
    ):
        pass
    with pytest.raises(CvatError, match="CVAT_HOST"), connect(settings(cvat_host="")):
        pass


def test_waiting_ends_and_tells_meanwhile(cvat: Cvat, profile: Profile, tmp_path: Path) -> None:
    beats = []
    archive = frame_zip(tmp_path / "a_clip_000.zip", "a_clip_000")
    cvat.polls = 10**6
    with connect(settings(cvat_wait_seconds=0.2), lambda: beats.append(1)) as session:
        task = session.ensure_task(session.ensure_project("street", profile.cvat_labels(), ""), "t", "")
        with pytest.raises(CvatError, match=r"not finished within 0\.2 s") as told:
            session.upload_frames(task, archive)
    assert told.value.again
    assert len(beats) > 2


def test_what_cvat_cannot_import_is_said_with_its_reason(
    cvat: Cvat, session: Session, profile: Profile, tmp_path: Path
) -> None:
    task = session.ensure_task(session.ensure_project("street", profile.cvat_labels(), ""), "t", "")
    session.upload_frames(task, frame_zip(tmp_path / "a_clip_000.zip", "a_clip_000", frames=3))
    with pytest.raises(CvatError, match="Frame 9 is not in the task") as told:
        session.import_annotations(task, write("a_clip_000", [box(1, 9)], profile, frames=15, size=SIZE))
    assert not told.value.again


def test_signatures() -> None:
    assert signature("key", b"The quick brown fox jumps over the lazy dog") == (
        "sha256=f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8")  # fmt: skip
    assert is_signed("key", b"x", signature("key", b"x"))
    for secret, given in (
        ("key", ""),
        ("key", "sha256="),
        ("key", signature("other", b"x")),
        ("", signature("", b"x")),
        ("key", "ä"),
    ):
        assert not is_signed(secret, b"x", given)


@pytest.fixture
def project(cvat: Cvat, api: TestClient, storage: FolderStorage, tmp_path: Path) -> int:
    """Two clips, both for two annotators."""
    give_clips(storage, tmp_path / "in", *CLIPS)
    cvat.add_users("ann", "bob")
    asked = {"project_name": "street", "annotators": ["ann", "bob"], "overlap_percentage": 100, "clips": list(CLIPS)}
    return int(api.post("/projects", json=asked).json()["project"]["id"])


def tasks(api: TestClient, project: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get(f"/quality-control/projects/{project}/tasks").json()["tasks"]
    return found


def hurry() -> None:
    """Let the time pass that work waits after a failure."""
    with database.session() as db:
        for table in (Project, Task):
            db.execute(update(table).values(next_at=0.0))


def test_a_crash_at_any_call_makes_nothing_twice(cvat: Cvat, api: TestClient, project: int) -> None:
    """Each call that changes something fails once, after the server has done it: the next try finds what is there."""
    for pattern in (
        r"POST /api/projects",
        r"POST /api/tasks$",
        r"POST /api/tasks/\d+/data",
        r"POST /api/tasks/\d+/annotations",
        r"PATCH /api/jobs",
    ):
        cvat.trouble.append(Trouble(pattern, status=502))
    for _ in range(12):
        do_work(api)
        hurry()
    assert not [task["error"] for task in tasks(api, project) if task["error"]]
    assert (len(cvat.projects), len(cvat.tasks), len(cvat.jobs)) == (1, 4, 4)
    assert {task["status"] for task in tasks(api, project)} == {"ready"}
    assert sorted(job.assignee for job in cvat.jobs.values()) == sorted([cvat.users["ann"], cvat.users["bob"]] * 2)  # type: ignore[type-var]


def test_a_worker_that_died_is_followed_by_another(cvat: Cvat, api: TestClient, project: int) -> None:
    """It died after the task was made and before it could say so."""
    cvat.polls = 0
    work = api.app.state.context.work  # type: ignore[attr-defined]
    assert work.step()  # the project
    with connect(settings()) as session:
        session.ensure_task(next(iter(cvat.projects)), "a_clip_000 ann", "")
    with database.session() as db:
        db.execute(update(Task).values(taken_at=time.time() - 10))
    assert not work.step()  # somebody works on them
    with database.session() as db:
        db.execute(update(Task).values(taken_at=time.time() - 301))
    do_work(api)
    assert len(cvat.tasks) == 4


def test_a_user_that_goes_missing_is_said_at_the_task(cvat: Cvat, api: TestClient, project: int) -> None:
    del cvat.users["bob"]
    do_work(api)
    by_annotator = {task["annotator"]: task for task in tasks(api, project)}
    assert "no user 'bob'" in by_annotator["bob"]["error"]
    assert by_annotator["ann"]["status"] == "ready"
    row = api.get("/quality-control/projects").json()["projects"][0]
    assert (row["failed"], row["waiting_for_cvat"], row["open"]) == (2, 2, 2)
    failed = api.get(f"/quality-control/projects/{project}/tasks", params={"only": "error"}).json()["tasks"]
    assert {task["annotator"] for task in failed} == {"bob"}
    cvat.add_users("bob")
    assert api.post(f"/quality-control/projects/{project}/reconcile").status_code == 202
    do_work(api)
    assert {task["status"] for task in tasks(api, project)} == {"ready"}
    assert {task["error"] for task in tasks(api, project)} == {None}


def test_a_lost_webhook_is_found_by_asking(cvat: Cvat, api: TestClient, project: int) -> None:
    do_work(api)
    cvat.begin(cvat.job_of("a_clip_000", "ann"))
    cvat.complete(cvat.job_of("a_clip_000", "ann"), tell=False)
    do_work(api)
    assert {task["status"] for task in tasks(api, project)} == {"ready"}
    api.post(f"/quality-control/projects/{project}/reconcile")
    do_work(api)
    done = [task for task in tasks(api, project) if task["status"] == "retrieved"]
    assert [(task["clip"], task["annotator"], task["boxes"]) for task in done] == [
        ("a_clip_000", "ann", 0)
    ]  # an empty job
    exports = cvat.called("POST /api/jobs/.*/dataset/export")
    api.post(f"/quality-control/projects/{project}/reconcile")
    do_work(api)
    assert cvat.called("POST /api/jobs/.*/dataset/export") == exports  # what has not changed is not fetched again


def test_a_changed_job_is_fetched_anew_and_looked_at_again(
    cvat: Cvat, api: TestClient, project: int, profile: Profile
) -> None:
    do_work(api)
    job = cvat.job_of("a_clip_000", "ann")
    task = next(task for task in tasks(api, project) if task["job_id"] == job.id)

    def draw(text: str) -> None:
        from .cvat_stand_in import Shape, Track

        job.tracks = [
            Track(
                [
                    Shape(0, (1.0, 2.0, 30.0, 40.0), {"phone_usage": text}),
                    Shape(1, (1.0, 2.0, 30.0, 40.0), {}, outside=True),
                ]
            )
        ]

    def now() -> dict[str, Any]:
        api.post(f"/quality-control/projects/{project}/reconcile")
        do_work(api)
        return next(one for one in tasks(api, project) if one["id"] == task["id"])

    draw("texting")
    cvat.complete(job)
    assert now()["boxes"] == 1
    assert (
        api.post(
            "/quality-control/update-task-status", json={"task_ids": [task["id"]], "new_status": "approved"}
        ).status_code
        == 200
    )
    cvat.complete(job)  # touched, but the same
    assert now()["qc_status"] == "approved"
    draw("no_phone")
    cvat.complete(job)
    assert now()["qc_status"] == "pending"
    with database.session(read_only=True) as db:
        rows = list(
            db.scalars(select(Annotation).where(Annotation.task_id == task["id"], Annotation.outside.is_(False)))
        )
    assert [json.loads(row.attributes)["phone_usage"] for row in rows] == ["no_phone"]
    draw("flying")  # not in the attributes: nothing is changed, and it is said
    cvat.complete(job)
    broken = now()
    assert "phone_usage=flying" in broken["error"]
    assert broken["boxes"] == 1


def test_a_job_is_kept_as_a_whole_or_not_at_all(
    cvat: Cvat, api: TestClient, project: int, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    do_work(api)
    task = tasks(api, project)[0]["id"]
    post_annotation_service.keep(task, write("a_clip_000", [box(1, 0)], profile, frames=15, size=SIZE), 1.0)

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the disk is gone")

    monkeypatch.setattr("app.ava.events.record", broken)
    with pytest.raises(RuntimeError):
        post_annotation_service.keep(
            task, write("a_clip_000", [box(1, 0), box(2, 0, 500)], profile, frames=15, size=SIZE), 2.0
        )
    with pytest.raises(XmlError):
        post_annotation_service.keep(task, b"<html></html>", 3.0)
    with database.session(read_only=True) as db:
        assert len(list(db.scalars(select(Annotation).where(Annotation.outside.is_(False))))) == 1
        assert db.get_one(Task, task).source_updated_at == 1.0
        assert db.get_one(Task, task).xml == write("a_clip_000", [box(1, 0)], profile, frames=15, size=SIZE)


def message(job: int, state: str = "completed", updated: str = "2026-11-20T10:00:00Z", **more: Any) -> bytes:
    return json.dumps(
        {
            "event": "update:job",
            "job": {"id": job, "task_id": 1, "state": state, "stage": "annotation", "updated_date": updated},
            **more,
        }
    ).encode()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (message(10**6), 200),
        (b'{"event": "ping"}', 200),
        (b'{"event": "update:task"}', 400),
        (b"[]", 400),
        (b"{", 400),
        (b"[" * 100_000, 400),
        (b'{"event": "update:job"}', 400),
        (message(2**40), 400),
        (message(1, updated="yesterday"), 400),
    ],
)
def test_messages_of_the_webhook(api: TestClient, body: bytes, status: int) -> None:
    api.headers.pop("Authorization")  # CVAT has no login here
    answer = api.post("/webhooks/cvat", content=body, headers={"X-Signature-256": signature(WEBHOOK_SECRET, body)})
    assert answer.status_code == status, answer.text
    assert (
        api.post("/webhooks/cvat", content=body, headers={"X-Signature-256": signature("guessed", body)}).status_code
        == 401
    )
    assert api.post("/webhooks/cvat", content=body).status_code == 401


def test_the_webhook_takes_no_long_message_and_is_not_open_without_a_secret(
    api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = b" " * (1024 * 1024 + 1)
    assert (
        api.post(
            "/webhooks/cvat", content=long, headers={"X-Signature-256": signature(WEBHOOK_SECRET, long)}
        ).status_code
        == 413
    )
    monkeypatch.delenv("PERGOLA_SECRET_CVAT_WEBHOOK_SECRET")
    body = message(1)
    assert api.post("/webhooks/cvat", content=body, headers={"X-Signature-256": signature("", body)}).status_code == 401


def test_events_count_once_and_figures_follow(cvat: Cvat, api: TestClient, project: int) -> None:
    do_work(api)
    job = cvat.job_of("a_clip_000", "ann")

    def tell(state: str, minute: int) -> None:
        body = message(job.id, state, f"2027-01-01T10:{minute:02d}:00Z")
        answer = api.post("/webhooks/cvat", content=body, headers={"X-Signature-256": signature(WEBHOOK_SECRET, body)})
        assert answer.json()["status"] == "taken"

    tell("in progress", 0)
    tell("in progress", 5)
    tell("completed", 20)
    tell("completed", 20)
    do_work(api)
    with database.session(read_only=True) as db:
        kinds = sorted(db.scalars(select(Event.kind).where(Event.task_id.is_not(None))))
    assert kinds == ["annotation_end", "annotation_start", "job_completed", *["task_completed"], *["task_ready"] * 4]
    told = api.get("/metrics/summary", params={"project_id": project}).json()
    assert told["clips_per_annotator_hour"] == pytest.approx(3)  # one clip in 20 minutes
    assert told["annotators"][0] == {
        "annotator": "ann",
        "tasks": 2,
        "completed": 1,
        "hours": pytest.approx(1 / 3),
        "clips_per_hour": pytest.approx(3),
    }
    assert told["queue_wait_seconds"] > 0
    assert not told["finished"]
    assert told["by_status"] == {"ready": 3, "retrieved": 1}
