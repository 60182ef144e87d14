"""Connections go to who waits longest, and none is lost."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import event, literal, select, text
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util.concurrency import await_only, greenlet_spawn

from backend.core.config import DatabaseSettings
from backend.core.db import Database, async_url, new_engine
from backend.core.figures import Figures
from backend.core.paging import PageQuery, paged
from backend.core.pool import FIGURES, FairPool, FairQueue
from backend.core.read_session import rows

SELECT = text("SELECT 1")


@pytest.fixture
async def engine(committed_database_url: str) -> AsyncEngine:
    settings = DatabaseSettings(url=committed_database_url, pool_size=1, max_overflow=0, pool_timeout=0.2)
    return new_engine(async_url(settings.url), settings)


async def test_newcomers_do_not_overtake(committed_database_url: str) -> None:
    database = Database(DatabaseSettings(url=committed_database_url, pool_size=1, max_overflow=0))
    served: list[str] = []

    async def ask(name: str) -> None:
        for _ in range(5):  # comes back at once, while the others wait
            await rows(database.session(reading=True), select(literal(1)))
            served.append(name)

    await asyncio.gather(*map(ask, "abc"))
    assert "".join(served) == "abc" * 5
    await database.close()


async def test_a_wait_has_an_end(engine: AsyncEngine) -> None:
    async with engine.connect():
        with pytest.raises(PoolTimeout):
            await engine.connect()
    async with engine.connect() as connection:
        await connection.execute(SELECT)
    await engine.dispose()


async def test_who_gives_up_loses_nobodys_connection(engine: AsyncEngine) -> None:
    async def ask() -> int:
        async with engine.connect() as connection:
            return int((await connection.execute(SELECT)).scalar_one())

    first = await engine.connect()
    waiting = [asyncio.create_task(ask()) for _ in range(3)]
    await asyncio.sleep(0)
    await first.close()  # the oldest has it now, and has not been woken yet
    waiting[0].cancel()
    waiting[1].cancel()
    assert await asyncio.gather(*waiting, return_exceptions=True) != [1, 1, 1]
    assert await waiting[2] == 1
    assert await ask() == 1
    await engine.dispose()


async def test_nor_when_another_is_given_back_meanwhile() -> None:
    queue = FairQueue[str](1)
    waiting = asyncio.create_task(greenlet_spawn(queue.get))
    await asyncio.sleep(0)
    queue.put_nowait("handed over")
    queue.put_nowait("kept")  # the queue is full
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert [queue.get_nowait(), queue.get_nowait()] == ["kept", "handed over"]


async def test_the_place_of_a_connection_that_cannot_be_opened_goes_to_who_waits(committed_database_url: str) -> None:
    options = {"poolclass": FairPool, "pool_size": 1, "max_overflow": 0, "pool_timeout": 20}
    engine = create_async_engine(async_url(committed_database_url), **options)
    tried: list[object] = []

    @event.listens_for(engine.sync_engine, "do_connect")
    def fail_once(*_unused: object) -> None:
        tried.append(None)
        if len(tried) == 1:
            await_only(asyncio.sleep(0))  # the others come, and wait
            raise ConnectionRefusedError

    async def ask() -> int:
        async with engine.connect() as connection:
            return int((await connection.execute(SELECT)).scalar_one())

    async with asyncio.timeout(10):  # half of what they would wait for their turn
        first, *others = await asyncio.gather(*(ask() for _ in range(3)), return_exceptions=True)
    assert isinstance(first, ConnectionRefusedError)
    assert others == [1, 1]
    await engine.dispose()


async def test_a_full_page_takes_one_connection(committed_database_url: str) -> None:
    database = Database(DatabaseSettings(url=committed_database_url, pool_size=1, max_overflow=0, pool_timeout=0.5))
    numbers = select(literal(1).label("number")).union_all(select(literal(2))).subquery()
    async with database.session(reading=True) as session:
        found, total = await paged(session, select(numbers.c.number), PageQuery(page=1, page_size=1))
    assert (len(found), total.number) == (1, 2)
    await database.close()


async def test_who_waits_and_for_how_long_is_told(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(DATABASE_URL="sqlite://", DATABASE__POOL_TIMEOUT="0.05")
    engine = app.state.database.engine

    def told() -> dict[str, Any]:
        return {figure.name: found.get((), found) for figure, found in Figures(app, FIGURES).read()}

    async with engine.connect():
        assert told()["database_connections"] == {("in_use",): 1, ("idle",): 0}
        waiting = asyncio.create_task(engine.connect().start())
        while not told()["database_connections_waiting"]:
            await asyncio.sleep(0)
        with pytest.raises(PoolTimeout):
            await waiting
    now = told()
    assert now["database_connections"] == {("in_use",): 0, ("idle",): 1}
    assert (now["database_connections_limit"], now["database_connections_waiting"]) == (1, 0)
    assert now["database_connection_waits"] == 1
    assert 0.04 < now["database_connection_wait_seconds"] < 5
    await engine.dispose()
    assert told()["database_connection_waits"] == 1  # counters never fall
