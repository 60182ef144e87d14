"""The console_jobs section of the settings."""

from datetime import timedelta

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from backend.core.config import EnvSettings


class ConsoleJobsSettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="CONSOLE_JOBS__")

    poll_seconds: float = Field(
        2, ge=0.1, le=3600, description="Seconds between looks for a background action that waits, by each process"
    )
    lease_seconds: float = Field(
        60, ge=2, le=3600, description="Seconds without a sign of life after which another process goes on with one"
    )
    days_kept: int = Field(90, ge=1, le=3650, description="Days after which ended background actions are forgotten")

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.lease_seconds)
