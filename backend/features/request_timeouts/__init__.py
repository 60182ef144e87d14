"""A request whose answer has not begun in time is given up: 504, its work is cancelled, its transaction rolled back.

Only a COMMIT under way may have been carried out: `backend/core/commits.py` says what becomes of it.
On PostgreSQL the running statement is cancelled, too. SQLite finishes it in its thread and MySQL on its server, before
either is rolled back. Answers that have begun (streams, downloads) and WebSockets are not limited.
"""

import asyncio
from contextvars import copy_context
from typing import ClassVar

from fastapi import FastAPI
from pydantic import Field
from pydantic_settings import SettingsConfigDict
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.core.config import EnvSettings, Settings
from backend.core.errors import AppError, error_response
from backend.core.feature import Feature
from backend.core.figures import Figure


class RequestTimeoutsSettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="REQUEST_TIMEOUTS__")

    seconds: float = Field(30, gt=0, description="Seconds until the answer to a request begins; 504 after that")


class TookTooLong(AppError):
    """The work was given up. What it had begun to store is rolled back."""

    status: ClassVar[int] = 504
    code: ClassVar[str] = "timeout"
    message: ClassVar[str] = "This took too long and was given up"


class _Waiting:
    """One request whose answer has not begun.

    The answer is sent by a task of its own: what is cancelled may take its time to clean up, as it does when the
    database has frozen, and the client shall not wait for that. asyncio.timeout() would.
    """

    __slots__ = ("answer", "channel", "context", "deadline", "queue", "task")

    def __init__(self, queue: dict["_Waiting", None], deadline: float, channel: tuple[Scope, Receive, Send]) -> None:
        self.queue = queue
        self.deadline = deadline
        self.channel = channel
        self.context = copy_context()  # has the request's id
        self.answer: asyncio.Task[None] | None = None
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  ASGI applications run in one
        self.task = task
        queue[self] = None

    def give_up(self) -> None:
        self.answer = asyncio.create_task(self.refuse(), context=self.context)
        self.task.cancel()

    async def refuse(self) -> None:
        scope = self.channel[0]
        scope["app"].state.timed_out = timed_out(scope["app"]) + 1
        await error_response(scope, TookTooLong.status, TookTooLong.code, TookTooLong.message)(*self.channel)

    async def send(self, message: Message) -> None:
        """What the app answers, unless it comes too late."""
        self.queue.pop(self, None)
        if self.answer is None:
            await self.channel[2](message)


class RequestTimeouts:
    """All wait for the same time, so whoever came first is due first: one timer does for all, and costs no request."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app = app
        self.seconds = seconds
        self.queue: dict[_Waiting, None] = {}
        self.timer: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        waiting = _Waiting(self.queue, loop.time() + self.seconds, (scope, receive, send))
        self.timer = self.timer or loop.call_at(waiting.deadline, self.look)
        try:
            await self.app(scope, receive, waiting.send)
        except BaseException:  # whatever cleaning up has raised: the caller has an answer
            if waiting.answer is None:
                raise
        finally:
            self.queue.pop(waiting, None)
        if waiting.answer:
            await waiting.answer
            if waiting.task.uncancel():  # others have cancelled it, too: the server, as it stops
                raise asyncio.CancelledError

    def look(self) -> None:
        """Give up whoever is due, and look again when the next one is."""
        loop = asyncio.get_running_loop()
        self.timer = None
        while self.queue:
            first = next(iter(self.queue))
            if first.deadline > loop.time():
                self.timer = loop.call_at(first.deadline, self.look)
                break
            del self.queue[first]
            first.give_up()


def timed_out(app: FastAPI) -> int:
    """How many requests were given up so far."""
    return getattr(app.state, "timed_out", 0)


def middleware(settings: Settings) -> Middleware:
    return Middleware(RequestTimeouts, seconds=RequestTimeoutsSettings.current().seconds)


feature = Feature(
    name="request_timeouts",
    summary="504 for requests that take too long, whose work is cancelled",
    settings=RequestTimeoutsSettings,
    middleware=middleware,
    figures=(
        Figure(
            name="request_timeouts",
            help="Requests given up because their answer had not begun in time.",
            kind="counter",
            read=timed_out,
        ),
    ),
)
