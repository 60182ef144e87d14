"""The users section of the settings."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from backend.core.config import CommaList, EnvSettings


class UsersSettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="USERS__")

    signup_open: bool = Field(True, description="Whether strangers may create accounts")
    access_token_minutes: int = Field(
        15, ge=1, le=1440, description="Minutes for which an access token is good, unless its session ends before"
    )
    session_days: int = Field(30, ge=1, le=3650, description="Days after which people sign in again in any case")
    refresh_idle_days: int = Field(14, ge=1, le=365, description="Days after which a refresh token not used is no good")
    refresh_grace_seconds: int = Field(
        10, ge=0, le=60, description="Seconds in which a used refresh token gives its successor again, for lost answers"
    )
    recent_minutes: int = Field(
        15, ge=1, le=1440, description="Minutes after signing in in which people may add ways in: keys, linked accounts"
    )
    browser_origins: CommaList = Field(
        (), description="Origins other than our own whose pages may refresh by cookie, separated by commas"
    )
    password_min_length: int = Field(10, ge=8, le=64, description="Fewest characters of a new password")
    password_words: CommaList = Field(
        (), description="Words that new passwords may not rest on, separated by commas: your products, your company"
    )
    hashing_concurrency: int = Field(
        2, ge=1, description="Password hashes computed at once per process; each takes 64 MiB and a core for a moment"
    )
    console_session_hours: int = Field(12, ge=1, description="Hours after which staff sign in to the console again")
    console_idle_minutes: int = Field(
        60,
        ge=10,
        description="Minutes without a click after which staff sign in to the console again",
    )
