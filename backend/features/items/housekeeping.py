"""Deleted items go for good when their time is over: at the start of a process, and once a day."""

from datetime import timedelta

import structlog
from fastapi import FastAPI

from backend.core.db import Database
from backend.core.housekeeping import regularly
from backend.core.models import utc_now
from backend.core.stopping import Stopping
from backend.features.items import service
from backend.features.items.settings import ItemsSettings

log = structlog.get_logger(__name__)

DAY = 86_400  # seconds


async def delete_what_is_over(database: Database, stopping: Stopping | None = None) -> int:
    """Delete for good what was deleted longer ago than the settings allow, batch by batch; returns how many."""
    days, gone = ItemsSettings.current().deleted_days, 0
    if not days:
        return 0
    moment = utc_now() - timedelta(days=days)
    while not (stopping and stopping.begun):
        async with database.session() as session:
            some = await service.purge_deleted(session, before=moment)
            await session.commit()
        gone += some
        if not some:
            break
    if gone:
        log.info("items_deleted_for_good", count=gone, deleted_before=moment.isoformat())
    return gone


async def _tidy(app: FastAPI) -> None:
    await delete_what_is_over(app.state.database, app.state.stopping)


lifespan = regularly(_tidy, seconds=DAY, failed="items_not_tidied")
