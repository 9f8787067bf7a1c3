"""What the API takes and gives."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Label = Literal["normal", "concern", "severe"]
Format = Literal["png", "pdf", "csv", "json", "html"]
Age = Annotated[float, Field(ge=2, le=18, description="the child's age in years")]
Percentile = Annotated[float, Field(ge=50, le=99.9)]
DISCLAIMER = (
    "This is not a diagnosis. It says how a drawing compares with others of the same age, nothing about a child's health or "
    "development. Talk to a professional when you are worried."
)


class Open(BaseModel):
    """Its fields may be called model_something."""

    model_config = ConfigDict(protected_namespaces=())


class DrawingOut(Open):
    """A stored drawing."""

    id: str
    filename: str
    age_years: float
    subject: str
    subject_index: int
    expert_label: Label | None
    drawing_tool: str | None
    prompt: str | None
    source: str
    format: str
    width: int
    height: int
    size_bytes: int
    ink_coverage: float = Field(description="share of the paper with marks, 0 to 1")
    created_at: str


class AnalysisOut(Open):
    """What the model says."""

    id: str
    anomaly_score: float
    normalized_score: float = Field(ge=0, le=100, description="percentile rank among the model's normal drawings")
    visual_anomaly_score: float
    subject_anomaly_score: float
    age_anomaly_score: float
    anomaly_attribution: Literal["visual", "subject", "both", "age"]
    is_anomaly: bool
    threshold: float
    confidence: float
    age_group: str
    method_used: str
    vision_model: str
    model_version: str
    analysis_timestamp: str


class Region(BaseModel):
    """A part of the drawing that raises the score."""

    region_id: str
    bounding_box: list[int] = Field(
        min_length=4, max_length=4, description="left, top, width, height in the drawing's pixels"
    )
    importance_score: float = Field(description="share of all that raises the score, 0 to 1")
    spatial_location: str


class Interpretability(BaseModel):
    """Why."""

    saliency_map_url: str
    overlay_image_url: str
    explanation_text: str
    importance_regions: list[Region]


class Comparison(BaseModel):
    """A normal drawing that is alike."""

    drawing_id: str
    similarity_score: float = Field(description="cosine, -1 to 1")
    age_years: float
    subject: str
    image_url: str
    generated: bool


class AnalysisAnswer(BaseModel):
    """Everything about one analysis."""

    drawing: DrawingOut
    analysis: AnalysisOut
    interpretability: Interpretability
    comparison_examples: list[Comparison]
    disclaimer: str = DISCLAIMER


class AnalyzeRequest(BaseModel):
    """Options of an analysis."""

    force_reanalysis: bool = False


class Page(BaseModel):
    """One page of drawings."""

    items: list[DrawingOut]
    total: int
    page: int
    page_size: int
    pages: int


class HistoryRow(BaseModel):
    """A drawing with its latest analysis, for the tables of the screens."""

    drawing: DrawingOut
    analysis: AnalysisOut | None


class History(BaseModel):
    """One page of them."""

    items: list[HistoryRow]
    total: int
    page: int
    page_size: int
    pages: int


class Count(BaseModel):
    """How many of something."""

    name: str
    count: int


class DrawingStats(BaseModel):
    """What is stored."""

    total: int
    analyzed: int
    by_age: list[Count]
    by_subject: list[Count]
    by_label: list[Count]
    by_source: list[Count]
    size_bytes: int


class GroupStats(BaseModel):
    """Analyses of one age group."""

    age_group: str
    analyses: int
    anomalies: int
    mean_normalized_score: float


class Day(BaseModel):
    """Analyses of one day."""

    day: str
    analyses: int
    anomalies: int


class AnalysisStats(BaseModel):
    """What was analysed."""

    total: int
    anomalies: int
    anomaly_rate: float = Field(description="share, 0 to 1")
    mean_seconds: float | None
    by_age_group: list[GroupStats]
    by_attribution: list[Count]
    by_day: list[Day]


class BatchRequest(BaseModel):
    """Drawings to analyse."""

    drawing_ids: list[Annotated[str, Field(pattern="^[0-9a-f]{32}$")]] = Field(min_length=1, max_length=100)


class BatchItemOut(BaseModel):
    """How far one of them is."""

    drawing_id: str
    state: Literal["waiting", "working", "done", "failed"]
    analysis_id: str | None
    is_anomaly: bool | None
    normalized_score: float | None
    error: str | None


class BatchProgress(BaseModel):
    """How far a batch is."""

    batch_id: str
    state: Literal["running", "done"]
    total: int
    done: int
    failed: int
    progress: float = Field(description="share, 0 to 1")
    items: list[BatchItemOut]


class Uploaded(BaseModel):
    """What became of one file of a batch upload."""

    filename: str
    drawing: DrawingOut | None
    error: str | None


class BatchUpload(BaseModel):
    """What became of all files."""

    results: list[Uploaded]
    uploaded: int
    failed: int


class Interactive(BaseModel):
    """For a picture one can point at: what each cell adds to the visual part of the score."""

    analysis_id: str
    width: int
    height: int
    grid: int
    cells: list[list[float]]
    regions: list[Region]
    image_url: str
    saliency_map_url: str
    overlay_image_url: str


class Simplified(BaseModel):
    """In plain words."""

    analysis_id: str
    headline: str
    summary: str
    key_points: list[str]
    disclaimer: str = DISCLAIMER


class Confidence(BaseModel):
    """How sure, and why."""

    analysis_id: str
    confidence: float
    band: Literal["very low", "low", "moderate", "high"]
    anomaly_score: float
    threshold: float
    relative_distance: float
    explanation: str


class AttributionPart(BaseModel):
    """One part of the score."""

    part: Literal["visual", "subject", "age"]
    score: float
    percentile: float
    sentence: str


class Attribution(BaseModel):
    """Which part speaks loudest."""

    analysis_id: str
    attribution: Literal["visual", "subject", "both", "age"]
    parts: list[AttributionPart]


class ExportRequest(BaseModel):
    """Which file to make."""

    format: Format


class ExportOut(BaseModel):
    """A file that was made."""

    export_id: str
    format: Format
    url: str
    size_bytes: int
    created_at: str
    expires_at: str


class AnnotationRequest(BaseModel):
    """An expert's remark."""

    text: str = Field(min_length=1, max_length=2000)
    region_id: str | None = Field(default=None, max_length=20)


