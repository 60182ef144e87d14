"""Entries go when they are too old, and not a day before."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta

import pytest
from fastapi import FastAPI
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.models import utc_now
from backend.features.audit import service
from backend.features.audit.models import AuditEntry
from backend.features.audit.retention import delete_what_is_over

Environment = Callable[..., None]


async def plant(session: AsyncSession, **ages: int) -> None:
    """`plant(session, old=400)`: an entry with the action `old` of so many days ago."""
    for action, days in ages.items():
        session.add(AuditEntry(action=action, via="system", at=utc_now() - timedelta(days=days)))
    await session.commit()


async def left(session: AsyncSession) -> set[str]:
    return set((await session.exec(select(AuditEntry.action))).all())


async def test_what_is_older_than_a_year_goes(app: FastAPI, session: AsyncSession) -> None:
    await plant(session, ancient=4000, old=366, young=364, new=0)
    assert await delete_what_is_over(app.state.database) == 2
    assert await left(session) == {"young", "new"}


async def test_the_setting_says_how_old(app: FastAPI, session: AsyncSession, environment: Environment) -> None:
    environment(AUDIT__RETENTION_DAYS="30")
    await plant(session, old=31, young=29)
    await delete_what_is_over(app.state.database)
    assert await left(session) == {"young"}


async def test_zero_keeps_everything(app: FastAPI, session: AsyncSession, environment: Environment) -> None:
    environment(AUDIT__RETENTION_DAYS="0")
    await plant(session, ancient=4000)
    assert await delete_what_is_over(app.state.database) == 0
    assert await left(session) == {"ancient"}


async def test_many_go_batch_by_batch(app: FastAPI, session: AsyncSession) -> None:
    moment = utc_now() - timedelta(days=1)
    session.add_all(AuditEntry(action="old", via="system", at=moment) for _ in range(7))
    await session.commit()
    sizes = [await service.delete_before(app.state.database, utc_now(), batch=3) for _ in range(4)]
    assert sizes == [3, 3, 1, 0]


async def test_while_nothing_is_due_nothing_is_written(
    app: FastAPI, session: AsyncSession, statements: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    await plant(session, young=1)
    with statements() as seen:
        await delete_what_is_over(app.state.database)
    assert [one.split()[0] for one in seen] == ["SELECT"]


async def test_a_stop_is_not_kept_waiting(app: FastAPI, session: AsyncSession) -> None:
    await plant(session, ancient=4000)
    stopping = type(app.state.stopping)(0)
    stopping._event.set()
    assert await delete_what_is_over(app.state.database, stopping) == 0


async def test_the_process_does_it_at_its_start(make_app: Callable[..., FastAPI], tmp_path: object) -> None:
    app = make_app(DATABASE_URL=f"sqlite:///{tmp_path}/audit.db")
    database = app.state.database
    async with database.engine.begin() as connection:
        await connection.run_sync(AuditEntry.metadata.create_all)
    async with database.session() as session:
        await plant(session, ancient=4000, new=0)
    async with app.router.lifespan_context(app):
        for _ in range(100):
            async with database.session(reading=True) as session:
                if (found := await left(session)) == {"new"}:
                    break
            await asyncio.sleep(0.02)
    assert found == {"new"}


async def test_a_database_that_fails_keeps_no_process_from_starting(
    make_app: Callable[..., FastAPI], tmp_path: object, capfd: pytest.CaptureFixture[str]
) -> None:
    app = make_app(DATABASE_URL=f"sqlite:///{tmp_path}/without_tables.db")
    said = ""
    async with app.router.lifespan_context(app):
        for _ in range(100):
            if "audit_retention_failed" in (said := said + "".join(capfd.readouterr())):
                break
            await asyncio.sleep(0.02)
    assert "audit_retention_failed" in said


async def test_several_processes_at_once_do_no_harm(
    committed_database_url: str, make_app: Callable[..., FastAPI]
) -> None:
    apps = [make_app(DATABASE_URL=committed_database_url) for _ in range(3)]
    moment = utc_now() - timedelta(days=500)
    async with apps[0].state.database.session() as session:
        session.add_all(AuditEntry(action="planted", via="system", at=moment) for _ in range(30))
        await session.commit()
    counts = await asyncio.gather(*(delete_what_is_over(app.state.database) for app in apps))
    assert sum(counts) == 30
    async with apps[0].state.database.session(reading=True) as session:
        statement = select(func.count()).select_from(AuditEntry).where(col(AuditEntry.action) == "planted")
        assert (await session.exec(statement)).one() == 0
