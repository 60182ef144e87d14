"""Each process says how it does every few seconds; what failed meanwhile goes along, in the same transaction."""

import asyncio
import os
import resource
import secrets
import socket
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col, delete, insert, select, update

from backend.core.db import Database
from backend.core.figures import Reading
from backend.core.housekeeping import regularly
from backend.core.models import utc_now
from backend.core.observing import Ended, Observer
from backend.features.processes.models import FailedAnswer, ProcessReport
from backend.features.processes.settings import ProcessesSettings

FAILED = 500  # the first status that is our fault
MOST_WAITING = 50  # failed answers of one process between two reports: the newest
PATIENCE = 10.0  # seconds for a report
LAST_WORDS = 2.0  # seconds for the one at the stop
TIDY_EVERY = 30  # reports
BATCH = 1000  # rows deleted in one transaction
FORGOTTEN = timedelta(days=1)  # after which the row of a process that was killed is deleted

# What the page shows of all processes together.
SHOWN = frozenset({
    "http_requests_in_progress", "database_connections", "database_connections_limit", "database_connections_waiting",
    "cache_requests", "event_loop_lag_seconds", "load_shed", "request_timeouts", "mails", "mails_waiting",
    "circuit_state",
})  # fmt: skip


def memory() -> int:
    """Bytes that this process holds; where the system does not tell, the most that it has held."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def packed(reading: Reading) -> list[list[Any]]:
    """A reading as JSON can hold it: `[[["in_use"], 3], …]`."""
    return [[list(labels), value] for labels, value in reading.items()]


class Reporter:
    """One process's, of one app."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.name = secrets.token_hex(16)
        self.host = socket.gethostname()[:255]
        self.started_at = utc_now()
        self.waiting: deque[dict[str, Any]] = deque(maxlen=MOST_WAITING)
        self.reports = 0
        self._requests = 0
        self._counts_since = time.monotonic()

    def observe(self, ended: Ended) -> None:
        if ended.is_probe:
            return
        self._requests += 1
        if ended.status >= FAILED:
            self.waiting.append({
                "at": utc_now(),
                "process": f"{self.host}:{os.getpid()}",
                "method": ended.method,
                "route": ended.route[:200],
                "status": ended.status,
                "error": str(ended.facts.get("error", ""))[:100],
                "request_id": str(ended.facts.get("request_id", "")),
            })  # fmt: skip

    def _row(self) -> dict[str, Any]:
        now = time.monotonic()
        requests, self._requests = self._requests, 0
        seconds, self._counts_since = now - self._counts_since, now
        return {
            "host": self.host,
            "pid": os.getpid(),
            "version": self.app.version[:50],
            "started_at": self.started_at,
            "seen_at": utc_now(),
            "per_second": requests / max(seconds, 1e-3),
            "memory": memory(),
            "figures": {
                figure.name: packed(reading)
                for figure, reading in self.app.state.figures.read()
                if figure.name in SHOWN
            },
        }

    async def store(self, database: Database, *, stopping: bool = False) -> None:
        """SQLAlchemyError or OSError while the database is away: then what failed goes on waiting."""
        failures, self.waiting = self.waiting, deque(maxlen=MOST_WAITING)
        try:
            async with database.session() as session:
                mine = col(ProcessReport.name) == self.name
                if stopping:
                    await session.exec(delete(ProcessReport).where(mine))
                else:
                    row = self._row()
                    if not (await session.exec(update(ProcessReport).where(mine).values(**row))).rowcount:
                        await session.exec(insert(ProcessReport), params=[{"name": self.name, **row}])
                if failures:
                    await session.exec(insert(FailedAnswer), params=list(failures))
                await session.commit()
        except BaseException:
            self.waiting = deque((*failures, *self.waiting), maxlen=MOST_WAITING)
            raise


async def tidy(database: Database) -> None:
    """Delete what is due. They are looked up first: as long as there is nothing to delete, nothing is locked."""
    rules, now = ProcessesSettings.current(), utc_now()
    old = select(FailedAnswer.id).where(col(FailedAnswer.at) < now - timedelta(days=rules.failures_days))
    many = select(FailedAnswer.id).order_by(col(FailedAnswer.id).desc()).offset(rules.failures_kept)
    gone = select(ProcessReport.name).where(col(ProcessReport.seen_at) < now - FORGOTTEN)
    async with database.session(reading=True) as session:
        ids = {one for due in (old, many) for one in await session.exec(due.limit(BATCH))}
        names = (await session.exec(gone.limit(BATCH))).all()
    if not ids and not names:
        return
    async with database.session() as session:
        await session.exec(delete(FailedAnswer).where(col(FailedAnswer.id).in_(ids)))
        await session.exec(delete(ProcessReport).where(col(ProcessReport.name).in_(names)))
        await session.commit()


async def report(app: FastAPI) -> None:
    """Say how this process does, and now and then tidy up."""
    mine = reporter_of(app)
    async with asyncio.timeout(PATIENCE):
        await mine.store(app.state.database)
        if mine.reports % TIDY_EVERY == 0:
            await tidy(app.state.database)
    mine.reports += 1


def reporter_of(app: FastAPI) -> Reporter:
    """This app's. Made with its observer."""
    reporter: Reporter = app.state.reporter
    return reporter


def observer(app: FastAPI) -> Observer:
    app.state.reporter = Reporter(app)
    return reporter_of(app).observe


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    seconds = ProcessesSettings.current().report_seconds
    async with regularly(report, seconds=seconds, failed="process_not_reported")(app):
        yield
    with suppress(SQLAlchemyError, OSError):  # a timeout is an OSError; the others see that it says no more
        async with asyncio.timeout(LAST_WORDS):
            await reporter_of(app).store(app.state.database, stopping=True)
