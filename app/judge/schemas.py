"""What the API takes and gives, as its description says it."""

import math
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

ULID_PATTERN: Final = r"^[0-7][0-9A-HJKMNP-TV-Z]{25}$"
KEY_PATTERN: Final = r"^vj_(live|test)_[A-Za-z0-9+/]{32}$"
TEAM_PATTERN: Final = r"^[a-zA-Z0-9 _-]+$"
EMAIL_PATTERN: Final = r"^[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+\.[^@\s\x00-\x1f]+$"
_REPO: Final = re.compile(r"https://(?P<host>[A-Za-z0-9.-]+)/(?P<path>[\w\-\.]+/[\w\-\.]+)/?", re.ASCII)

Agent = Literal["bug_hunter", "performance", "innovation", "ai_detection"]
HackathonStatus = Literal["draft", "configured", "analyzing", "completed", "archived"]
SubmissionStatus = Literal["pending", "cloning", "analyzing", "completed", "failed", "timeout", "disqualified"]
JobStatus = Literal["queued", "running", "completed", "failed", "cancelled"]
Recommendation = Literal["strong_contender", "solid_submission", "needs_improvement", "concerns_flagged"]
PolicyMode = Literal["full_vibe", "ai_assisted", "traditional", "custom", "no_ai", "ai_generated"]
Tier = Literal["free", "starter", "pro", "enterprise"]


def _plain(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain the character NUL")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("must be valid Unicode") from error
    return text


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("must say something")
    return text.strip()


Text = Annotated[str, AfterValidator(_plain)]
Said = Annotated[str, AfterValidator(_plain), AfterValidator(_said)]


def _utc(value: Any) -> Any:
    """A time without a zone is UTC; numbers are no times."""
    if isinstance(value, str) and (found := re.fullmatch(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?)?", value)):
        return f"{value}T00:00:00Z" if found[1] is None else f"{value}Z"
    if isinstance(value, bool | int | float):
        raise ValueError("must be a time such as 2026-11-27T09:00:00Z")  # noqa: TRY004 - pydantic turns ValueErrors into its own
    return value


def _this_age(value: datetime) -> datetime:
    if not 1970 <= value.year <= 9998:
        raise ValueError("must be a time after 1970")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_utc), AfterValidator(_this_age)]


class Given(BaseModel):
    """Something a client sends: unknown fields are passed over, numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)


class OrganizerIn(Given):
    """A registration."""

    email: Annotated[str, Field(pattern=EMAIL_PATTERN, max_length=254)]
    name: Said = Field(min_length=1, max_length=200)
    organization: Text | None = Field(default=None, max_length=200)
    password: Text = Field(min_length=8, max_length=200)


class LoginIn(Given):
    """An e-mail address with its password."""

    email: Text = Field(min_length=1, max_length=254)
    password: Text = Field(min_length=1, max_length=200)


class OrganizerOut(BaseModel):
    """An organizer."""

    org_id: str
    email: str
    name: str
    organization: str | None
    tier: Tier
    created_at: str


class Limits(BaseModel):
    """What a tier allows."""

    requests_per_second: int
    requests_per_day: int
    budget_usd: float


class Me(OrganizerOut):
    """The organizer who asks, with the tier's limits and what is left of its budget."""

    limits: Limits
    spent_usd: float
    hackathon_count: int


class Registered(OrganizerOut):
    """A new organizer and the key, which is shown this once."""

    api_key: str


class LoggedIn(BaseModel):
    """A login: a new key; no other one is revoked."""

    org_id: str
    api_key: str
    expires_at: str


class Dimension(Given):
    """A part of a rubric, judged by one agent."""

    name: Said = Field(min_length=1, max_length=100)
    weight: float = Field(ge=0, le=1)
    agent: Agent
    description: Text = Field(default="", max_length=500)


class Rubric(Given):
    """How the overall score comes about: weights sum to 1 (within .001)."""

    name: Said = Field(min_length=1, max_length=100)
    version: Text = Field(default="1.0", max_length=20)
    max_score: float = Field(default=100.0, gt=0, le=1000)
    dimensions: list[Dimension] = Field(min_length=1, max_length=10)

    @model_validator(mode="after")
    def _check(self) -> "Rubric":
        total = math.fsum(one.weight for one in self.dimensions)
        if abs(total - 1) > 0.001 + 1e-12:
            raise ValueError(f"the weights of the dimensions sum to {total:g}; they must sum to 1")
        names = [one.name.lower() for one in self.dimensions]
        if len(set(names)) < len(names):
            raise ValueError("two dimensions have the same name")
        return self


