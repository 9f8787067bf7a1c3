"""A CVAT for tests: the part of its documented API (2.80) that an SDK uses here, kept strictly, with its ways of keeping tracks.

Unknown fields, wrong types, unknown parameters, the organisation in a header, and calls without a session are refused. It can fail, be
slow, and drop chunks when told to. It shares no code with the app: its XML is read and written anew, from CVAT's description.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import random
import re
import secrets
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from xml.etree import ElementTree as ET

import httpx
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError

WHO, PASSWORD = "pergola", "let me in"
FORMATS_IN, FORMATS_OUT = {"CVAT 1.1"}, {"CVAT for video 1.1", "CVAT for images 1.1"}


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Attribute(Strict):
    name: StrictStr
    mutable: StrictBool
    input_type: Literal["checkbox", "radio", "number", "text", "select"]
    values: list[StrictStr]
    default_value: StrictStr = ""


class Label(Strict):
    name: StrictStr
    color: StrictStr | None = None
    type: Literal[
        "any", "rectangle", "polygon", "cuboid", "points", "mask", "tag", "skeleton", "ellipse", "polyline"
    ] = "any"
    attributes: list[Attribute] = []


class ProjectIn(Strict):
    name: StrictStr = Field(min_length=1, max_length=256)
    labels: list[Label] = []
    owner_id: StrictInt | None = None
    assignee_id: StrictInt | None = None
    bug_tracker: StrictStr = ""


class TaskIn(Strict):
    name: StrictStr = Field(min_length=1, max_length=256)
    project_id: StrictInt | None = None
    owner_id: StrictInt | None = None
    assignee_id: StrictInt | None = None
    overlap: StrictInt | None = None
    segment_size: StrictInt = 0
    labels: list[Label] = []
    subset: StrictStr = ""
    bug_tracker: StrictStr = ""


class DataIn(Strict):
    image_quality: StrictInt = Field(ge=0, le=100)
    sorting_method: Literal["lexicographical", "natural", "predefined", "random"] = "lexicographical"
    use_cache: StrictBool = False
    use_zip_chunks: StrictBool = False
    copy_data: StrictBool = False
    chunk_size: StrictInt | None = None
    start_frame: StrictInt = 0
    stop_frame: StrictInt | None = None
    frame_filter: StrictStr = ""


class JobPatch(Strict):
    assignee: StrictInt | None = None
    stage: Literal["annotation", "validation", "acceptance"] | None = None
    state: Literal["new", "in progress", "completed", "rejected"] | None = None


class WebhookIn(Strict):
    target_url: StrictStr = Field(pattern="^https?://")
    description: StrictStr = ""
    type: Literal["project", "organization"]
    events: list[StrictStr]
    content_type: Literal["application/json"] = "application/json"
    secret: StrictStr = Field(default="", max_length=64)
    is_active: StrictBool = True
    enable_ssl: StrictBool = True
    project_id: StrictInt | None = None


class Login(Strict):
    username: StrictStr | None = None
    email: StrictStr | None = None
    password: StrictStr


@dataclass
class Shape:
    frame: int
    points: tuple[float, float, float, float]
    attributes: dict[str, str]
    outside: bool = False
    occluded: bool = False


@dataclass
class Track:
    shapes: list[Shape]

    def seen(self, last: int) -> dict[int, tuple[Shape, bool]]:
        """What CVAT shows: each frame from the first shape on, with whether it is a keyframe. Keyframes are interpolated between."""
        told: dict[int, tuple[Shape, bool]] = {}
        shapes = sorted(self.shapes, key=lambda one: one.frame)
        for here, there in zip(shapes, [*shapes[1:], None], strict=True):
            told[here.frame] = (here, True)
            if here.outside:
                continue
            end = there.frame if there is not None else last + 1
            for frame in range(here.frame + 1, end):
                points = here.points
                if there is not None and not there.outside:
                    share = (frame - here.frame) / (there.frame - here.frame)
                    points = tuple(a + (b - a) * share for a, b in zip(here.points, there.points, strict=True))  # type: ignore[assignment]
                told[frame] = (Shape(frame, points, dict(here.attributes), occluded=here.occluded), False)
        return {frame: one for frame, one in sorted(told.items()) if frame <= last}


@dataclass
class Job:
    id: int
    task_id: int
    start: int
    stop: int
    updated: datetime
    state: str = "new"
    stage: str = "annotation"
    assignee: int | None = None
    tracks: list[Track] = field(default_factory=list)


@dataclass
class Task:
    id: int
    name: str
    project: int
    org: str
    segment_size: int
    frames: list[str] = field(default_factory=list)
    staged: dict[str, bytes] = field(default_factory=dict)
    jobs: list[int] = field(default_factory=list)


@dataclass
class Background:
    """Work that goes on after the answer; finished after it was asked for some times."""

    id: str
    kind: str
    target: dict[str, Any]
    asked: int = 0
    failed: str | None = None
    result: bytes | None = None
    url: str | None = None


@dataclass
class Trouble:
    """Answer so many of the next calls that fit with an error, or late."""

    pattern: str
    status: int = 0
    seconds: float = 0.0
    times: int = 1


class Cvat:
    """The server: state, and what tests do to it."""

    def __init__(self, page_size: int = 10) -> None:
        self.users = {WHO: 1}
        self.orgs = {""}
        self.projects: dict[int, dict[str, Any]] = {}
        self.webhooks: dict[int, dict[str, Any]] = {}
        self.tasks: dict[int, Task] = {}
        self.jobs: dict[int, Job] = {}
        self.requests: dict[str, Background] = {}
        self.tus: dict[str, dict[str, Any]] = {}
        self.sessions: set[str] = set()
        self.trouble: list[Trouble] = []
        self.calls: list[str] = []
        self.deliveries: list[int] = []
        self.page_size = page_size
        self.polls = 1
        self._clock = datetime.now(UTC)
        self._id = 100
        self.url = ""
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    # the server itself

    def start(self) -> Cvat:
        import socket

        listening = socket.socket(
            socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP
        )  # asyncio sets no TCP_NODELAY otherwise
        listening.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(make_app(self), log_level="error", lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listening]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        assert self._server is not None
        assert self._thread is not None
        self._server.should_exit = True
        self._thread.join(10)

    def fresh(self) -> int:
        self._id += 1
        return self._id

    def now(self) -> datetime:
        """A clock that never stands still: two changes never have one time."""
        self._clock = max(datetime.now(UTC), self._clock + timedelta(milliseconds=5))
        return self._clock

    def called(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, call)) for call in self.calls)

    # what people do

    def add_users(self, *names: str) -> None:
        for name in names:
            self.users.setdefault(name, self.fresh())

    def job_of(self, clip: str, annotator: str) -> Job:
        """Found by what the project's owner sees: the assignee, and the first frame's name."""
        for job in self.jobs.values():
            if job.assignee == self.users[annotator] and self.tasks[job.task_id].frames[0].startswith(f"{clip}_frame_"):
                return job
        raise AssertionError(f"no job of {annotator} for {clip}")

    def visible(self, job: Job) -> int:
        """Boxes that a person sees in the job."""
        return sum(not shape.outside for track in job.tracks for shape, _ in track.seen(job.stop).values())

    def begin(self, job: Job, seconds: float = 0.0) -> None:
        self._clock += timedelta(seconds=seconds)
        job.state, job.updated = "in progress", self.now()
        self.deliver(job, {"state": "new"})

    def annotate(self, job: Job, edit: Callable[[list[Track]], None]) -> None:
        """Change a job's tracks as an annotator would: every frame's value becomes a keyframe first."""
        for track in job.tracks:
            track.shapes = [shape for shape, _ in track.seen(job.stop).values()]
        edit(job.tracks)
        job.updated = self.now()

    def complete(self, job: Job, seconds: float = 0.0, *, tell: bool = True) -> None:
        self._clock += timedelta(seconds=seconds)
        before = job.state
        job.state, job.updated = "completed", self.now()
        if tell:
            self.deliver(job, {"state": before})

    def deliver(self, job: Job, before: dict[str, Any], secret: str | None = None) -> None:
        """Send the webhook, signed as CVAT signs it; the answers' statuses are in `deliveries`."""
        project = self.tasks[job.task_id].project
        for hook in self.webhooks.values():
            if hook["project_id"] != project or "update:job" not in hook["events"]:
                continue
            message = {
                "event": "update:job",
                "job": job_out(self, job),
                "before_update": before,
                "webhook_id": hook["id"],
                "sender": {"url": "x", "id": 1, "username": WHO, "first_name": "", "last_name": ""},
            }
            body = json.dumps(message).encode()
            key = (secret if secret is not None else hook["secret"]).encode()
            sign = "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()
            headers = {"Content-Type": "application/json", "X-Signature-256": sign}
            try:
                self.deliveries.append(
                    httpx.post(hook["target_url"], content=body, headers=headers, timeout=10).status_code
                )
            except httpx.HTTPError:
                self.deliveries.append(0)


