"""The sentry section of the settings."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from backend.core.config import EnvSettings


def _is_dsn(value: SecretStr) -> SecretStr:
    parts = urlsplit(text := value.get_secret_value())
    complete = parts.scheme in ("http", "https") and parts.username and parts.hostname and parts.path.strip("/")
    if text and not complete:
        raise ValueError("must be like https://key@host/project")
    return value


class SentrySettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="SENTRY__")

    dsn: Annotated[SecretStr, AfterValidator(_is_dsn)] = Field(
        SecretStr(""), description="Where unhandled errors go, https://key@host/project; empty: nowhere"
    )
    traces_sample_ratio: float = Field(
        0, ge=0, le=1, description="Share of the requests whose route and duration go there, too"
    )
