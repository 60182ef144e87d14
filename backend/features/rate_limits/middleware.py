"""Hands the counting to the limits of routes, writes what they say into headers, and limits the API as a whole."""

from difflib import get_close_matches

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.core import context
from backend.core.config import BadSetting, Settings
from backend.core.errors import AppError, error_response
from backend.core.limits import DECLARED, Rule, network_of
from backend.core.rates import Verdict, rate_of
from backend.features.rate_limits.counting import Limiter
from backend.features.rate_limits.settings import RateLimitSettings

API = "/api/"  # what the default limit is about; health, metrics, pages and the console are elsewhere
STARTS = ("http.response.start", "websocket.http.response.start")


def limiter_of(app: FastAPI, settings: RateLimitSettings) -> Limiter:
    """This app's, made at first use."""
    if not hasattr(app.state, "limits"):
        prefix = app.state.settings.redis.prefix
        app.state.limits = Limiter(settings, app.state.redis, app.state.breakers, prefix=prefix)
    limiter: Limiter = app.state.limits
    return limiter


def tightest(verdicts: dict[str, Verdict]) -> Verdict | None:
    """The one to show: that which refuses, else that with the least left."""
    asked = [one for one in verdicts.values() if one.outcome != "unavailable"]
    return min(asked, key=lambda one: (one.outcome == "allowed", one.remaining, -one.reset), default=None)


class RateLimits:
    def __init__(self, app: ASGIApp, settings: RateLimitSettings) -> None:
        self.app = app
        self.settings = settings
        rate = rate_of(settings.default or "off")
        self.default = Rule(name="default", rate=rate, by="ip") if rate else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        state = scope["state"]
        state["limits"] = limiter_of(scope["app"], self.settings)

        async def send_with_headers(message: Message) -> None:
            if "rate_limits" in state and message["type"] in STARTS and (shown := tightest(state["rate_limits"])):
                own = [(name.lower().encode(), value.encode()) for name, value in shown.headers.items()]
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        if self.default and scope["path"].removeprefix(scope.get("root_path", "")).startswith(API):
            try:
                await self.default.take(HTTPConnection(scope), f"ip:{network_of(context.address())}")
            except AppError as refused:
                response = error_response(scope, refused.status, refused.code, refused.text, headers=refused.headers)
                await response(scope, receive, send_with_headers)
                return
        await self.app(scope, receive, send_with_headers)


def _refuse_unknown(names: set[str]) -> None:
    if unknown := sorted(names - set(DECLARED)):
        near = get_close_matches(unknown[0], DECLARED, 1)
        likely = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(DECLARED))}"
        raise BadSetting(f"RATE_LIMITS__OVERRIDES names {unknown[0]}, which is no limit: {likely}")


def middleware(settings: Settings) -> Middleware:
    """BadSetting when an override is for a limit that nobody has declared."""
    own = RateLimitSettings.current()
    _refuse_unknown(set(own.rates))
    return Middleware(RateLimits, settings=own)