class Annotator:
    """Gives every person attributes from a seed; a careless one says something else now and then, and draws a little off."""

    def __init__(self, options: dict[str, list[str]], clip: str, careless: float = 0.0) -> None:
        self.options, self.clip, self.careless = options, clip, careless

    def __call__(self, tracks: list[Track]) -> None:
        slip = random.Random(f"{self.clip} slips")  # noqa: S311 - no secret
        for number, track in enumerate(tracks):
            truth = random.Random(f"{self.clip} {number}")  # noqa: S311 - no secret
            said = {name: truth.choice(options[1:]) for name, options in self.options.items()}
            for shape in track.shapes:
                shape.attributes = {
                    name: slip.choice(self.options[name]) if slip.random() < self.careless else value
                    for name, value in said.items()
                }
                if self.careless:
                    left, top, right, bottom = shape.points
                    shape.points = (left + slip.uniform(-2, 2), top, right, bottom)


def refuse(status: int, detail: Any) -> HTTPException:
    return HTTPException(status, detail)


def job_out(cvat: Cvat, job: Job) -> dict[str, Any]:
    task = cvat.tasks[job.task_id]
    name = next((name for name, number in cvat.users.items() if number == job.assignee), None)
    return {
        "url": f"{cvat.url}/api/jobs/{job.id}",
        "id": job.id,
        "task_id": job.task_id,
        "task_name": task.name,
        "project_id": task.project,
        "project_name": cvat.projects[task.project]["name"],
        "assignee": user_out(cvat, name) if name else None,
        "guide_id": None,
        "dimension": "2d",
        "mode": "annotation",
        "media_type": "image",
        "bug_tracker": None,
        "status": "annotation",
        "stage": job.stage,
        "state": job.state,
        "frame_count": job.stop - job.start + 1,
        "start_frame": job.start,
        "stop_frame": job.stop,
        "data_chunk_size": 36,
        "data_compressed_chunk_type": "imageset",
        "data_original_chunk_type": "imageset",
        "created_date": "2026-01-01T00:00:00Z",
        "updated_date": job.updated.isoformat().replace("+00:00", "Z"),
        "type": "annotation",
        "organization": None,
        "target_storage": None,
        "source_storage": None,
        "assignee_updated_date": None,
        "parent_job_id": None,
        "replicas_count": 0,
        "issues": {"url": f"{cvat.url}/api/issues?job_id={job.id}", "count": 0},
        "labels": {"url": f"{cvat.url}/api/labels?job_id={job.id}"},
    }


