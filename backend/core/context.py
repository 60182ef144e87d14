"""What is known about the request being served, for code that has no request at hand: error bodies and log lines."""

from contextvars import ContextVar

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
