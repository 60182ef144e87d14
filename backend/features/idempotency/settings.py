"""The idempotency section of the settings."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from backend.core.config import EnvSettings


class IdempotencySettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="IDEMPOTENCY__")

    hours: int = Field(24, ge=1, le=720, description="Hours for which an Idempotency-Key is remembered")
    lock_seconds: int = Field(
        60,
        ge=1,
        le=3600,
        description="Seconds after which a request whose process was killed may be carried out again",
    )
    answer_bytes: int = Field(
        65_536, ge=0, le=8_388_608, description="Largest answer that is kept; of a larger one, that it was given"
    )
