"""Time is what ends entries: at the start of a process, and once a day."""

from datetime import timedelta

import structlog
from fastapi import FastAPI

from backend.core.db import Database
from backend.core.housekeeping import regularly
from backend.core.models import utc_now
from backend.core.stopping import Stopping
from backend.features.audit import service
from backend.features.audit.settings import AuditSettings

log = structlog.get_logger(__name__)

DAY = 86_400  # seconds


async def delete_what_is_over(database: Database, stopping: Stopping | None = None) -> int:
    """Delete the entries that are older than the settings allow, batch by batch; returns how many."""
    days, deleted = AuditSettings.current().retention_days, 0
    if not days:
        return 0
    moment = utc_now() - timedelta(days=days)
    while not (stopping and stopping.begun) and (some := await service.delete_before(database, moment)):
        deleted += some
    if deleted:
        log.info("audit_entries_deleted", count=deleted, older_than=moment.isoformat())
    return deleted


async def _tidy(app: FastAPI) -> None:
    await delete_what_is_over(app.state.database, app.state.stopping)


lifespan = regularly(_tidy, seconds=DAY, failed="audit_retention_failed")
