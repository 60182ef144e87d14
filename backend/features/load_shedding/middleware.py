"""Refuses requests while there are too many. A request is in flight until its answer begins: neither WebSockets nor
streams count, nor clients that read slowly.
"""

import random
from typing import ClassVar

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.core.config import Settings
from backend.core.errors import Unavailable, error_response
from backend.features.load_shedding.load import Load, load_of
from backend.features.load_shedding.settings import LoadSheddingSettings

LATEST_RETRY = 3  # seconds: not all come back at once


class Overloaded(Unavailable):
    """The app has more requests than it can answer in time."""

    code: ClassVar[str] = "overloaded"
    message: ClassVar[str] = "Too many requests at the moment, please retry"


class LoadShedding:
    def __init__(self, app: ASGIApp, exempt: tuple[str, ...]) -> None:
        self.app = app
        self.exempt = frozenset(exempt)
        self.exempt_below = tuple(f"{path}/" for path in exempt)
        self.load: Load | None = None

    def _is_exempt(self, scope: Scope) -> bool:
        path: str = scope["path"]
        if root_path := scope.get("root_path"):
            path = path.removeprefix(root_path)
        return path in self.exempt or path.startswith(self.exempt_below)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_exempt(scope):
            await self.app(scope, receive, send)
            return
        load = self.load = self.load or load_of(scope["app"])
        if load.is_too_much():
            load.shed += 1
            headers = {"Retry-After": str(random.randint(1, LATEST_RETRY))}  # noqa: S311
            refusal = error_response(scope, Overloaded.status, Overloaded.code, Overloaded.message, headers=headers)
            await refusal(scope, receive, send)
            return
        begun = arrived = False

        async def wait() -> Message:
            """While a client is slow to send the body, its request costs nothing, and keeps nobody out."""
            nonlocal arrived
            if begun or arrived:
                return await receive()
            load.in_flight -= 1
            try:
                message = await receive()
            finally:
                load.in_flight += 1
            arrived = not message.get("more_body", False)
            return message

        async def note(message: Message) -> None:
            nonlocal begun
            if not begun:
                begun = True
                load.in_flight -= 1
            await send(message)

        load.in_flight += 1
        try:
            await self.app(scope, wait, note)
        finally:
            if not begun:
                load.in_flight -= 1


def middleware(settings: Settings) -> Middleware:
    return Middleware(LoadShedding, exempt=LoadSheddingSettings.current().exempt_paths)
