"""How many connections are open. Each costs memory and a file descriptor for minutes, so their number has a bound."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from backend.core.errors import Unavailable
from backend.features.realtime.settings import RealtimeSettings


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.open_connections = 0
    yield


async def take_slot(connection: HTTPConnection) -> AsyncIterator[None]:
    """One of the process's connections, until this one ends, in whatever way; 503 when all are taken."""
    state = connection.app.state
    if state.open_connections >= RealtimeSettings.current().connections:
        raise Unavailable("Too many open connections here, please retry")
    state.open_connections += 1
    try:
        yield
    finally:
        state.open_connections -= 1


# Name it after the caller: dependencies are resolved in order, and strangers must not take slots.
# scope="request" ends with the last byte of the answer; "function" would end as a stream begins.
Slot = Annotated[None, Depends(take_slot, scope="request")]
