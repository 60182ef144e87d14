"""The rules of acting as somebody else."""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import ColumnElement, delete
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.auth import Actor, Principal, console_only
from backend.core.errors import Conflict, Forbidden, Unauthorized
from backend.core.events import emit
from backend.core.mailer import Mailer
from backend.core.models import key_of, utc_now
from backend.core.templates import send_template
from backend.features.impersonation.events import ImpersonationStarted
from backend.features.impersonation.models import Impersonation
from backend.features.impersonation.settings import ImpersonationSettings
from backend.features.users import sessions, tokens
from backend.features.users.authority import principal_of
from backend.features.users.models import User, UserSession
from backend.features.users.service import get_user, may_manage

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, kw_only=True)
class Started:
    """What is shown once. `base_url`: where the token is of use."""

    email: str
    token: str
    expires_at: datetime
    session_id: int
    base_url: str


async def start(session: AsyncSession, caller: Principal, user: User, *, reason: str) -> Started:
    """A session of somebody else's in the caller's hands. Forbidden when they may do more than the caller."""
    await may_manage(session, caller, user)
    if user.id == caller.id:
        raise Forbidden("This is you")
    if not user.is_active:
        raise Conflict(f"{user.email} is deactivated: activate the account first")
    mine = select(UserSession.id).where(UserSession.id == caller.credential).with_for_update()
    if (begun_in := (await session.exec(mine)).first()) is None:  # ended a moment ago, which would end this one
        raise Unauthorized
    expires_at = utc_now() + timedelta(minutes=ImpersonationSettings.current().minutes)
    support = await get_user(session, caller.id)
    opened, token = await _open(session, caller, user, expires_at, name=support.full_name or support.email)
    await session.exec(delete(Impersonation).where(col(Impersonation.expires_at) <= utc_now()))
    begun = Impersonation(
        sid=opened.sid, user_id=opened.user_id, actor_id=caller.id, begun_in=begun_in, expires_at=expires_at
    )
    session.add(begun)
    await session.flush()
    started = ImpersonationStarted(
        user_id=opened.user_id, session_id=key_of(opened), reason=reason, expires_at=expires_at.isoformat()
    )
    await emit(session, started)
    _tell(session, user, opened, reason)
    base_url = _mailer(session).public_url()
    return Started(email=user.email, token=token, expires_at=expires_at, session_id=key_of(opened), base_url=base_url)


def _mailer(session: AsyncSession) -> Mailer:
    mailer: Mailer = session.info["mailer"]
    return mailer


async def _open(
    session: AsyncSession, caller: Principal, user: User, expires_at: datetime, *, name: str
) -> tuple[UserSession, str]:
    """Not a sign-in of theirs: it is not told as one, and has no refresh token.

    Its scopes are spelled out, so that what the account gets to hold meanwhile is not in it.
    """
    person = await principal_of(session, user, via="impersonation", credential=None)
    scopes = person.permissions - console_only(session.info["permissions"])
    opened = UserSession(
        sid=uuid.uuid4().hex,
        user_id=person.id,
        kind="token",
        method="impersonation",
        scope=" ".join(sorted(scopes)),
        user_agent=f"support: {name}"[:200],  # what people read in the list of their devices
        expires_at=expires_at,
    )
    session.add(opened)
    await session.flush()
    token = tokens.issue(
        _mailer(session).settings,
        user_id=person.id,
        sid=opened.sid,
        scopes=scopes,
        lifetime=expires_at - utc_now(),
        actor=Actor(id=caller.id, name=caller.name),
    )
    return opened, token


def _tell(session: AsyncSession, user: User, opened: UserSession, reason: str) -> None:
    if ImpersonationSettings.current().notify:
        values = {"at": opened.created_at, "ends": opened.expires_at, "who": opened.user_agent, "reason": reason}
        send_template(session, TEMPLATES, "mail", to=user.email, subject="Support acts as you", **values)


async def end(session: AsyncSession, *chosen: ColumnElement[bool] | bool, reason: str) -> None:
    """End the sessions of these impersonations."""
    statement = select(UserSession.user_id, UserSession.id)
    statement = statement.join(Impersonation, col(Impersonation.sid) == UserSession.sid).where(*chosen)
    for user_id, session_id in (await session.exec(statement)).all():
        await sessions.end(session, user_id, reason=reason, only=session_id)
