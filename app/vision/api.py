"""Clean or dirty: the API.

`POST /api/v1/classify/single`, `/json` and `/api/v1/batch/classify` answer; `/api/v1/classify/model-info` tells about the models.
Each worker holds the models in memory and looks for newer ones every few seconds.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import psutil
from fastapi import APIRouter, FastAPI, File, Form, HTTPException, Request, UploadFile
from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core import assets, metrics, problems, serving
from app.core.api import create_api
from app.core.images import MAX_BYTES, MIB, UploadLimit, from_base64, too_large
from app.core.ratelimit import RateLimitMiddleware
from app.core.settings import get_settings
from app.core.storage import StorageError, open_storage
from app.vision import schemas, service
from app.vision.model import DEFAULT, LABELS, MODEL_TYPES, ModelError
from app.vision.service import Asked, Refused, Service, class_name
from app.vision.settings import VisionSettings
from app.vision.store import ModelStore, NoModel, install_starter

log = logging.getLogger(__name__)

NAME: Final = "Vision Object Classifier"
FORM_SLACK: Final = 64 * 1024
BATCH_BYTES: Final = 110 * MIB

settings = get_settings(VisionSettings)
store = ModelStore(open_storage(settings.storage))
engine = Service(store)
swaps = metrics.counter("vision_models_loaded", "Models taken into service by a worker")
_started = time.time()


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Load the models, then look for newer ones until the end."""
    if not settings.on_host:  # on a host the release's preparation has done it
        await asyncio.to_thread(_unpack_starter)
    await serving.look(store.refresh, swaps)
    await asyncio.to_thread(_warm_up)
    async with serving.watching(store.refresh, settings.poll_seconds, swaps):
        yield


def _unpack_starter() -> None:
    try:
        install_starter(store.storage)
    except (ModelError, StorageError) as error:
        log.error("no starter models: %s", error)  # noqa: TRY400 - the sentence says it all


def _warm_up() -> None:
    try:
        engine.warm_up()
        class_name(0)
    except assets.AssetError as error:
        log.error("no encoder: %s", error)  # noqa: TRY400 - the sentence says it all


def ready() -> dict[str, Any]:
    """Every model is loaded and its test answers are right; raises otherwise."""
    found: dict[str, Any] = {}
    for model_type in MODEL_TYPES:
        served = store.current(model_type)
        served.head.check()
        found[model_type] = served.version
    engine.warm_up()
    return found


def model_status() -> dict[str, Any]:
    """What the health check says beyond the platform's own figures."""
    there = store.available()
    return {
        "status": "healthy" if all(there.values()) else "degraded",
        "timestamp": _now(),
        "model_status": {model_type: "available" if there[model_type] else "missing" for model_type in MODEL_TYPES},
    }