def user_out(cvat: Cvat, name: str) -> dict[str, Any]:
    number = cvat.users[name]
    return {"url": f"{cvat.url}/api/users/{number}", "id": number, "username": name, "first_name": "", "last_name": ""}


def task_out(cvat: Cvat, task: Task) -> dict[str, Any]:
    return {
        "url": f"{cvat.url}/api/tasks/{task.id}",
        "id": task.id,
        "name": task.name,
        "project_id": task.project,
        "project_name": cvat.projects[task.project]["name"],
        "mode": "annotation" if task.frames else "",
        "media_type": "image",
        "owner": user_out(cvat, WHO),
        "assignee": None,
        "bug_tracker": "",
        "created_date": "2026-01-01T00:00:00Z",
        "updated_date": "2026-01-01T00:00:00Z",
        "overlap": None,
        "segment_size": task.segment_size,
        "status": "annotation",
        "data_chunk_size": 36,
        "data_compressed_chunk_type": "imageset",
        "data_original_chunk_type": "imageset",
        "size": len(task.frames),
        "image_quality": 70,
        "data": task.id if task.frames else None,
        "dimension": "2d",
        "subset": "",
        "organization": None,
        "organization_id": None,
        "target_storage": None,
        "source_storage": None,
        "guide_id": None,
        "assignee_updated_date": None,
        "validation_mode": None,
        "jobs": {
            "count": len(task.jobs),
            "completed": 0,
            "validation": 0,
            "url": f"{cvat.url}/api/jobs?task_id={task.id}",
        },
        "labels": {"url": f"{cvat.url}/api/labels?task_id={task.id}"},
    }


