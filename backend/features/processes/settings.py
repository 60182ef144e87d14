"""The processes section of the settings."""

from datetime import timedelta

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from backend.core.config import EnvSettings


class ProcessesSettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="PROCESSES__")

    report_seconds: float = Field(
        10, ge=0.1, le=86_400, description="Seconds between what each process says of itself, and of what failed"
    )
    failures_kept: int = Field(1000, ge=0, le=100_000, description="Failed answers that are kept, the newest ones")
    failures_days: int = Field(30, ge=1, le=3650, description="Days after which failed answers are deleted")

    @property
    def gone_after(self) -> timedelta:
        """Without a word for so long, a process is taken to be gone."""
        return timedelta(seconds=max(60, 3 * self.report_seconds))
