"""Every request has an id: the caller's `X-Request-ID` when it looks sane, else a new one.

It goes into the response header, every error body and every log line of that request.
"""

import re
import secrets

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.core.context import request_id
from backend.core.feature import Feature
from backend.core.headers import header, put

HEADER = b"x-request-id"
SANE = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)

# How an answer begins, a WebSocket's and the refusal of one included.
STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


class RequestId:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        given = header(scope, HEADER)
        current = given if SANE.fullmatch(given) else secrets.token_hex(16)
        token = request_id.set(current)
        scope["state"]["facts"]["request_id"] = current  # for who is told of the request once it has ended

        async def add_header(message: Message) -> None:
            if message["type"] in STARTS:
                put(message, HEADER, current.encode())
            await send(message)

        try:
            await self.app(scope, receive, add_header)
        finally:
            request_id.reset(token)


feature = Feature(
    name="request_id",
    summary="X-Request-ID on every answer, error body and log line",
    middleware=lambda settings: Middleware(RequestId),
)
