"""The email_verification section of the settings."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from backend.core import mail
from backend.core.config import EnvSettings, Settings


class EmailVerificationSettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="EMAIL_VERIFICATION__")

    required: bool = Field(False, description="Whether people sign in only after they have verified their address")
    lifetime_hours: int = Field(48, ge=1, le=720, description="Hours for which the link in the mail is good")

    def offences(self, settings: Settings) -> list[str]:
        return mail.offences(settings, "verify addresses")
