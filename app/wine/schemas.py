"""What the API takes and gives."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

MAX_CHARACTERS = 5000
MAX_VARIETY = 100
MAX_TOP = 50
MAX_ITEMS = 1000
MAX_ROWS = 10_000

Description = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_CHARACTERS,
        description="the tasting note",
        examples=["Blackberry, cedar and firm tannins."],
    ),
]
Variety = Annotated[str | None, Field(max_length=MAX_VARIETY, description="the grape, when known", examples=["Malbec"])]
TopK = Annotated[int, Field(ge=1, le=MAX_TOP, description="how many countries `top` lists")]


class Note(BaseModel):
    """One tasting note."""

    model_config = ConfigDict(strict=True)

    description: Description
    variety: Variety = None
    top_k: TopK = 3


class Batch(BaseModel):
    """Up to 1000 tasting notes."""

    model_config = ConfigDict(strict=True)

    items: Annotated[list[Note], Field(min_length=1, max_length=MAX_ITEMS)]


class Candidate(BaseModel):
    """A country and how probable it is."""

    country: str
    probability: float = Field(ge=0, le=1)


class Term(BaseModel):
    """A term of the note and what it pushed, in log-odds against the average country; below zero it spoke against the answer."""

    term: str
    weight: float


class Answer(BaseModel):
    """Where the wine comes from, or why nothing can be said (`predicted_country` is null)."""

    model_config = ConfigDict(protected_namespaces=())

    predicted_country: str | None
    reason: str | None = Field(description="why there is no country; null when there is one")
    confidence: float = Field(ge=0, le=1, description="calibrated probability of the country; 0 when there is none")
    top: list[Candidate]
    terms: list[Term]
    model_version: str
    latency_ms: float = Field(ge=0)


class BatchAnswer(BaseModel):
    """Answers in the order of the items, sent while they are made."""

    model_config = ConfigDict(protected_namespaces=())

    model_version: str
    results: list[Answer]


class ModelInfo(BaseModel):
    """The model in service."""

    version: str
    sha256: str
    trained_at: str
    classes: list[str]
    features: int
    metrics: dict[str, Any] = Field(description="held-out measures with the variety and with the note only")
    evaluation: dict[str, Any]
    calibration: dict[str, float]
    data: dict[str, Any]
    backend: dict[str, str]
    libraries: dict[str, str]


class ModelVersion(BaseModel):
    """One stored model."""

    version: str
    trained_at: str
    serving: bool
    refused: str | None = Field(description="why it was not taken into service")
    notes: int
    source: str
    size_bytes: int
    accuracy: float
    macro_f1: float
    log_loss: float
    ece: float


class Chart(BaseModel):
    """The numbers behind a chart and what they say."""

    model_config = ConfigDict(extra="allow")

    insight: str


class Analytics(BaseModel):
    """The reviews that the model in service was trained on, as charts."""

    model_config = ConfigDict(protected_namespaces=())

    model_version: str
    source: str
    reviews: int = Field(description="how many pass the filters")
    of: int = Field(description="how many there are")
    options: dict[str, Any] = Field(description="what the filters can be set to")
    charts: dict[str, Chart]


class Training(BaseModel):
    """How far the last training is or came; times are seconds since 1970."""

    state: str = Field(description="idle, running, done, failed or interrupted")
    share: float = Field(ge=0, le=1)
    sentence: str
    started_at: float | None
    finished_at: float | None
    version: str | None
    error: str | None
