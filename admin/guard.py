"""Cross-site request guard: SQLAdmin has no CSRF tokens, and signs out and runs actions by GET.

The browser says where a request comes from (Fetch Metadata, https://www.w3.org/TR/fetch-metadata/; `Origin` in older
ones). What changes something must come from our own pages; a request that says nothing is refused.
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def changes_something(scope: Scope) -> bool:
    parts = scope["path"].rstrip("/").split("/")
    return scope["method"] not in SAFE_METHODS or parts[-1] == "logout" or "action" in parts


def same_origin(headers: Headers) -> bool:
    if site := headers.get("sec-fetch-site"):
        return site == "same-origin"
    origin = headers.get("origin", "")
    return bool(origin) and urlsplit(origin).netloc == headers.get("host")


class SameOriginGuard:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and changes_something(scope) and not same_origin(Headers(scope=scope)):
            refusal = PlainTextResponse("This request did not come from the console's own pages.", status_code=403)
            await refusal(scope, receive, send)
            return
        await self.app(scope, receive, send)