class HackathonIn(Given):
    """A hackathon as its organizer describes it."""

    name: Said = Field(min_length=1, max_length=200)
    description: Text = Field(default="", max_length=2000)
    start_date: Moment | None = None
    end_date: Moment | None = None
    rubric: Rubric
    agents_enabled: list[Agent] = Field(min_length=1, max_length=4)
    ai_policy_mode: PolicyMode = "ai_assisted"
    ai_policy_config: dict[Text, Any] = Field(default_factory=dict, max_length=50)
    budget_limit_usd: float | None = Field(default=None, ge=0.01, le=10000)

    @model_validator(mode="after")
    def _check(self) -> "HackathonIn":
        check_hackathon(self.start_date, self.end_date, self.agents_enabled, self.rubric)
        return self


class HackathonChange(Given):
    """What is to change; what is left out stays."""

    name: Said | None = Field(default=None, min_length=1, max_length=200)
    description: Text | None = Field(default=None, max_length=2000)
    start_date: Moment | None = None
    end_date: Moment | None = None
    rubric: Rubric | None = None
    agents_enabled: list[Agent] | None = Field(default=None, min_length=1, max_length=4)
    ai_policy_mode: PolicyMode | None = None
    ai_policy_config: dict[Text, Any] | None = Field(default=None, max_length=50)
    budget_limit_usd: float | None = Field(default=None, ge=0.01, le=10000)


def check_hackathon(start: datetime | None, end: datetime | None, agents: list[Any], rubric: Rubric) -> None:
    """The rules that no single field shows. Raises ValueError."""
    if start is not None and end is not None and start >= end:
        raise ValueError("start_date must be before end_date")
    if len(set(agents)) < len(agents):
        raise ValueError("agents_enabled names an agent twice")
    if missing := sorted({one.agent for one in rubric.dimensions} - set(agents)):
        raise ValueError(f"the rubric needs agents that agents_enabled leaves out: {', '.join(missing)}")


class HackathonOut(BaseModel):
    """A hackathon."""

    hack_id: str
    org_id: str
    name: str
    description: str
    start_date: str | None
    end_date: str | None
    rubric: Rubric
    agents_enabled: list[Agent]
    ai_policy_mode: PolicyMode
    ai_policy_config: dict[str, Any]
    budget_limit_usd: float | None
    status: HackathonStatus
    submission_count: int
    created_at: str
    updated_at: str


class HackathonRow(BaseModel):
    """A hackathon in a list."""

    hack_id: str
    name: str
    status: HackathonStatus
    submission_count: int
    created_at: str


class HackathonPage(BaseModel):
    """A page of hackathons, newest first; `next_cursor` asks for the next one."""

    hackathons: list[HackathonRow]
    next_cursor: str | None
    has_more: bool


class Stats(BaseModel):
    """Counts of a hackathon. Verified: cloned and judged. Pending: still to be. Participants: named members, at least one a team."""

    hack_id: str
    submission_count: int
    verified_count: int
    pending_count: int
    failed_count: int
    participant_count: int
    hackathon_status: HackathonStatus


class PublicHackathon(BaseModel):
    """A hackathon that takes submissions."""

    hack_id: str
    name: str
    description: str
    status: HackathonStatus
    start_date: str | None
    end_date: str | None


class PublicHackathons(BaseModel):
    """The hackathons that take submissions."""

    hackathons: list[PublicHackathon]


class SubmissionIn(Given):
    """A team's repository."""

    team_name: str = Field(pattern=TEAM_PATTERN, min_length=1, max_length=50)
    repo_url: str = Field(
        max_length=300,
        description=r"^https://github\.com/[\w\-\.]+/[\w\-\.]+/?$, or on another git host that the operator allows",
        examples=["https://github.com/team/project"],
    )
    team_members: list[Annotated[Said, Field(min_length=1, max_length=100)]] = Field(
        default_factory=list, max_length=20
    )

    @model_validator(mode="after")
    def _check(self) -> "SubmissionIn":
        self.team_name = self.team_name.strip()
        if not self.team_name:
            raise ValueError("team_name must say something")
        split_repo(self.repo_url)
        return self


def split_repo(url: str) -> tuple[str, str]:
    """Host and owner/name of a repository's address. Raises ValueError when it is none."""
    found = _REPO.fullmatch(url)
    if found is None or {"..", "."} & set(found["path"].split("/")):
        raise ValueError("repo_url must be a repository such as https://github.com/team/project")
    return found["host"].lower(), found["path"]


class SubmissionsIn(Given):
    """Submissions to add: all of them, or none."""

    submissions: list[SubmissionIn] = Field(min_length=1, max_length=500)


class SubmissionOut(BaseModel):
    """A submission."""

    sub_id: str
    hack_id: str
    team_name: str
    repo_url: str
    team_members: list[str]
    status: SubmissionStatus
    overall_score: float | None
    rank: int | None
    total_cost_usd: float
    created_at: str
    analyzed_at: str | None
    error_message: str | None
    disqualification_reason: str | None


