"""Settings of AVA Dataset Management: CVAT's are `CVAT_...`, its own are `AVA_...`."""

from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from app.ava.attributes import DEFAULT_FILE
from app.core.settings import ENV_FILE, Settings, secret


class AvaSettings(Settings):
    """What an operator may want to change."""

    model_config = SettingsConfigDict(
        env_prefix="AVA_", env_file=ENV_FILE, env_file_encoding="utf-8", extra="ignore", populate_by_name=True
    )

    cvat_host: str = Field(
        default="", validation_alias=AliasChoices("CVAT_HOST", "cvat_host"), description="https://cvat.example.org"
    )
    cvat_username: str = Field(default="", validation_alias=AliasChoices("CVAT_USERNAME", "cvat_username"))
    cvat_password: SecretStr = Field(
        default=SecretStr(""),
        validation_alias=AliasChoices("CVAT_PASSWORD", "cvat_password"),
        description="else the secret cvat_password",
    )
    cvat_seconds: float = Field(default=60.0, gt=0, description="longest silence of CVAT within a request")
    cvat_wait_seconds: float = Field(default=900.0, gt=0, description="longest wait for an import or export of CVAT")
    cvat_poll_seconds: float = Field(default=1.0, gt=0, description="how often a running import or export is asked for")
    webhook_url: str = Field(
        default="", description="address of /webhooks/cvat as CVAT reaches it; empty: reconcile alone notices changes"
    )
    attributes: Path = Field(default=DEFAULT_FILE, description="the attributes of new projects")
    reconcile_seconds: float = Field(default=300.0, gt=0, description="how often CVAT is asked what has changed")
    work_here: bool = Field(default=True, description="off a host: whether the API has a thread for the worker")
    work_seconds: float = Field(default=2.0, gt=0, description="how often the worker looks for something to do")
    part_bytes: int = Field(
        default=64 * 1024**2, ge=5 * 1024**2, description="size of an upload's parts; S3 wants 5 MiB"
    )
    upload_bytes: int = Field(default=5 * 1024**3, ge=1, description="largest upload")
    upload_hours: float = Field(default=72.0, gt=0, description="hours after which an unfinished upload is forgotten")
    rate_default: int = Field(default=300, ge=1, description="requests a minute for each visitor")
    rate_auth: int = Field(default=5, ge=1, description="passwords a minute for each visitor")

    @property
    def password(self) -> str:
        """CVAT's password: from the environment, else the secret."""
        return self.cvat_password.get_secret_value() or secret("cvat_password") or ""

    @property
    def webhook_secret(self) -> str:
        """What CVAT signs its messages with."""
        return secret("cvat_webhook_secret") or ""
