"""When an impersonation ends early: with its own session, with its actor's, and when the rights of either change."""

from sqlalchemy.orm import aliased
from sqlmodel import col, exists, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.events import emit
from backend.core.models import utc_now
from backend.features.impersonation import service
from backend.features.impersonation.events import ImpersonationEnded
from backend.features.impersonation.models import Impersonation
from backend.features.users.events import AccountDeleted, ActiveChanged, RoleChanged, SessionsEnded
from backend.features.users.models import UserSession

ACTOR, ACCOUNT = col(Impersonation.actor_id), col(Impersonation.user_id)
LEFT = aliased(UserSession)


async def note_ended(session: AsyncSession, event: SessionsEnded) -> None:
    """Tell of those that were among the ended sessions, and end those that were begun in one of them."""
    running = col(Impersonation.expires_at) > utc_now()
    gone = ~exists().where(col(LEFT.sid) == Impersonation.sid)
    for one in (await session.exec(select(Impersonation).where(event.user_id == ACCOUNT, running, gone))).all():
        await session.delete(one)
        await emit(session, ImpersonationEnded(user_id=one.user_id, impersonator_id=one.actor_id))
    orphaned = ~exists().where(col(LEFT.id) == Impersonation.begun_in)
    await service.end(session, event.user_id == ACTOR, orphaned, reason="the impersonator's session ended")


async def end_after_change(session: AsyncSession, event: ActiveChanged | RoleChanged) -> None:
    """What was allowed may not be so any more."""
    either = or_(event.user_id == ACTOR, event.user_id == ACCOUNT)
    await service.end(session, either, reason="the account or its impersonator was changed")


async def end_with_account(session: AsyncSession, event: AccountDeleted) -> None:
    """The session is another's: it would outlive its actor."""
    await service.end(session, event.user_id == ACTOR, reason="the impersonator was deleted")