class SubmissionPage(BaseModel):
    """A page of submissions, oldest first."""

    submissions: list[SubmissionOut]
    next_cursor: str | None
    has_more: bool


class Created(BaseModel):
    """What was added."""

    created: int
    submissions: list[SubmissionOut]
    hackathon_submission_count: int


class PublicReceipt(BaseModel):
    """What a team is told."""

    sub_id: str
    team_name: str
    repo_url: str
    status: SubmissionStatus
    created_at: str


class Range(BaseModel):
    """US dollars."""

    low: float
    expected: float
    high: float


class EstimateBody(BaseModel):
    """What an analysis would cost and take."""

    total_submissions: int
    total_cost_usd: Range
    per_submission_cost_usd: float
    cost_by_agent: dict[str, float]
    estimated_duration_minutes: float


class BudgetCheck(BaseModel):
    """Whether the budgets allow it."""

    within_budget: bool
    budget_limit_usd: float | None
    spent_usd: float
    remaining_usd: float | None
    tier_limit_usd: float
    tier_spent_usd: float


class Estimate(BaseModel):
    """An estimate and its budget check."""

    estimate: EstimateBody
    budget_check: BudgetCheck


class AnalyzeIn(Given):
    """Which submissions to judge; without ids all that are pending, failed or timed out."""

    submission_ids: list[Annotated[str, Field(pattern=ULID_PATTERN)]] | None = Field(
        default=None, min_length=1, max_length=10000
    )
    force_reanalyze: bool = False


class JobOut(BaseModel):
    """A job that was queued."""

    job_id: str
    hack_id: str
    status: JobStatus
    total_submissions: int
    estimated_cost_usd: float
    created_at: str


class Progress(BaseModel):
    """How far a job is."""

    total_submissions: int
    completed: int
    failed: int
    remaining: int
    percent_complete: float


class JobError(BaseModel):
    """A submission that could not be judged."""

    sub_id: str
    team_name: str
    error: str


class JobState(BaseModel):
    """A job and its progress."""

    job_id: str
    hack_id: str
    status: JobStatus
    progress: Progress
    current_submission: str | None = Field(description="the team that is being judged")
    cost_so_far: float
    errors: list[JobError]
    created_at: str
    started_at: str | None
    finished_at: str | None


class Statistics(BaseModel):
    """Statistics of the scores of a leaderboard; the deviation is the population's. None without scores."""

    mean_score: float | None
    median_score: float | None
    std_dev: float | None
    highest_score: float | None
    lowest_score: float | None
    score_distribution: dict[str, int]


class Ranked(BaseModel):
    """A line of a leaderboard. Equal scores have equal ranks."""

    rank: int
    sub_id: str
    team_name: str
    overall_score: float
    dimension_scores: dict[str, float]
    recommendation: Recommendation
    confidence: float
    created_at: str


class LeaderboardHackathon(BaseModel):
    """Which hackathon a leaderboard is of."""

    hack_id: str
    name: str
    status: HackathonStatus
    submission_count: int
    analyzed_count: int


class Leaderboard(BaseModel):
    """The judged submissions, best first."""

    hackathon: LeaderboardHackathon
    leaderboard: list[Ranked]
    statistics: Statistics


class Evidence(BaseModel):
    """A finding in a file (and line) that exists."""

    finding: str
    file: str
    line: int | None
    severity: Literal["info", "low", "medium", "high", "critical"]
    source: str


class AgentScore(BaseModel):
    """What one agent says: sub-scores of 0 to 10, whose mean is its score."""

    agent: Agent
    overall_score: float
    confidence: float
    scores: dict[str, float]
    summary: str
    strengths: list[str]
    improvements: list[str]
    evidence: list[Evidence]
    cost_usd: float


class DimensionScore(BaseModel):
    """A dimension: weighted = agent score x weight x 10."""

    agent: Agent
    agent_score: float
    weight: float
    weighted: float


class ScorecardOut(BaseModel):
    """Everything about a judged submission."""

    model_config = ConfigDict(extra="allow")

    sub_id: str
    hack_id: str
    team_name: str
    repo_url: str
    overall_score: float
    rank: int | None
    recommendation: Recommendation
    confidence: float
    dimension_scores: dict[str, DimensionScore]
    agents: dict[str, AgentScore]
    repository: dict[str, Any]
    static_analysis: dict[str, Any]
    team: dict[str, Any]
    strategy: dict[str, Any]
    total_cost_usd: float
    analyzed_at: str


class Individual(BaseModel):
    """One contributor of a submission."""

    name: str
    role: str
    seniority: Literal["junior", "mid", "senior"]
    commits: int
    share: float
    lines_added: int
    lines_deleted: int
    files: int
    skills: list[str]
    message_quality: float
    hiring_score: float
    red_flags: list[str]


