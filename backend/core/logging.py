"""structlog for everything, uvicorn's and SQLAlchemy's lines included: console in development, JSON elsewhere."""

import json
import logging
import sys
from contextlib import suppress
from functools import lru_cache
from typing import Any

import orjson
import structlog
from structlog.dev import plain_traceback
from structlog.processors import NAME_TO_LEVEL
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, WrappedLogger

from backend.core.config import Settings
from backend.core.context import request_id

SECRET_WORDS = ("password", "secret", "token", "authorization", "cookie", "api_key")
MASK = "•••"
# Without the local variables, which structlog would add: they hold passwords.
TRACEBACKS = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))


@lru_cache(maxsize=1000)
def _names_a_secret(key: str) -> bool:
    return any(word in key.lower() for word in SECRET_WORDS)


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace the value of every key that names a secret."""
    for key in event:
        if _names_a_secret(key):
            event[key] = MASK
    return event


def add_request_id(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if (current := request_id.get()) is not None:
        event.setdefault("request_id", current)
    return event


def _to_json(event: Any, **_options: Any) -> str:
    try:
        return orjson.dumps(event, default=str).decode()
    except TypeError:  # integers beyond 64 bits, text that is no Unicode
        return json.dumps(event, default=str)


def drop_unwanted(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Leave out what is below the level of the root logger, as it is now."""
    if NAME_TO_LEVEL[method] < logging.root.level:
        raise structlog.DropEvent
    return event


class Lines:
    """Where our finished lines go; the logging module would take longer than all the rest. `name`: who writes."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def write(self, line: str) -> None:
        with suppress(OSError, ValueError, AttributeError):  # a full disk, or no stderr, stops no work
            sys.stderr.write(line + "\n")

    debug = info = warning = error = critical = write


def _is_no_false_alarm(record: logging.LogRecord) -> bool:
    """uvicorn reports an error after each WebSocket that we refuse with an answer, although the answer was sent."""
    return record.getMessage() != "ASGI callable returned without completing handshake."


def configure(settings: Settings) -> None:
    """Set logging up for this process; calling it again replaces the former set-up."""
    as_json = settings.log.format == "json" or (settings.log.format == "auto" and settings.environment != "development")
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_request_id,
        mask_secrets,
    ]
    last: list[Any] = (
        [TRACEBACKS, structlog.processors.JSONRenderer(serializer=_to_json)]
        if as_json
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain_traceback)]
    )
    structlog.configure(
        processors=[drop_unwanted, *shared, *last],
        logger_factory=Lines,
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(handlers=[handler], level=settings.log.level.upper(), force=True)
    for name in ("uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    logging.getLogger("uvicorn.error").addFilter(_is_no_false_alarm)
    logging.getLogger("uvicorn.access").disabled = True  # the access_log feature writes that line, with more in it
