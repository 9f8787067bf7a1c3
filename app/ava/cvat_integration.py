"""CVAT, through its own SDK: find or make what a task needs, and fetch what became of it.

Everything that makes something looks for it first: after a crash or a lost answer the same call goes on where it was. Errors are
`CvatError`; `again` says whether another try may help.
"""

import hashlib
import hmac
import json
import logging
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn

from cvat_sdk import Client, Config, exceptions, models
from cvat_sdk.core.exceptions import CvatSdkException
from cvat_sdk.core.helpers import get_paginated_collection
from cvat_sdk.core.proxies.jobs import Job
from cvat_sdk.core.proxies.tasks import Task
from cvat_sdk.core.proxies.types import Location
from urllib3.exceptions import HTTPError, MaxRetryError, ResponseError

from app.ava.clips import MOST_MEMBERS
from app.ava.cvat_xml import LONGEST
from app.ava.settings import AvaSettings
from app.core import metrics

log = logging.getLogger(__name__)

IMPORT_FORMAT: Final = "CVAT 1.1"
EXPORT_FORMAT: Final = "CVAT for video 1.1"
EVENT: Final = "update:job"
PAGE: Final = 100
IMAGE_QUALITY: Final = 90
_AGAIN: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})

failures = metrics.counter("CvatFailures", "Calls of CVAT that failed")


class CvatError(Exception):
    """CVAT could not do it. The text is for a person; `again`: another try later may help."""

    def __init__(self, message: str, *, again: bool) -> None:
        super().__init__(message)
        self.again = again


@dataclass(frozen=True)
class JobState:
    """A job as CVAT tells it. `updated` are seconds since 1970."""

    id: int
    task_id: int
    state: str
    stage: str
    updated: float


class _PatientClient(Client):  # type: ignore[misc]  # the SDK has no types
    """Waits for CVAT's background work, but not for ever, and tells somebody while it waits."""

    def __init__(self, url: str, *, limit: float, period: float, beat: Callable[[], None], **options: Any) -> None:
        self._limit, self._period, self._beat = limit, period, beat
        super().__init__(url, **options)

    def wait_for_completion(self, rq_id: str, **_: Any) -> tuple[Any, Any]:
        """The finished request; raises CvatError when it failed or takes too long. The period is this client's own."""
        deadline = time.monotonic() + self._limit
        while True:
            request, response = self.api_client.requests_api.retrieve(rq_id)
            status = str(request.status.value)
            if status == "finished":
                return request, response
            if status == "failed":
                # not again: the same data would fail in the same way
                raise CvatError(f"CVAT could not do it: {str(request.message or 'no reason given')[:300]}", again=False)
            if time.monotonic() > deadline:
                raise CvatError(f"CVAT has not finished within {self._limit:g} s ({status})", again=True)
            self._beat()
            time.sleep(self._period)


def _nothing() -> None:
    """Tell nobody."""


