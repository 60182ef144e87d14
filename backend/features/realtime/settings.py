"""The realtime section of the settings."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from backend.core.config import EnvSettings


class RealtimeSettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="REALTIME__")

    connections: int = Field(500, ge=1, description="WebSockets and event streams open at once, per process")
    lifetime_seconds: float = Field(
        900,
        gt=0,
        le=86400,
        description="Seconds after which an open connection ends, so that its caller proves again who they are",
    )
    message_bytes: int = Field(65536, ge=1, le=1048576, description="Largest WebSocket message")
    replay_seconds: int = Field(
        300, ge=0, le=3600, description="Seconds of missed events that a returning reader of the clock gets at most"
    )
