"""The audit section of the settings."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from backend.core.config import EnvSettings


class AuditSettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="AUDIT__")

    retention_days: int = Field(
        365, ge=0, le=36_500, description="Days after which entries of the audit log are deleted; 0 keeps them for ever"
    )
