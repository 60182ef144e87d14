"""The SQL: counting that loses nothing when several fail at once, in every database."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import case
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlmodel import col, delete, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.models import utc_now
from backend.features.lockout.keys import Key
from backend.features.lockout.models import Throttle

INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
BATCH = 1000  # rows; a longer DELETE would keep sign-ins waiting


async def upsert(session: AsyncSession, key: Key, changes: dict[str, Any], **values: Any) -> None:
    """Insert a row with these values, or apply the changes to the one there is; locks it until the transaction ends."""
    row = {"key_hash": key.hash, "kind": key.kind, "address": key.address, **values}
    dialect = session.get_bind().dialect.name
    if dialect in INSERTS:
        statement = (
            INSERTS[dialect](Throttle).values(row).on_conflict_do_update(index_elements=["key_hash"], set_=changes)
        )
    else:
        # a list, not a dictionary: MySQL assigns from left to right
        statement = mysql.insert(Throttle).values(row).on_duplicate_key_update(list(changes.items()))
    await session.exec(statement)


async def add_failure(session: AsyncSession, key: Key, user_id: int | None, quiet: timedelta) -> None:
    """One failure more, or the first one again when the earlier are forgotten."""
    now = utc_now()
    fresh = col(Throttle.forgotten_at) <= now
    changes = {
        "failures": case((fresh, 1), else_=col(Throttle.failures) + 1),
        "last_failure_at": now,
        "user_id": user_id,
        "forgotten_at": now + quiet,
    }
    await upsert(session, key, changes, user_id=user_id, failures=1, last_failure_at=now, forgotten_at=now + quiet)


async def rows_of(session: AsyncSession, keys: Sequence[Key]) -> Sequence[Throttle]:
    """What is stored under these keys now, whatever this session has seen before."""
    mine = col(Throttle.key_hash).in_([key.hash for key in keys])
    statement = select(Throttle).where(mine).execution_options(populate_existing=True)
    return (await session.exec(statement)).all()


async def forget_what_is_over(session: AsyncSession) -> int:
    """Delete a batch of rows that say nothing any more; returns how many."""
    now = utc_now()
    over = (
        col(Throttle.forgotten_at) <= now,
        or_(col(Throttle.familiar_until).is_(None), col(Throttle.familiar_until) <= now),
    )
    # by key, not by range: on MySQL a range would lock the gaps that sign-ins insert into
    ids = (await session.exec(select(Throttle.id).where(*over).limit(BATCH))).all()
    return (await session.exec(delete(Throttle).where(col(Throttle.id).in_(ids), *over))).rowcount
