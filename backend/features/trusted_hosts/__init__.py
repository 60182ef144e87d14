"""Requests whose Host header is not one of ours are refused: a forged one would poison links, caches and redirects."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.core.config import CommaList, EnvSettings, Settings
from backend.core.errors import error_response
from backend.core.feature import Feature
from backend.core.headers import header


class TrustedHostsSettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="TRUSTED_HOSTS__")

    allowed: CommaList = Field(
        ("localhost", "127.0.0.1", "[::1]"),
        description="Host names that we answer to, separated by commas; *.example.com for subdomains",
    )

    exempt_paths: CommaList = Field(
        ("/live", "/ready", "/metrics"),
        description="Paths answered whatever the Host header: orchestrators and Prometheus call processes by address",
    )

    def offences(self, settings: Settings) -> list[str]:
        wildcard = "TRUSTED_HOSTS__ALLOWED is *: any Host header would be believed"
        return [wildcard] if "*" in self.allowed else []


def host_name(header: str) -> str:
    """The host of a Host header, lower case, without the port; IPv6 addresses keep their brackets (RFC 9110 §7.2)."""
    host = header.lower()
    return host[: host.index("]") + 1] if "]" in host else host.split(":", 1)[0]


class TrustedHosts:
    def __init__(self, app: ASGIApp, allowed: tuple[str, ...], exempt: tuple[str, ...]) -> None:
        self.app = app
        self.exempt = frozenset(exempt)
        self.any = "*" in allowed
        self.names = frozenset(name.lower() for name in allowed if not name.startswith("*."))
        self.suffixes = tuple(name[1:].lower() for name in allowed if name.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or self.any:
            await self.app(scope, receive, send)
            return
        host = host_name(header(scope, b"host"))
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if host in self.names or (self.suffixes and host.endswith(self.suffixes)) or path in self.exempt:
            await self.app(scope, receive, send)
            return
        response = error_response(scope, 400, "untrusted_host", "This host name is not served here")
        await response(scope, receive, send)


def _middleware(_settings: Settings) -> Middleware:
    current = TrustedHostsSettings.current()
    return Middleware(TrustedHosts, allowed=current.allowed, exempt=current.exempt_paths)


feature = Feature(
    name="trusted_hosts",
    summary="400 for Host headers that are not ours",
    settings=TrustedHostsSettings,
    middleware=_middleware,
)
