"""Several processes: one looks, and another takes over when it is gone. On real connections, whose commits stay."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
from alembic import command
from fastapi import FastAPI
from sqlmodel import select, update

from backend.core.commits import CommittingSession
from backend.core.models import utc_now
from backend.features.incidents.models import DAY, HealthLease, Rollup
from backend.features.incidents.settings import IncidentsSettings
from backend.features.incidents.watching import Watch
from backend.main import create_app
from backend.testing import run_alembic, settings_for, temporary_database

SETTINGS = IncidentsSettings(probe_seconds=10, lease_seconds=60)


@pytest.fixture
async def two(database_name: str) -> AsyncIterator[tuple[Watch, Watch]]:
    """Two apps on one database, as two processes would be; they look when they are told to."""
    with temporary_database(database_name) as url:
        run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
        async with AsyncExitStack() as stack:
            apps = [create_app(settings_for(url)) for _ in range(2)]
            for app in apps:
                await stack.enter_async_context(app.router.lifespan_context(app))
            yield Watch(apps[0], SETTINGS), Watch(apps[1], SETTINGS)


async def looks(app: FastAPI) -> int:
    """How many are stored of the database."""
    async with app.state.database.session(reading=True) as session:
        found = await session.exec(select(Rollup.looks).where(Rollup.component == "database", Rollup.span == DAY))
        return sum(found)


async def expire(watch: Watch) -> None:
    """As if the process that holds the lease had been frozen for as long as it lasts."""
    async with watch.database.session() as session:
        await session.exec(update(HealthLease).values(expires_at=utc_now() - timedelta(seconds=1)))
        await session.commit()


async def test_two_processes_record_each_look_once(two: tuple[Watch, Watch]) -> None:
    first, second = two
    for _ in range(3):
        await first.look()
        await second.look()
    assert (first.leads, second.leads) == (True, False)
    assert await looks(first.app) == 3


async def test_of_processes_that_begin_at_once_one_leads(two: tuple[Watch, Watch]) -> None:
    others = [Watch(one.app, SETTINGS) for one in two for _ in range(4)]
    await asyncio.gather(*(one.look() for one in (*two, *others)))
    assert [one.leads for one in (*two, *others)].count(True) == 1
    assert await looks(two[0].app) == 1


async def test_who_was_frozen_finds_that_another_has_taken_over_and_writes_nothing(two: tuple[Watch, Watch]) -> None:
    first, second = two
    await first.look()
    await expire(first)
    await second.look()
    assert second.leads
    await first.look()
    assert not first.leads
    assert await looks(first.app) == 2, "one each"
    await first.look()
    assert not first.leads


async def test_who_was_frozen_and_has_not_been_missed_goes_on(two: tuple[Watch, Watch]) -> None:
    first, second = two
    await first.look()
    await expire(first)
    await first.look()
    await second.look()
    assert (first.leads, second.leads) == (True, False)
    assert await looks(first.app) == 2


async def test_a_process_that_ends_lets_another_take_over_at_once(two: tuple[Watch, Watch]) -> None:
    first, second = two
    await first.look()
    await first.give_back()
    await second.look()
    assert (first.leads, second.leads) == (False, True)


async def test_after_an_outage_the_others_leave_the_lease_to_who_held_it(two: tuple[Watch, Watch]) -> None:
    first, second = two
    await first.look()
    await expire(first)
    away = create_app(settings_for("postgresql://nobody@127.0.0.1:1/none"))
    here, second.database = second.database, away.state.database
    await second.look()  # there is no database
    second.database = here
    await second.look()
    assert not second.leads
    await first.look()
    assert first.leads
    await away.state.database.close()


class LosesTheAnswer(CommittingSession):
    """Commits, and does not hear of it."""

    async def commit(self) -> None:
        await super().commit()
        raise ConnectionResetError


class Fails(CommittingSession):
    """Does not commit."""

    async def commit(self) -> None:
        raise ConnectionResetError


async def test_what_was_committed_without_an_answer_is_not_stored_twice(two: tuple[Watch, Watch]) -> None:
    first, second = two
    await first.look()
    for kind in (LosesTheAnswer, Fails, Fails, LosesTheAnswer, CommittingSession):
        first.database._sessions.class_ = kind
        await first.look()
    assert await looks(first.app) == 6
    await expire(first)
    await second.look()
    assert second.leads
    assert await looks(first.app) == 7, "whoever takes over counts anew"


def test_a_lease_lasts_for_three_looks_at_least() -> None:
    assert IncidentsSettings(probe_seconds=60, lease_seconds=60).lease == 180
