"""What is told about requests, once, to whoever asked to be told."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from starlette.types import Message
from starlette.websockets import WebSocket
from structlog.testing import capture_logs

from backend.core.observing import Ended, Observing
from backend.testing import BASE_URL, new_client

MakeApp = Callable[..., FastAPI]
Watched = tuple[FastAPI, list[Ended]]


@pytest.fixture
def watched(make_app: MakeApp) -> Watched:
    app, told = make_app(), list[Ended]()
    app.state.observing = Observing(app, (told.append,))
    return app, told


async def test_a_request_is_told_of_once(watched: Watched) -> None:
    app, told = watched
    async with new_client(app) as client:
        await client.get("/openapi.json?token=secret")
        await client.get("/no/such/page")
    assert [(one.method, one.route, one.status, one.client) for one in told] == [
        ("GET", "/openapi.json", 200, "anonymous"),
        ("GET", "unmatched", 404, "anonymous"),
    ]
    assert all(one.seconds > 0 and one.principal is None for one in told)
    assert app.state.observing.in_progress == 0


async def test_a_bug_is_a_500(make_app: MakeApp) -> None:
    app, told = make_app(DEBUG="true", ENVIRONMENT="development"), list[Ended]()  # nothing turns it into an answer
    app.state.observing = Observing(app, (told.append,))

    @app.get("/bug")
    async def bug() -> None:
        raise LookupError

    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url=BASE_URL) as client:
        await client.get("/bug")
    assert [(one.route, one.status) for one in told] == [("/bug", 500)]


async def test_a_stream_of_events_is_told_of_as_soon_as_it_has_begun(watched: Watched) -> None:
    app, told = watched
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def events() -> Any:
        yield b"data: 1\n\n"
        begun.set()
        await go_on.wait()

    @app.get("/events")
    async def stream() -> StreamingResponse:
        return StreamingResponse(events(), media_type="text/event-stream")

    async with new_client(app) as client:
        request = asyncio.create_task(client.get("/events"))
        await begun.wait()
        assert [one.route for one in told] == ["/events"]
        assert app.state.observing.in_progress == 0
        go_on.set()
        await request
    assert len(told) == 1


@pytest.mark.parametrize(("accepts", "status"), [(True, 101), (False, 403)])
async def test_a_websocket_is_told_of_when_it_has_been_closed(watched: Watched, accepts: bool, status: int) -> None:
    app, told = watched

    @app.websocket("/talk")
    async def talk(socket: WebSocket) -> None:
        await (socket.accept() if accepts else socket.close())

    incoming: list[Message] = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}]

    async def receive() -> Message:
        return incoming.pop(0)

    async def send(_message: Message) -> None:
        pass

    extensions: dict[str, Any] = {"websocket.http.response": {}}
    scope = {"type": "websocket", "path": "/talk", "headers": [(b"host", b"localhost")], "query_string": b""}
    await app(scope | {"subprotocols": [], "extensions": extensions, "scheme": "ws"}, receive, send)
    assert [(one.method, one.route, one.status) for one in told] == [("WS", "/talk", status)]


async def test_statements_count_for_the_request_that_sent_them(watched: Watched, as_user: httpx2.AsyncClient) -> None:
    app: FastAPI = as_user._transport.app  # type: ignore[attr-defined]
    told: list[Ended] = []
    app.state.observing = Observing(app, (told.append,))
    await as_user.patch("/api/v1/users/me", json={"full_name": "Ada"})
    await as_user.get("/openapi.json")
    assert told[0].statements.count >= 2
    assert told[0].seconds > told[0].statements.seconds > 0
    assert told[1].statements.count == 0
    assert told[0].client == "token"


async def test_one_that_fails_costs_nobody_their_answer(watched: Watched) -> None:
    app, told = watched

    def fails(_ended: Ended) -> None:
        raise LookupError

    app.state.observing = Observing(app, (fails, told.append))
    async with new_client(app) as client:
        with capture_logs() as lines:
            assert (await client.get("/openapi.json")).status_code == 200
    assert len(told) == 1
    assert "observer_failed" in [line["event"] for line in lines]
