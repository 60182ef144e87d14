"""The process that looks. All others only see to it that somebody does.

While the database is away, whoever looked last goes on in memory and stores all of it as soon as it is back. The others
leave it the time to do so before one of them takes its lease, even if that has expired meanwhile.
"""

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
from fastapi import FastAPI
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from backend.core.db import Database
from backend.core.health import Report
from backend.core.models import utc_now
from backend.features.incidents import automatic, history, lease
from backend.features.incidents.seen import Seen
from backend.features.incidents.settings import IncidentsSettings

log = structlog.get_logger(__name__)

PATIENCE = 10.0  # seconds for the database, which has just answered
TIDY_SECONDS = 3600
OUTAGES = (SQLAlchemyError, OSError)  # a TimeoutError is an OSError


class Watch:
    """What one process knows of its turn to look."""

    def __init__(self, app: FastAPI, settings: IncidentsSettings) -> None:
        self.app = app
        self.database: Database = app.state.database
        self.settings = settings
        self.holder = secrets.token_hex(16)
        self.leads = False
        self.seen = Seen()
        self._storing: Seen | None = None  # kept until it is known to be stored
        self._number = 0  # of that
        self._away_until = 0.0  # time.monotonic() until which who held the lease before the outage may come back
        self._tidied = float("-inf")

    async def look(self) -> None:
        """One turn: take the lease if nobody has it; if it is ours, look, and store what was seen."""
        if not self.leads and not await self._take():
            return
        report: Report = await self.app.state.health.report()
        self.seen.add(report, utc_now())
        await self._store()  # also while the database is down for others: one that is slow keeps the lease, and tells

    async def _take(self) -> bool:
        try:
            async with asyncio.timeout(PATIENCE):
                async with self.database.session(reading=True) as session:
                    free = await lease.is_free(session, self.holder)
                if not free or time.monotonic() < self._away_until:
                    return False
                async with self.database.session() as session:
                    taken = await lease.take(session, self.holder, self.settings.lease)
                    await session.commit()
        except IntegrityError:  # somebody made the row at the same moment
            return False
        except OUTAGES:
            self._away_until = time.monotonic() + self.settings.lease
            return False
        if taken:
            self._begin_anew(leads=True)
            log.info("health_watch_begun")
        return taken

    def _begin_anew(self, *, leads: bool) -> None:
        self.leads, self.seen, self._storing = leads, Seen(), None

    async def _store(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                if self._storing:
                    await self._store_once(self._storing)
                if self.leads:
                    self._storing, self.seen = self.seen, Seen()
                    self._number += 1
                    await self._store_once(self._storing)
                if self.leads and time.monotonic() - self._tidied > TIDY_SECONDS:
                    async with self.database.session() as session:
                        await history.forget(session)
                        await session.commit()
                    self._tidied = time.monotonic()
        except OUTAGES as outage:  # what was seen is kept for the next time
            log.warning("health_not_stored", error=type(outage).__name__)

    async def _store_once(self, seen: Seen) -> None:
        """Once, however often it is tried: a COMMIT whose answer was lost may have been carried out."""
        async with self.database.session() as session:
            lease_is = await lease.renew(session, self.holder, self.settings.lease, number=self._number)
            if lease_is == "lost":  # another has looked meanwhile
                self._begin_anew(leads=False)
                log.info("health_watch_lost")
                return
            if lease_is == "renewed":
                await history.add_looks(session, seen)
                await automatic.follow(session, seen.runs)
                await session.commit()
            self._storing = None

    async def go_on(self) -> None:
        """The first look after one pause: a process that has just started is busy, and knows little."""
        while not await self.app.state.stopping.wait(self.settings.probe_seconds * random.uniform(0.9, 1.1)):  # noqa: S311
            try:
                await self.look()
            except Exception:  # it is what tells of failures: it must not end by one
                log.exception("health_watch_failed")
        await self.give_back()  # while this process drains, another looks

    async def give_back(self) -> None:
        if self.leads:
            self.leads = False
            with suppress(*OUTAGES):
                async with asyncio.timeout(1), self.database.session() as session:
                    await lease.give_back(session, self.holder)
                    await session.commit()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    watch = Watch(app, IncidentsSettings.current())
    task = asyncio.create_task(watch.go_on())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await watch.give_back()
