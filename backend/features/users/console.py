"""Console sessions: server-side, so that sign-out, deactivation and expiry work at once, whatever the cookie says.

Who is behind a cookie is kept for a moment, as for access tokens (`backend.core.principals`): what ends a session or
changes what somebody may do is known at once in this process, and in others within moments, if there is a Redis.
"""

import secrets
from datetime import timedelta
from functools import partial

from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import Request
from starlette.responses import Response

from backend.core.auth import Principal, console_cookie
from backend.core.errors import Forbidden, SecondFactorRequired, Unauthorized
from backend.core.models import key_of, utc_now
from backend.core.principals import Principals
from backend.features.users import sessions
from backend.features.users.authority import SEEN_EVERY, note_seen, principal_of
from backend.features.users.models import User, UserSession
from backend.features.users.permissions import CONSOLE
from backend.features.users.settings import UsersSettings
from backend.features.users.sign_in import check_password, completed, proven
from backend.features.users.tokens import sha256


async def renewed_token(session: AsyncSession, session_id: int | None) -> str:
    """Another token for a session that goes on: copies of the one before are worthless."""
    token = secrets.token_urlsafe(32)
    mine = col(UserSession.id) == session_id
    await session.exec(update(UserSession).where(mine).values(token_hash=sha256(token)))
    return token


def hand_out(request: Request, page: Response, token: str) -> None:
    """Give the browser the new token of its session."""
    lifetime = int(ConsoleSessions().lifetime.total_seconds())
    page.set_cookie(value=token, max_age=lifetime, **console_cookie(request))


class ConsoleSessions:
    """How those who may enter the console sign in to it (the kernel's `ConsoleSignIn`)."""

    @property
    def lifetime(self) -> timedelta:
        return timedelta(hours=UsersSettings.current().console_session_hours)

    async def _begin(self, session: AsyncSession, user: User, method: str) -> str:
        person = await principal_of(session, user, via="console", credential=None)
        if not person.may(CONSOLE):
            raise Forbidden
        begun = await sessions.begin(session, user, kind="console", method=method, lifetime=self.lifetime)
        token = secrets.token_urlsafe(32)
        begun.token_hash = sha256(token)
        return token

    async def start(self, request: Request, name: str, password: str) -> str | None:
        database = request.app.state.database
        try:
            user = await check_password(database, email=name, password=password)
            async with proven(database, user, method="password") as session:
                return await self._begin(session, user, "password")
        except SecondFactorRequired:
            raise
        except (Unauthorized, Forbidden):
            return None

    async def finish(self, request: Request, pending: str, code: str) -> str | None:
        try:
            async with completed(request.app.state.database, pending=pending, code=code) as (session, user, method):
                return await self._begin(session, user, method)
        except Forbidden:
            return None

    async def resume(self, request: Request, session: AsyncSession, token: str) -> Principal | None:
        principals: Principals = session.info["principals"]
        try:
            return await principals.find(f" console {token}", partial(self._look_up, request, session, token))
        except Unauthorized:
            return None

    async def _look_up(self, request: Request, session: AsyncSession, token: str) -> tuple[Principal, float]:
        """Whose token it is, and for how many seconds that need not be asked again. Unauthorized when it is no good."""
        now = utc_now()
        idle = timedelta(minutes=UsersSettings.current().console_idle_minutes)
        statement = (
            select(User, UserSession)
            .join(UserSession, col(UserSession.user_id) == User.id)
            .where(
                UserSession.token_hash == sha256(token),
                col(UserSession.expires_at) > now,
                col(UserSession.last_seen_at) > now - idle,
                col(User.is_active),
            )
        )
        row = (await session.exec(statement)).first()
        if row is None:
            raise Unauthorized
        user, mine = row
        person = await principal_of(session, user, via="console", credential=mine.id, since=mine.created_at)
        if not person.may(CONSOLE):
            raise Unauthorized
        # Whoever goes on working is looked up, and seen, several times before the session would count as idle.
        often = idle / 4
        await note_seen(request.app.state.database, key_of(mine), mine.last_seen_at, every=min(SEEN_EVERY, often))
        return person, min(mine.expires_at - now, mine.last_seen_at + idle - now, often).total_seconds()

    def is_recent(self, principal: Principal) -> bool:
        limit = timedelta(minutes=UsersSettings.current().recent_minutes)
        return principal.signed_in_at is not None and utc_now() - principal.signed_in_at <= limit

    async def prove(self, request: Request, principal: Principal, password: str) -> bool:
        try:
            user = await check_password(request.app.state.database, email=principal.name, password=password)
        except Unauthorized:
            return False
        return user.id == principal.id

    async def end(self, session: AsyncSession, token: str) -> None:
        statement = select(UserSession.user_id, UserSession.id).where(UserSession.token_hash == sha256(token))
        if (found := (await session.exec(statement)).first()) is not None:
            await sessions.end(session, found[0], reason="signed out", only=found[1])
