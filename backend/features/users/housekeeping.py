"""Sessions and one-time tokens that are over are deleted, at the start of a process and once a day."""

from fastapi import FastAPI
from sqlmodel import col, delete

from backend.core.db import Database
from backend.core.housekeeping import regularly
from backend.core.models import utc_now
from backend.features.users.models import OneTimeToken, UserSession

DAY = 86_400  # seconds


async def delete_what_is_over(database: Database) -> None:
    """Refresh tokens go with their sessions. Several processes may do it at once."""
    async with database.session() as session:
        for table in (UserSession, OneTimeToken):
            await session.exec(delete(table).where(col(table.expires_at) <= utc_now()))
        await session.commit()


async def _tidy(app: FastAPI) -> None:
    await delete_what_is_over(app.state.database)


lifespan = regularly(_tidy, seconds=DAY, failed="sessions_not_tidied")