def project_out(cvat: Cvat, number: int) -> dict[str, Any]:
    return {
        "url": f"{cvat.url}/api/projects/{number}",
        "id": number,
        "name": cvat.projects[number]["name"],
        "owner": user_out(cvat, WHO),
        "assignee": None,
        "guide_id": None,
        "bug_tracker": "",
        "task_subsets": [],
        "created_date": "2026-01-01T00:00:00Z",
        "updated_date": "2026-01-01T00:00:00Z",
        "status": "annotation",
        "dimension": "2d",
        "organization": None,
        "organization_id": None,
        "target_storage": None,
        "source_storage": None,
        "assignee_updated_date": None,
        "tasks": {"count": 0, "url": f"{cvat.url}/api/tasks?project_id={number}"},
        "labels": {"url": f"{cvat.url}/api/labels?project_id={number}"},
    }


def webhook_out(cvat: Cvat, number: int) -> dict[str, Any]:
    hook = cvat.webhooks[number]
    return {
        **{
            key: hook[key]
            for key in (
                "target_url",
                "type",
                "events",
                "content_type",
                "is_active",
                "enable_ssl",
                "project_id",
                "description",
            )
        },
        "id": number,
        "url": f"{cvat.url}/api/webhooks/{number}",
        "organization": None,
        "owner": user_out(cvat, WHO),
        "created_date": "2026-01-01T00:00:00Z",
        "updated_date": "2026-01-01T00:00:00Z",
    }


def read_xml(data: bytes, labels: list[dict[str, Any]], frames: int) -> list[Track]:
    """Import "CVAT 1.1": boxes with outside=1 and keyframe=0 are dropped; labels and values must be the project's."""
    root = ET.fromstring(data)  # noqa: S314 - of this test's own server
    known = {label["name"]: {one["name"]: one["values"] for one in label["attributes"]} for label in labels}
    tracks = []
    for element in root.iter("track"):
        label = element.get("label")
        if label not in known:
            raise ValueError(f"Label {label!r} is not in the project")
        shapes = []
        for box in element.iter("box"):
            outside, keyframe = box.get("outside") == "1", box.get("keyframe") == "1"
            if outside and not keyframe:
                continue
            frame = int(box.attrib["frame"])
            if not 0 <= frame < frames:
                raise ValueError(f"Frame {frame} is not in the task")
            attributes = {one.attrib["name"]: one.text or "" for one in box.iter("attribute")}
            for name, value in attributes.items():
                if value not in known[label].get(name, []):
                    raise ValueError(f"{name}={value} is not in the project")
            points = tuple(float(box.attrib[side]) for side in ("xtl", "ytl", "xbr", "ybr"))
            shapes.append(Shape(frame, points, attributes, outside=outside, occluded=box.get("occluded") == "1"))  # type: ignore[arg-type]
        if shapes:
            tracks.append(Track(shapes))
    return tracks


