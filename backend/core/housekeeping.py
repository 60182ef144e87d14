"""What is done now and then while the app runs, by each process; several at once must do no harm."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from typing import Protocol

import structlog
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError

from backend.core.jobs import job

log = structlog.get_logger(__name__)

SOON = 600  # seconds, after a failure
SELDOM = 60  # seconds: what is done more often is no job to be watched, as it would hide the others


class Work(Protocol):
    """An async function of a module."""

    __module__: str
    __name__: str

    def __call__(self, app: FastAPI, /) -> Awaitable[object]: ...


def regularly(work: Work, *, seconds: float, failed: str) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """A feature's `lifespan` that does `work` at the start, and then every so many seconds, give or take a tenth.

    While the database is away, it is tried again soon; `failed` is what the log calls that.
    """

    async def go_on(app: FastAPI) -> None:
        pause: float = 0
        while not await app.state.stopping.wait(pause):
            try:
                with job(f"{work.__module__}.{work.__name__}") if seconds >= SELDOM else nullcontext():
                    await work(app)
                pause = seconds
            except (SQLAlchemyError, OSError) as outage:
                log.warning(failed, error=type(outage).__name__)
                pause = min(SOON, seconds)
            pause *= random.uniform(0.9, 1.1)  # noqa: S311  so that processes that start at once drift apart

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(go_on(app))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    return lifespan
