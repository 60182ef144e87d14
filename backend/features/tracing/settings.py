"""The tracing section of the settings."""

from functools import cached_property
from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from backend.core.addresses import Network, is_within
from backend.core.config import CommaList, EnvSettings, Settings


def _networks(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        ip_network(value)
    return values


def _headers(value: SecretStr) -> SecretStr:
    for pair in _pairs(value):
        if not all(pair.partition("=")[::2]):
            raise ValueError("must be name=value pairs, separated by commas")
    return value


def _pairs(value: SecretStr) -> list[str]:
    return [pair.strip() for pair in value.get_secret_value().split(",") if pair.strip()]


class TracingSettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="TRACING__")

    endpoint: str = Field(
        "",
        pattern=r"^(https?://[^\s/?#]+[^\s?#]*|)$",
        description="Collector that takes OTLP over HTTP, http://collector:4318; empty: nothing is traced",
    )
    headers: Annotated[SecretStr, AfterValidator(_headers)] = Field(
        SecretStr(""), description="Headers to send to it, separated by commas: authorization=Bearer abc,x-team=shop"
    )
    sample_ratio: float = Field(
        0.1, ge=0, le=1, description="Share of the requests that are traced, unless a trusted caller has decided"
    )
    service_name: str = Field("mainstay", min_length=1, description="What the traces call this service")
    trusted: Annotated[CommaList, AfterValidator(_networks)] = Field(
        (), description="Networks of callers whose traces are continued (traceparent), and whether to is their decision"
    )

    def offences(self, settings: Settings) -> list[str]:
        in_clear = self.endpoint.startswith("http://") and bool(self.headers.get_secret_value())
        return ["TRACING__HEADERS would cross the network in clear: TRACING__ENDPOINT is http://"] if in_clear else []

    @property
    def header_pairs(self) -> dict[str, str]:
        split = [pair.partition("=") for pair in _pairs(self.headers)]
        return {name.strip().lower(): value.strip() for name, _, value in split}

    @property
    def url(self) -> str:
        """Where spans are posted: the endpoint's path for traces, unless it names that already."""
        base = self.endpoint.rstrip("/")
        return base if base.endswith("/v1/traces") else f"{base}/v1/traces"

    @cached_property
    def networks(self) -> tuple[Network, ...]:
        return tuple(ip_network(value) for value in self.trusted)

    def trusts(self, host: str) -> bool:
        """Whether the trace of a caller with this address is continued."""
        return is_within(host, self.networks)
