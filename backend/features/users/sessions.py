"""Sessions: begun by a sign-in, refreshed by rotating tokens, ended by their owner, an administrator, or time.

What must be stored although the answer is a refusal (a failed sign-in, a replayed token) has sessions of its own.
"""

import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlmodel import col, delete, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core import context
from backend.core.auth import console_only
from backend.core.config import Settings
from backend.core.db import Database
from backend.core.errors import NotFound, Unauthorized
from backend.core.events import emit
from backend.core.models import key_of, utc_now
from backend.core.principals import forget
from backend.features.users import one_time, tokens
from backend.features.users.authority import principal_of
from backend.features.users.events import RefreshTokenReplayed, SessionsEnded, SignedIn
from backend.features.users.models import RefreshToken, User, UserSession
from backend.features.users.settings import UsersSettings

NO_GOOD = "This refresh token is expired, was used or revoked, or is not one of ours"


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What a sign-in or a refresh gives out. `scopes` is what the access token may do."""

    session: UserSession
    access_token: str
    refresh_token: str
    scopes: frozenset[str]


async def _access_token(
    session: AsyncSession, settings: Settings, user: User, opened: UserSession
) -> tuple[str, frozenset[str]]:
    person = await principal_of(session, user, via="token", credential=opened.id)
    if opened.scope is None:
        scopes = person.permissions - console_only(session.info["permissions"])
    else:
        scopes = person.permissions & frozenset(opened.scope.split())
    lifetime = timedelta(minutes=UsersSettings.current().access_token_minutes)
    token = tokens.issue(settings, user_id=person.id, sid=opened.sid, scopes=scopes, lifetime=lifetime)
    return token, scopes


async def begin(session: AsyncSession, user: User, *, kind: str, method: str, lifetime: timedelta) -> UserSession:
    """Store a new session of this person; those of theirs that are over go."""
    now = utc_now()
    over = (col(UserSession.user_id) == key_of(user)) & (col(UserSession.expires_at) <= now)
    await session.exec(delete(UserSession).where(over))
    begun = UserSession(
        sid=uuid.uuid4().hex,
        user_id=key_of(user),
        kind=kind,
        method=method,
        address=context.address(),
        user_agent=context.user_agent(),
        expires_at=now + lifetime,
    )
    session.add(begun)
    await session.flush()
    await emit(session, SignedIn(user_id=key_of(user), session_id=key_of(begun), kind=kind, method=method))
    return begun


async def open_for_tokens(
    session: AsyncSession, settings: Settings, user: User, *, method: str, scopes: Sequence[str] = ()
) -> Opened:
    """A new session with an access token and the first refresh token of its family."""
    lifetime = timedelta(days=UsersSettings.current().session_days)
    begun = await begin(session, user, kind="token", method=method, lifetime=lifetime)
    begun.scope = " ".join(sorted(set(scopes))) if scopes else None
    refresh_token = secrets.token_urlsafe(32)
    session.add(RefreshToken(session_id=key_of(begun), token_hash=tokens.sha256(refresh_token)))
    access_token, granted = await _access_token(session, settings, user, begun)
    await session.flush()
    return Opened(session=begun, access_token=access_token, refresh_token=refresh_token, scopes=granted)


async def refresh(database: Database, settings: Settings, presented: str) -> Opened:
    """Exchange a refresh token for the next pair. Unauthorized, and the end of the session, when it was used before.

    Within `USERS__REFRESH_GRACE_SECONDS` of its use it gives the same successor again: an answer got lost, or two tabs
    refreshed at once. Of several at once, one uses it up, in every database: the UPDATE decides.
    """
    async with database.session() as session:
        mine = col(RefreshToken.token_hash) == tokens.sha256(presented)
        # the session before its token, as its end takes them: in another order the two would wait for each other
        family = select(RefreshToken.session_id).where(mine).scalar_subquery()
        await session.exec(select(UserSession.id).where(UserSession.id == family).with_for_update())
        unused = mine & col(RefreshToken.used_at).is_(None)
        first = (await session.exec(update(RefreshToken).where(unused).values(used_at=utc_now()))).rowcount == 1
        statement = (
            select(RefreshToken, UserSession, User)
            .join(UserSession, col(RefreshToken.session_id) == UserSession.id)
            .join(User, col(UserSession.user_id) == User.id)
            .where(mine)
        )
        found = (await session.exec(statement)).first()
        opened = None if found is None else await _renew(session, settings, presented, first, *found)
        await session.commit()
    if opened is None:
        raise Unauthorized(NO_GOOD)
    return opened


async def _renew(
    session: AsyncSession,
    settings: Settings,
    presented: str,
    first: bool,
    used: RefreshToken,
    old: UserSession,
    user: User,
) -> Opened | None:
    now, rules = utc_now(), UsersSettings.current()
    idle = first and now - used.created_at > timedelta(days=rules.refresh_idle_days)
    if old.expires_at <= now or idle or not user.is_active:
        return None
    refresh_token = tokens.successor(settings, presented)
    if first:
        session.add(RefreshToken(session_id=key_of(old), token_hash=tokens.sha256(refresh_token)))
        old.last_seen_at, old.address, old.user_agent = now, context.address(), context.user_agent()
    else:
        following = (
            await session.exec(select(RefreshToken).where(RefreshToken.token_hash == tokens.sha256(refresh_token)))
        ).first()
        if now - (used.used_at or now) > timedelta(seconds=rules.refresh_grace_seconds):
            await emit(session, RefreshTokenReplayed(user_id=key_of(user), session_id=key_of(old)))
            await end(session, old.user_id, reason="refresh token replayed", only=key_of(old))
            return None
        if following is None or following.used_at is not None:
            return None
    access_token, scopes = await _access_token(session, settings, user, old)
    await session.flush()
    return Opened(session=old, access_token=access_token, refresh_token=refresh_token, scopes=scopes)


async def end(
    session: AsyncSession,
    user_id: int,
    *,
    reason: str,
    only: int | None = None,
    but: int | None = None,
) -> int:
    """End this person's sessions: `only` that one, or all `but` that one. Returns how many."""
    chosen = [col(UserSession.user_id) == user_id]
    if only is not None:
        chosen.append(col(UserSession.id) == only)
    if but is not None:
        chosen.append(col(UserSession.id) != but)
    if only is None:  # a sign-in that is half done would be one more
        await one_time.void(session, user_id, one_time.PENDING)
    ended = (await session.exec(delete(UserSession).where(*chosen))).rowcount
    if ended:
        forget(session, user_id)
        await emit(session, SessionsEnded(user_id=user_id, sessions=ended, reason=reason))
    return ended


async def end_of_refresh_token(session: AsyncSession, token: str, *, reason: str) -> None:
    """End the session that a refresh token belongs to, if it is one of ours."""
    statement = (
        select(UserSession.user_id, UserSession.id)
        .join(RefreshToken, col(RefreshToken.session_id) == UserSession.id)
        .where(RefreshToken.token_hash == tokens.sha256(token))
    )
    if (found := (await session.exec(statement)).first()) is not None:
        await end(session, found[0], reason=reason, only=found[1])


async def end_one(session: AsyncSession, user_id: int, session_id: int, *, reason: str) -> None:
    """NotFound when this person has no such session."""
    if not await end(session, user_id, reason=reason, only=session_id):
        raise NotFound("There is no such session")


async def list_sessions(session: AsyncSession, user_id: int) -> Sequence[UserSession]:
    """The sessions of a person that are not over, the one used last first."""
    mine = (UserSession.user_id == user_id, col(UserSession.expires_at) > utc_now())
    order = (col(UserSession.last_seen_at).desc(), col(UserSession.id).desc())
    return (await session.exec(select(UserSession).where(*mine).order_by(*order))).all()
