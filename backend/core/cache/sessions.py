"""A look-up that may wait, and a computation that others will get, begin without a transaction."""

from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.commits import ReadingSession
from backend.core.db import release


async def settled(session: AsyncSession) -> bool:
    """End the transaction in which the caller was looked up. False when it has writes: what it reads is its own.

    Otherwise what is read might be from before an invalidation that was heard since, and would be kept after it; and
    who waits for another's computation would hold the connection that this one may need.
    """
    if isinstance(session, ReadingSession) and session.engine is not None:
        return True  # it has not even opened, and asks the primary
    if session.info.get("wrote") or not session.info.get("reading"):
        return False
    if session.in_transaction():
        await release(session)
    session.info.pop("reads", None)  # not from a replica: it may lag behind an invalidation, and what it says is kept
    return True
