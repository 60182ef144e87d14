"""What is known about the request being served, for code that has no request at hand: errors, log lines, events."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)  # while requests are traced
_scope: ContextVar[Scope | None] = ContextVar("scope", default=None)


class RemembersRequest:
    """Middleware that lets `state`, `address` and `user_agent` answer while a request is served."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        scope.setdefault("state", {})  # one dictionary, also for applications mounted inside
        token = _scope.set(scope)
        try:
            await self.app(scope, receive, send)
        finally:
            _scope.reset(token)


def state(name: str) -> object:
    """What the request's `state` holds under this name; None where there is none, and outside a request."""
    scope = _scope.get()
    return scope["state"].get(name) if scope else None


def address() -> str:
    """The caller's address, of a trusted proxy's header if there is one; empty outside a request."""
    scope = _scope.get()
    return str(scope["client"][0])[:64] if scope and scope.get("client") else ""


def user_agent() -> str:
    """The caller's User-Agent, 200 characters at most; empty outside a request."""
    scope = _scope.get()
    return Headers(scope=scope).get("user-agent", "")[:200] if scope else ""


def base_url() -> str:
    """Where the caller reached us, as the Host header says, which anybody can forge; empty outside a request."""
    scope = _scope.get()
    return str(HTTPConnection(scope).base_url).rstrip("/") if scope else ""


@contextmanager
def apart(name: str, **known: Any) -> Iterator[None]:
    """What somebody asked for is done after their request: `state` answers this here, and `name` is its id in logs."""
    scope, named = _scope.set({"type": "http", "headers": [], "state": known}), request_id.set(name)
    try:
        yield
    finally:
        request_id.reset(named)
        _scope.reset(scope)
