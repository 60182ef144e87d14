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
from backend.features.analytics.models import (
    COARSE,
    DAY,
    DETAIL,
    FINE,
    FIVE_MINUTES,
    FLUSHED,
    HOUR,
    MINUTE,
    SUMS,
    ApiUsage,
)
from backend.features.analytics.rolling_up import FIVE, roll_up, tidy, whole
from backend.features.analytics.service import Filters, over_time, period, series, totals
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
    """Of all there is: by whichever levels it is asked for, it is the same."""
    columns = [func.coalesce(func.sum(col(getattr(ApiUsage, name))), 0) for name in SUMS]
    coarse, fine = [
        tuple(int(one) for one in (await session.exec(select(*columns).where(col(ApiUsage.level).in_(counted)))).one())
        for counted in (COARSE, FINE)
    ]
    assert coarse == fine
    return coarse


def ago(**time: float) -> datetime:
    return utc_now() - timedelta(**time)


async def test_what_is_older_is_coarser(app: FastAPI, session: AsyncSession) -> None:
    times = ago(minutes=1), ago(hours=5), ago(days=5), ago(days=100)
    await plant(session, *(usage(whole(start, 60), requests=number + 1) for number, start in enumerate(times)))
    await tidy(app.state.database)
    assert set(await levels(session)) == {
        (FLUSHED, whole(times[0], 60), 1),
        (DETAIL, whole(times[1], 60), 2),
        (FIVE_MINUTES, whole(times[1], FIVE), 2),
        (HOUR, whole(times[2], 3600), 3),
        (DAY, whole(times[3], 86_400), 4),
    }


async def test_what_belongs_together_becomes_one_row(app: FastAPI, session: AsyncSession) -> None:
    start = whole(ago(hours=1), 60)
    same = [usage(start, source=f"a:1:b.{number}") for number in range(5)]
    await plant(session, *same, usage(start, bin=-39), usage(start, status=500), usage(start, probe=True))
    before = await sums(session)
    await tidy(app.state.database)
    for kept in (DETAIL, FIVE_MINUTES):
        assert sorted(found for level, _start, found in await levels(session) if level == kept) == [1, 1, 1, 5]
    assert await sums(session) == before


async def test_five_minutes_have_the_sums_of_their_minutes(app: FastAPI, session: AsyncSession) -> None:
    start = whole(ago(hours=1), FIVE)
    await plant(session, *(usage(start + timedelta(minutes=minute), requests=10**minute) for minute in range(7)))
    before = await sums(session)
    for _ in range(2):  # what comes late is a row of its own
        await tidy(app.state.database)
        found = await levels(session)
        assert [row[1:] for row in found if row[0] == DETAIL][:5] == [
            (start + timedelta(minutes=minute), 10**minute) for minute in range(5)
        ]
        await plant(session, usage(start + timedelta(minutes=6)))
    assert [row[1:] for row in found if row[0] == FIVE_MINUTES] == [
        (start, 11_111),
        (start + timedelta(minutes=5), 1),
        (start + timedelta(minutes=5), 1_100_000),
    ]
    assert await sums(session) == tuple(one + 2 * more for one, more in zip(before, (1, 20_000, 2, 3_000), strict=True))


async def test_steps_of_a_minute_stay_exact_beside_coarser_ones(app: FastAPI, session: AsyncSession) -> None:
    start = whole(ago(hours=2), FIVE)
    minutes = [start + timedelta(minutes=number) for number in range(17)]
    await plant(session, *(usage(minute, requests=number + 1) for number, minute in enumerate(minutes)))
    seen, until = [], utc_now()  # which else may be in the next minute when it is read again
    for _ in range(2):
        by_step = {
            step: {one.start: one.requests for one in await series(session, since=start, until=until, step=step)}
            for step in (60, 300, 420)
        }
        seen.append(by_step)
        assert {sum(found.values()) for found in by_step.values()} == {153}
        assert [by_step[60][minute] for minute in minutes] == [*range(1, 18)]
        assert [by_step[300][minute] for minute in minutes[::5]] == [15, 40, 65, 33]
        await tidy(app.state.database)
    assert seen[0] == seen[1]
    [group] = await totals(session, since=minutes[1], until=minutes[12])
    assert group.requests == sum(range(2, 13))


async def test_what_comes_late_is_added(app: FastAPI, session: AsyncSession) -> None:
    start = ago(days=5)
    for _ in range(2):
        await plant(session, usage(whole(start, 60)))
        await tidy(app.state.database)
    assert await levels(session) == [(HOUR, whole(start, 3600), 1)] * 2, "the detail has gone with the five minutes"
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
        found = [level for level, _start, _requests in await levels(session)]
        assert {level: found.count(level) for level in found} == {DETAIL: 600, FIVE_MINUTES: 120}


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


async def test_who_reads_meanwhile_finds_each_request_once(databases: list[Database]) -> None:
    """Rows become minutes, five minutes and hours while others look: in steps of a minute, and in longer ones."""
    roller, *readers = databases
    now = utc_now()
    since = whole(now - timedelta(hours=26), 3600)
    async with roller.session() as session:
        await plant(
            session,
            *(
                usage(since + timedelta(minutes=4 * number), bin=-bin_, level=level)
                for number in range(60)
                for bin_ in range(10)
                for level in (FLUSHED, MINUTE)
            ),
        )
    rolled = asyncio.Event()

    async def roll() -> None:
        await tidy(roller)
        for hour in range(4):
            await roll_up(roller, FIVE_MINUTES, since + timedelta(hours=hour), 3600)
        rolled.set()

    async def look(database: Database, step: int) -> set[int]:
        seen, chosen = set(), period(since, since + timedelta(hours=4), step)
        while True:
            ended = rolled.is_set()
            async with database.session(reading=True) as session:
                tallies = await over_time(session, chosen)
                [group] = await totals(session, since=chosen.since, until=chosen.until)
            seen |= {sum(one.requests for one in tallies.values()), group.requests}
            if ended:
                return seen

    _, *found = await asyncio.gather(
        roll(), *(look(one, step) for one, step in zip(readers, (60, 300, 3600), strict=True))
    )
    assert found == [{1200}] * 3
    async with roller.session(reading=True) as session:
        assert {level for level, _start, _requests in await levels(session)} == {HOUR}
