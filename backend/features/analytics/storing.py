"""Stores what was counted every few seconds, and at the stop; while the database is away, it waits in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col, insert, select

from backend.core.db import Database
from backend.core.jobs import job
from backend.core.models import utc_now
from backend.features.analytics.counting import Batch, Counts, counts_of
from backend.features.analytics.models import FLUSHED, ApiUsage
from backend.features.analytics.rolling_up import SETTLED, tidy
from backend.features.analytics.settings import AnalyticsSettings

log = structlog.get_logger(__name__)

TIDY_EVERY = 30  # flushes
PATIENCE = 30.0  # seconds for a flush or a roll-up; MariaDB's driver would wait for ever
LAST_WORDS = 5.0  # seconds at the stop for what is under way, and for what is left, should the database not answer


async def flush(database: Database, counts: Counts) -> None:
    """Store all that waits. SQLAlchemyError or OSError while the database is away: then it goes on waiting."""
    try:
        if counts.unsure:
            await _store(database, counts.unsure)
            counts.unsure = None
        if counts.waiting:
            counts.unsure = counts.take()
            await _store(database, counts.unsure)
            counts.unsure = None
    except (SQLAlchemyError, OSError):
        counts.failures += 1
        raise


async def _store(database: Database, batch: Batch) -> None:
    """Once: a commit whose answer was lost may have been carried out.

    After some minutes nobody can say any more, as what was stored has been rolled up: it is taken to be there, which
    loses the counts of some seconds, where they would else be doubled.
    """
    async with asyncio.timeout(PATIENCE), database.session() as session:
        if batch.tried:
            first, last = batch.moments()
            mine = (ApiUsage.level == FLUSHED, col(ApiUsage.start).between(first, last), ApiUsage.source == batch.name)
            if (await session.exec(select(ApiUsage.id).where(*mine).limit(1))).first() is not None:
                return
            if utc_now() - last > SETTLED:
                log.warning("analytics_unsure", requests=sum(sums[0] for sums in batch.counts.values()))
                return
        await session.exec(insert(ApiUsage), params=list(batch.rows()))
        batch.tried = True
        await session.commit()


async def _go_on(app: FastAPI, ending: asyncio.Event) -> None:
    database, counts = app.state.database, counts_of(app)
    seconds = AnalyticsSettings.current().flush_seconds
    rounds, away = 0, False
    while not ending.is_set():
        try:
            await flush(database, counts)
            if rounds % TIDY_EVERY == 0:
                with job(f"{tidy.__module__}.{tidy.__name__}"):
                    async with asyncio.timeout(PATIENCE):
                        await tidy(database)
            rounds, away = rounds + 1, False
        except (SQLAlchemyError, OSError) as outage:
            if not away:  # said once
                log.warning("analytics_not_stored", error=type(outage).__name__)
            away = True
        except Exception:  # this task must not end: nothing would be stored any more
            log.exception("analytics_failed")
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await ending.wait()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """A flush under way at the stop may end; what has been counted since is stored after it."""
    ending = asyncio.Event()
    task = asyncio.create_task(_go_on(app, ending))
    try:
        yield
    finally:
        ending.set()
        with suppress(TimeoutError):  # rolling up may be cut off: it is one transaction, or not begun
            async with asyncio.timeout(LAST_WORDS):
                await task
        try:
            async with asyncio.timeout(LAST_WORDS):
                await flush(app.state.database, counts_of(app))
        except (SQLAlchemyError, OSError) as outage:  # a timeout is an OSError
            log.warning("analytics_lost", error=type(outage).__name__)
