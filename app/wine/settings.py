"""Settings of VinoVoyant; each is an environment variable `WINE_...`."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from app.core.settings import ENV_FILE, Settings


class WineSettings(Settings):
    """What an operator may want to change."""

    model_config = SettingsConfigDict(
        env_prefix="WINE_", env_file=ENV_FILE, env_file_encoding="utf-8", extra="ignore", populate_by_name=True
    )

    poll_seconds: float = Field(default=10.0, gt=0, description="how often a worker looks for a newer model")
    keep_days: int = Field(default=30, ge=1, description="days a model is kept after a newer one came")
