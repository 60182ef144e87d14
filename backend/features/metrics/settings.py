"""Who may read `/metrics`."""

from functools import cached_property
from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from backend.core.addresses import Network, is_within
from backend.core.config import CommaList, EnvSettings, Settings

TOKEN_MIN_LENGTH = 16  # bytes
EVERYBODY = frozenset({"*", "0.0.0.0/0", "::/0"})


def _networks(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        ip_network(value)
    return values


class MetricsSettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="METRICS__")

    token: SecretStr = Field(SecretStr(""), description="Bearer token that opens /metrics; empty: no token does")
    allowed: Annotated[CommaList, AfterValidator(_networks)] = Field(
        ("127.0.0.0/8", "::1"),
        description="Networks whose callers may read /metrics without a token, unless they come through a proxy "
        "(X-Forwarded-For)",
    )

    def offences(self, settings: Settings) -> list[str]:
        token = self.token.get_secret_value()
        checks = {
            "METRICS__ALLOWED names the whole internet: anybody could read /metrics": bool(
                EVERYBODY.intersection(self.allowed)
            ),
            f"METRICS__TOKEN is shorter than {TOKEN_MIN_LENGTH} bytes: it could be guessed": (
                0 < len(token.encode()) < TOKEN_MIN_LENGTH
            ),
        }
        return [sentence for sentence, unsafe in checks.items() if unsafe]

    @cached_property
    def networks(self) -> tuple[Network, ...]:
        return tuple(ip_network(value) for value in self.allowed)

    def allows(self, host: str) -> bool:
        """Whether a caller with this address needs no token."""
        return is_within(host, self.networks)
