"""Both kinds of open connections, in one process and over a real server: who gets one, what it costs, how it ends."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager

import httpx2
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from backend.features import FEATURES
from backend.testing import BASE_URL, PASSWORD, running_server

ECHO, STREAM = "/api/v2/ws/echo", "/api/v2/sse/stream"
IN_PROCESS = f"ws://localhost{ECHO}"  # the test client would take another host than its own otherwise
IN_MEMORY = {"DATABASE_URL": "sqlite://"}  # its pool has one connection: whoever held it would stop all others
Server = tuple[str, dict[str, str]]
Open = Callable[..., TestClient]


def authorization(client: httpx2.Client) -> dict[str, str]:
    """The header of somebody who has just signed up."""
    person = {"email": "ada@example.com", "password": PASSWORD}
    client.post("/api/v1/auth/signup", json=person)
    form = {"username": person["email"], "password": PASSWORD}
    return {"Authorization": f"Bearer {client.post('/api/v1/auth/token', data=form).json()['access_token']}"}


def events(text: str) -> list[dict[str, str]]:
    """What a client makes of a stream: a mapping per event."""
    blocks = [block for block in text.split("\n\n") if block]
    return [dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":")) for block in blocks]


def ids(text: str) -> list[int]:
    return [int(one["id"]) for one in events(text) if one["event"] == "tick"]


@pytest.fixture
def opened(make_app: Callable[..., FastAPI]) -> Iterator[Open]:
    """`opened(REALTIME__MESSAGE_BYTES="4")`: a signed-in client of an app in this process."""
    with ExitStack() as stack:

        def make(**variables: str) -> TestClient:
            client = stack.enter_context(TestClient(make_app(**IN_MEMORY | variables), base_url=BASE_URL))
            client.headers.update(authorization(client))
            return client

        yield make


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A real server with room for two connections: its URL and the header of a signed-in caller."""
    with running_server(**IN_MEMORY, REALTIME__CONNECTIONS="2") as base, httpx2.Client(base_url=base) as client:
        yield base, authorization(client)


@pytest.fixture
async def caller(server: Server) -> AsyncIterator[httpx2.AsyncClient]:
    base, headers = server
    async with httpx2.AsyncClient(base_url=base, headers=headers, timeout=10) as client:
        yield client


def dial(base: str, headers: dict[str, str]) -> connect:
    return connect(base.replace("http", "ws") + ECHO, additional_headers=headers)


# --- the WebSocket -------------------------------------------------------------------------------------------------


def test_what_is_sent_comes_back(opened: Open) -> None:
    with opened().websocket_connect(IN_PROCESS) as socket:
        for text in ("hello", "", "grüß dich"):
            socket.send_text(text)
            assert socket.receive_text() == text
        socket.send_bytes(b"\x00\xff")
        assert socket.receive_bytes() == b"\x00\xff"


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer forged"}, {"Authorization": "Basic YTpi"}], ids=str)
def test_a_stranger_is_refused_in_the_one_shape(opened: Open, headers: dict[str, str]) -> None:
    client = opened()
    del client.headers["Authorization"]
    with pytest.raises(WebSocketDenialResponse) as refusal, client.websocket_connect(IN_PROCESS, headers=headers):
        pass
    assert refusal.value.status_code == 401
    assert refusal.value.headers["WWW-Authenticate"] == "Bearer"
    assert refusal.value.json()["error"]["code"] == "unauthorized"


@pytest.mark.slow
async def test_a_real_server_refuses_a_stranger_alike(server: Server) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        await dial(server[0], {})
    body = json.loads(refusal.value.response.body or b"")
    assert (refusal.value.response.status_code, body["error"]["code"]) == (401, "unauthorized")
    assert body["path"] == ECHO


@pytest.mark.parametrize(("fits", "too_big"), [("abcd", "abcde"), ("éé", "ééé")])
def test_a_message_has_a_largest_size_in_bytes(opened: Open, fits: str, too_big: str) -> None:
    with opened(REALTIME__MESSAGE_BYTES="4").websocket_connect(IN_PROCESS) as socket:
        socket.send_text(fits)
        assert socket.receive_text() == fits
        socket.send_text(too_big)
        with pytest.raises(WebSocketDisconnect) as end:
            socket.receive_text()
    assert end.value.code == 1009


