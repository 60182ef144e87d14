"""What is older is kept in larger spans: as flushed → minutes → five minutes → hours → days; in the end it is deleted.

Each process does it now and then. What belongs into one span goes in one transaction, which first makes its rows its
own: whoever comes second waits for their locks, and then finds nothing left.
"""

import secrets
from datetime import UTC, datetime, timedelta

from sqlalchemy import literal
from sqlmodel import col, delete, func, insert, select, update

from backend.core.db import Database
from backend.core.models import StoredMoment, utc_now
from backend.features.analytics.models import (
    COARSE,
    DAY,
    DETAIL,
    FIVE_MINUTES,
    FLUSHED,
    HOUR,
    KINDS,
    MINUTE,
    SUMS,
    ApiUsage,
)
from backend.features.analytics.settings import AnalyticsSettings

SETTLED = timedelta(minutes=3)  # by then processes have stored what they counted in a minute; later is no harm
BATCH = 1000  # rows deleted in one transaction
FIVE = 300  # seconds
ABOVE = {FLUSHED: MINUTE, MINUTE: FIVE_MINUTES, FIVE_MINUTES: HOUR, HOUR: DAY}


def whole(moment: datetime, seconds: int) -> datetime:
    """The beginning of the span of so many seconds that a moment is in."""
    since_1970 = int(moment.timestamp())
    return datetime.fromtimestamp(since_1970 - since_1970 % seconds, UTC)


async def tidy(database: Database) -> None:
    """Roll up and delete what is due. Several processes may do it at once."""
    rules, now = AnalyticsSettings.current(), utc_now()
    for level, after, span in (
        (FLUSHED, SETTLED, 60),
        (MINUTE, SETTLED, FIVE),
        (FIVE_MINUTES, timedelta(days=rules.minutes_days), 3600),
        (HOUR, timedelta(days=rules.hours_days), 86_400),
    ):
        while start := await _oldest(database, level, before=whole(now - after, span)):
            await roll_up(database, level, whole(start, span), span)
    while await _delete_before(database, now - timedelta(days=rules.days_kept)):
        pass


async def _oldest(database: Database, level: int, *, before: datetime) -> datetime | None:
    async with database.session(reading=True) as session:
        due = (col(ApiUsage.level) == level, col(ApiUsage.start) < before)
        oldest = select(ApiUsage.start).where(*due).order_by(col(ApiUsage.start)).limit(1)
        return (await session.exec(oldest)).first()


async def roll_up(database: Database, level: int, start: datetime, span: int) -> None:
    """Put the sums of this level's rows in one span in their place, a level higher. The counts stay what they are.

    Minutes stay beside their sums, as a detail, and go with these: in the same transaction, so that no reader sees the
    one without the other.
    """
    mine = f"rolling up {secrets.token_hex(12)}"
    end = start + timedelta(seconds=span)
    within = (col(ApiUsage.start) >= start, col(ApiUsage.start) < end)
    due = (level, DETAIL) if level == FIVE_MINUTES else (level,)
    taken = {"source": mine, "level": DETAIL} if level == MINUTE else {"source": mine}
    summed_up = DETAIL if level == MINUTE else level
    kinds = [col(getattr(ApiUsage, name)) for name in KINDS]
    sums = [func.sum(col(getattr(ApiUsage, name))) for name in SUMS]
    async with database.session() as session:
        claimed = await session.exec(update(ApiUsage).where(col(ApiUsage.level).in_(due), *within).values(taken))
        if not claimed.rowcount:
            return
        claim = (*within, col(ApiUsage.source) == mine)  # what has been flushed since is not in it
        summed = select(literal(ABOVE[level]), literal(start, StoredMoment()), literal(""), *kinds, *sums)
        summed = summed.where(col(ApiUsage.level) == summed_up, *claim).group_by(*kinds)
        names = ["level", "start", "source", *KINDS, *SUMS]
        await session.exec(insert(ApiUsage).from_select(names, summed))
        if level != MINUTE:
            await session.exec(delete(ApiUsage).where(col(ApiUsage.level).in_(due), *claim))
        await session.commit()


async def _delete_before(database: Database, moment: datetime) -> bool:
    """Delete a batch. They are looked up first: as long as there is nothing to delete, nothing is locked."""
    async with database.session(reading=True) as session:
        due = (col(ApiUsage.level).in_((*COARSE, DETAIL)), col(ApiUsage.start) < moment)
        ids = (await session.exec(select(ApiUsage.id).where(*due).limit(BATCH))).all()
    if not ids:
        return False
    async with database.session() as session:
        await session.exec(delete(ApiUsage).where(col(ApiUsage.id).in_(ids)))
        await session.commit()
    return True