class ProcessingTime:
    """Middleware: says in X-Processing-Time how many milliseconds an answer took."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Processing-Time"] = f"{(time.perf_counter() - began) * 1000:.2f}"
            await send(message)

        await self._app(scope, receive, timed)


app = create_api(
    NAME,
    summary="Clean or dirty dishes?",
    lifespan=lifespan,
    ready=ready,
    settings=settings,
    status=model_status,
)
app.add_middleware(
    UploadLimit,
    limit=MAX_BYTES + FORM_SLACK,
    paths={"/api/v1/batch": BATCH_BYTES, "/api/v1/classify/json": MAX_BYTES * 4 // 3 + FORM_SLACK},
)
app.add_middleware(RateLimitMiddleware, limit=settings.rate_limit, seconds=60)
app.add_middleware(ProcessingTime)


@app.exception_handler(Refused)
async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)  # noqa: S101 - it is registered for nothing else
    return problems.problem(
        error.status, str(error), instance=request.url.path, success=False, error=error.reason, **error.more
    )


@app.exception_handler(NoModel)
async def _no_model(request: Request, error: Exception) -> JSONResponse:
    more: dict[str, Any] = {"success": False, "error": "model_missing"}
    return problems.problem(503, str(error), instance=request.url.path, headers={"Retry-After": "10"}, **more)


def _problem(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    400: _problem("Not an image, an empty file, no such model type, or a threshold outside 0..1"),
    413: _problem("More than 10 MB"),
    429: _problem("Too many requests"),
    503: _problem("There is no model of this type"),
}
MODEL_SCHEMA: Final = {"enum": list(MODEL_TYPES)}
SHARE_SCHEMA: Final = {"minimum": 0, "maximum": 1}

Image = Annotated[UploadFile, File(description="JPEG, PNG or WebP, at most 10 MB and 40 million pixels")]
Images = Annotated[list[UploadFile], File(description="JPEG, PNG or WebP, each at most 10 MB")]
Type = Annotated[str, Form(json_schema_extra=dict(MODEL_SCHEMA))]
Share = Annotated[float, Form(json_schema_extra=dict(SHARE_SCHEMA), allow_inf_nan=False)]
Flag = Annotated[bool, Form()]

v1 = APIRouter(prefix="/api/v1")


@v1.post("/classify/single", tags=["classify"], summary="Is this dish clean?", responses=PROBLEMS)
def classify_single(
    image: Image,
    model_type: Type = DEFAULT,
    return_confidence: Flag = True,  # noqa: FBT002 - a form field
    min_confidence: Share = 0.0,
    explain: Flag = False,  # noqa: FBT002 - a form field
) -> schemas.Classified:
    """Classify one picture. 422 when the answer is less sure than `min_confidence`."""
    asked = Asked.check(model_type, min_confidence, return_confidence=return_confidence, explain=explain)
    return _answer(_reader(image), asked)


@v1.post("/classify/json", tags=["classify"], summary="The same with a base64 image", responses=PROBLEMS)
def classify_json(body: schemas.ImageInJson) -> schemas.Classified:
    """Classify one picture that comes as text."""
    asked = Asked.check(
        body.model_type, body.min_confidence, return_confidence=body.return_confidence, explain=body.explain
    )

    def read() -> bytes:
        return from_base64(body.image)

    return _answer(read, asked)


@v1.get("/classify/model-info", tags=["classify"], summary="The models")
def model_info() -> schemas.ModelsInfo:
    """What the model types are, and how well they do."""
    return schemas.ModelsInfo(**engine.model_info())


@v1.post(
    "/classify/validate", tags=["classify"], summary="Can this file be classified?", responses={413: PROBLEMS[413]}
)
def classify_validate(image: Image) -> schemas.Validated:
    """What a file holds, or why it cannot be read; nothing is classified."""
    return schemas.Validated(**service.validate(_reader(image)))


@v1.post("/batch/classify", tags=["batch"], summary="Many dishes at once", responses=PROBLEMS)
def batch_classify(
    images: Images,
    model_type: Type = DEFAULT,
    return_confidence: Flag = True,  # noqa: FBT002 - a form field
    min_confidence: Share = 0.0,
    max_batch_size: Annotated[int, Form(json_schema_extra={"minimum": 1, "maximum": service.BATCH_CEILING})] = (
        service.BATCH_DEFAULT
    ),
) -> schemas.BatchClassified:
    """Classify several pictures; a bad one gets its error and the others their answers."""
    asked = Asked.check(model_type, min_confidence, return_confidence=return_confidence)
    _check_count(images, max_batch_size)
    found = engine.batch([(image.filename or "", _reader(image)) for image in images], asked)
    return schemas.BatchClassified(**found, model_type=asked.model_type, timestamp=_now())


@v1.post(
    "/batch/validate",
    tags=["batch"],
    summary="Can these files be classified?",
    responses={400: PROBLEMS[400], 413: PROBLEMS[413]},
)
def batch_validate(images: Images) -> schemas.BatchValidated:
    """What each file holds, or why it cannot be read."""
    _check_count(images, service.BATCH_CEILING)
    rows = [
        schemas.BatchValidatedItem(
            image_id=f"image_{number}", filename=image.filename or "", **service.validate(_reader(image))
        )
        for number, image in enumerate(images, 1)
    ]
    good = sum(row.valid for row in rows)
    return schemas.BatchValidated(
        results=rows, total_images=len(rows), valid_images=good, invalid_images=len(rows) - good
    )


@v1.get("/batch/limits", tags=["batch"], summary="What a batch may be")
def batch_limits() -> schemas.BatchLimits:
    """Numbers a client can keep to."""
    return schemas.BatchLimits(
        max_batch_size=service.BATCH_CEILING,
        default_batch_size=service.BATCH_DEFAULT,
        max_file_size_mb=service.MAX_MEGABYTES,
        max_request_size_mb=BATCH_BYTES // MIB,
        timeout_seconds=service.BATCH_SECONDS,
        supported_formats=service.FORMATS,
    )


@app.get("/", tags=["info"], summary="What this API is")
@v1.get("/info", tags=["info"], summary="What this API is")
def info() -> schemas.Info:
    """Name, version, endpoints, formats, classes and models."""
    return schemas.Info(
        name=NAME,
        version=app.version,
        endpoints={
            "classify": "/api/v1/classify/single",
            "classify_json": "/api/v1/classify/json",
            "validate": "/api/v1/classify/validate",
            "model_info": "/api/v1/classify/model-info",
            "batch": "/api/v1/batch/classify",
            "batch_validate": "/api/v1/batch/validate",
            "batch_limits": "/api/v1/batch/limits",
            "health": "/health/status",
            "documentation": "/docs",
        },
        formats=service.FORMATS,
        max_file_size=f"{service.MAX_MEGABYTES}MB",
        classes=list(LABELS),
        model_types=list(MODEL_TYPES),
        default_model=DEFAULT,
        features=[
            "calibrated probabilities",
            "uncertain answers are marked",
            "not_a_dish warning",
            "heat map (explain=true)",
            "batches",
            "base64 input",
        ],
    )


@app.get("/health/detailed", tags=["health"], summary="The process and the host, in numbers")
def health_detailed() -> schemas.Figures:
    """Memory, processor, disk and threads."""
    process = psutil.Process()
    with process.oneshot():
        memory, threads, times = process.memory_info(), process.num_threads(), process.cpu_times()
    host, disk = psutil.virtual_memory(), psutil.disk_usage(str(settings.state_dir.parent))
    told = model_status()
    return schemas.Figures(
        status=told["status"],
        timestamp=told["timestamp"],
        process={
            "memory_mb": round(memory.rss / MIB, 1),
            "threads": threads,
            "cpu_seconds": round(times.user + times.system, 2),
            "uptime_seconds": round(time.time() - _started, 1),
        },
        host={
            "cpus": psutil.cpu_count() or 1,
            "cpu_percent": psutil.cpu_percent(),
            "load_1_minute": round(psutil.getloadavg()[0], 2),
            "memory_total_mb": round(host.total / MIB),
            "memory_available_mb": round(host.available / MIB),
            "disk_free_mb": round(disk.free / MIB),
            "disk_used_percent": disk.percent,
        },
        models=told["model_status"],
    )


@app.get(
    "/health/models", tags=["health"], summary="The models in service", responses={503: {"model": schemas.ModelsHealth}}
)
def health_models() -> JSONResponse:
    """Version and checksum of each; 503 when one is missing."""
    rows: dict[str, dict[str, str | None]] = {}
    for model_type in MODEL_TYPES:
        try:
            served = store.current(model_type)
        except NoModel:
            rows[model_type] = {"status": "missing", "version": None, "sha256": None}
            continue
        rows[model_type] = {"status": "available", "version": served.version, "sha256": served.sha256}
    complete = all(row["version"] for row in rows.values())
    body = schemas.ModelsHealth(status="available" if complete else "missing", models=rows)
    return JSONResponse(body.model_dump(), 200 if complete else 503)


app.include_router(v1)


def _answer(read: Callable[[], bytes], asked: Asked) -> schemas.Classified:
    found = engine.classify(read, asked)
    return schemas.Classified(
        result=schemas.Result(**found.result(asked)),
        model_type=asked.model_type,
        model_version=found.version,
        timestamp=_now(),
    )


def _reader(image: UploadFile) -> Callable[[], bytes]:
    """Reads an upload when it is its turn, and never more than a picture may have."""

    def read() -> bytes:
        data = image.file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise too_large()
        return data

    return read


def _check_count(images: list[UploadFile], most: int) -> None:
    if not 1 <= most <= service.BATCH_CEILING:
        raise HTTPException(400, f"max_batch_size is a number from 1 to {service.BATCH_CEILING}.")
    if len(images) > most:
        raise HTTPException(
            400, f"{len(images)} images are more than the batch may have ({most}); send fewer at a time."
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
