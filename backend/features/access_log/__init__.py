"""One structured line per request, at its end: method, path, status, milliseconds; a WebSocket is one, too.

Probes of a healthy app are not worth a line.
"""

import time

import structlog
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.core.feature import Feature

log = structlog.get_logger(__name__)

QUIET = frozenset({"/live", "/ready", "/health", "/metrics"})


class AccessLog:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500  # what the server answers when the app raises before it has sent anything

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        try:
            await self.app(scope, receive, note_status)
        finally:
            if status >= 400 or scope["path"].removeprefix(scope.get("root_path", "")) not in QUIET:
                log.info(
                    "request",
                    method=scope.get("method", "WS"),
                    path=scope["path"],
                    status=status,
                    ms=round((time.perf_counter() - started) * 1000, 2),
                    client=scope["client"][0] if scope.get("client") else None,
                )


feature = Feature(
    name="access_log",
    summary="One structured log line per request",
    middleware=lambda settings: Middleware(AccessLog),
)
