"""Errors are nouns with a status. Raise one anywhere; it reaches the client in the one shape:

`{"error": {"code", "message", "details"?}, "path", "request_id", "trace_id"?}`
"""

import errno
import socket
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import httpx2
import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm.exc import StaleDataError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from backend.core.context import request_id, trace_id

log = structlog.get_logger(__name__)

RETRY_AFTER = {"Retry-After": "1"}  # seconds; a database restart takes about that long


class ErrorDetail(BaseModel):
    """What went wrong: a stable code for programs, a message for people."""

    code: str
    message: str
    details: Any = None


class ErrorBody(BaseModel):
    """The body of every error answer."""

    error: ErrorDetail
    path: str
    request_id: str | None
    # and `trace_id` where requests are traced, which v1 does not promise: clients ignore what they do not know


# What a route declares about its error answers: `responses={409: {"description": "…"}}`.
Responses = dict[int | str, dict[str, Any]]


class AppError(Exception):
    """Base of the errors that a client may see. `details` must be JSON-serializable and free of secrets."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    message: ClassVar[str] = "Something went wrong on our side"

    def __init__(
        self, message: str | None = None, *, details: Any | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        self.text = message or self.message
        self.details = details
        self.headers = dict(headers or {})
        super().__init__(self.text)


class BadRequest(AppError):
    status, code, message = 400, "bad_request", "The request could not be understood"


class Unauthorized(AppError):
    """The caller is unknown (RFC 9110 §15.5.2: always with WWW-Authenticate)."""

    status, code, message = 401, "unauthorized", "Sign in first"

    def __init__(self, message: str | None = None, *, details: Any | None = None, challenge: str = "Bearer") -> None:
        super().__init__(message, details=details, headers={"WWW-Authenticate": challenge})


class SecondFactorRequired(Unauthorized):
    """One factor fits, and they have two. `details.pending` stands for the first one for a while."""

    code, message = "second_factor_required", "Enter the code of your second factor"


class Forbidden(AppError):
    status, code, message = 403, "forbidden", "You are not permitted to do this"


class NotFound(AppError):
    status, code, message = 404, "not_found", "There is nothing here"


class Conflict(AppError):
    status, code, message = (
        409,
        "conflict",
        "This clashes with what is stored: another record has the same value, or needs this one",
    )


class PreconditionFailed(AppError):
    status, code, message = 412, "precondition_failed", "The record has changed since you read it"


class Unprocessable(AppError):
    status, code, message = 422, "invalid", "Some values are not acceptable"


class TooManyRequests(AppError):
    """Asked too often (always with Retry-After, in seconds)."""

    status, code, message = 429, "too_many_requests", "Too many requests, please wait"

    def __init__(self, message: str | None = None, *, retry_after: int) -> None:
        super().__init__(message, headers={"Retry-After": str(max(1, retry_after))})


class Unavailable(AppError):
    """A service that we need is away for now (always with Retry-After, in seconds)."""

    status, code, message = 503, "unavailable", "Temporarily unavailable, please retry"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, headers=RETRY_AFTER)


HTTP_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "content_too_large",
    415: "unsupported_media_type",
    429: "too_many_requests",
    431: "headers_too_large",
}


def blame(scope: Scope, error: str) -> None:
    """Say what a request fails of, for who is told of it once it has ended; the first word counts."""
    scope.get("state", {}).get("facts", {}).setdefault("error", error)


def error_response(
    scope: Scope,
    status: int,
    code: str,
    message: str,
    *,
    details: Any | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The error shape as a response; for middleware, which cannot raise into the handlers below."""
    if status >= 500:
        blame(scope, code)
    error: dict[str, Any] = {"code": code, "message": message}
    if details is not None:
        error["details"] = details
    # A path may hold bytes that are no UTF-8: the server decodes them to lone surrogates, which JSON cannot carry.
    path = scope["path"].encode("utf-8", "replace").decode()
    content: dict[str, Any] = {"error": error, "path": path, "request_id": request_id.get()}
    if (traced := trace_id.get()) is not None:
        content["trace_id"] = traced
    return JSONResponse(content, status_code=status, headers=dict(headers or {}))


async def _app_error(request: Request, exc: AppError) -> JSONResponse:
    return error_response(request.scope, exc.status, exc.code, exc.text, details=exc.details, headers=exc.headers)


async def _http_error(request: Request, exc: HTTPException) -> JSONResponse:
    code = HTTP_CODES.get(exc.status_code, "http_error")
    headers = {**(exc.headers or {})}
    if exc.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_allowed(request) or {"GET", "HEAD"}))
    return error_response(request.scope, exc.status_code, code, str(exc.detail), headers=headers)


