"""What the API takes and gives, as pydantic models."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.vision.model import DEFAULT, Label, ModelType


class Answer(BaseModel):
    """Base: fields named model_* are ours, not pydantic's."""

    model_config = ConfigDict(protected_namespaces=())


class Probabilities(Answer):
    """Of both classes; they sum to 1."""

    clean: float = Field(ge=0, le=1)
    dirty: float = Field(ge=0, le=1)


class Explanation(Answer):
    """Which part of the dish made it dirty."""

    sentence: str
    cells: list[list[float]] = Field(
        description="rows from the top: what each part of the square around the picture added to the log-odds of dirty"
    )
    picture: list[float] = Field(description="where the picture lies in that square: left, top, right, bottom, 0 to 1")
    overlay: str = Field(description="the picture with the heat map on it, as a data: URL (JPEG)")


class Result(Answer):
    """The answer for one picture."""

    predicted_class: Label
    confidence: float | None = Field(ge=0, le=1, description="null when it was not asked for")
    probabilities: Probabilities | None
    processing_time_ms: float = Field(ge=0)
    uncertain: bool = Field(description="so unsure that a person should look")
    warning: Literal["not_a_dish"] | None = Field(description="the picture does not seem to show a dish")
    looks_like: str | None = Field(description="with a warning: what it resembles most")
    explanation: Explanation | None = Field(default=None, description="with explain=true")


class Classified(Answer):
    """Answer to one picture."""

    success: Literal[True] = True
    result: Result
    error: None = None
    model_type: ModelType
    model_version: str
    timestamp: str


class ImageInJson(Answer):
    """A picture in JSON."""

    image: str = Field(min_length=1, description="base64, with or without data:image/png;base64,")
    model_type: str = Field(default=DEFAULT, json_schema_extra={"enum": ["fast", "balanced", "accurate"]})
    return_confidence: bool = True
    min_confidence: float = Field(default=0.0, json_schema_extra={"minimum": 0, "maximum": 1})
    explain: bool = False


class BatchItem(Answer):
    """The answer for one picture of a batch; `error` says why there is none."""

    image_id: str
    filename: str
    predicted_class: Label | None
    confidence: float | None
    probabilities: Probabilities | None
    processing_time_ms: float = Field(ge=0)
    uncertain: bool | None
    warning: Literal["not_a_dish"] | None
    error: str | None


class BatchClassified(Answer):
    """Answers to a batch."""

    success: bool = Field(description="at least one picture was classified")
    results: list[BatchItem]
    total_images: int
    successful_classifications: int
    failed_classifications: int
    total_processing_time_ms: float
    model_type: ModelType
    model_version: str
    timestamp: str


class ImageInfo(Answer):
    """What a file holds."""

    format: str
    mode: str
    size: list[int] = Field(min_length=2, max_length=2, description="width, height")
    file_size_mb: float


class Validated(Answer):
    """Whether a file can be classified."""

    valid: bool
    info: ImageInfo | None = None
    reason: str | None = None


class BatchValidatedItem(Validated):
    """Whether one file of a batch can be classified."""

    image_id: str
    filename: str


class BatchValidated(Answer):
    """Whether the files of a batch can be classified."""

    results: list[BatchValidatedItem]
    total_images: int
    valid_images: int
    invalid_images: int


class BatchLimits(Answer):
    """What a batch may be."""

    max_batch_size: int
    default_batch_size: int
    max_file_size_mb: int
    max_request_size_mb: int
    timeout_seconds: int
    supported_formats: list[str]


class ModelDetails(Answer):
    """One model type, for choosing."""

    available: bool
    speed: str
    accuracy: str
    memory_usage: str
    file_size_mb: float = Field(description="encoder and head")
    version: str | None
    trained_at: str | None
    metrics: dict[str, object] | None = Field(description="measured on dishes the model had not seen")
    data: dict[str, object] | None
    refused: dict[str, str] = Field(description="stored versions that were not taken into service, and why")


class ModelsInfo(Answer):
    """All model types."""

    available_models: list[ModelType]
    default_model: ModelType
    model_details: dict[str, ModelDetails]
    supported_formats: list[str]
    max_file_size_mb: int


class Info(Answer):
    """What this API is."""

    name: str
    version: str
    endpoints: dict[str, str]
    formats: list[str]
    max_file_size: str
    classes: list[Label]
    model_types: list[ModelType]
    default_model: ModelType
    features: list[str]


class Figures(Answer):
    """The process and the host, in numbers."""

    status: str
    timestamp: str
    process: dict[str, float]
    host: dict[str, float]
    models: dict[str, str]


class ModelsHealth(Answer):
    """The models in service."""

    status: Literal["available", "missing"]
    models: dict[str, dict[str, str | None]]
