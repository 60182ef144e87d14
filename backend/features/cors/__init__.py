"""Cross-origin requests from the browser apps whose origins you list. None are listed by default."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from backend.core.config import CommaList, EnvSettings, Settings
from backend.core.feature import Feature

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
# Not X-API-Key: keys are for services, and no page should hold one.
REQUEST_HEADERS = (
    *("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match"),
    *("Last-Event-ID", "X-Request-ID"),
)
RATE_LIMIT = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
RESPONSE_HEADERS = (
    *("ETag", "Idempotent-Replayed", "Link", "Location"),
    *RATE_LIMIT,
    *("Retry-After", "Trace-Id", "X-Request-ID", "X-Total-Count", "X-Total-Estimated"),
)


class CorsSettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="CORS__")

    allowed_origins: CommaList = Field(
        (), description="Origins of browser apps, such as https://app.example.com; * for any"
    )
    allow_credentials: bool = Field(False, description="Let those origins send cookies; never together with *")
    max_age: int = Field(600, ge=0, description="Seconds for which browsers remember a preflight answer")

    def offences(self, settings: Settings) -> list[str]:
        anyone = "*" in self.allowed_origins and self.allow_credentials
        return ["CORS__ALLOWED_ORIGINS is * with credentials: any site could act as the visitor"] if anyone else []


def middleware(settings: Settings) -> Middleware | None:
    cors = CorsSettings.current()
    if not cors.allowed_origins:
        return None
    return Middleware(
        CORSMiddleware,
        allow_origins=cors.allowed_origins,
        allow_credentials=cors.allow_credentials,
        allow_methods=METHODS,
        allow_headers=REQUEST_HEADERS,
        expose_headers=RESPONSE_HEADERS,
        max_age=cors.max_age,
    )


feature = Feature(
    name="cors",
    summary="Cross-origin requests from the origins you allow",
    settings=CorsSettings,
    middleware=middleware,
)
