"""What is cached here is answered before FastAPI solves the route's dependencies: that costs more than the answer.

Only where a route depends on nothing but its caller and a session. The caller is recognised, and their permissions are
checked, all the same.
"""

import inspect
from typing import Any, get_args

from fastapi import params
from fastapi.routing import APIRoute
from fastapi.security import SecurityScopes
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from backend.core.auth import authenticate
from backend.core.db import get_session
from backend.core.read_session import read_session

SESSIONS = (get_session, read_session)


def _depends(parameter: inspect.Parameter) -> list[params.Depends]:
    return [one for one in get_args(parameter.annotation) if isinstance(one, params.Depends)]


def scopes_of(endpoint: Any, *, others: bool) -> SecurityScopes | None:
    """The permissions that a route needs; None when it depends on more than a caller and sessions."""
    parameters = inspect.signature(endpoint).parameters.values()
    found = [one for parameter in parameters for one in _depends(parameter)]
    others = others or any(isinstance(parameter.default, params.Depends) for parameter in parameters)
    callers = [one for one in found if one.dependency is authenticate]
    sessions = [one for one in found if one.dependency in SESSIONS]
    if others or len(callers) != 1 or len(found) != 1 + len(sessions):
        return None
    return SecurityScopes(list(getattr(callers[0], "scopes", None) or ()))


class CachedAPIRoute(APIRoute):
    """The route of a `@cached` function."""

    def __init__(self, path: str, endpoint: Any, **given: Any) -> None:
        super().__init__(path, endpoint, **given)
        self.scopes = scopes_of(endpoint, others=bool(self.dependencies))

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.scopes is not None and scope["method"] == "GET":
            request = Request(scope, receive)
            caller = await authenticate(request, self.scopes)
            answer = self.endpoint.cached.known(request, caller)  # type: ignore[attr-defined]
            if answer is not None:
                await answer(scope, receive, send)
                return
        await super().handle(scope, receive, send)
