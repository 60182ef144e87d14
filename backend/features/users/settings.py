"""The users section of the settings."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from backend.core.config import EnvSettings


class UsersSettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="USERS__")

    signup_open: bool = Field(True, description="Whether strangers may create accounts")
    access_token_minutes: int = Field(
        30, ge=1, le=1440, description="Minutes for which an access token is good, a new password notwithstanding"
    )
    password_min_length: int = Field(10, ge=8, le=64, description="Fewest characters of a new password")
    hashing_concurrency: int = Field(
        2, ge=1, description="Password hashes computed at once per process; each takes 64 MiB and a core for a moment"
    )
    console_session_hours: int = Field(12, ge=1, description="Hours after which staff sign in to the console again")