def test_a_socket_does_not_outlive_its_welcome(opened: Open) -> None:
    client = opened(REALTIME__LIFETIME_SECONDS="0.1")
    with client.websocket_connect(IN_PROCESS) as socket, pytest.raises(WebSocketDisconnect) as end:
        socket.receive_text()
    assert (end.value.code, end.value.reason) == (1008, "Sign in again")


# --- the stream ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_clock_ticks_on_whole_seconds(opened: Open) -> None:
    began = int(time.time())
    answer = opened().get(STREAM, params={"limit": 3})
    first, second, third = events(answer.text)
    assert [int(one["id"]) - int(first["id"]) for one in (first, second, third)] == [0, 1, 2]
    assert began <= int(first["id"])
    assert time.time() >= int(third["id"])
    assert {one["event"] for one in (first, second, third)} == {"tick"}
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(second["id"])))
    assert json.loads(second["data"]) == {"at": at}
    assert ("retry" in first, "retry" in second) == (True, False)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert answer.headers["X-Accel-Buffering"] == "no"
    assert answer.headers["Cache-Control"] == "no-cache"


async def test_what_was_missed_is_sent_on_return(as_user: httpx2.AsyncClient) -> None:
    last = int(time.time()) - 5
    answer = await as_user.get(STREAM, params={"limit": 5}, headers={"Last-Event-ID": str(last)})
    assert ids(answer.text) == [last + number for number in range(1, 6)]


@pytest.mark.parametrize("seconds", [0, 3])
async def test_not_more_than_so_much(
    as_user: httpx2.AsyncClient, environment: Callable[..., None], seconds: int
) -> None:
    environment(REALTIME__REPLAY_SECONDS=str(seconds))
    began = int(time.time())
    answer = await as_user.get(STREAM, params={"limit": 1}, headers={"Last-Event-ID": str(began - 1000)})
    assert began + 1 - seconds <= ids(answer.text)[0] <= int(time.time()) + 1 - seconds


@pytest.mark.parametrize("strange", [b"", b"yesterday", b"-5", b"1e9", b"99999999999", b"9" * 40, b"\xb2", b"1.5"])
async def test_an_id_that_is_none_of_ours_counts_as_none(as_user: httpx2.AsyncClient, strange: bytes) -> None:
    began = int(time.time())
    answer = await as_user.get(STREAM, params={"limit": 1}, headers=[(b"Last-Event-ID", strange)])
    assert began <= ids(answer.text)[0] <= time.time()


@pytest.mark.parametrize("limit", ["0", "-1", "many", "86401"])
async def test_a_strange_limit_is_422(as_user: httpx2.AsyncClient, limit: str) -> None:
    answer = await as_user.get(STREAM, params={"limit": limit})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid")


@pytest.mark.slow
def test_a_stream_does_not_outlive_its_welcome(opened: Open) -> None:
    answer = opened(REALTIME__LIFETIME_SECONDS="0.1").get(STREAM)
    *_, last = events(answer.text)
    assert (last["event"], json.loads(last["data"])) == ("goodbye", {"reason": "lifetime"})
    assert "id" not in last


# --- what open connections cost, and how they end ------------------------------------------------------------------


@asynccontextmanager
async def listening(client: httpx2.AsyncClient) -> AsyncIterator[AsyncIterator[str]]:
    """A stream that has begun. (What it says must be kept: the client hangs up when nobody holds it.)"""
    async with client.stream("GET", STREAM) as answer:
        assert answer.status_code == 200
        yield answer.aiter_text()


@pytest.mark.slow
async def test_open_connections_hold_no_database_connection(server: Server, caller: httpx2.AsyncClient) -> None:
    async with dial(*server) as socket, listening(caller) as stream:
        await socket.send("still there?")
        assert await socket.recv() == "still there?"
        assert (await anext(stream)).startswith("event: tick")
        assert (await caller.get("/api/v1/auth/me")).status_code == 200


