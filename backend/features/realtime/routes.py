"""/ws/echo and /sse/stream.

Both want the bearer token in the `Authorization` header, which no browser sends on its own account: another site cannot
open a connection in a visitor's name, so there is no `Origin` to check. A credential in a cookie would need that check.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, WebSocket, WebSocketDisconnect
from fastapi.sse import EventSourceResponse, ServerSentEvent

from backend.core.auth import Caller, Principal
from backend.core.db import Session, release
from backend.core.errors import Responses, TooManyRequests
from backend.core.limits import MessageLimit, limit
from backend.features.realtime import clock
from backend.features.realtime.connections import Slot
from backend.features.realtime.settings import RealtimeSettings

POLICY_VIOLATION, MESSAGE_TOO_BIG = 1008, 1009  # RFC 6455 §7.4.1
MAX_EVENTS = 86400  # a day's

EXAMPLE = """event: tick
data: {"at":"2026-01-01T00:00:00Z"}
id: 1767225600
retry: 1000

event: tick
data: {"at":"2026-01-01T00:00:01Z"}
id: 1767225601

event: goodbye
data: {"reason":"stopping"}
retry: 1000

"""
STREAMED: Responses = {
    200: {"description": "Events, until one side ends it", "content": {"text/event-stream": {"example": EXAMPLE}}},
    503: {"description": "Too many open connections"},
}

OPENINGS = limit("realtime.connect", "120/minute", by="user")
MESSAGES = MessageLimit("realtime.messages", "1200/minute")

router = APIRouter(tags=["realtime"])

LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", description="The last `id` that you saw", examples=["1767225600"])
]
Limit = Annotated[int, Query(ge=1, le=MAX_EVENTS, description="End after so many ticks")]


@router.websocket("/ws/echo", dependencies=[OPENINGS])
async def echo(socket: WebSocket, session: Session, caller: Caller, slot: Slot) -> None:
    """Send every text or binary message back.

    Closes with 1009 after a message above `REALTIME__MESSAGE_BYTES`, and with 1008 after `REALTIME__LIFETIME_SECONDS`
    or too many messages.
    A silent peer is found by the server's own pings.
    """
    settings = RealtimeSettings.current()
    await release(session)
    await socket.accept()
    with suppress(WebSocketDisconnect):
        try:
            async with asyncio.timeout(settings.lifetime_seconds):
                await _echo(socket, caller, settings.message_bytes)
        except TimeoutError:
            await socket.close(POLICY_VIOLATION, "Sign in again")
        except TooManyRequests:
            await socket.close(POLICY_VIOLATION, "Too many messages")


async def _echo(socket: WebSocket, caller: Principal, most: int) -> None:
    while (message := await socket.receive())["type"] == "websocket.receive":
        await MESSAGES(socket, caller)
        text: str | None = message.get("text")
        data: bytes = message["bytes"] if text is None else text.encode()
        if len(data) > most:
            await socket.close(MESSAGE_TOO_BIG, f"A message may have {most} bytes")
            return
        await (socket.send_bytes(data) if text is None else socket.send_text(text))


@router.get("/sse/stream", response_class=EventSourceResponse, responses=STREAMED, dependencies=[OPENINGS])
async def stream(
    request: Request,
    caller: Caller,
    slot: Slot,
    last_event_id: LastEventId = None,
    limit: Limit = MAX_EVENTS,
) -> AsyncIterator[ServerSentEvent]:
    """The time as server-sent events, one per second. `id` is the second since 1970 (UTC) that begins.

    With `Last-Event-ID`, what you missed since then comes first, at once, up to `REALTIME__REPLAY_SECONDS`; an id that
    is none of ours counts as none. The last event is `goodbye` when the server stops, or the connection has lasted for
    `REALTIME__LIFETIME_SECONDS`: connect again, with a token that is still good.
    """
    async for event in clock.ticks(request.app.state.stopping, second=clock.resumed_at(last_event_id), limit=limit):
        yield event
