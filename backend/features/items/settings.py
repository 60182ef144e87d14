"""The items section of the settings."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from backend.core.config import EnvSettings


class ItemsSettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="ITEMS__")

    deleted_days: int = Field(
        30, ge=0, le=36_500, description="Days for which a deleted item can be restored; 0 keeps them for ever"
    )