class AnnotationOut(BaseModel):
    """A stored remark."""

    id: int
    analysis_id: str
    region_id: str | None
    text: str
    created_at: str


class Sample(BaseModel):
    """One of the three samples of the demo."""

    id: str
    title: str
    description: str
    age_years: float
    subject: str
    normalized_score: float
    is_anomaly: bool
    confidence: float
    anomaly_attribution: str
    explanation_text: str
    importance_regions: list[Region]
    image_url: str
    overlay_image_url: str


class Samples(BaseModel):
    """The samples."""

    samples: list[Sample]
    model_version: str
    disclaimer: str = DISCLAIMER


class Info(BaseModel):
    """What this is."""

    name: str
    summary: str
    how_it_works: list[str]
    limits: list[str]
    model_version: str
    trained_at: str
    trained_on: str
    vision_model: str


class Disclaimer(BaseModel):
    """What it is not."""

    disclaimer: str
    points: list[str]


class Link(BaseModel):
    """Where to read on."""

    title: str
    url: str


class Statistics(BaseModel):
    """Numbers for visitors."""

    drawings_analyzed: int
    anomaly_rate: float
    age_groups: int
    training_drawings: int
    subjects: int


class Config(BaseModel):
    """What an admin can change."""

    threshold_percentile: Percentile
    group_percentiles: dict[str, Percentile] = Field(
        default_factory=dict, description="age groups with one of their own"
    )


class ConfigChange(BaseModel):
    """What to change; what is left out stays."""

    threshold_percentile: Percentile | None = None
    group_percentiles: dict[str, Percentile] | None = None


class ThresholdChange(BaseModel):
    """A new percentile, for all age groups or for one."""

    percentile: Percentile
    age_group: str | None = Field(default=None, max_length=20)


