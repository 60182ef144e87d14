"""Console sessions: server-side, so that sign-out, deactivation and expiry work at once, whatever the cookie says."""

import hashlib
import secrets
from datetime import timedelta

from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import Request

from backend.core.auth import Principal, Rank
from backend.core.errors import Unauthorized
from backend.core.models import utc_now
from backend.features.users import service
from backend.features.users.models import ConsoleSession, User
from backend.features.users.settings import UsersSettings
from backend.features.users.tokens import principal_of


def _hash(token: str) -> str:
    """SHA-256 is enough for 256 random bits; slow hashes are for passwords, which people choose."""
    return hashlib.sha256(token.encode()).hexdigest()


class ConsoleSessions:
    """How staff and administrators sign in to the console (the kernel's `ConsoleSignIn`)."""

    @property
    def lifetime(self) -> timedelta:
        return timedelta(hours=UsersSettings.current().console_session_hours)

    async def start(self, request: Request, session: AsyncSession, name: str, password: str) -> str | None:
        try:
            user = await service.check_password(request.app.state.database, email=name, password=password)
        except Unauthorized:
            return None
        if user.id is None or user.role == Rank.USER.name.lower():
            return None
        token = secrets.token_urlsafe(32)
        now = utc_now()
        await session.exec(delete(ConsoleSession).where(col(ConsoleSession.expires_at) < now))
        session.add(
            ConsoleSession(
                user_id=user.id,
                token_hash=_hash(token),
                created_at=now,
                expires_at=now + self.lifetime,
                address=request.client.host[:64] if request.client else "",
                user_agent=request.headers.get("user-agent", "")[:200],
            )
        )
        return token

    async def resume(self, request: Request, session: AsyncSession, token: str) -> Principal | None:
        statement = (
            select(User.id, User.email, User.role)
            .join(ConsoleSession, col(ConsoleSession.user_id) == User.id)
            .where(
                ConsoleSession.token_hash == _hash(token),
                col(ConsoleSession.expires_at) > utc_now(),
                col(User.is_active),
                User.role != Rank.USER.name.lower(),
            )
        )
        row = (await session.exec(statement)).first()
        if row is None or row[0] is None:
            return None
        return principal_of(row[0], row[1], row[2], request.app.state.registry.permissions)

    async def end(self, session: AsyncSession, token: str) -> None:
        await session.exec(delete(ConsoleSession).where(col(ConsoleSession.token_hash) == _hash(token)))
