"""The password_reset section of the settings."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from backend.core import mail
from backend.core.config import EnvSettings, Settings


class PasswordResetSettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="PASSWORD_RESET__")

    lifetime_minutes: int = Field(30, ge=5, le=1440, description="Minutes for which the link in the mail is good")

    def offences(self, settings: Settings) -> list[str]:
        return mail.offences(settings, "reset passwords")