def write_xml(cvat: Cvat, job: Job) -> bytes:
    """Export "CVAT for video 1.1": every frame of a track, tracks numbered anew; frames count within the task."""
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    about = ET.SubElement(ET.SubElement(root, "meta"), "job")
    ET.SubElement(about, "id").text = str(job.id)
    ET.SubElement(about, "size").text = str(job.stop - job.start + 1)
    for number, track in enumerate(job.tracks):
        element = ET.SubElement(root, "track", id=str(number), label="person", source="manual")
        for frame, (shape, keyframe) in track.seen(job.stop).items():
            sides = dict(zip(("xtl", "ytl", "xbr", "ybr"), (f"{value:.2f}" for value in shape.points), strict=True))
            box = ET.SubElement(
                element,
                "box",
                frame=str(frame),
                keyframe=str(int(keyframe)),
                outside=str(int(shape.outside)),
                occluded=str(int(shape.occluded)),
                **sides,
                z_order="0",
            )
            for name, value in shape.attributes.items():
                ET.SubElement(box, "attribute", name=name).text = value
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.xml", ET.tostring(root, encoding="utf-8", xml_declaration=True))
    return out.getvalue()


def make_app(cvat: Cvat) -> FastAPI:  # noqa: C901, PLR0915 - one server, read from top to bottom
    app = FastAPI(openapi_url=None, redirect_slashes=False)

    @app.middleware("http")
    async def guard(request: Request, call_next: Any) -> Response:
        path = request.url.path
        cvat.calls.append(f"{request.method} {path}?{request.url.query}")
        for one in list(cvat.trouble):
            if one.times and re.search(one.pattern, f"{request.method} {path}"):
                one.times -= 1
                if one.seconds:
                    import asyncio

                    await asyncio.sleep(one.seconds)
                if one.status:
                    return JSONResponse({"detail": "trouble on demand"}, one.status)
        if "x-organization" in request.headers:
            return JSONResponse({"detail": "the organisation goes into ?org="}, 400)
        if (org := request.query_params.get("org", "")) not in cvat.orgs:
            return JSONResponse({"detail": f"There is no organisation {org}"}, 404)
        if path not in {"/api/auth/login", "/api/server/about"}:
            if request.cookies.get("sessionid") not in cvat.sessions:
                return JSONResponse({"detail": "Authentication credentials were not provided."}, 401)
            if request.method not in {"GET", "HEAD"} and request.headers.get("x-csrftoken") != request.cookies.get(
                "csrftoken"
            ):
                return JSONResponse({"detail": "CSRF Failed"}, 403)
        response: Response = await call_next(request)
        return response

    def only(request: Request, *names: str) -> None:
        strange = set(request.query_params) - set(names)
        if strange:
            raise refuse(400, f"unknown parameters: {sorted(strange)}")

    async def body(request: Request, model: type[BaseModel]) -> Any:
        try:
            return model.model_validate_json(await request.body())
        except ValidationError as error:
            raise refuse(400, json.loads(error.json(include_url=False, include_context=False))) from None

    def page(request: Request, rows: list[dict[str, Any]]) -> dict[str, Any]:
        size = min(
            int(request.query_params.get("page_size", cvat.page_size)), cvat.page_size
        )  # CVAT caps what is asked for
        number = int(request.query_params.get("page", 1))
        pages = max(1, -(-len(rows) // size))
        if not 1 <= number <= pages:
            raise refuse(404, "Invalid page.")
        url = f"{cvat.url}{request.url.path}?page="
        return {
            "count": len(rows),
            "next": f"{url}{number + 1}" if number < pages else None,
            "previous": f"{url}{number - 1}" if number > 1 else None,
            "results": rows[(number - 1) * size : number * size],
        }

    def background(kind: str, work: Callable[[Background], None], **target: Any) -> str:
        one = Background(f"action={kind}&id={secrets.token_hex(8)}", kind, target)
        try:
            work(one)
        except (ValueError, ET.ParseError, zipfile.BadZipFile) as error:
            one.failed = str(error)
        cvat.requests[one.id] = one
        return one.id

    @app.get("/api/server/about")
    async def about() -> dict[str, str]:
        return {"name": "CVAT", "description": "", "version": "2.80.0", "logo_url": "/x", "subtitle": ""}

    @app.post("/api/auth/login")
    async def login(request: Request) -> Response:
        given = await body(request, Login)
        if (given.username, given.password) != (WHO, PASSWORD):
            return JSONResponse({"non_field_errors": ["Unable to log in with provided credentials."]}, 400)
        session, token = secrets.token_hex(16), secrets.token_hex(16)
        cvat.sessions.add(session)
        response = JSONResponse({"key": secrets.token_hex(20)})
        response.set_cookie("sessionid", session)
        response.set_cookie("csrftoken", token)
        return response

    @app.post("/api/auth/logout")
    async def logout(request: Request) -> dict[str, str]:
        cvat.sessions.discard(request.cookies["sessionid"])
        return {"detail": "Successfully logged out."}

    @app.get("/api/users")
    async def users(request: Request) -> dict[str, Any]:
        only(request, "search", "page", "page_size", "org", "username", "is_active")
        wanted = request.query_params.get("search", "")
        return page(request, [user_out(cvat, name) for name in sorted(cvat.users) if wanted in name])

    @app.get("/api/projects")
    async def projects(request: Request) -> dict[str, Any]:
        only(request, "name", "search", "page", "page_size", "org")
        name = request.query_params.get("name")
        return page(
            request, [project_out(cvat, number) for number, one in cvat.projects.items() if name in {None, one["name"]}]
        )

    @app.post("/api/projects", status_code=201)
    async def make_project(request: Request) -> dict[str, Any]:
        only(request, "org")
        given = await body(request, ProjectIn)
        number = cvat.fresh()
        cvat.projects[number] = given.model_dump()
        return project_out(cvat, number)

    @app.get("/api/webhooks")
    async def webhooks(request: Request) -> dict[str, Any]:
        only(request, "project_id", "page", "page_size", "org", "type")
        project = request.query_params.get("project_id")
        return page(
            request,
            [webhook_out(cvat, n) for n, hook in cvat.webhooks.items() if project in {None, str(hook["project_id"])}],
        )

    @app.post("/api/webhooks", status_code=201)
    async def make_webhook(request: Request) -> dict[str, Any]:
        only(request, "org")
        given = await body(request, WebhookIn)
        if given.type == "project" and given.project_id not in cvat.projects:
            raise refuse(400, "a project webhook has a project_id")
        number = cvat.fresh()
        cvat.webhooks[number] = {**given.model_dump(), "id": number}
        return webhook_out(cvat, number)

    @app.get("/api/tasks")
    async def tasks(request: Request) -> dict[str, Any]:
        only(request, "project_id", "name", "search", "page", "page_size", "org")
        asked = request.query_params
        rows = [
            task_out(cvat, task)
            for task in cvat.tasks.values()
            if asked.get("name") in {None, task.name} and asked.get("project_id") in {None, str(task.project)}
        ]
        return page(request, rows)

    @app.post("/api/tasks", status_code=201)
    async def make_task(request: Request) -> dict[str, Any]:
        only(request, "org")
        given = await body(request, TaskIn)
        if given.project_id not in cvat.projects:
            raise refuse(400, {"project_id": ["Invalid pk"]})
        task = Task(cvat.fresh(), given.name, given.project_id, request.query_params.get("org", ""), given.segment_size)
        cvat.tasks[task.id] = task
        return task_out(cvat, task)

    def task_of(number: int) -> Task:
        if number not in cvat.tasks:
            raise refuse(404, "Not found.")
        return cvat.tasks[number]

    @app.get("/api/tasks/{number}")
    async def task(number: int) -> dict[str, Any]:
        return task_out(cvat, task_of(number))

    def take_data(task: Task) -> Callable[[Background], None]:
        def work(_: Background) -> None:
            names: list[str] = []
            for name, data in task.staged.items():
                if name.endswith(".zip"):
                    with zipfile.ZipFile(io.BytesIO(data)) as archive:
                        names += archive.namelist()
                else:
                    names.append(name)
            if not names:
                raise ValueError("No media data found")
            task.frames = sorted(names)
            task.staged.clear()
            size = task.segment_size or len(names)
            for start in range(0, len(names), size):
                job = Job(cvat.fresh(), task.id, start, min(start + size, len(names)) - 1, cvat.now())
                cvat.jobs[job.id] = job
                task.jobs.append(job.id)

        return work

    @app.post("/api/tasks/{number}/data/")
    @app.post("/api/tasks/{number}/data")
    async def data(number: int, request: Request) -> Response:
        task = task_of(number)
        if task.frames:
            raise refuse(400, "Adding more data is not supported")
        if "upload-start" in request.headers:
            task.staged.clear()
            return Response(status_code=202)
        if "upload-multiple" in request.headers:
            form = await request.form()
            for key, value in form.multi_items():
                if re.fullmatch(r"client_files\[\d+\]", key):
                    task.staged[value.filename] = await value.read()  # type: ignore[union-attr, index]
            return Response(status_code=200)
        if "upload-finish" in request.headers:
            await body(request, DataIn)
            return JSONResponse({"rq_id": background("create", take_data(task), target="task", task_id=number)}, 202)
        return begin_tus(request, task.staged)

    def begin_tus(request: Request, into: dict[str, bytes]) -> Response:
        if request.headers.get("tus-resumable") != "1.0.0" or "upload-length" not in request.headers:
            raise refuse(400, "not a TUS upload")
        meta = dict(part.split(" ") for part in request.headers["upload-metadata"].split(","))
        name = base64.b64decode(meta["filename"]).decode()
        key = secrets.token_hex(8)
        cvat.tus[key] = {"into": into, "name": name, "length": int(request.headers["upload-length"]), "data": b""}
        into.pop(name, None)
        headers = {"Location": f"{cvat.url}{request.url.path.rstrip('/')}/{key}", "Upload-Filename": name}
        return Response(status_code=201, headers=headers)

    @app.api_route("/api/tasks/{number}/{what}/{key}", methods=["PATCH", "HEAD"])
    async def chunk(number: int, what: str, key: str, request: Request) -> Response:
        upload = cvat.tus[key]
        if request.method == "PATCH":
            if int(request.headers["upload-offset"]) != len(upload["data"]):
                raise HTTPException(409, "offset", {"Upload-Offset": str(len(upload["data"]))})
            upload["data"] += await request.body()
            if len(upload["data"]) == upload["length"]:
                upload["into"][upload["name"]] = upload["data"]
        status = 204 if request.method == "PATCH" else 200
        return Response(
            status_code=status, headers={"Upload-Offset": str(len(upload["data"])), "Upload-Filename": upload["name"]}
        )

    @app.post("/api/tasks/{number}/annotations/")
    @app.post("/api/tasks/{number}/annotations")
    async def annotations(number: int, request: Request) -> Response:
        only(request, "format", "filename", "import_mode", "location", "conv_mask_to_poly")
        task = task_of(number)
        if "upload-start" in request.headers:
            if request.query_params.get("format") not in FORMATS_IN:
                raise refuse(400, f"Unknown input format {request.query_params.get('format')!r}")
            return Response(status_code=202)
        if "upload-finish" in request.headers:
            given = task.staged.pop(request.query_params["filename"])

            def work(_: Background) -> None:
                tracks = read_xml(given, cvat.projects[task.project]["labels"], len(task.frames))
                for job in (cvat.jobs[one] for one in task.jobs):
                    job.tracks, job.updated = tracks, cvat.now()  # annotations are replaced

            return JSONResponse({"rq_id": background("import", work, target="task", task_id=number)}, 202)
        return begin_tus(request, task.staged)

    @app.get("/api/requests/{rq_id:path}")
    async def request_(rq_id: str) -> dict[str, Any]:
        if rq_id not in cvat.requests:
            raise refuse(404, "Not found.")
        one = cvat.requests[rq_id]
        one.asked += 1
        status = "failed" if one.failed else "finished"
        if one.asked <= cvat.polls:
            status = "started" if one.asked > 1 else "queued"
        done = status == "finished"
        return {
            "status": status,
            "message": one.failed or "",
            "id": one.id,
            "operation": {
                "type": one.kind,
                "format": None,
                "project_id": None,
                "task_id": None,
                "job_id": None,
                "function_id": None,
                **one.target,
            },
            "progress": None,
            "created_date": "2026-01-01T00:00:00Z",
            "started_date": None,
            "finished_date": None,
            "expiry_date": None,
            "owner": {"id": 1, "username": WHO},
            "result_url": one.url if done else None,
            "result_id": None,
        }

    @app.get("/api/jobs")
    async def jobs(request: Request) -> dict[str, Any]:
        only(request, "task_id", "project_id", "page", "page_size", "org", "org_id", "type", "state")
        asked = request.query_params
        rows = [
            job_out(cvat, job)
            for job in cvat.jobs.values()
            if asked.get("task_id") in {None, str(job.task_id)}
            and asked.get("project_id") in {None, str(cvat.tasks[job.task_id].project)}
        ]
        return page(request, rows)

    @app.post("/api/jobs", status_code=201)
    async def make_job(request: Request) -> None:
        given = json.loads(await request.body())
        if given.get("type") != "ground_truth":
            raise refuse(400, "Only ground truth jobs can be made")
        raise refuse(500, "not in this stand-in")

    def job_of(number: int) -> Job:
        if number not in cvat.jobs:
            raise refuse(404, "Not found.")
        return cvat.jobs[number]

    @app.get("/api/jobs/{number}")
    async def job(number: int) -> dict[str, Any]:
        return job_out(cvat, job_of(number))

    @app.patch("/api/jobs/{number}")
    async def change_job(number: int, request: Request) -> dict[str, Any]:
        found = job_of(number)
        given = await body(request, JobPatch)
        if given.assignee is not None and given.assignee not in cvat.users.values():
            raise refuse(400, {"assignee": ["Invalid pk"]})
        for key, value in given.model_dump(exclude_unset=True).items():
            setattr(found, key, value)
        found.updated = cvat.now()
        return job_out(cvat, found)

    @app.post("/api/jobs/{number}/dataset/export")
    async def export(number: int, request: Request) -> Response:
        only(request, "format", "save_images", "location", "filename", "cloud_storage_id")
        found = job_of(number)
        if request.query_params.get("format") not in FORMATS_OUT:
            raise refuse(400, "Unknown output format")

        def work(one: Background) -> None:
            one.result = write_xml(cvat, found)

        rq_id = background("export", work, target="job", job_id=number)
        one = cvat.requests[rq_id]
        one.url = (
            f"{cvat.url}/api/jobs/{number}/dataset/download?rq_id={base64.urlsafe_b64encode(rq_id.encode()).decode()}"
        )
        return JSONResponse({"rq_id": rq_id}, 202)

    @app.get("/api/jobs/{number}/dataset/download")
    async def download(number: int, rq_id: str) -> Response:
        one = cvat.requests[base64.urlsafe_b64decode(rq_id).decode()]
        headers = {"Content-Disposition": 'attachment; filename="annotations.zip"'}
        return Response(one.result, media_type="application/zip", headers=headers)

    return app
