"""Traces while the app runs, if there is anywhere to send them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from backend.core import errors, jobs, outside, redis, statements
from backend.core.observing import Ended, Observer
from backend.features.tracing.settings import TracingSettings


def observer(_app: FastAPI) -> Observer | None:
    return _end if TracingSettings.current().endpoint else None


def _end(ended: Ended) -> None:
    if traced := ended.scope["state"].get("traced"):
        traced.mine.end(ended, traced)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Trace while the app runs; what waits at the end is still delivered."""
    settings = TracingSettings.current()
    if not settings.endpoint:
        yield
        return
    from backend.features.tracing.spans import Tracing  # noqa: PLC0415  the SDK, which nobody else shall wait for

    tracing = app.state.tracing = Tracing(app, settings)
    watching: list[tuple[list[Any], Any]] = [
        (statements.observers, tracing.statement),
        (redis.observers, tracing.command),
        (outside.watchers, tracing.call),
        (jobs.watchers, tracing.job),
        (errors.observers, tracing.bug),
    ]
    for observers, mine in watching:
        observers.append(mine)
    try:
        yield
    finally:
        for observers, mine in watching:
            observers.remove(mine)
        app.state.tracing = None
        await tracing.stop()
