"""A clock as server-sent events. Its events follow from the time alone, so any process can resume any reader."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Literal

from fastapi.sse import ServerSentEvent
from pydantic import BaseModel

from backend.core.stopping import Stopping
from backend.features.realtime.settings import RealtimeSettings

RETRY_MS = 1000  # when a client comes back after the connection ended; browsers' own choice is some seconds
MAX_DIGITS = 11  # of a time in seconds that is worth reading


class Tick(BaseModel):
    """A whole second, as it begins."""

    at: datetime


class Goodbye(BaseModel):
    """Why the stream ends: the server stops, or the connection is so old that its caller must prove again who it is."""

    reason: Literal["stopping", "lifetime"]


def resumed_at(last_event_id: str | None) -> int:
    """The first second to send: the one after the last that the client saw, or the current one.

    An id that this clock cannot have sent yet, or ever, counts as none: an error would make browsers give up for good.
    """
    now = int(time.time())
    text = last_event_id or ""
    known = text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS and int(text) <= now
    return max(int(text) + 1, now + 1 - RealtimeSettings.current().replay_seconds) if known else now


async def ticks(stopping: Stopping, *, second: int, limit: int) -> AsyncIterator[ServerSentEvent]:
    """An event per second from `second` on: past ones at once, later ones as they begin; `limit` of them at most."""
    settings = RealtimeSettings.current()
    end = time.monotonic() + settings.lifetime_seconds
    for number in range(limit):
        if await stopping.wait(second - time.time()):
            yield _goodbye("stopping")
            return
        if time.monotonic() >= end:
            yield _goodbye("lifetime")
            return
        tick = Tick(at=datetime.fromtimestamp(second, UTC))
        yield ServerSentEvent(id=str(second), event="tick", data=tick, retry=None if number else RETRY_MS)
        second += 1


def _goodbye(reason: Literal["stopping", "lifetime"]) -> ServerSentEvent:
    """Without an id, so that the client remembers the last second's."""
    return ServerSentEvent(event="goodbye", data=Goodbye(reason=reason), retry=RETRY_MS)
