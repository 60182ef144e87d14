"""Beginning an action in the background."""

from sqlmodel import col, select
from starlette.requests import Request

from backend.core.auth import Principal
from backend.core.console_actions import LongAction
from backend.core.db import Database
from backend.core.events import emit
from backend.core.models import key_of
from backend.features.console_jobs.events import ConsoleJobStarted
from backend.features.console_jobs.models import RUNNING, WAITING, ConsoleJob


async def start(request: Request, asked: LongAction) -> str:
    """Store it for the next process that has time; the address of its page. Asked twice, it is begun once."""
    database: Database = request.app.state.database
    caller: Principal = request.state.principal
    same = select(ConsoleJob.id).where(
        ConsoleJob.user_id == caller.id,
        col(ConsoleJob.state).in_((WAITING, RUNNING)),
        ConsoleJob.view == asked.view,
        ConsoleJob.action == asked.action,
        ConsoleJob.query == asked.query,
    )
    async with database.session() as session:
        job_id = (await session.exec(same)).first()
        if job_id is None:
            job = ConsoleJob(
                user_id=caller.id,
                user_name=caller.name,
                view=asked.view,
                action=asked.action,
                label=asked.label[:200],
                query=asked.query,
                total=asked.total,
                up_to=asked.up_to,
            )
            session.add(job)
            await session.flush()
            job_id = key_of(job)
            told = ConsoleJobStarted(
                job=job_id, view=asked.view, done=asked.action, query=asked.query, total=asked.total
            )
            await emit(session, told)
            await session.commit()
    return str(request.url_for("admin:view-background-action", pk=job_id))
