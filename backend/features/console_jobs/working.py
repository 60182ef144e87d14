"""The work itself: chunks of records, each in one transaction with the progress and the audit log.

A transaction is short, so that others get at the rows, and at SQLite's lock; between two, nothing is held. Whoever is
killed in the middle leaves the last chunk that was committed, and another process goes on behind it.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import structlog
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import Request

from backend.core import context
from backend.core.auth import Principal
from backend.core.console import ConsoleView, Refused, refusal
from backend.core.console_actions import RecordAction, acted
from backend.core.db import Database
from backend.core.errors import AppError, of_database
from backend.core.events import emit
from backend.core.jobs import job as watched
from backend.core.mailer import Mailer
from backend.core.models import key_of
from backend.features.console_jobs import service
from backend.features.console_jobs.figures import RECORDS
from backend.features.console_jobs.models import DONE, FAILED, RUNNING, ConsoleJob
from backend.features.console_jobs.settings import ConsoleJobsSettings
from backend.features.users.authority import principal_of
from backend.features.users.models import User
from backend.features.users.permissions import CONSOLE

log = structlog.get_logger(__name__)

CHUNK = 200  # records in one transaction at most
CHUNK_SECONDS = 0.5  # after which it ends, however few they were
PAUSE = 0.1  # seconds between chunks, in which others get SQLite's lock
PATIENCE = 5.0  # seconds for the chunk that is under way at a stop
TIDY_SECONDS = 3600
REFUSALS_KEPT = 50
REASON = 200  # characters of one
OUTAGES = (SQLAlchemyError, OSError)  # a TimeoutError is an OSError

GONE = "The account that began this is gone, or deactivated"
NOT_ANY_MORE = "Whoever began this is not permitted to do it any more"
NO_SUCH_ACTION = "There is no such action any more"


def is_outage(exc: BaseException | None) -> bool:
    """Whether trying again may help. What is raised while a savepoint is rolled back hides what came before."""
    while exc is not None:
        known = exc if isinstance(exc, AppError) else of_database(exc) if isinstance(exc, Exception) else None
        if known is not None and known.status == 503:
            return True
        exc = exc.__context__
    return False


async def _who(session: AsyncSession, job: ConsoleJob) -> Principal:
    """Who began it, with what they may do now. Refused."""
    user = await session.get(User, job.user_id) if job.user_id else None
    if user is None or not user.is_active:
        raise Refused(GONE)
    return await principal_of(session, user, via="console", credential=None)


def _asked(app: FastAPI, job: ConsoleJob, caller: Principal) -> tuple[ConsoleView, RecordAction]:
    """What to do, where. Refused."""
    view: ConsoleView | None = app.state.console_views.get(job.view)
    action = view.actions.get(job.action) if view else None
    if view is None or action is None:
        raise Refused(NO_SUCH_ACTION)
    if not (caller.may(CONSOLE) and view.is_open_to(caller, action.name)):
        raise Refused(NOT_ANY_MORE)
    return view, action


async def _records(
    app: FastAPI, session: AsyncSession, view: ConsoleView, job: ConsoleJob, caller: Principal, many: int
) -> Sequence[Any]:
    """The next that match, as the list would find them for this person now."""
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": job.query.encode()}
    asked = Request({**scope, "app": app, "state": {"principal": caller}})
    key = view.pk_columns[0]
    ahead = view.matching(asked).where(key > job.last_key, key <= job.up_to).order_by(None).order_by(key)
    result: Any = await session.exec(ahead.limit(many))  # type: ignore[call-overload]
    found: Sequence[Any] = result.scalars().all()
    return found


@dataclass
class Outcome:
    """What came of a chunk. `broken`: the bug that ends the job, before the record with which it did."""

    done: list[int] = field(default_factory=list)
    refused: list[list[Any]] = field(default_factory=list)  # [key, why]
    broken: str = ""
    last_key: int = 0


async def _together(
    session: AsyncSession, view: ConsoleView, action: RecordAction, records: Sequence[Any], caller: Principal
) -> Outcome:
    """Do it to as many as there is time for. What one of them raises takes all of it back."""
    outcome, until = Outcome(), time.monotonic() + CHUNK_SECONDS
    async with session.begin_nested():
        for record in records:
            outcome.last_key = key_of(record)
            outcome.done.append(outcome.last_key)
            await action.run(view, session, record, caller)
            if time.monotonic() > until:
                break
    return outcome


async def _one_by_one(
    session: AsyncSession, view: ConsoleView, action: RecordAction, records: Sequence[Any], caller: Principal
) -> Outcome:
    """The same, and a record that refuses stays as it was. What may go better another time is raised."""
    outcome, until = Outcome(), time.monotonic() + CHUNK_SECONDS
    for record in records:
        key = key_of(record)
        try:
            async with session.begin_nested():
                await action.run(view, session, record, caller)
        except Exception as exc:
            if is_outage(exc):
                raise
            problem = refusal(exc)
            if problem.status >= 500:  # a bug: it would be the same for each
                outcome.broken = f"{view.name} {key}: {problem}"
                break
            outcome.refused.append([key, str(problem)[:REASON]])
        else:
            outcome.done.append(key)
        outcome.last_key = key
        if time.monotonic() > until:
            break
    return outcome


async def _work(app: FastAPI, session: AsyncSession, job: ConsoleJob, many: int) -> None:
    """One chunk, and what came of it. Refused when it cannot go on."""
    caller = await _who(session, job)
    view, action = _asked(app, job, caller)
    with context.apart(f"console-job-{job.id}", principal=caller):
        records = await _records(app, session, view, job, caller, many)
        keys = [key_of(record) for record in records]
        try:
            outcome = await _together(session, view, action, records, caller)
        except Exception as exc:
            if is_outage(exc):
                raise
            records = await _records(app, session, view, job, caller, many)  # as they were
            keys = [key_of(record) for record in records]
            outcome = await _one_by_one(session, view, action, records, caller)
        for piece in acted(view.identity, action.name, outcome.done):
            await emit(session, piece)
        job.done, job.refused = job.done + len(outcome.done), job.refused + len(outcome.refused)
        job.refusals = [*job.refusals, *outcome.refused][:REFUSALS_KEPT]
        job.last_key = outcome.last_key or job.last_key
        session.add(job)
        RECORDS.add(session, "done", many=len(outcome.done))
        RECORDS.add(session, "refused", many=len(outcome.refused))
        if outcome.broken:
            await service.end(session, job, FAILED, outcome.broken)
        elif len(keys) < many and keys[-1:] in ([], [job.last_key]):
            await service.end(session, job, DONE)


class Worker:
    """One process's, of one app: it works on one job at a time."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.database: Database = app.state.database
        self.settings = ConsoleJobsSettings.current()
        self.holder = secrets.token_hex(16)
        self.chunk = asyncio.Lock()  # held while one is under way
        self._tidied = time.monotonic()

    async def take(self) -> int | None:
        """The job to work on from now on, if there is one."""
        condition = service.free(self.holder, self.settings.lease)
        async with self.database.session(reading=True) as session:
            job_id = await service.next_free(session, condition)
        if job_id is None:
            return None
        async with self.database.session() as session:
            taken = await service.take(session, job_id, condition, self.holder)
            await session.commit()
        return job_id if taken else None

    def _room(self) -> int:
        """Records of the next chunk: no more than there is room for mails, should each send one."""
        mailer: Mailer = self.app.state.mailer
        return min(CHUNK, (mailer.settings.mail.queue_size - mailer.waiting + 1) // 2)

    async def step(self, job_id: int) -> bool:
        """One chunk; whether there is more to do."""
        async with self.chunk:
            if (many := self._room()) < 1:
                return True
            async with self.database.session() as session:
                job = await service.held(session, job_id, self.holder)
                if job is None:
                    return False
                await _work(self.app, session, job, many)
                await session.commit()
                return job.state == RUNNING

    async def _fail(self, job_id: int, reason: str) -> None:
        async with self.database.session() as session:
            if job := await service.held(session, job_id, self.holder):
                await service.end(session, job, FAILED, reason)
                await session.commit()

    async def turn(self) -> bool:
        """Take a job that waits and work on it until it is over, or the process stops. Whether there was one."""
        if (job_id := await self.take()) is None:
            return False
        self.app.state.console_job = job_id
        try:
            with watched(f"{__name__}.work"):
                while await self.step(job_id):
                    if await self.app.state.stopping.wait(PAUSE):
                        await self.give_back(job_id)
                        break
        except Exception as exc:
            if is_outage(exc):
                raise
            await self._fail(job_id, str(refusal(exc)))
        finally:
            self.app.state.console_job = None
        return True

    async def give_back(self, job_id: int) -> None:
        with suppress(*OUTAGES):
            async with asyncio.timeout(1), self.database.session() as session:
                await service.give_back(session, job_id, self.holder)
                await session.commit()

    async def _tidy(self) -> None:
        if time.monotonic() - self._tidied < TIDY_SECONDS:
            return
        self._tidied = time.monotonic()
        async with self.database.session() as session:
            await service.forget(session, days=self.settings.days_kept)
            await session.commit()

    async def go_on(self) -> None:
        """Also while the database is away: what was not committed is done when it is back."""
        stopping = self.app.state.stopping
        while not await stopping.wait(self.settings.poll_seconds):
            try:
                while not stopping.begun and await self.turn():
                    pass
                await self._tidy()
            except Exception as exc:
                if is_outage(exc):
                    log.warning("console_jobs_interrupted", error=type(exc).__name__)
                else:
                    log.exception("console_jobs_failed")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The chunk that is under way at the end is finished, and the rest left to another process."""
    worker = Worker(app)
    task = asyncio.create_task(worker.go_on())
    try:
        yield
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE), worker.chunk:
                task.cancel()
        task.cancel()
        job_id = getattr(app.state, "console_job", None)
        with suppress(asyncio.CancelledError):
            await task
        if job_id is not None:
            await worker.give_back(job_id)
