"""The API's routes. Their caller and their session, which nearly all have, are found without FastAPI's machinery.

It costs several times what the two do: see `docs/decisions/0014-a-short-way-through.md`. All other parameters, and the
routes that depend on anything more, are FastAPI's as ever; so is the description of them all.
"""

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import wraps
from inspect import iscoroutinefunction, signature
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.security import SecurityScopes
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from backend.core.auth import authenticate
from backend.core.db import get_session
from backend.core.read_session import read_session

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
SESSIONS: dict[object, Callable[[HTTPConnection], AbstractAsyncContextManager[AsyncSession]]] = {
    one: asynccontextmanager(one) for one in (get_session, read_session)
}
REQUEST = "request_of_route"  # the name of the parameter, where the route has none
FOUND = "found"  # where in the scope they are
CALLER = "known_caller"  # where in the scope the caller is, if they have been recognised already


@dataclass(frozen=True)
class Needs:
    """The parameters that a route has for its caller and its session."""

    caller: Dependant | None
    session: Dependant | None

    @classmethod
    def of(cls, dependant: Dependant) -> "Needs | None":
        """None when the route depends on anything else."""
        callers = [one for one in dependant.dependencies if one.call is authenticate and one.name]
        sessions = [one for one in dependant.dependencies if one.call in SESSIONS and one.name]
        if max(len(callers), len(sessions)) > 1 or len(callers) + len(sessions) < len(dependant.dependencies):
            return None
        return cls(next(iter(callers), None), next(iter(sessions), None))

    @property
    def scopes(self) -> SecurityScopes:
        """The permissions that the caller needs."""
        return SecurityScopes(list(self.caller.own_oauth_scopes or ()) if self.caller else [])


class ShortRoute(APIRoute):
    """A route that finds its caller and its session itself, if it needs nothing else."""

    needs: Needs | None = None

    def __init__(self, path: str, endpoint: Callable[..., Any], **given: Any) -> None:
        super().__init__(path, endpoint, **given)
        shape = signature(endpoint)
        bare = not shape.parameters and not self.dependant.dependencies
        self.ready = bare and shape.return_annotation is Response and iscoroutinefunction(endpoint)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.ready and scope["method"] in (self.methods or ()):  # no parameters, and its answer is one
            response: Response = await self.endpoint()
            await response(scope, receive, send)
        else:
            await super().handle(scope, receive, send)

    def get_route_handler(self) -> Handler:
        whole, self.needs = self.dependant, Needs.of(self.dependant)
        if self.needs is None or not whole.dependencies or not iscoroutinefunction(whole.call):
            return super().get_route_handler()
        name = whole.request_param_name or REQUEST
        call = _with_found(whole.call, name, added=not whole.request_param_name)
        self.dependant = replace(whole, call=call, request_param_name=name, dependencies=[])
        try:
            return _finding(self.needs, super().get_route_handler())
        finally:
            self.dependant = whole  # what the description is made from


def _with_found(endpoint: Callable[..., Any], request_name: str, *, added: bool) -> Callable[..., Any]:
    @wraps(endpoint)
    async def call(**values: Any) -> Any:
        found = values[request_name].scope[FOUND]
        if added:
            del values[request_name]
        return await endpoint(**values, **found)

    return call


def _finding(needs: Needs, handle: Handler) -> Handler:
    scopes = needs.scopes
    caller = needs.caller.name if needs.caller else None
    session = needs.session.name if needs.session else None
    opened = SESSIONS[needs.session.call] if needs.session else None

    async def found(request: Request) -> Response:
        values: dict[str | None, Any] = {}
        request.scope[FOUND] = values
        if caller:
            values[caller] = request.scope.pop(CALLER, None) or await authenticate(request, scopes)
        if opened is None:
            return await handle(request)
        async with opened(request) as values[session]:
            return await handle(request)

    return found
