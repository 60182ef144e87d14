"""How processes share the work: whoever sets `holder` first has it, and each chunk begins by saying so again."""

from datetime import timedelta

from sqlalchemy import ColumnElement
from sqlmodel import col, delete, func, or_, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.errors import Conflict
from backend.core.events import emit
from backend.core.models import key_of, utc_now
from backend.features.console_jobs.events import ConsoleJobEnded
from backend.features.console_jobs.models import CANCELLED, RUNNING, WAITING, ConsoleJob

STATE = col(ConsoleJob.state)


def free(holder: str, lease: timedelta) -> ColumnElement[bool]:
    """Those that wait, whose process has died, or that were this process's own when the database went away."""
    lost = or_(col(ConsoleJob.heartbeat_at) < utc_now() - lease, col(ConsoleJob.holder) == holder)
    return or_(STATE == WAITING, (STATE == RUNNING) & lost)


async def next_free(session: AsyncSession, condition: ColumnElement[bool]) -> int | None:
    statement = select(ConsoleJob.id).where(condition).order_by(col(ConsoleJob.id)).limit(1)
    return (await session.exec(statement)).first()


async def take(session: AsyncSession, job_id: int, condition: ColumnElement[bool], holder: str) -> bool:
    """Whether this process has it from now on: of several that try, one does."""
    now = utc_now()
    values = {"state": RUNNING, "holder": holder, "heartbeat_at": now}
    started = func.coalesce(col(ConsoleJob.started_at), now)
    mine = update(ConsoleJob).where(col(ConsoleJob.id) == job_id, condition).values(started_at=started, **values)
    return bool((await session.exec(mine)).rowcount)


async def held(session: AsyncSession, job_id: int, holder: str) -> ConsoleJob | None:
    """The job, locked until the commit; None when it was cancelled, or another process has it."""
    mine = col(ConsoleJob.id) == job_id, STATE == RUNNING, col(ConsoleJob.holder) == holder
    if not (await session.exec(update(ConsoleJob).where(*mine).values(heartbeat_at=utc_now()))).rowcount:
        return None
    return await session.get(ConsoleJob, job_id)


async def give_back(session: AsyncSession, job_id: int, holder: str) -> None:
    """Let another process go on with it at once."""
    mine = col(ConsoleJob.id) == job_id, STATE == RUNNING, col(ConsoleJob.holder) == holder
    await session.exec(update(ConsoleJob).where(*mine).values(state=WAITING, holder=""))


async def end(session: AsyncSession, job: ConsoleJob, state: str, reason: str = "") -> None:
    job.state, job.reason, job.finished_at = state, reason[:500], utc_now()
    session.add(job)
    await emit(session, ConsoleJobEnded(job=key_of(job), state=state, records=job.done, refused=job.refused))


async def cancel(session: AsyncSession, job_id: int) -> None:
    """What a chunk has begun is done still; nothing more. Conflict when it is over already."""
    open_ = col(ConsoleJob.id) == job_id, STATE.in_((WAITING, RUNNING))
    if not (await session.exec(update(ConsoleJob).where(*open_).values(state=CANCELLED))).rowcount:
        raise Conflict("This is over already")
    job = await session.get(ConsoleJob, job_id)
    if job is not None:
        await end(session, job, CANCELLED)


async def forget(session: AsyncSession, *, days: int) -> None:
    """Delete what ended longer ago. The audit log keeps what was done."""
    await session.exec(delete(ConsoleJob).where(col(ConsoleJob.finished_at) < utc_now() - timedelta(days=days)))
