"""What takes too long is answered with 504 in time, and nothing of it stays: no statement, no lock, no row."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import text

from backend.core.db import Session, family
from backend.core.figures import Figures
from backend.main import create_app
from backend.testing import OwnPostgreSQL, new_client, settings_for

MakeApp = Callable[..., FastAPI]

# A statement that takes long, and what it is called.
SLOW = {
    "postgresql": "SELECT pg_sleep(20)",
    "mysql": "SELECT SLEEP(3)",
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000000) SELECT max(i) FROM n",
}


def given_up(app: FastAPI) -> float:
    figures: Figures = app.state.figures
    return next(found[()] for figure, found in figures.read() if figure.name == "request_timeouts")


async def test_what_takes_too_long_is_a_504_in_the_one_shape(make_app: MakeApp) -> None:
    app, ended = make_app(REQUEST_TIMEOUTS__SECONDS="0.1"), asyncio.Event()

    @app.get("/slow")
    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    @app.get("/quick")
    async def quick() -> None: ...

    async with new_client(app) as client, asyncio.timeout(10):
        answers = await asyncio.gather(client.get("/slow"), client.get("/slow"), client.get("/quick"))
        await ended.wait()
    assert [answer.status_code for answer in answers] == [504, 504, 200]
    error = answers[0].json()
    assert (error["error"]["code"], error["path"]) == ("timeout", "/slow")
    if "request_id" in app.state.registry.names:
        assert error["request_id"] == answers[0].headers["X-Request-ID"]
    assert given_up(app) == 2


async def test_the_caller_does_not_wait_for_what_cleans_up(make_app: MakeApp) -> None:
    app, go_on, answered = make_app(REQUEST_TIMEOUTS__SECONDS="0.1"), asyncio.Event(), asyncio.Event()

    @app.get("/stuck")
    async def stuck() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await go_on.wait()
        return "too late"

    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)
        answered.set()

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope: dict[str, object] = {"type": "http", "method": "GET", "path": "/stuck", "headers": [(b"host", b"localhost")]}
    scope |= {"query_string": b"", "client": ("127.0.0.1", 1), "server": ("localhost", 80), "scheme": "http"}
    async with asyncio.timeout(10):
        request = asyncio.create_task(app(scope, receive, send))  # type: ignore[arg-type]
        await answered.wait()
        assert not request.done()
        go_on.set()
        await request
    assert [message["status"] for message in sent if message["type"] == "http.response.start"] == [504]
    assert b"too late" not in b"".join(m.get("body", b"") for m in sent)  # type: ignore[misc]


async def test_an_answer_that_has_begun_may_take_its_time(make_app: MakeApp) -> None:
    app = make_app(REQUEST_TIMEOUTS__SECONDS="0.1")

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield "first, "
            await asyncio.sleep(0.5)
            yield "last"

        return StreamingResponse(parts())

    async with new_client(app) as client:
        assert (await client.get("/stream")).text == "first, last"
    assert given_up(app) == 0


async def test_a_stopping_server_still_cancels(make_app: MakeApp) -> None:
    app, begun = make_app(), asyncio.Event()

    @app.get("/slow")
    async def slow() -> None:
        begun.set()
        await asyncio.sleep(60)

    async with new_client(app) as client:
        request = asyncio.create_task(client.get("/slow"))
        await begun.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request


# --- the database --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def app_with_one_connection(environment: Callable[..., None], url: str) -> AsyncIterator[FastAPI]:
    """`/write` stores a row and then takes long; `/count` counts rows."""
    environment(REQUEST_TIMEOUTS__SECONDS="0.5")
    app = create_app(settings_for(url))
    app.state.database = type(app.state.database)(
        app.state.settings.database.model_copy(update={"pool_size": 1, "max_overflow": 0, "pool_timeout": 10})
    )
    slow = SLOW[family(url)]

    @app.post("/write")
    async def write(session: Session) -> None:
        await (await session.connection()).execute(text("INSERT INTO slow_things (id) VALUES (1)"))
        await (await session.connection()).execute(text(slow))

    @app.get("/count")
    async def count(session: Session) -> int:
        found = await (await session.connection()).execute(text("SELECT count(*) FROM slow_things"))
        return int(found.scalar_one())

    async with app.router.lifespan_context(app):
        async with app.state.database.session() as session:
            await (await session.connection()).execute(text("CREATE TABLE slow_things (id INTEGER PRIMARY KEY)"))
            await session.commit()
        yield app
        async with app.state.database.session() as session:
            await (await session.connection()).execute(text("DROP TABLE slow_things"))
            await session.commit()


async def running(app: FastAPI) -> int:
    """How many other statements PostgreSQL has at work in this database."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep(20)%'"
    async with app.state.database.session(reading=True) as session:
        connection = await session.connection()
        found = await connection.execute(text(f"{query} AND state <> 'idle' AND pid <> pg_backend_pid()"))
        return int(found.scalar_one())


async def test_what_it_wrote_is_rolled_back_and_the_only_connection_works_again(
    environment: Callable[..., None], committed_database_url: str
) -> None:
    async with (
        app_with_one_connection(environment, committed_database_url) as app,
        new_client(app, timeout=60) as client,
        asyncio.timeout(60),
    ):
        for _ in range(2):  # the first one left no lock and took no connection away
            answer = await client.post("/write")
            assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        if family(committed_database_url) == "postgresql":
            assert await running(app) == 0
        while (count := await client.get("/count")).status_code != 200:  # SQLite finishes the statement first
            assert count.status_code in (503, 504)
        assert count.json() == 0


@pytest.mark.slow
async def test_a_frozen_database_keeps_nobody_waiting(
    environment: Callable[..., None], own_postgresql: OwnPostgreSQL
) -> None:
    loop = asyncio.get_running_loop()
    async with app_with_one_connection(environment, own_postgresql.url) as app, new_client(app) as client:
        waits = []
        with own_postgresql.frozen():
            for _ in range(3):
                started = loop.time()
                async with asyncio.timeout(60):
                    answer = await client.get("/count")  # this client waits for the cleaning up, too
                waits.append((answer.status_code, loop.time() - started))
        assert {status for status, _ in waits} <= {503, 504}
        assert max(wait for _, wait in waits) < 10, waits
        async with asyncio.timeout(60):
            while (await client.get("/count")).status_code != 200:
                await asyncio.sleep(0.1)