@dataclass
class Cvat:
    """A session with CVAT. Not for several threads at once."""

    client: Client
    _users: dict[tuple[str, str], int] = field(default_factory=dict)

    def check_users(self, names: Sequence[str], org: str) -> list[str]:
        """Those of the names that CVAT does not have."""
        with _errors("look for users"):
            return [name for name in names if self._user(name, org) is None]

    def user_id(self, name: str, org: str) -> int:
        """Id of the user with exactly this name. Raises CvatError."""
        with _errors("look for a user"):
            found = self._user(name, org)
        if found is None:
            where = f" in the organisation {org!r}" if org else ""
            raise CvatError(
                f"CVAT has no user {name!r}{where}; make the account there, or take another annotator.", again=False
            )
        return found

    def _user(self, name: str, org: str) -> int | None:
        if (name, org) not in self._users:
            # `search` finds parts of names too: only the exact one counts
            for user in self._pages(self.client.api_client.users_api.list_endpoint, org, search=name):
                self._users[str(user.username), org] = int(user.id)
        return self._users.get((name, org))

    def ensure_project(self, name: str, labels: Sequence[dict[str, Any]], org: str) -> int:
        """Id of the project with this name; made with its labels when there is none."""
        api = self.client.api_client.projects_api
        with _errors("make the project"):
            for project in self._pages(api.list_endpoint, org, name=name):
                if project.name == name:
                    return int(project.id)
            spec = models.ProjectWriteRequest(name=name, labels=[_label(label) for label in labels])
            made, _ = api.create(spec, **_in(org))
            return int(made.id)

    def ensure_webhook(self, project: int, url: str, secret: str, org: str) -> int:
        """Id of the project's webhook for `update:job` to this address; made when there is none."""
        api = self.client.api_client.webhooks_api
        with _errors("make the webhook"):
            for hook in self._pages(api.list_endpoint, org, project_id=project):
                if hook.target_url == url:
                    return int(hook.id)
            spec = models.WebhookWriteRequest(
                target_url=url,
                type=models.WebhookType("project"),
                events=[models.EventsEnum(EVENT)],
                content_type=models.WebhookContentType("application/json"),
                secret=secret,
                is_active=True,
                enable_ssl=url.startswith("https:"),
                project_id=project,
                description="changes of jobs",
            )
            made, _ = api.create(spec, **_in(org))
            return int(made.id)

    def ensure_task(self, project: int, name: str, org: str) -> int:
        """Id of the project's task with this name; made when there is none."""
        api = self.client.api_client.tasks_api
        with _errors("make the task"):
            for task in self._pages(api.list_endpoint, org, project_id=project, name=name):
                if task.name == name:
                    return int(task.id)
            made, _ = api.create(models.TaskWriteRequest(name=name, project_id=project, segment_size=0), **_in(org))
            return int(made.id)

    def upload_frames(self, task: int, archive: Path) -> None:
        """Give a task its pictures; one that has them already keeps them."""
        with _errors("upload the frames"):
            found = self._task(task)
            if not found.size:
                found.upload_data(
                    [archive],
                    params={"image_quality": IMAGE_QUALITY, "sorting_method": "lexicographical", "use_cache": True},
                )

    def import_annotations(self, task: int, xml: bytes) -> None:
        """Replace a task's annotations by those of an XML."""
        with _errors("import the annotations"), tempfile.TemporaryDirectory(prefix="cvat-") as folder:
            path = Path(folder) / "annotations.xml"
            path.write_bytes(xml)
            self._task(task).import_annotations(IMPORT_FORMAT, path)

    def assign(self, task: int, user: int) -> int:
        """Give a task's job to a user; returns the job's id."""
        with _errors("assign the job"):
            jobs = [job for job in self._task(task).get_jobs() if str(job.type) == "annotation"]
            if len(jobs) != 1:
                raise CvatError(f"CVAT made {len(jobs)} jobs of task {task} instead of one", again=False)
            job = jobs[0]
            if job.assignee is None or int(job.assignee.id) != user:
                job.update(models.PatchedJobWriteRequest(assignee=user))
            return int(job.id)

    def jobs(self, project: int, org: str) -> list[JobState]:
        """Every job of a project."""
        endpoint = self.client.api_client.jobs_api.list_endpoint
        with _errors("list the jobs"):
            return [
                _state(job) for job in self._pages(endpoint, org, project_id=project) if str(job.type) == "annotation"
            ]

    def job(self, job: int) -> JobState:
        """One job."""
        with _errors("look at the job"):
            found, _ = self.client.api_client.jobs_api.retrieve(job)
            return _state(found)

    def export(self, job: int) -> bytes:
        """The annotations of a job as CVAT XML 1.1 (video)."""
        with _errors("export the job"), tempfile.TemporaryDirectory(prefix="cvat-") as folder:
            model, _ = self.client.api_client.jobs_api.retrieve(job)
            path = Path(folder) / "export.zip"
            Job(self.client, model).export_dataset(EXPORT_FORMAT, path, include_images=False, location=Location.LOCAL)
            return _xml_of(path)

    def close(self) -> None:
        """End the session."""
        with suppress(Exception):  # CVAT may be gone by then: it ends sessions by itself
            self.client.logout()
        self.client.close()

    def _task(self, task: int) -> Task:
        model, _ = self.client.api_client.tasks_api.retrieve(task)
        return Task(self.client, model)

    def _pages(self, endpoint: Any, org: str, **filters: Any) -> list[Any]:
        return list(get_paginated_collection(endpoint, page_size=PAGE, **filters, **_in(org)))


def _in(org: str) -> dict[str, str]:
    """The organisation goes into the query; without one it is the user's own workspace."""
    return {"org": org}


def _label(label: dict[str, Any]) -> Any:
    attributes = [
        models.AttributeRequest(**{**one, "input_type": models.InputTypeEnum(one["input_type"])})
        for one in label["attributes"]
    ]
    return models.PatchedLabelRequest(**{**label, "attributes": attributes})


def _state(job: Any) -> JobState:
    return JobState(int(job.id), int(job.task_id), str(job.state), str(job.stage), job.updated_date.timestamp())


