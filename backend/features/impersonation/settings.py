"""The impersonation section of the settings."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from backend.core.config import EnvSettings


class ImpersonationSettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="IMPERSONATION__")

    minutes: int = Field(15, ge=1, le=60, description="Minutes after which acting as somebody else ends")
    notify: bool = Field(True, description="Whether people are told by mail when somebody acts as them")
