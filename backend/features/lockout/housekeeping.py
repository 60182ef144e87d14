"""Old failures are deleted while the app runs, by each process now and then; several at once do no harm."""

from fastapi import FastAPI

from backend.core.db import Database
from backend.core.housekeeping import regularly
from backend.features.lockout.table import BATCH, forget_what_is_over

EVERY = 3600  # seconds


async def tidy(database: Database) -> None:
    """Delete what is over, in batches with a transaction each."""
    deleted = BATCH
    while deleted == BATCH:
        async with database.session() as session:
            deleted = await forget_what_is_over(session)
            await session.commit()


async def _tidy(app: FastAPI) -> None:
    await tidy(app.state.database)


lifespan = regularly(_tidy, seconds=EVERY, failed="lockout_not_tidied")
