"""The api_keys section of the settings."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from backend.core.config import EnvSettings


class ApiKeysSettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="API_KEYS__")

    max_days: int = Field(
        365, ge=0, le=36500, description="Days for which a new API key is good at most; 0 allows keys that never expire"
    )
    overlap_hours: int = Field(
        24, ge=0, le=168, description="Hours for which a rotated API key works on, unless its owner says otherwise"
    )
    per_person: int = Field(50, ge=0, description="API keys in use at once that a person may have")
    store_use_seconds: float = Field(
        60, gt=0, le=3600, description="Seconds between writes of when API keys were last used; never one per request"
    )
