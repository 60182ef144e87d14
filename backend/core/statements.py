"""How many SQL statements a request sends, and for how long it waits for them; and a place to watch each of them."""

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, ExceptionContext, event

from backend.core import context

# Told of each statement: its text, the moments of `time.perf_counter()` at which it was sent and answered, and why it
# has failed, if it has.
observers: list[Callable[[str, float, float, BaseException | None], None]] = []


class Statements:
    """Those of one request. In the request's `state` as `statements`."""

    __slots__ = ("count", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0


def note(text: str, began: float) -> None:
    """A statement that was sent at this moment has been answered."""
    ended = time.perf_counter()
    mine = context.state("statements")
    if isinstance(mine, Statements):
        mine.count += 1
        mine.seconds += ended - began
    for observe in observers:
        observe(text, began, ended, None)


def note_failure(text: str, began: float, failure: BaseException) -> None:
    """A statement that was sent at this moment has failed, or nobody waits for it any more. It is not counted."""
    for observe in observers:
        observe(text, began, time.perf_counter(), failure)


def watch(engine: Engine) -> None:
    """Have this engine's statements noted. What `rows` sends past SQLAlchemy notes itself."""

    @event.listens_for(engine, "before_cursor_execute")
    def before(_connection: Any, _cursor: Any, _text: str, _parameters: Any, execution: Any, _many: bool) -> None:
        execution.statement_began = time.perf_counter()

    @event.listens_for(engine, "after_cursor_execute")
    def after(_connection: Any, _cursor: Any, text: str, _parameters: Any, execution: Any, _many: bool) -> None:
        note(text, execution.statement_began)

    @event.listens_for(engine, "handle_error")
    def failed(error: ExceptionContext) -> None:
        began = getattr(error.execution_context, "statement_began", None)
        if error.statement is not None and began is not None:
            note_failure(error.statement, began, error.original_exception)
