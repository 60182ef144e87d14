"""Read replicas: which copies of the database are current enough to be read from, found out in the background."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from backend.core.config import BadSetting, DatabaseSettings
from backend.core.db import Database, async_url, family, for_reading, new_engine
from backend.core.replication import NEVER, Positions
from backend.core.writers import Writers

log = structlog.get_logger(__name__)

LOOKS = 5  # at each replica, in the time by which it may lag


def _alone(settings: DatabaseSettings) -> DatabaseSettings:
    """Settings for one connection, which looks at a server however busy the others are."""
    limits = {"pool_size": 1, "max_overflow": 0, "command_timeout": settings.replica_timeout, "pre_ping": False}
    return settings.model_copy(update=limits)


class Replica:
    """One copy of the database. `as_of`: it is known to hold everything written until this `time.monotonic()`."""

    def __init__(self, url: str, settings: DatabaseSettings, primary: AsyncEngine) -> None:
        parsed = async_url(url)
        self.name = str(parsed.host or parsed.query.get("host", "")) + (f":{parsed.port}" if parsed.port else "")
        self.engine = for_reading(new_engine(parsed, settings, always_ping=True))
        self.watcher = new_engine(parsed, _alone(settings))
        self.positions = Positions(primary, self.watcher)
        self.as_of = NEVER
        self.usable = False  # as last logged

    async def close(self) -> None:
        await self.engine.dispose()
        await self.watcher.dispose()


class Replicas:
    """The copies of one app's database, if it has any. `watched()` while the app runs."""

    def __init__(self, settings: DatabaseSettings, database: Database, writers: Writers) -> None:
        if any(family(url) != database.family or database.family == "sqlite" for url in settings.replica_urls):
            raise BadSetting("DATABASE__REPLICA_URLS: replicas are PostgreSQL or MySQL/MariaDB, like DATABASE__URL")
        if settings.replica_sticky_seconds <= settings.replica_max_lag_seconds:
            raise BadSetting("DATABASE__REPLICA_STICKY_SECONDS must be more than DATABASE__REPLICA_MAX_LAG_SECONDS")
        self._max_lag = settings.replica_max_lag_seconds
        waits = dict.fromkeys(("connect_timeout", "pool_timeout"), settings.replica_timeout)
        impatient = settings.model_copy(update=waits)
        self._primary = new_engine(database.url, _alone(impatient))  # connects when there are replicas to compare
        self.all = [Replica(url, impatient, self._primary) for url in settings.replica_urls]
        self.writers = writers
        self._turns = itertools.count()

    def is_current(self, replica: Replica) -> bool:
        return time.monotonic() - replica.as_of <= self._max_lag

    def next(self) -> Replica | None:
        """One of those that are current enough, by turns; None when none is."""
        current = [replica for replica in self.all if self.is_current(replica)]
        return current[next(self._turns) % len(current)] if current else None

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Look at each replica now and then while the app runs; the first look comes before the first request."""
        await asyncio.gather(*(self.look_at(replica) for replica in self.all))
        tasks = [asyncio.create_task(self._watch(replica)) for replica in self.all]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for replica in self.all:
                await replica.close()
            await self._primary.dispose()

    async def _watch(self, replica: Replica) -> None:
        while True:
            await asyncio.sleep(self._max_lag / LOOKS)
            await self.look_at(replica)

    async def look_at(self, replica: Replica) -> None:
        """Find out how current a replica is."""
        error = None
        try:
            replica.as_of = await replica.positions.as_of()
        except Exception as exc:  # noqa: BLE001  whatever it is, nothing is known of it
            replica.as_of, error = NEVER, type(getattr(exc, "orig", exc)).__name__
        if replica.usable != self.is_current(replica):
            replica.usable = not replica.usable
            tell = log.info if replica.usable else log.warning
            tell("replica", name=replica.name, usable=replica.usable, error=error)


async def probe(app: FastAPI) -> None:
    """Raises when a replica is not read from: the primary does its work."""
    replicas: Replicas = app.state.replicas
    if away := [replica.name for replica in replicas.all if not replicas.is_current(replica)]:
        raise ConnectionError(f"down, or too far behind: {', '.join(away)}")
