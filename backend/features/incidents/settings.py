"""The incidents section of the settings."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from backend.core.config import EnvSettings


class IncidentsSettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="INCIDENTS__")

    probe_seconds: float = Field(
        15, ge=0.1, le=3600, description="Seconds between looks at the components, by one process among all"
    )
    lease_seconds: float = Field(
        60,
        ge=2,
        le=3600,
        description="Seconds without a look after which another process takes over; 3 looks at least",
    )
    open_after: int = Field(2, ge=1, le=1000, description="Looks in a row that fail until an incident is opened")
    days_kept: int = Field(400, ge=1, le=3650, description="Days after which history and closed incidents are deleted")

    @property
    def lease(self) -> float:
        """Seconds; a look that is late, or fails, does not lose it."""
        return max(self.lease_seconds, 3 * self.probe_seconds)
