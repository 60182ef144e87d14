"""One process among all looks: whoever holds the lease. It is a row, so it needs nothing but the database.

Whoever stores what it saw renews the lease in the same transaction. One that was frozen for so long that another has
taken over finds that out before it has written anything, and the row's lock keeps the other waiting until the commit.
What it stores has numbers, of which the row keeps the last: so nothing is stored twice, though the answer of its COMMIT
was lost.
"""

from datetime import timedelta
from typing import Literal

from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.models import utc_now
from backend.features.incidents.models import HealthLease

NAME = "looks"
MINE = col(HealthLease.name) == NAME


async def is_free(session: AsyncSession, holder: str) -> bool:
    """Whether nobody else holds the lease now. Costs the others one look-up by key."""
    statement = select(col(HealthLease.holder), col(HealthLease.expires_at)).where(MINE)
    row = (await session.exec(statement)).one_or_none()
    if row is None:
        return True
    of, expires_at = row
    return of == holder or expires_at <= utc_now()


async def take(session: AsyncSession, holder: str, seconds: float) -> bool:
    """Take the lease if nobody else has it, or renew it; whether this process holds it from now on.

    IntegrityError when two make the row at the same moment: one of them has it.
    """
    now = utc_now()
    until = now + timedelta(seconds=seconds)
    free = (col(HealthLease.holder) == holder) | (col(HealthLease.expires_at) <= now)
    changed = await session.exec(
        update(HealthLease).where(MINE, free).values(holder=holder, expires_at=until, stored=0)
    )
    if changed.rowcount:
        return True
    if (await session.exec(select(col(HealthLease.holder)).where(MINE))).first():
        return False
    session.add(HealthLease(name=NAME, holder=holder, expires_at=until))
    await session.flush()
    return True


async def renew(
    session: AsyncSession, holder: str, seconds: float, *, number: int
) -> Literal["renewed", "stored", "lost"]:
    """Renew the lease to store what has this number, unless that is `stored`, or the lease `lost` to another.

    Though it may have expired, it is this process's still: nobody else has looked since then.
    """
    until = utc_now() + timedelta(seconds=seconds)
    mine = (MINE, col(HealthLease.holder) == holder)
    new = col(HealthLease.stored) < number
    changed = await session.exec(update(HealthLease).where(*mine, new).values(expires_at=until, stored=number))
    if changed.rowcount:
        return "renewed"
    return "stored" if (await session.exec(select(col(HealthLease.stored)).where(*mine))).first() else "lost"


async def give_back(session: AsyncSession, holder: str) -> None:
    """Let another take over at once."""
    mine = (MINE, col(HealthLease.holder) == holder)
    await session.exec(update(HealthLease).where(*mine).values(expires_at=utc_now()))