def _xml_of(path: Path) -> bytes:
    """The one XML of an export."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = [info for info in archive.infolist()[:MOST_MEMBERS] if info.filename == "annotations.xml"]
            if len(found) != 1 or found[0].file_size > LONGEST:
                raise CvatError("CVAT's export holds no annotations.xml that can be read", again=False)
            return archive.read(found[0])
    except zipfile.BadZipFile as error:
        raise CvatError("CVAT's export is damaged", again=True) from error


@contextmanager
def _errors(doing: str) -> Iterator[None]:
    """Whatever the SDK raises becomes a CvatError."""
    try:
        yield
    except CvatError:
        failures.inc()
        raise
    except exceptions.ApiException as error:
        failures.inc()
        _say(error, doing)
    except HTTPError as error:
        failures.inc()
        raise CvatError(f"CVAT does not answer (could not {doing}: {_why(error)})", again=True) from error
    except CvatSdkException as error:
        failures.inc()
        raise CvatError(f"CVAT could not {doing}: {str(error)[:300]}", again=True) from error
    except (exceptions.OpenApiException, AssertionError, ValueError, KeyError) as error:
        # an answer that does not fit CVAT's own description: another version, or a proxy's page
        failures.inc()
        log.warning("CVAT's answer is not understood", exc_info=True)
        raise CvatError(
            f"CVAT's answer is not understood (could not {doing}); is CVAT_HOST a CVAT of the SDK's version?",
            again=True,
        ) from error


def _why(error: HTTPError) -> str:
    """In a few words; urllib3's own have addresses of objects in them."""
    reason = error.reason if isinstance(error, MaxRetryError) and error.reason is not None else error
    return str(reason) if isinstance(reason, ResponseError) else type(reason).__name__


def _say(error: Any, doing: str) -> NoReturn:
    status = int(error.status or 0)
    told = _reason(error.body)
    if status in {401, 403}:
        raise CvatError(
            f"CVAT refuses to {doing} ({status}{told}): check CVAT_USERNAME, CVAT_PASSWORD and the rights of that account.",
            again=False,
        ) from error
    raise CvatError(f"CVAT could not {doing} ({status}{told})", again=status in _AGAIN or status == 0) from error


def _reason(body: Any) -> str:
    """What CVAT says in its answer, shortened."""
    try:
        told = json.loads(body)
    except (TypeError, ValueError):
        return ""
    text = told.get("detail") if isinstance(told, dict) and "detail" in told else json.dumps(told)
    return f", {str(text)[:200]}"


@contextmanager
def connect(settings: AvaSettings, beat: Callable[[], None] = _nothing) -> Iterator[Cvat]:
    """A session with CVAT, as the settings say. `beat` is called while CVAT works. Raises CvatError."""
    if not settings.cvat_host:
        raise CvatError("CVAT is not set up: give CVAT_HOST, CVAT_USERNAME and CVAT_PASSWORD.", again=True)
    logging.getLogger("cvat_sdk").setLevel(logging.WARNING)  # it tells of every file; failures say enough
    with _errors("begin a session"):
        client = _PatientClient(
            settings.cvat_host.rstrip("/"),
            limit=settings.cvat_wait_seconds,
            period=settings.cvat_poll_seconds,
            beat=beat,
            config=Config(status_check_period=max(1, int(settings.cvat_poll_seconds))),
            check_server_version=False,
        )
        _never_for_ever(client, settings.cvat_seconds)
        try:
            client.login((settings.cvat_username, settings.password))
        except BaseException:
            client.close()
            raise
    session = Cvat(client)
    try:
        yield session
    finally:
        session.close()


def _never_for_ever(client: Client, seconds: float) -> None:
    """The SDK waits for an answer without an end unless each call says otherwise: say so for all."""
    rest = client.api_client.rest_client
    request = rest.request

    def bounded(*args: Any, **options: Any) -> Any:
        options["_request_timeout"] = options.get("_request_timeout") or (min(10.0, seconds), seconds)
        return request(*args, **options)

    rest.request = bounded


def signature(secret: str, body: bytes) -> str:
    """What CVAT writes into `X-Signature-256`: HMAC-SHA-256 of the body."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def is_signed(secret: str, body: bytes, given: str) -> bool:
    """Whether a webhook's message is CVAT's; nothing is, without a secret."""
    return bool(secret) and hmac.compare_digest(signature(secret, body).encode(), given.encode())


def when(text: Any) -> float | None:
    """Seconds since 1970 of a time in a webhook's message; None when it is none."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None
