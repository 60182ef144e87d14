"""Connections go to who waits longest, and none is lost."""

import asyncio

import pytest
from sqlalchemy import literal, select, text
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine

from backend.core.config import DatabaseSettings
from backend.core.db import Database, async_url, new_engine
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
