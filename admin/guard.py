"""What stands before the console: the cross-site request guard, and the catch-all for errors.

SQLAdmin has no CSRF tokens.
"""

from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from admin.messages import forgotten, message_of
from backend.core.same_origin import same_origin

ErrorPage = Callable[[Request, Exception], Awaitable[Response]]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
REFUSAL = "This request did not come from the console's own pages. Go back, load the page again, and retry."


def changes_something(scope: Scope) -> bool:
    return scope["method"] not in SAFE_METHODS


class Guard:
    """Refuses what other sites send, and keeps pages out of caches: going back after signing out shows nothing."""

    def __init__(self, app: ASGIApp, statics: str) -> None:
        self.app = app
        self.statics = statics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if changes_something(scope) and not same_origin(Headers(scope=scope)):
            await PlainTextResponse(REFUSAL, status_code=403)(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # SQLAdmin takes every method but GET for a submitted form
            scope = {**scope, "method": "GET"}
        private = not scope["path"].removeprefix(scope["root_path"]).startswith(self.statics)

        shown = private and scope["method"] == "GET" and message_of(Request(scope)) != ""

        async def send_uncached(message: Message) -> None:
            if private and message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Cache-Control"] = "no-store"
                if shown and message["status"] == 200:
                    headers.append("Set-Cookie", forgotten(scope))
            await send(message)

        await self.app(scope, receive, send_uncached)


class CatchAll:
    """Turns a bug into a page of the console. Starlette's own place for this answers, and raises it again."""

    def __init__(self, app: ASGIApp, page: ErrorPage) -> None:
        self.app = app
        self.page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except Exception as exc:
            if started or scope["type"] != "http":
                raise
            response = await self.page(Request(scope), exc)
            await response(scope, receive, send)
