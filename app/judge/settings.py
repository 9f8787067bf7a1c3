"""Settings of the judge; each is an environment variable `JUDGE_...`."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from app.core.settings import ENV_FILE, Settings


class JudgeSettings(Settings):
    """What an operator may want to change."""

    model_config = SettingsConfigDict(
        env_prefix="JUDGE_", env_file=ENV_FILE, env_file_encoding="utf-8", extra="ignore", populate_by_name=True
    )

    git_hosts: str = Field(default="github.com", description="git hosts that repositories may be on, by commas")
    mirror: str = Field(
        default="", description="clone from <mirror><owner>/<name> instead of https://<host>/<owner>/<name>: a cache"
    )
    clone_seconds: float = Field(default=120.0, gt=0, description="seconds a clone may take")
    clone_megabytes: int = Field(default=300, ge=1, description="megabytes a clone may have")
    clone_depth: int = Field(default=100, ge=1, description="commits that are looked at")
    most_files: int = Field(default=20_000, ge=1, description="files a repository may have")
    tool_seconds: float = Field(default=30.0, gt=0, description="seconds each static tool may take")
    workers: int = Field(default=2, ge=1, le=16, description="submissions a worker process judges at a time")
    lease_seconds: float = Field(
        default=30.0, gt=0, description="seconds after which a silent worker's submission is taken by another"
    )
    poll_seconds: float = Field(default=1.0, gt=0, description="seconds between two looks for work")
    attempts: int = Field(
        default=5, ge=1, description="workers that may die with a submission before it counts as failed"
    )
    prices: str = Field(
        default="bug_hunter=0.002,performance=0.002,innovation=0.003,ai_detection=0.001",
        description="US dollars an agent costs for each submission: what processor time is charged at",
    )
    default_tier: str = Field(
        default="free", pattern="^(free|starter|pro|enterprise)$", description="of new organizers"
    )
    login_key_days: int = Field(default=30, ge=1, description="days that a key made by a login lives")
    register_per_hour: int = Field(default=30, ge=1, description="registrations an hour from one address")
    login_per_minute: int = Field(default=10, ge=1, description="logins a minute from one address")
    public_per_minute: int = Field(default=30, ge=1, description="public submissions a minute from one address")
    agent: str = Field(default="", description="module:attribute of an LLM agent (app.judge.llm); empty: none")

    @property
    def hosts(self) -> frozenset[str]:
        """The git hosts, in lower case."""
        return frozenset(host.strip().lower() for host in self.git_hosts.split(",") if host.strip())

    @property
    def price(self) -> dict[str, float]:
        """US dollars a submission for each agent."""
        pairs = (part.split("=", 1) for part in self.prices.split(",") if "=" in part)
        return {name.strip(): float(value) for name, value in pairs}
