"""What came of each request, told once to all who keep figures or write lines about it: each would else measure anew.

A feature's `observer` is made with the app, and called with every `Ended`: of a request when its answer has been sent,
of a stream of events as soon as it has begun (it may last for hours, which says nothing about how fast we are), of a
WebSocket when it has been closed. It is called on the event loop: it must be quick, and not fail.
"""

import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

import structlog
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.core.auth import Principal
from backend.core.figures import Figure
from backend.core.route_templates import RouteTemplates
from backend.core.statements import Statements

log = structlog.get_logger(__name__)

KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
PROBES = frozenset({"/live", "/ready", "/health", "/metrics"})  # asked by machines, every few seconds
FAILED = 500  # what the server answers when the app raises before it has sent anything
UPGRADED = 101
REFUSED = 403  # what the server answers when a WebSocket is closed before it was accepted


class Ended:
    """A request that has been answered. `seconds`: since it arrived."""

    def __init__(self, scope: Scope, root_path: str, templates: RouteTemplates, status: int, seconds: float) -> None:
        self.scope = scope
        self.is_websocket = scope["type"] == "websocket"
        self.status = status
        self.seconds = seconds
        self._root_path = root_path
        self._templates = templates
        self._route: str | None = None

    @property
    def method(self) -> str:
        """As sent; `WS` for a WebSocket, `other` for what HTTP does not know."""
        if self.is_websocket:
            return "WS"
        method: str = self.scope["method"]
        return method if method in KNOWN_METHODS else "other"

    @property
    def path(self) -> str:
        """As sent, without what a proxy puts in front. Anybody can ask for any: never a label."""
        path: str = self.scope["path"]
        return path.removeprefix(self._root_path)

    @property
    def route(self) -> str:
        """The template of the route that answered, `/api/v1/users/{user_id}`; `unmatched` when none did."""
        if self._route is None:  # a cached_property takes a lock
            self._route = self._templates.of(self.scope, self._root_path)
        return self._route

    @property
    def is_probe(self) -> bool:
        return self.path in PROBES

    @property
    def statements(self) -> Statements:
        found: Statements = self.scope["state"]["statements"]
        return found

    @property
    def facts(self) -> dict[str, Any]:
        """What middleware has found out about this request, for its log line: `request_id`, for one."""
        found: dict[str, Any] = self.scope["state"]["facts"]
        return found

    @property
    def principal(self) -> Principal | None:
        """Who asked; None while nobody is known."""
        found: Principal | None = self.scope["state"].get("principal")
        return found

    @property
    def client(self) -> str:
        """By what the caller is known: `token`, `api_key`, `console`, and so on; `anonymous`."""
        principal = self.principal
        return principal.via if principal else "anonymous"


Observer = Callable[[Ended], None]


class Observing:
    """What is told to whom; one for each app."""

    def __init__(self, app: FastAPI, observers: tuple[Observer, ...]) -> None:
        self.app = app
        self.observers = observers
        self.in_progress = 0

    @cached_property
    def templates(self) -> RouteTemplates:
        """Made at the first request: by then all routes are known."""
        return RouteTemplates(self.app)

    def tell(self, ended: Ended) -> None:
        for observe in self.observers:
            try:
                observe(ended)
            except Exception:  # the caller has their answer, and shall not pay for who counts
                log.exception("observer_failed")


class Observe:
    """Middleware around all that answers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        observing: Observing = scope["app"].state.observing
        root_path: str = scope.get("root_path", "")  # mounted apps lengthen it
        scope["state"] |= {"statements": Statements(), "facts": {}}
        started, status, told = time.perf_counter(), FAILED, False
        counts = scope["type"] == "http"

        def tell() -> None:
            nonlocal told
            if not told:
                told = True
                observing.in_progress -= counts
                observing.tell(Ended(scope, root_path, observing.templates, status, time.perf_counter() - started))

        async def note(message: Message) -> None:
            nonlocal status
            kind = message["type"]
            if kind in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
                if _is_stream(message):
                    tell()
            elif kind == "websocket.accept":
                status = UPGRADED
            elif kind == "websocket.close" and status == FAILED:
                status = REFUSED
            await send(message)

        observing.in_progress += counts
        try:
            await self.app(scope, receive, note)
        finally:
            tell()


def _is_stream(message: Message) -> bool:
    headers: Any = message.get("headers", ())
    return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)


IN_PROGRESS = Figure(
    name="http_requests_in_progress",
    help="Requests being answered; a stream of events only until it has begun.",
    read=lambda app: app.state.observing.in_progress,
)
