"""What features want in the cache before somebody asks: `Feature.warm`, done in the background after the start."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import structlog
from fastapi import FastAPI

log = structlog.get_logger(__name__)

LAST_SECONDS = 1  # for the one that is under way at the stop

Warmer = Callable[[FastAPI], Awaitable[object]]


def warms(route: Callable[..., Any], path: str, query: str = "") -> Warmer:
    """Asks a `@cached` route for what it answers at this path; it is one with `vary="shared"`, as nobody is calling."""

    async def warm(app: FastAPI) -> None:
        await route.cached.warm(app, path, query)  # type: ignore[attr-defined]

    return warm


@asynccontextmanager
async def warming(app: FastAPI, warmers: Iterable[Warmer]) -> AsyncIterator[None]:
    """Call them one after the other. What fails is logged; nobody depends on it."""

    async def go_through() -> None:
        for warmer in warmers:
            if app.state.stopping.begun:
                return
            try:
                await warmer(app)
            except Exception as failed:  # noqa: BLE001  a start must not fail by this
                log.warning("warming_failed", error=type(failed).__name__)

    task = asyncio.create_task(go_through())
    try:
        yield
    finally:
        await asyncio.wait({task}, timeout=LAST_SECONDS)  # a driver that is interrupted leaves its connection behind
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