def _allowed(request: Request) -> set[str]:
    """Every method of the path (RFC 9110 §15.5.6). Starlette's own header names those of the first route only."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    routes = (route for route in iter_route_contexts(request.app.routes) if route.methods)
    return {method for route in routes if route.path_regex.match(path) for method in route.methods or ()}


async def _validation_error(request: Request, exc: RequestValidationError) -> JSONResponse:
    """422 with a line per offending field; the values themselves are not echoed (they may be secrets)."""
    details = [
        {
            "field": ".".join(_printable(part) for part in error["loc"]),
            "message": error["msg"].removeprefix("Value error, "),
            "type": error["type"],
        }
        for error in exc.errors()
    ]
    return error_response(request.scope, 422, Unprocessable.code, Unprocessable.message, details=details)


def _printable(part: object) -> str:
    return str(part).encode("utf-8", "replace").decode()


STALE = "Somebody else changed this record at the same time"

# What an outage looks like, by driver: SQLSTATE classes (connection, rollback, resources, operator), SQLite's primary
# result codes (busy, locked, I/O, full, cannot open), MySQL's error numbers (too many, lock wait, deadlock, gone, …).
OUTAGE_SQLSTATES = frozenset({"08", "40", "53", "57"})
OUTAGE_SQLITE = frozenset({5, 6, 10, 13, 14})
OUTAGE_MYSQL = frozenset({1020, 1040, 1053, 1203, 1205, 1213, 1226, 2002, 2003, 2006, 2013})
OUTAGE_NETWORK = frozenset({errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH})


def _is_outage(exc: Exception, cause: Any, sqlstate: str) -> bool:
    if isinstance(exc, PoolTimeout | ConnectionError | TimeoutError | socket.gaierror):
        return True
    if getattr(exc, "connection_invalidated", False) or getattr(exc, "errno", None) in OUTAGE_NETWORK:
        return True
    number = next(iter(getattr(cause, "args", ())), None)
    return (
        sqlstate[:2] in OUTAGE_SQLSTATES
        or getattr(cause, "sqlite_errorcode", 0) & 0xFF in OUTAGE_SQLITE
        or (isinstance(exc, OperationalError) and number in OUTAGE_MYSQL)
    )


def of_database(exc: Exception) -> AppError | None:
    """What a database's exception means to a caller: a clash, values it cannot hold, an outage; None: a bug of ours."""
    if isinstance(exc, StaleDataError):
        return Conflict(STALE)
    if isinstance(exc, IntegrityError):
        return Conflict()
    cause = getattr(exc, "orig", None)
    sqlstate = str(getattr(cause, "sqlstate", None) or "")
    if isinstance(exc, DataError) or sqlstate.startswith("22"):  # SQL standard class 22: data exception
        return Unprocessable()
    if _is_outage(exc, cause, sqlstate):
        # The text may hold values; the kind and the number do not.
        number = getattr(cause, "sqlite_errorcode", None) or next(iter(getattr(cause, "args", ())), None)
        number = number if isinstance(number, int) else None
        log.warning("unavailable", error=type(cause or exc).__name__, sqlstate=sqlstate, number=number)
        return Unavailable()
    return None


async def _database_error(request: Request, exc: Exception) -> JSONResponse:
    error = of_database(exc)
    if error is None:
        raise exc
    if error.status >= 500:
        blame(request.scope, type(getattr(exc, "orig", None) or exc).__name__)
    return await _app_error(request, error)


async def _outside_error(request: Request, exc: httpx2.TransportError) -> JSONResponse:
    """Another service that we have asked for this (`core/outside.py`) does not answer."""
    log.warning("unavailable", error=type(exc).__name__)
    blame(request.scope, type(exc).__name__)
    return await _app_error(request, Unavailable())


HANDLERS: dict[type[Exception], Any] = {
    AppError: _app_error,
    HTTPException: _http_error,
    RequestValidationError: _validation_error,
    StaleDataError: _database_error,
    DBAPIError: _database_error,
    PoolTimeout: _database_error,
    httpx2.TransportError: _outside_error,
    OSError: _database_error,  # drivers let the network's own errors through
}


def install(app: FastAPI) -> None:
    """Register the handlers that render every error in the one shape."""
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)


# Told of each exception that nobody expected: a bug of ours. Where there is one, in the context of its request.
observers: list[Callable[[Exception], None]] = []


def report(bug: Exception) -> None:
    """Tell whoever watches for bugs. What they do must not make it worse."""
    for observe in observers:
        try:
            observe(bug)
        except Exception:
            log.exception("error_observer_failed")


class CatchAll:
    """Innermost middleware: turns a bug into a 500 in the one shape, so that outer middleware still adds its headers.

    Starlette's own place for this is outside every middleware: its 500 has no request id and no security headers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except Exception as bug:
            log.exception("unhandled_error", path=scope["path"])
            report(bug)
            blame(scope, type(bug).__name__)
            if started:
                raise
            response = error_response(scope, 500, AppError.code, AppError.message)
            await response(scope, receive, send)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A WebSocket, whose exceptions the server logs."""
        try:
            await self.app(scope, receive, send)
        except WebSocketDisconnect:  # the caller has left, which is their right
            raise
        except Exception as bug:
            report(bug)
            raise
