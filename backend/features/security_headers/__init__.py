"""Security headers on every response, a strict Content-Security-Policy first. A response that sets one itself keeps it.

HSTS is sent outside development only: it would lock a developer's browser out of http://localhost.
"""

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.core.config import EnvSettings, Settings
from backend.core.feature import Feature
from backend.core.headers import add_missing

CSP = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class SecurityHeadersSettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="SECURITY_HEADERS__")

    hsts_seconds: int = Field(31536000, ge=0, description="How long browsers insist on HTTPS; 0 sends no HSTS header")


class SecurityHeaders:
    def __init__(self, app: ASGIApp, headers: dict[str, str]) -> None:
        self.app = app
        self.headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def add_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                add_missing(message, self.headers)
            await send(message)

        await self.app(scope, receive, add_headers)


def middleware(settings: Settings) -> Middleware:
    seconds = SecurityHeadersSettings.current().hsts_seconds if settings.environment != "development" else 0
    hsts = {"Strict-Transport-Security": f"max-age={seconds}; includeSubDomains"} if seconds else {}
    return Middleware(SecurityHeaders, headers=HEADERS | hsts)


feature = Feature(
    name="security_headers",
    summary="Strict CSP, HSTS, nosniff, frame and referrer policy on every response",
    settings=SecurityHeadersSettings,
    middleware=middleware,
)
