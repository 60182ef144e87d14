"""What is too much is refused, those who look after the app are not, and when it is over all are let in again."""

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from backend.core.figures import Reading
from backend.features.load_shedding.load import load_of
from backend.features.load_shedding.middleware import LATEST_RETRY
from backend.testing import ROOT, free_port, new_client, wait_until_ready

MakeApp = Callable[..., FastAPI]


def reading(app: FastAPI, name: str) -> Reading:
    return next(found for figure, found in app.state.figures.read() if figure.name == name)


class Held:
    """An app with routes that answer when they are let go."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.begun: asyncio.Queue[None] = asyncio.Queue()
        self.go = asyncio.Event()
        app.get("/held")(self.held)
        app.get("/health/held")(self.held)
        app.get("/healthy")(self.at_once)
        app.get("/stream")(self.stream)

    async def held(self) -> None:
        self.begun.put_nowait(None)
        await self.go.wait()

    async def at_once(self) -> None: ...

    async def stream(self) -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield "first"
            await self.held()

        return StreamingResponse(parts())


async def test_at_most_so_many_are_answered_at_once(make_app: MakeApp) -> None:
    held = Held(make_app(LOAD_SHEDDING__IN_FLIGHT="2"))
    async with new_client(held.app) as client:
        waiting = [asyncio.create_task(client.get("/held")) for _ in range(2)]
        for _ in waiting:
            await held.begun.get()
        assert reading(held.app, "load_in_flight") == {(): 2}
        refusal = await client.get("/healthy")
        held.go.set()
        assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}
        assert (await client.get("/healthy")).status_code == 200
    assert refusal.status_code == 503
    assert refusal.json()["error"]["code"] == "overloaded"
    assert 1 <= int(refusal.headers["Retry-After"]) <= LATEST_RETRY
    assert reading(held.app, "load_shed") == {(): 1}
    assert reading(held.app, "load_in_flight") == {(): 0}


async def test_those_who_look_after_the_app_are_let_in_and_do_not_count(make_app: MakeApp) -> None:
    held = Held(make_app(LOAD_SHEDDING__IN_FLIGHT="1"))
    async with new_client(held.app) as client:
        waiting = [asyncio.create_task(client.get(path)) for path in ("/health/held", "/health/held", "/held")]
        for _ in waiting:
            await held.begun.get()
        assert (await client.get("/admin/login")).status_code == 200
        assert (await client.get("/healthy")).status_code == 503  # it only begins like an exempt one
        held.go.set()
        assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200] * 3


async def test_an_answer_that_has_begun_does_not_count_any_more(make_app: MakeApp) -> None:
    held = Held(make_app(LOAD_SHEDDING__IN_FLIGHT="1"))
    async with new_client(held.app) as client:
        streams = [asyncio.create_task(client.get("/stream"))]
        await held.begun.get()
        streams.append(asyncio.create_task(client.get("/stream")))
        await held.begun.get()
        assert reading(held.app, "load_in_flight") == {(): 0}
        held.go.set()
        assert [answer.text for answer in await asyncio.gather(*streams)] == ["first"] * 2
    assert reading(held.app, "load_in_flight") == {(): 0}


async def test_a_bug_does_not_stay_in_flight(make_app: MakeApp) -> None:
    app = make_app(DEBUG="true")

    @app.get("/bug")
    async def bug() -> None:
        raise RuntimeError

    async with new_client(app) as client:
        with pytest.raises(RuntimeError):
            await client.get("/bug")
    assert reading(app, "load_in_flight") == {(): 0}


@pytest.mark.parametrize(
    ("lag", "least", "most"), [(0.0, 0, 0), (0.5, 0, 0), (0.75, 0.35, 0.65), (1.0, 0.9, 0.99), (60, 0.9, 0.99)]
)
def test_the_more_the_event_loop_lags_the_more_are_refused(
    make_app: MakeApp, lag: float, least: float, most: float
) -> None:
    load = load_of(make_app(LOAD_SHEDDING__LAG_SECONDS="0.5"))
    load.lag = lag
    refused = sum(load.is_too_much() for _ in range(2000)) / 2000
    assert least <= refused <= most


async def test_the_lag_is_measured_and_one_pause_is_forgiven(make_app: MakeApp) -> None:
    app = make_app(LOAD_SHEDDING__LAG_SECONDS="0.3")
    async with app.router.lifespan_context(app):
        load = load_of(app)
        await asyncio.sleep(0)  # it begins to sleep
        time.sleep(0.6)
        async with asyncio.timeout(10):
            while load.lag < 0.05:
                await asyncio.sleep(0.01)
        assert load.lag < load.threshold
        assert reading(app, "event_loop_lag_seconds") == {(): load.lag}


@pytest.fixture
def busy_server() -> Iterator[str]:
    port, url = free_port(), ""
    variables = {"DATABASE_URL": "sqlite://", "LOG__LEVEL": "warning", "LOAD_SHEDDING__LAG_SECONDS": "0.15"}
    command = [sys.executable, "-m", "backend.features.load_shedding.tests.busy", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | variables)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=40)


@pytest.mark.slow
async def test_under_overload_some_are_served_and_the_rest_refused_and_after_it_all_are_served(
    busy_server: str,
) -> None:
    """Fifty callers who never wait, of each of whose requests the server needs 20 ms."""
    seen: Counter[tuple[str, int]] = Counter()
    over = asyncio.Event()

    async def call(client: httpx2.AsyncClient, path: str, pause: float) -> None:
        while not over.is_set():
            answer = await client.get(path)
            seen[path, answer.status_code] += 1
            if answer.status_code == 503:
                assert int(answer.headers["Retry-After"]) >= 1
                assert answer.json()["error"]["code"] == "overloaded"
            await asyncio.sleep(pause)

    async with httpx2.AsyncClient(base_url=busy_server, timeout=30, limits=httpx2.Limits(max_connections=60)) as client:
        async with asyncio.timeout(60), asyncio.TaskGroup() as callers:
            for _ in range(50):
                callers.create_task(call(client, "/busy", 0))
            callers.create_task(call(client, "/live", 0.1))
            while seen["/busy", 503] < 100 or seen["/live", 200] < 10:
                await asyncio.sleep(0.1)
            before = seen["/busy", 200]
            while seen["/busy", 200] < before + 20:  # goodput
                await asyncio.sleep(0.1)
            over.set()
        assert {status for path, status in seen if path == "/live"} == {200}
        assert {status for path, status in seen if path == "/busy"} == {200, 503}
        async with asyncio.timeout(20):
            row = 0
            while row < 20:
                row = row + 1 if (await client.get("/busy")).status_code == 200 else 0
                await asyncio.sleep(0.05)


async def test_uploads_that_stall_keep_nobody_out(make_app: MakeApp) -> None:
    app = make_app(LOAD_SHEDDING__IN_FLIGHT="2")
    waiting, never = asyncio.Semaphore(0), asyncio.Event()
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"10")]
    scope = {"type": "http", "method": "POST", "path": "/api/v1/auth/signup", "query_string": b"", "headers": headers}

    async def receive() -> dict[str, object]:
        waiting.release()
        await never.wait()
        return {"type": "http.disconnect"}

    async def send(_message: object) -> None: ...

    stalled = [asyncio.create_task(app({**scope}, receive, send)) for _ in range(5)]
    for _ in stalled:
        await waiting.acquire()
    async with new_client(app) as client:
        assert (await client.get("/openapi.json")).status_code == 200
    assert reading(app, "load_in_flight") == {(): 0}
    never.set()
    await asyncio.gather(*stalled, return_exceptions=True)
    assert reading(app, "load_in_flight") == {(): 0}
