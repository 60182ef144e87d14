"""What is cached here is answered before FastAPI looks at the request: that costs more than the answer.

Only where a route depends on nothing but its caller and a session. The caller is recognised, and their permissions are
checked, all the same. What is not cached goes straight to the route too, if that takes path and query parameters only:
what FastAPI does besides is for streams, files and dependencies.
"""

from typing import Any

from fastapi import Response
from fastapi.dependencies.utils import request_params_to_args
from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from backend.core.auth import authenticate
from backend.core.routing import CALLER, SESSIONS, ShortRoute


class CachedAPIRoute(ShortRoute):
    """The route of a `@cached` function."""

    def __init__(self, path: str, endpoint: Any, **given: Any) -> None:
        super().__init__(path, endpoint, **given)
        takes = self.dependant
        self.gets = "GET" in (self.methods or ())
        self.straight = not (
            takes.header_params
            or takes.cookie_params
            or takes.body_params
            or takes.background_tasks_param_name
            or takes.http_connection_param_name
            or takes.security_scopes_param_name
        )

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.needs is None or self.needs.caller is None or scope["method"] != "GET" or not self.gets:
            await super().handle(scope, receive, send)
            return
        request = Request(scope, receive)
        caller = await authenticate(request, self.needs.scopes)
        answer: Response | None = self.endpoint.cached.known(request, caller)  # type: ignore[attr-defined]
        if answer is None and self.straight:
            answer = await self._answer(request, {self.needs.caller.name: caller})
        if answer is None:
            scope[CALLER] = caller
            await super().handle(scope, receive, send)
        else:
            await answer(scope, receive, send)

    async def _answer(self, request: Request, values: dict[Any, Any]) -> Response:
        """What the route says, of parameters that FastAPI has checked."""
        takes = self.dependant
        checked, wrong = request_params_to_args(takes.path_params, request.path_params)
        values |= checked
        if takes.query_params:
            checked, wrong_in_query = request_params_to_args(takes.query_params, request.query_params)
            values |= checked
            wrong += wrong_in_query
        if wrong:
            raise RequestValidationError(wrong)
        values[takes.request_param_name] = request
        values[takes.response_param_name] = response = Response()
        del response.headers["content-length"]
        response.status_code = None  # type: ignore[assignment]  # FastAPI's way to say that the route may choose
        session = self.needs.session if self.needs else None
        answer: Response
        if session is None:
            answer = await self.endpoint(**values)
        else:
            async with SESSIONS[session.call](request) as values[session.name]:
                answer = await self.endpoint(**values)
        return answer
