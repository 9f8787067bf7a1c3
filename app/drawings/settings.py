"""Settings of the drawings app; each is an environment variable `DRAWINGS_...`."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from app.core.settings import ENV_FILE, Settings


class DrawingsSettings(Settings):
    """What an operator may want to change."""

    model_config = SettingsConfigDict(
        env_prefix="DRAWINGS_", env_file=ENV_FILE, env_file_encoding="utf-8", extra="ignore", populate_by_name=True
    )

    poll_seconds: float = Field(default=10.0, gt=0, description="how often a worker looks for a newer model")
    work_seconds: float = Field(default=1.0, gt=0, description="how often a worker looks for a batch to work on")
    keep_days: int = Field(default=90, ge=1, description="days a model is kept after a newer one came")
    backup_hours: float = Field(
        default=6.0, gt=0, description="hours between the app's own backups; they run in the API"
    )
    backup_keep: int = Field(
        default=60, ge=2, description="the app's own backups that are kept; the bucket's rules keep longer"
    )
    export_hours: float = Field(default=24.0, gt=0, description="hours after which an export is gone")
    rate_default: int = Field(default=60, ge=1, description="requests a minute for each visitor")
    rate_upload: int = Field(default=10, ge=1, description="uploads a minute for each visitor")
    rate_analysis: int = Field(default=30, ge=1, description="analyses a minute for each visitor")
    rate_auth: int = Field(default=5, ge=1, description="passwords a minute for each visitor")
    production_account: str = Field(default="", description="AWS account that holds production data")
    account: str = Field(
        default="", description="AWS account of the credentials in use; empty: ask AWS when it matters"
    )
