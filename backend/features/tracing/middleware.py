"""Gives each request its trace: for what it does meanwhile, and for who reads its answer."""

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.core import context
from backend.core.config import Settings
from backend.core.headers import put
from backend.core.observing import PROBES
from backend.features.tracing.settings import TracingSettings

HEADER = b"trace-id"

# How an answer begins, a WebSocket's and the refusal of one included.
STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


class Trace:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tracing = getattr(scope["app"].state, "tracing", None)  # there while the app runs
        if tracing is None or scope["path"].removeprefix(scope.get("root_path", "")) in PROBES:
            await self.app(scope, receive, send)
            return

        async def add_header(message: Message) -> None:
            if message["type"] in STARTS:
                put(message, HEADER, trace_id.encode())
            await send(message)

        with tracing.request(scope) as trace_id:
            scope["state"]["facts"]["trace_id"] = trace_id  # for who is told of the request once it has ended
            token = context.trace_id.set(trace_id)
            try:
                await self.app(scope, receive, add_header)
            finally:
                context.trace_id.reset(token)


def middleware(_settings: Settings) -> Middleware | None:
    return Middleware(Trace) if TracingSettings.current().endpoint else None
