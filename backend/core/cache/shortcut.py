"""What is cached here is answered before FastAPI looks at the request: that costs more than the answer.

Only where a route depends on nothing but its caller and a session. The caller is recognised, and their permissions are
checked, all the same.
"""

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from backend.core.auth import authenticate
from backend.core.routing import CALLER, ShortRoute


class CachedAPIRoute(ShortRoute):
    """The route of a `@cached` function."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.needs is not None and self.needs.caller is not None and scope["method"] == "GET":
            request = Request(scope, receive)
            caller = await authenticate(request, self.needs.scopes)
            answer = self.endpoint.cached.known(request, caller)  # type: ignore[attr-defined]
            if answer is not None:
                await answer(scope, receive, send)
                return
            scope[CALLER] = caller
        await super().handle(scope, receive, send)
