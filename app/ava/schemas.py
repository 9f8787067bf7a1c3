"""What the API takes and gives. Times are seconds since 1970 (UTC); boxes are pixels from the top left corner."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MOST_CLIPS = 5000
Line = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=150, pattern=r"^[^\x00-\x1f\x7f]+$")
]
ClipId = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9._-]+$")]
Key = Annotated[str, StringConstraints(min_length=1, max_length=300)]
Id = Annotated[int, Field(ge=1, le=2**31 - 1)]
Slug = Annotated[str, StringConstraints(max_length=60, pattern=r"^[A-Za-z0-9_-]*$")]
Status = Literal["approved", "rejected", "pending"]


class Strict(BaseModel):
    """A request: an unknown key is a mistake, and is said so."""

    model_config = ConfigDict(extra="forbid")


class AssignmentIn(Strict):
    """One task of an edited plan."""

    clip: ClipId
    annotator: Line
    role: Literal["primary", "overlap"]


class ProjectIn(Strict):
    """A new project."""

    project_name: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=120, pattern=r"^[^\x00-\x1f\x7f]+$")
    ]
    annotators: list[Line] = Field(min_length=1, max_length=500)
    overlap_percentage: int = Field(default=20, ge=0, le=100, description="in steps of 5")
    clips: list[ClipId] = Field(default=[], max_length=MOST_CLIPS, description="clips that were uploaded")
    s3_keys: list[Key] = Field(default=[], max_length=MOST_CLIPS, description="or zips of clips in the storage")
    org_slug: Slug | None = Field(default=None, description="CVAT's organisation")
    annotators_per_clip: int = Field(default=2, ge=2, le=20, description="of each overlap clip")
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    assignments: list[AssignmentIn] | None = Field(
        default=None, max_length=MOST_CLIPS * 5, description="an edited plan; without one it is made"
    )


class AssignmentOut(BaseModel):
    """One task of a plan."""

    clip: str
    annotator: str
    role: Literal["primary", "overlap"]
    group: int | None


class Load(BaseModel):
    """Tasks of an annotator."""

    annotator: str
    total: int
    primary: int
    overlap: int


class Plan(BaseModel):
    """Who annotates what."""

    assignments: list[AssignmentOut]
    loads: list[Load]
    clips: int
    overlap_clips: int


class ProjectOut(BaseModel):
    """A project and how far it is."""

    id: int
    name: str
    org_slug: str | None
    annotators: list[str]
    overlap_percentage: int
    annotators_per_clip: int
    cvat_project_id: int | None
    error: str | None
    tasks: int
    waiting_for_cvat: int
    open: int
    completed: int
    retrieved: int
    approved: int
    rejected: int
    failed: int
    created_at: float


class Projects(BaseModel):
    """All projects, newest first."""

    projects: list[ProjectOut]


class Created(BaseModel):
    """A project that was stored, or was there already."""

    project: ProjectOut
    created: bool
    plan: Plan


class TaskOut(BaseModel):
    """One clip for one annotator."""

    id: int
    project_id: int
    clip: str
    annotator: str
    role: str
    overlap_group: int | None
    status: str
    qc_status: str
    cvat_task_id: int | None
    job_id: int | None
    boxes: int
    retrieved_at: float | None
    source_updated_at: float | None
    error: str | None


class PairOut(BaseModel):
    """Two tasks that were compared. `fresh`: their annotations are still those that were compared."""

    task_ids: list[int]
    clip: str
    annotators: list[str]
    average_iou: float | None
    percent_iou_gte_05: float | None
    macro_avg_kappa: float | None
    fresh: bool
    computed_at: float


class Tasks(BaseModel):
    """The tasks of a project, a page of them, and what comparing them said."""

    tasks: list[TaskOut]
    total: int
    page: int
    page_size: int
    pairs: list[PairOut]


class CheckIn(Strict):
    """Which two tasks to compare."""

    task_ids: list[Id] = Field(max_length=100)


class KappaOut(BaseModel):
    """Cohen's kappa of an attribute; None is n/a."""

    value: float | None
    support: int
    labelled: int
    low: float | None
    high: float | None
    band: str


class Frame(BaseModel):
    """A frame in which two annotators differ."""

    frame: int
    iou: float
    first: list[float] | None
    second: list[float] | None


class CheckOut(BaseModel):
    """How far two annotators agree on a clip. What is undefined is null."""

    task_ids: list[int]
    clip: str
    annotators: list[str]
    average_iou: float | None = Field(description="over all positions; a box without a partner counts 0")
    percent_iou_gte_05: float | None = Field(description="share of positions that overlap by half, in per cent")
    kappa_scores: dict[str, float | None]
    macro_avg_kappa: float | None
    flip_rates: dict[str, float | None] = Field(description="of each annotator")
    compared_annotations: int = Field(description="boxes that both drew")
    precision: float | None
    recall: float | None
    f1: float | None
    tube_iou: float | None
    average_iou_matched: float | None
    kappa_details: dict[str, KappaOut]
    band: str
    boxes: list[int]
    warnings: list[str]
    worst_frames: list[Frame]


