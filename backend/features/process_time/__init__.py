"""How long the app took, in milliseconds, as a `Server-Timing` header: browsers show it in their network panel."""

import time

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.core.feature import Feature
from backend.core.headers import add


class ProcessTime:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()

        async def add_header(message: Message) -> None:
            if message["type"] == "http.response.start":
                elapsed = (time.perf_counter() - started) * 1000
                add(message, (b"server-timing", b"app;dur=%.2f" % elapsed))
            await send(message)

        await self.app(scope, receive, add_header)


feature = Feature(
    name="process_time",
    summary="Server-Timing: how long the app took, in milliseconds",
    middleware=lambda settings: Middleware(ProcessTime),
)
