"""Vision's own settings."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from app.core.settings import Settings


class VisionSettings(Settings):
    """Read from `VISION_*`."""

    model_config = SettingsConfigDict(env_prefix="VISION_")

    poll_seconds: float = Field(default=10.0, gt=0, description="how often each worker looks for newer models")
    keep_days: int = Field(default=30, ge=0, description="how long old models are kept; the last two always are")
    rate_limit: int = Field(default=100, ge=1, description="requests a minute for each visitor")
