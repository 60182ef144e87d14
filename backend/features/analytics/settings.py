"""The analytics section of the settings."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from backend.core.config import EnvSettings


class AnalyticsSettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="ANALYTICS__")

    flush_seconds: float = Field(
        10, ge=0.1, le=86_400, description="Seconds between storing what was counted; a killed process loses as much"
    )
    keys_per_minute: int = Field(
        500, ge=1, le=100_000, description="Combinations of route, method, status and caller counted in one minute"
    )
    keys_waiting: int = Field(
        20_000, ge=100, le=1_000_000, description="Most rows kept in memory while the database is away; then coarser"
    )
    minutes_days: int = Field(2, ge=1, le=365, description="Days for which figures are kept by the minute")
    hours_days: int = Field(30, ge=1, le=3650, description="Days for which figures are kept by the hour, then by day")
    days_kept: int = Field(400, ge=1, le=36_500, description="Days after which figures are deleted")
