"""Old figures become coarser, then go; the counts stay what they are, however many processes do it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any

import pytest
from alembic import command
from fastapi import FastAPI
from sqlalchemy.exc import DBAPIError
from sqlmodel import col, func, insert, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.db import Database
from backend.core.models import utc_now
from backend.features.analytics.models import DAY, FLUSHED, HOUR, MINUTE, SUMS, ApiUsage
from backend.features.analytics.rolling_up import roll_up, tidy, whole
from backend.features.analytics.service import Filters, series
from backend.testing import run_alembic, temporary_database

MakeApp = Callable[..., FastAPI]
Environment = Callable[..., None]


def usage(start: datetime, level: int = FLUSHED, **changes: Any) -> dict[str, Any]:
    """A row of so many requests."""
    kind = {"method": "GET", "route": "/things", "status": 200, "client": "token", "probe": False, "bin": -40}
    sums = {"requests": 1, "micros": 20_000, "statements": 2, "sql_micros": 3_000}
    return {"level": level, "start": start, "source": "a:1:b.1", **kind, **sums, **changes}


async def plant(session: AsyncSession, *found: dict[str, Any]) -> None:
    await session.exec(insert(ApiUsage), params=list(found))
    await session.commit()


async def levels(session: AsyncSession) -> list[tuple[int, datetime, int]]:
    """level, start, requests of each row."""
    columns = col(ApiUsage.level), col(ApiUsage.start), col(ApiUsage.requests)
    return [(*one,) for one in (await session.exec(select(*columns).order_by(*columns))).all()]


async def sums(session: AsyncSession) -> tuple[int, ...]:
    columns = [func.sum(col(getattr(ApiUsage, name))) for name in SUMS]
    return tuple(int(one) for one in (await session.exec(select(*columns))).one())


def ago(**time: float) -> datetime:
    return utc_now() - timedelta(**time)


async def test_what_is_older_is_coarser(app: FastAPI, session: AsyncSession) -> None:
    times = ago(minutes=1), ago(hours=5), ago(days=5), ago(days=100)
    await plant(session, *(usage(whole(start, 60), requests=number + 1) for number, start in enumerate(times)))
    await tidy(app.state.database)
    assert set(await levels(session)) == {
        (FLUSHED, whole(times[0], 60), 1),
        (MINUTE, whole(times[1], 60), 2),
        (HOUR, whole(times[2], 3600), 3),
        (DAY, whole(times[3], 86_400), 4),
    }


async def test_what_belongs_together_becomes_one_row(app: FastAPI, session: AsyncSession) -> None:
    start = whole(ago(hours=1), 60)
    same = [usage(start, source=f"a:1:b.{number}") for number in range(5)]
    await plant(session, *same, usage(start, bin=-39), usage(start, status=500), usage(start, probe=True))
    before = await sums(session)
    await tidy(app.state.database)
    assert sorted(requests for _level, _start, requests in await levels(session)) == [1, 1, 1, 5]
    assert await sums(session) == before


async def test_what_comes_late_is_added(app: FastAPI, session: AsyncSession) -> None:
    start = ago(days=5)
    for _ in range(2):
        await plant(session, usage(whole(start, 60)))
        await tidy(app.state.database)
    assert await levels(session) == [(HOUR, whole(start, 3600), 1)] * 2
    found = await series(session, since=ago(days=6), until=utc_now(), filters=Filters())
    assert sum(one.requests for one in found) == 2


async def test_what_is_too_old_goes(app: FastAPI, session: AsyncSession, environment: Environment) -> None:
    environment(ANALYTICS__DAYS_KEPT="50")
    await plant(session, usage(ago(days=60)), usage(ago(days=49)), usage(ago(days=52), level=DAY))
    await tidy(app.state.database)
    assert [level for level, _start, _requests in await levels(session)] == [DAY]


async def test_while_nothing_is_due_nothing_is_written(
    app: FastAPI, session: AsyncSession, statements: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    await plant(session, usage(whole(utc_now(), 60)))
    with statements() as seen:
        await tidy(app.state.database)
    assert {one.split()[0] for one in seen} == {"SELECT"}


# --- at once: on real connections ----------------------------------------------------------------------------------


@pytest.fixture
def url(database_name: str) -> Iterator[str]:
    with temporary_database(database_name) as url:
        run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
        yield url


@pytest.fixture
async def databases(url: str, make_app: MakeApp) -> AsyncIterator[list[Database]]:
    yield [make_app(DATABASE_URL=url).state.database for _ in range(4)]


async def test_several_at_once_neither_lose_nor_double(databases: list[Database]) -> None:
    start = whole(ago(days=1), 3600)
    async with databases[0].session() as session:
        minutes = [start + timedelta(minutes=number) for number in range(20)]
        await plant(session, *(usage(minute, bin=-number) for minute in minutes for number in range(30)))
        before = await sums(session)
    ended = await asyncio.gather(*(tidy(database) for database in databases), return_exceptions=True)
    assert all(one is None or isinstance(one, DBAPIError) for one in ended), ended
    async with databases[0].session(reading=True) as session:
        assert await sums(session) == before
    await tidy(databases[0])  # a deadlock would have undone one: it is done at the next round
    async with databases[0].session(reading=True) as session:
        assert await sums(session) == before
        assert {level for level, _start, _requests in await levels(session)} == {MINUTE}
        assert len(await levels(session)) == 600


async def test_two_on_the_same_span_while_others_store_neither_lose_nor_double(databases: list[Database]) -> None:
    start = whole(ago(days=1), 60)
    async with databases[0].session() as session:
        await plant(session, *(usage(start, bin=-number) for number in range(50)))

    async def store(database: Database) -> None:
        for _ in range(20):
            async with database.session() as session:
                await plant(session, usage(start))

    async def roll(database: Database) -> None:
        for _ in range(10):
            await roll_up(database, FLUSHED, start, 60)

    first, second, third, fourth = databases
    await asyncio.gather(store(first), store(second), roll(third), roll(fourth))
    async with databases[0].session(reading=True) as session:
        assert (await sums(session))[0] == 90
