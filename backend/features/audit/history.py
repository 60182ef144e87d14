"""The changes of one record, read from the log for the console (the kernel's `History`)."""

from collections.abc import Sequence
from typing import Any

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.console_history import Change, Held
from backend.core.models import key_of
from backend.features.audit.models import AuditEntry
from backend.features.audit.values import LONGEST, REDACTED, UNKNOWN

VERBS = ("created", "updated", "deleted")


def _held(value: Any) -> Held:
    if value == REDACTED:
        return Held(value, whole=False, secret=True)
    cut = isinstance(value, str) and len(value) > LONGEST
    return Held(value, whole=not cut and value != UNKNOWN)


def _change(entry: AuditEntry) -> Change:
    return Change(
        id=key_of(entry),
        at=entry.at,
        by=entry.who,
        what=entry.action.rpartition(".")[2],
        fields={name: (_held(before), _held(after)) for name, (before, after) in entry.changes.items()},
    )


class AuditHistory:
    """Events about a record, such as sign-ins of an account, are no part of its history: they change nothing in it."""

    async def newest(
        self, session: AsyncSession, table: str, key: str, *, before: int | None = None, limit: int
    ) -> Sequence[Change]:
        statement = _of(table, key).order_by(col(AuditEntry.id).desc()).limit(limit)
        if before is not None:
            statement = statement.where(col(AuditEntry.id) < before)
        return [_change(entry) for entry in await session.exec(statement)]

    async def following(
        self, session: AsyncSession, table: str, key: str, *, after: int, limit: int
    ) -> Sequence[Change]:
        statement = _of(table, key).where(col(AuditEntry.id) > after).order_by(col(AuditEntry.id)).limit(limit)
        return [_change(entry) for entry in await session.exec(statement)]


def _of(table: str, key: str) -> Any:
    actions = [f"{table}.{verb}" for verb in VERBS]
    return select(AuditEntry).where(
        AuditEntry.subject_type == table, AuditEntry.subject_id == key, col(AuditEntry.action).in_(actions)
    )
