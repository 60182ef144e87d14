"""The rate_limits section of the settings."""

from functools import cached_property
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import SettingsConfigDict
from pyrate_limiter import Rate

from backend.core.config import CommaList, EnvSettings
from backend.core.rates import rate_of


def _pair(line: str) -> tuple[str, Rate | None]:
    name, _, rate = line.partition("=")
    return name.strip(), rate_of(rate.strip())


def _spelled(lines: tuple[str, ...]) -> tuple[str, ...]:
    for line in lines:
        _pair(line)
    return lines


def _rate_or_nothing(text: str) -> str:
    rate_of(text or "off")
    return text


class RateLimitSettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="RATE_LIMITS__")

    default: Annotated[str, AfterValidator(_rate_or_nothing)] = Field(
        "", description="What one address may ask of the whole API, such as 600/minute; empty: no such limit"
    )
    overrides: Annotated[CommaList, AfterValidator(_spelled)] = Field(
        (), description="Other rates for the limits of routes, by name: auth.token=60/minute,items.paged=off"
    )
    fail_closed: bool = Field(
        True, description="While Redis is away, refuse sign-in and what else says so (503); false: each process counts"
    )

    @cached_property
    def rates(self) -> dict[str, Rate | None]:
        """The overrides by name; None: switched off."""
        return dict(map(_pair, self.overrides))
