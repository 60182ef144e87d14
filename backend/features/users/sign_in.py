"""The one way in, for tokens and the console: attempt → password → whatever else is asked → session."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from sqlalchemy import update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.db import Database
from backend.core.errors import AppError, SecondFactorRequired, Unauthorized
from backend.core.events import emit
from backend.core.models import key_of
from backend.features.users import one_time
from backend.features.users.emails import is_storable, normalised
from backend.features.users.events import IdentityProven, SignInAttempted, SignInFailed
from backend.features.users.models import User
from backend.features.users.passwords import verify_password
from backend.features.users.schemas import EMAIL_MAX, PASSWORD_MAX

PENDING_FOR = timedelta(minutes=5)
TOO_LATE = "This sign-in took too long, or was completed already: begin again"
WRONG = "Wrong e-mail address or password"


async def note_failure(database: Database, *, email: str, user_id: int | None, reason: str) -> None:
    """Store that a sign-in failed, whatever becomes of the request."""
    async with database.session() as session:
        await emit(session, SignInFailed(user_id=user_id, email=email, reason=reason))
        await session.commit()


async def _attempt(database: Database, email: str) -> None:
    """Raises when there were too many attempts, if a feature counts them."""
    async with database.session(reading=True) as session:
        await emit(session, SignInAttempted(email=email))


async def check_password(database: Database, *, email: str, password: str) -> User:
    """The active account with this address and password; Unauthorized, for every reason in the same words and time.

    Sessions of its own: no connection and no lock is held while the hash is computed.
    """
    user, storable = None, is_storable(email + password)
    if not storable or len(password) > PASSWORD_MAX or len(email) > EMAIL_MAX:
        email = email[:EMAIL_MAX] if storable else ""
        password = ""  # still costs its hash, which belongs to nobody
    address = normalised(email)
    await _attempt(database, address)
    async with database.session(reading=True) as session:
        user = (await session.exec(select(User).where(User.email == address))).first()
    fits, better = await verify_password(password, user.password_hash if user else None)
    if user is None or not fits or not user.is_active:
        reason = "deactivated" if user and fits else "wrong password" if user else "unknown account"
        await note_failure(database, email=address, user_id=user.id if user else None, reason=reason)
        raise Unauthorized(WRONG)
    if better:
        async with database.session() as session:  # neither an edit of the account nor one of a gone account's row
            same = (col(User.id) == user.id, col(User.password_hash) == user.password_hash)
            await session.exec(update(User).where(*same).values(password_hash=better, updated_at=User.updated_at))
            await session.commit()
        user.password_hash = better
    return user


async def _still_theirs(session: AsyncSession, user: User) -> None:
    """Hold the account as it was when the password was read: one changed meanwhile ended all sessions but this one."""
    now = select(User.password_hash, User.is_active).where(User.id == user.id).with_for_update()
    if (await session.exec(now)).first() != (user.password_hash, True):
        raise Unauthorized(WRONG)


@asynccontextmanager
async def _proof(database: Database, user: User, *, method: str, code: str) -> AsyncIterator[AsyncSession]:
    try:
        async with database.session() as session:
            await emit(session, IdentityProven(user=user, method=method, code=code))
            await _still_theirs(session, user)
            yield session
            await session.commit()
    except SecondFactorRequired:
        raise
    except AppError as refusal:
        await note_failure(database, email=user.email, user_id=user.id, reason=refusal.code)
        raise


@asynccontextmanager
async def proven(database: Database, user: User, *, method: str, code: str = "") -> AsyncIterator[AsyncSession]:
    """A session in which to open theirs, once nobody asks for more of them; the block's end commits.

    When a second factor is missing, SecondFactorRequired says so, with a token that stands for the first. A wrong code,
    and whatever else is refused here, counts as a failed sign-in.
    """
    try:
        async with _proof(database, user, method=method, code=code) as session:
            yield session
    except SecondFactorRequired as missing:
        async with database.session() as session:
            await _still_theirs(session, user)
            lifetime = PENDING_FOR
            pending = await one_time.issue(session, key_of(user), one_time.PENDING, lifetime=lifetime, subject=method)
            await session.commit()
        raise SecondFactorRequired(details={"pending": pending}) from missing


@asynccontextmanager
async def completed(database: Database, *, pending: str, code: str) -> AsyncIterator[tuple[AsyncSession, User, str]]:
    """The second step: session, account and method of a first one that `pending` stands for, with the code fitting."""
    async with database.session(reading=True) as session:
        try:
            step = await one_time.look_up(session, pending, one_time.PENDING)
        except one_time.UselessToken as useless:
            raise one_time.UselessToken(TOO_LATE) from useless
        user = await session.get_one(User, step.user_id)
    await _attempt(database, user.email)
    if not user.is_active:
        raise Unauthorized(WRONG)
    try:
        async with _proof(database, user, method=step.subject, code=code) as session:
            await one_time.redeem(session, pending, one_time.PENDING)
            yield session, user, step.subject
    except SecondFactorRequired as missing:  # the same once more, good for no longer than before
        raise SecondFactorRequired(details={"pending": pending}) from missing
