"""Reading the audit log, and deleting what is too old."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.db import Database
from backend.features.audit.models import AuditEntry
from backend.features.audit.schemas import AuditFilter

BATCH = 1000  # entries deleted in one transaction
EXACT = ("actor_id", "impersonator_id", "subject_type", "subject_id", "request_id", "address")


def _conditions(chosen: AuditFilter) -> list[ColumnElement[bool]]:
    given = {name: value for name in EXACT if (value := getattr(chosen, name)) not in (None, "")}
    conditions = [col(getattr(AuditEntry, name)) == value for name, value in given.items()]
    if chosen.action:
        conditions.append(col(AuditEntry.action).startswith(chosen.action, autoescape=True))
    if chosen.since is not None:
        conditions.append(col(AuditEntry.at) >= chosen.since)
    if chosen.until is not None:
        conditions.append(col(AuditEntry.at) < chosen.until)
    return conditions


async def list_entries(
    session: AsyncSession, chosen: AuditFilter, *, before: int | None = None, limit: int
) -> Sequence[AuditEntry]:
    """Up to `limit` entries, newest first, from the one before id `before` on."""
    conditions = _conditions(chosen)
    if before is not None:
        conditions.append(col(AuditEntry.id) < before)
    statement = select(AuditEntry).where(*conditions).order_by(col(AuditEntry.id).desc()).limit(limit)
    return (await session.exec(statement)).all()


async def delete_before(database: Database, moment: datetime, *, batch: int = BATCH) -> int:
    """Delete one batch of the entries older than `moment`; returns how many. Several processes may do it at once.

    They are looked up first: as long as there is nothing to delete, nothing is locked.
    """
    async with database.session(reading=True) as session:
        old = select(AuditEntry.id).where(col(AuditEntry.at) < moment).order_by(col(AuditEntry.id)).limit(batch)
        ids = (await session.exec(old)).all()
    if not ids:
        return 0
    async with database.session() as session:
        deleted = (await session.exec(delete(AuditEntry).where(col(AuditEntry.id).in_(ids)))).rowcount
        await session.commit()
    return deleted