class GroupThreshold(BaseModel):
    """What a percentile means for an age group, and for its analyses so far."""

    age_group: str
    percentile: float
    threshold: float
    analyses: int
    anomalies: int


class Thresholds(BaseModel):
    """All of them."""

    percentile: float
    groups: list[GroupThreshold]
    anomalies: int
    analyses: int


class Subject(BaseModel):
    """One subject."""

    index: int
    name: str
    group: Literal["other", "thing", "animal", "person"]


class AgeGroupOut(Open):
    """An age group of the model in service."""

    name: str
    age_min: float
    age_max: float
    samples: int
    method: str
    active: bool
    threshold: float
    pca_auc: float
    autoencoder_auc: float


class AgeGroups(Open):
    """All of them."""

    model_version: str
    trained_at: str
    source: str
    groups: list[AgeGroupOut]


class ActiveChange(BaseModel):
    """Whether an age group judges drawings."""

    active: bool


class TrainRequest(BaseModel):
    """How to train."""

    generated_only: bool = Field(default=False, description="leave the operator's drawings out")


class Training(BaseModel):
    """How far a training is."""

    state: Literal["idle", "running", "done", "failed", "interrupted"]
    share: float
    sentence: str
    started_at: float | None
    finished_at: float | None
    version: str | None
    error: str | None


class ModelVersion(BaseModel):
    """A stored model."""

    version: str
    trained_at: str
    serving: bool
    refused: str | None
    drawings: int
    source: str
    size_bytes: int
    age_groups: int


class Sufficiency(BaseModel):
    """Whether an age group has enough drawings of the operator's own."""

    age_group: str
    own_drawings: int
    needed: int
    sufficient: bool
    merged_into: str | None = Field(
        description="the age group it would be trained in, from the operator's drawings alone"
    )
    advice: str


class SufficiencyAnswer(BaseModel):
    """All age groups."""

    groups: list[Sufficiency]
    trainable: list[str]


class PageView(BaseModel):
    """A screen was opened."""

    page: Literal[
        "demo", "upload", "documentation", "dashboard", "history", "batch", "configuration", "models", "usage"
    ]
    session: str = Field(
        min_length=8, max_length=64, pattern="^[A-Za-z0-9_-]+$", description="random; only its hash is kept, for a day"
    )


class UsageDay(BaseModel):
    """One day."""

    day: str
    page_views: int
    analyses: int
    sessions: int


class UsageAnswer(BaseModel):
    """How much the app is used."""

    days: list[UsageDay]
    page_views: int
    analyses: int
    sessions: int
    pages: list[Count]
    countries: list[Count]


class Spread(BaseModel):
    """Seconds."""

    count: int
    mean: float | None
    p50: float | None
    p95: float | None


class Performance(BaseModel):
    """How well it runs, since this release started."""

    requests: int
    errors: int
    response_seconds: Spread
    analyses: int
    anomalies: int
    processing_seconds: Spread


class BackupOut(BaseModel):
    """A backup."""

    id: str
    created_at: str
    reason: str
    size_bytes: int
    sha256: str
    rows: int
    tables: dict[str, int]
    environment: str


class Backups(BaseModel):
    """All backups, newest first."""

    backups: list[BackupOut]
    every_hours: float


class RestoreRequest(BaseModel):
    """Which backup to restore: one by its id, or the newest at or before a time."""

    backup_id: str | None = Field(default=None, max_length=60)
    at: str | None = Field(default=None, max_length=40, description="ISO 8601, UTC unless it says otherwise")


class Restored(BaseModel):
    """What was restored."""

    backup_id: str
    safety_copy: str
    rows: int
    tables: dict[str, int]


class Verified(BaseModel):
    """Whether a backup can be restored."""

    backup_id: str
    good: bool
    rows: int
    problem: str | None


class MigrationLine(BaseModel):
    """One line of migrations."""

    name: str
    current: str | None
    head: str | None
    pending: list[str]


class MigrationInfo(BaseModel):
    """Where the database stands."""

    dialect: str
    up_to_date: bool
    lines: list[MigrationLine]