class Individuals(BaseModel):
    """The contributors of a submission, most commits first."""

    sub_id: str
    team_name: str
    team_grade: str
    individuals: list[Individual]


class SubmissionCosts(BaseModel):
    """What judging a submission has cost."""

    sub_id: str
    total_cost_usd: float
    cost_by_agent: dict[str, float]


class HackathonCosts(BaseModel):
    """What judging a hackathon has cost."""

    hack_id: str
    total_cost_usd: float
    submissions_analyzed: int
    average_cost_per_submission_usd: float
    cost_by_agent: dict[str, float]
    budget_limit_usd: float | None
    budget_remaining_usd: float | None


class Candidate(BaseModel):
    """A contributor worth an interview."""

    name: str
    team_name: str
    sub_id: str
    role: str
    seniority: str
    skills: list[str]
    hiring_score: float
    commits: int


class Hiring(BaseModel):
    """Candidates by role."""

    backend_candidates: list[Candidate]
    frontend_candidates: list[Candidate]
    devops_candidates: list[Candidate]
    full_stack_candidates: list[Candidate]
    must_interview: list[Candidate]


class Counted(BaseModel):
    """How many submissions have something."""

    name: str
    count: int
    share: float


class Trends(BaseModel):
    """What the teams built with. Emerging: in one or two submissions, and those scored above the mean."""

    most_used: list[Counted]
    emerging: list[Counted]
    popular_stacks: list[Counted]


class TopPerformer(BaseModel):
    """One of the best submissions."""

    rank: int
    sub_id: str
    team_name: str
    overall_score: float
    strengths: list[str]


class Issue(BaseModel):
    """A problem that several submissions share."""

    issue: str
    count: int
    share: float
    example: str


class Prize(BaseModel):
    """Who could get a special prize, and why."""

    prize: str
    team_name: str
    sub_id: str
    reason: str


class SponsorUse(BaseModel):
    """An API or service that submissions use."""

    sponsor: str
    count: int
    teams: list[str]


class Intelligence(BaseModel):
    """What a hackathon says as a whole."""

    hack_id: str
    hackathon_name: str
    analyzed_count: int
    top_performers: list[TopPerformer]
    hiring_intelligence: Hiring
    technology_trends: Trends
    common_issues: list[Issue]
    prize_recommendations: list[Prize]
    must_interview: list[Candidate]
    sponsor_api_usage: list[SponsorUse]
    team_grades: dict[str, int]
    testing_strategies: dict[str, int]
    generated_at: str


class KeyIn(Given):
    """A key to make."""

    name: Said = Field(min_length=1, max_length=100)
    environment: Literal["live", "test"] = "live"
    expires_in_days: int | None = Field(default=None, ge=1, le=3650)


class KeyChange(Given):
    """What is to change of a key."""

    name: Said | None = Field(default=None, min_length=1, max_length=100)
    active: bool | None = None
    expires_at: Moment | None = None


class KeyOut(BaseModel):
    """A key; the key itself is shown only when it is made."""

    api_key_id: str
    name: str
    prefix: str
    source: str
    tier: Tier
    active: bool
    expired: bool
    created_at: str
    expires_at: str | None
    last_used_at: str | None


class KeyMade(KeyOut):
    """A new key, shown this once."""

    api_key: str = Field(pattern=KEY_PATTERN)


class KeyRotated(KeyMade):
    """The new key, and how long the old one still lives."""

    old_key_id: str
    old_key_expires_at: str


class Keys(BaseModel):
    """An organizer's keys, newest first."""

    api_keys: list[KeyOut]


class DayBreakdown(BaseModel):
    """A day's use."""

    date: str
    requests: int
    successful: int
    failed: int
    cost_usd: float


class DayUsage(BaseModel):
    """The same day under the names of the older contract."""

    date: str
    request_count: int
    successful_requests: int
    total_cost_usd: float


class Usage(BaseModel):
    """Use between two days, both included."""

    org_id: str
    start_date: str
    end_date: str
    tier: Tier
    total_requests: int
    successful_requests: int
    failed_requests: int
    total_cost_usd: float
    daily_breakdown: list[DayBreakdown]
    daily_usage: list[DayUsage]


class Refusal(BaseModel):
    """A 401."""

    error: Literal["Missing X-API-Key header", "Invalid API key", "API key expired", "API key inactive"]


class TooMany(BaseModel):
    """A 429."""

    error: str
    retry_after: int


class OverBudget(BaseModel):
    """A 402."""

    error: str
    level: Literal["hackathon", "tier"]
    message: str
    details: dict[str, Any]


def moment(at: float) -> str:
    """Seconds since 1970 as ISO 8601, UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment_or_none(at: float | None) -> str | None:
    """The same where there may be none."""
    return None if at is None else moment(at)