@pytest.mark.slow
async def test_connections_are_bounded_and_given_back(server: Server, caller: httpx2.AsyncClient) -> None:
    async with dial(*server), listening(caller) as stream:
        assert await anext(stream)
        refused = await caller.get(STREAM)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        assert refused.headers["Retry-After"]
        with pytest.raises(InvalidStatus) as refusal:
            await dial(*server)
        assert refusal.value.response.status_code == 503
        assert (await caller.get(STREAM, headers={"Authorization": ""})).status_code == 401
    async with AsyncExitStack() as both:
        for _ in range(2):
            await both.enter_async_context(when_there_is_room(caller))
        assert (await caller.get(STREAM)).status_code == 503


@asynccontextmanager
async def when_there_is_room(client: httpx2.AsyncClient) -> AsyncIterator[None]:
    """A stream, once the server has noticed that others are gone."""
    for _ in range(100):
        async with client.stream("GET", STREAM) as answer:
            if answer.status_code == 200:
                yield
                return
        await asyncio.sleep(0.05)
    pytest.fail("no connection is given back")


async def _last_words(socket: ClientConnection) -> int | None:
    with pytest.raises(ConnectionClosed) as end:
        await socket.recv()
    return end.value.rcvd.code if end.value.rcvd else None


@pytest.mark.slow
async def test_a_server_that_stops_says_goodbye_and_another_goes_on(server: Server) -> None:
    base, headers = server
    with ExitStack() as stack:
        leaving = stack.enter_context(running_server(**IN_MEMORY))
        with httpx2.Client(base_url=leaving) as stranger:
            known_there = authorization(stranger)
        async with (
            dial(leaving, known_there) as socket,
            httpx2.AsyncClient(base_url=leaving, headers=known_there, timeout=10) as client,
            listening(client) as stream,
        ):
            heard = await anext(stream)
            stopped = asyncio.create_task(asyncio.to_thread(stack.close))
            heard += "".join([part async for part in stream])
            assert await _last_words(socket) == 1012
            await stopped
    *_, last = events(heard)
    assert (last["event"], json.loads(last["data"])) == ("goodbye", {"reason": "stopping"})
    headers = headers | {"Last-Event-ID": str(ids(heard)[-1])}
    answer = httpx2.get(base + STREAM, params={"limit": 2}, headers=headers, timeout=10)
    assert ids(heard + answer.text) == [ids(heard)[0] + number for number in range(len(ids(heard)) + 2)]


# --- limits --------------------------------------------------------------------------------------------------------


def test_too_many_messages_end_the_socket(opened: Open) -> None:
    if "rate_limits" not in FEATURES:
        pytest.skip("the rate_limits feature is not in this tree")
    client = opened(RATE_LIMITS__OVERRIDES="realtime.messages=2/day")
    with client.websocket_connect(IN_PROCESS) as socket:
        for _ in range(2):
            socket.send_text("hello")
            assert socket.receive_text() == "hello"
        socket.send_text("hello")
        with pytest.raises(WebSocketDisconnect) as end:
            socket.receive_text()
    assert (end.value.code, end.value.reason) == (1008, "Too many messages")
    with client.websocket_connect(IN_PROCESS) as again, pytest.raises(WebSocketDisconnect):
        again.send_text("another socket of the same session")
        again.receive_text()


def test_too_many_sockets_are_refused_in_the_one_shape(opened: Open) -> None:
    if "rate_limits" not in FEATURES:
        pytest.skip("the rate_limits feature is not in this tree")
    client = opened(RATE_LIMITS__OVERRIDES="realtime.connect=1/day")
    with client.websocket_connect(IN_PROCESS):
        pass
    with pytest.raises(WebSocketDenialResponse) as refusal, client.websocket_connect(IN_PROCESS):
        pass
    assert refusal.value.status_code == 429
    assert refusal.value.json()["error"]["code"] == "too_many_requests"
    assert (refusal.value.headers["RateLimit-Limit"], refusal.value.headers["RateLimit-Remaining"]) == ("1", "0")
    assert int(refusal.value.headers["Retry-After"]) > 1
