"""structlog for everything, uvicorn's and SQLAlchemy's lines included: console in development, JSON elsewhere."""

import json
import logging
import sys
import time
from contextlib import suppress
from functools import lru_cache
from typing import Any

import orjson
import structlog
from structlog.dev import plain_traceback
from structlog.processors import NAME_TO_LEVEL
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, WrappedLogger

from backend.core.config import LogLevel, Settings
from backend.core.context import request_id, state, trace_id
from backend.core.masking import MASK, without_addresses

SECRET_WORDS = ("password", "secret", "token", "authorization", "cookie", "api_key")
# Without the local variables, which structlog would add: they hold passwords.
TRACEBACKS = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
PROCESSORS: list[Any] = []  # always this list: loggers that have written before keep it
_chosen: list[int] = []  # the level of our own lines, while it is another than the root logger's


@lru_cache(maxsize=1000)  # lines of one kind have the same keys
def _secrets_among(keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(key for key in keys if any(word in key.lower() for word in SECRET_WORDS))


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace the value of every key that names a secret."""
    for key in _secrets_among(tuple(event)):
        event[key] = MASK
    return event


def mask_addresses(_logger: WrappedLogger, _method: str, line: str) -> str:
    """In the finished line: in whatever value, message or traceback they stand."""
    return without_addresses(line)


class Clock:
    """Adds the time, as structlog's TimeStamper does at several times the cost: a second is written out only once."""

    def __init__(self) -> None:
        self.second = 0, ""

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        now, micro = divmod(time.time_ns() // 1000, 1_000_000)
        second, text = self.second
        if second != now:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
            self.second = now, text
        event["timestamp"] = f"{text}.{micro:06}Z"
        return event


def add_request_id(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if (current := request_id.get()) is not None:
        event.setdefault("request_id", current)
    return event


def add_trace_id(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if (current := trace_id.get()) is not None:
        event.setdefault("trace_id", current)
    return event


def add_impersonation(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Whose account it is, and whose hands: a line that names the first alone would accuse them."""
    principal = state("principal")
    if (actor := getattr(principal, "actor", None)) is not None:
        event.setdefault("user", getattr(principal, "id", None))
        event["impersonated_by"] = actor.id
    return event


def _to_json(event: Any, **_options: Any) -> str:
    try:
        return orjson.dumps(event, default=str).decode()
    except TypeError:  # integers beyond 64 bits, text that is no Unicode
        return json.dumps(event, default=str)


def drop_unwanted(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Leave out what is below the level of the root logger, as it is now, or the one that was chosen."""
    if NAME_TO_LEVEL[method] < (_chosen[0] if _chosen else logging.root.level):
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


def choose_level(level: LogLevel | None, settings: Settings) -> None:
    """The level from now on, until None restores that of the settings.

    Other libraries' lines below INFO stay out, unless the settings say otherwise: they hold values that are stored.
    """
    usual = NAME_TO_LEVEL[settings.log.level]
    _chosen[:] = [] if level is None else [NAME_TO_LEVEL[level]]
    logging.root.setLevel(usual if level is None else max(NAME_TO_LEVEL[level], min(usual, logging.INFO)))


def configure(settings: Settings) -> None:
    """Set logging up for this process; calling it again replaces the former set-up."""
    _chosen.clear()
    as_json = settings.log.format == "json" or (settings.log.format == "auto" and settings.environment != "development")
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        Clock(),
        add_request_id,
        add_trace_id,
        add_impersonation,
        mask_secrets,
    ]
    last: list[Any] = (
        [TRACEBACKS, structlog.processors.JSONRenderer(serializer=_to_json)]
        if as_json
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain_traceback)]
    )
    last.append(mask_addresses)
    PROCESSORS[:] = [drop_unwanted, *shared, *last]
    structlog.configure(
        processors=PROCESSORS,
        logger_factory=Lines,
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        cache_logger_on_first_use=True,
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
