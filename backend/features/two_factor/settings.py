"""The two_factor section of the settings."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from backend.core.config import EnvSettings


class TwoFactorSettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="TWO_FACTOR__")

    required_for_staff: bool = Field(
        False, description="Whether who holds more than an ordinary account holds it only with a second factor"
    )