class BetweenOut(BaseModel):
    """Two annotators over all clips that both had."""

    annotators: list[str]
    clips: int
    average_iou: float | None
    percent_iou_gte_05: float | None
    f1: float | None
    tube_iou: float | None
    macro_avg_kappa: float | None
    kappa_details: dict[str, KappaOut]
    warnings: list[str]
    band: str


class ProjectCheck(BaseModel):
    """How far the annotators of a project agree."""

    project_id: int
    pairs: int
    clips: int
    clips_without_boxes: list[str]
    annotators: list[BetweenOut]
    alphas: dict[str, float | None]
    alpha_mean: float | None
    flip_rates: dict[str, float | None]


class StatusIn(Strict):
    """What quality control says of tasks."""

    task_ids: list[Id] = Field(min_length=1, max_length=MOST_CLIPS)
    new_status: Status


class StatusOut(BaseModel):
    """What was changed."""

    updated: int
    new_status: Status
    task_ids: list[int]


class Excluded(Strict):
    """A second that gets no lines."""

    video_id: Annotated[str, StringConstraints(min_length=1, max_length=120)]
    timestamp: int = Field(ge=0, le=10_000_000)


class DatasetIn(Strict):
    """Which dataset."""

    project_id: Id
    val_share: float = Field(default=0.2, ge=0, le=1, description="share of the videos that are for validation")
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    video_ids: Literal["video", "clip"] = Field(default="video", description="what the CSV's first column names")
    excluded_timestamps: list[Excluded] = Field(default=[], max_length=100_000)


class DatasetOut(BaseModel):
    """A dataset; its files are at /datasets/{id}/files/{name}."""

    id: str
    project_id: int
    created_at: float
    manifest: dict[str, Any]


class Datasets(BaseModel):
    """Datasets of a project, newest first."""

    datasets: list[DatasetOut]


class AnnotatorFigures(BaseModel):
    """How an annotator does."""

    annotator: str
    tasks: int
    completed: int
    hours: float | None
    clips_per_hour: float | None


class Summary(BaseModel):
    """Figures of a project."""

    project_id: int
    project_name: str
    tasks: int
    clips: int
    by_status: dict[str, int]
    by_qc_status: dict[str, int]
    completed: int
    clips_per_annotator_hour: float | None
    makespan_seconds: float | None
    finished: bool
    queue_wait_seconds: float | None
    events: dict[str, int]
    annotators: list[AnnotatorFigures]
    completed_at: list[float]


class WebhookOut(BaseModel):
    """A message was taken."""

    status: Literal["taken", "not ours"]
    task_id: int | None


class UploadIn(Strict):
    """A file that will come in parts."""

    filename: Annotated[str, StringConstraints(min_length=1, max_length=300)]
    size_bytes: int = Field(ge=1, le=2**53)


class PartOut(BaseModel):
    """A part: PUT its bytes to `url`, or to /uploads/{id}/parts/{number} where there is none."""

    number: int
    offset: int
    size: int
    received: bool
    url: str | None


class UploadOut(BaseModel):
    """A file on its way in."""

    id: str
    filename: str
    size_bytes: int
    part_bytes: int
    state: Literal["open", "received", "ready", "failed"]
    error: str | None
    clips: list[str]
    known: list[str]
    created_at: float


class UploadParts(UploadOut):
    """With its parts."""

    parts: list[PartOut]


class Uploads(BaseModel):
    """The latest uploads."""

    uploads: list[UploadOut]


class ClipOut(BaseModel):
    """A clip that is here."""

    name: str
    frames: int
    width: int
    height: int
    boxes: int
    size_bytes: int
    has_proposals: bool
    created_at: float


class Clips(BaseModel):
    """Clips, a page of them."""

    clips: list[ClipOut]
    total: int
    page: int
    page_size: int


class ProposalsOut(BaseModel):
    """What became of proposals."""

    clips: int
    boxes: int
    clipped: int
    dropped: int
    renumbered: int
    skipped_clips: int = Field(description="clips whose frames are not here")


class AttributeOut(BaseModel):
    """An attribute with its options."""

    name: str
    options: list[str]


class ActionOut(BaseModel):
    """An action with its id."""

    id: int
    name: str
    attribute: str


class AttributesOut(BaseModel):
    """The attributes of new projects."""

    attributes: list[AttributeOut]
    actions: list[ActionOut]
