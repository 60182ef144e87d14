"""Requests that are too large are refused before anything reads them: 413 for the body, 431 for the headers."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.core.config import EnvSettings, Settings
from backend.core.errors import error_response
from backend.core.feature import Feature
from backend.core.headers import header


class RequestLimitsSettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="REQUEST_LIMITS__")

    body_bytes: int = Field(1024 * 1024, ge=1, description="Largest request body")
    header_bytes: int = Field(32 * 1024, ge=1024, description="Largest sum of request header names and values")


MAX_DIGITS = 18  # of a Content-Length that is worth reading


class RequestLimits:
    def __init__(self, app: ASGIApp, body_bytes: int, header_bytes: int) -> None:
        self.app = app
        self.body_bytes = body_bytes
        self.header_bytes = header_bytes
        self.too_large = f"A request body may have {body_bytes} bytes"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if sum([len(name) + len(value) for name, value in scope["headers"]]) > self.header_bytes:
            message = f"Request headers may have {self.header_bytes} bytes in all"
            await error_response(scope, 431, "headers_too_large", message)(scope, receive, send)
            return
        announced = header(scope, b"content-length")
        if announced.isdecimal() and (len(announced) > MAX_DIGITS or int(announced) > self.body_bytes):
            await error_response(scope, 413, "content_too_large", self.too_large)(scope, receive, send)
            return
        received = 0

        async def count() -> Message:
            """A body without Content-Length shows its size only while it is read."""
            nonlocal received
            event = await receive()
            received += len(event.get("body", b""))
            if received > self.body_bytes:
                raise HTTPException(413, self.too_large)
            return event

        await self.app(scope, count, send)


def middleware(settings: Settings) -> Middleware:
    limits = RequestLimitsSettings.current()
    return Middleware(RequestLimits, body_bytes=limits.body_bytes, header_bytes=limits.header_bytes)


feature = Feature(
    name="request_limits",
    summary="413 for large bodies, 431 for large headers",
    settings=RequestLimitsSettings,
    middleware=middleware,
)
