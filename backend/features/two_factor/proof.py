"""Showing a second factor: a code is taken once, by whoever comes first, and wrong ones count as failed sign-ins."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from sqlmodel import col, func, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.db import Database
from backend.core.errors import Unauthorized
from backend.core.events import emit
from backend.core.models import key_of, utc_now
from backend.features.two_factor import codes
from backend.features.two_factor.encryption import Unreadable, decrypted, encrypted
from backend.features.two_factor.events import RecoveryCodeUsed
from backend.features.two_factor.models import RecoveryCode, TotpSecret
from backend.features.users.events import SignInAttempted
from backend.features.users.models import User
from backend.features.users.sign_in import note_failure
from backend.features.users.tokens import sha256

log = structlog.get_logger(__name__)


class WrongCode(Unauthorized):
    code, message = "wrong_code", "Wrong code"


@asynccontextmanager
async def taking_code(database: Database, user: User) -> AsyncIterator[AsyncSession]:
    """A session for what needs a code; the block's end commits. Who tries many is stopped as at the sign-in."""
    async with database.session(reading=True) as session:
        await emit(session, SignInAttempted(email=user.email))
    try:
        async with database.session() as session:
            yield session
            await session.commit()
    except WrongCode as wrong:
        await note_failure(database, email=user.email, user_id=key_of(user), reason=wrong.code)
        raise


async def locked(session: AsyncSession, user_id: int) -> TotpSecret | None:
    """Their secret, locked: of two who show the same code at once, the second sees that it is used.

    Locking comes before any other look at it: MariaDB would refuse to change what changed since.
    """
    statement = select(TotpSecret).where(TotpSecret.user_id == user_id).with_for_update()
    return (await session.exec(statement)).first()


def take_step(secret: TotpSecret, code: str) -> None:
    """Use up the step for which the app shows this code. WrongCode when it is of none, or was used."""
    try:
        known = decrypted(secret.encrypted, secret.user_id)
    except Unreadable:
        log.error("totp_secret_unreadable", user_id=secret.user_id)  # noqa: TRY400  the traceback says no more
        raise WrongCode from None
    step = codes.step_of(known, codes.plain(code))
    if step is None or step <= secret.last_used_step:
        raise WrongCode
    secret.last_used_step = step
    secret.encrypted = encrypted(known, secret.user_id)  # with the newest key


async def take(session: AsyncSession, secret: TotpSecret, code: str) -> None:
    """Use up a code of the app, or a recovery code. WrongCode when it is neither, or was used. `secret` is locked."""
    if codes.is_of_app(codes.plain(code)):
        take_step(secret, code)
        return
    unused = (
        col(RecoveryCode.user_id) == secret.user_id,
        col(RecoveryCode.code_hash) == sha256(codes.plain(code)),
        col(RecoveryCode.used_at).is_(None),
    )
    if (await session.exec(update(RecoveryCode).where(*unused).values(used_at=utc_now()))).rowcount != 1:
        raise WrongCode
    await emit(session, RecoveryCodeUsed(user_id=secret.user_id, left=await codes_left(session, secret.user_id)))


async def codes_left(session: AsyncSession, user_id: int) -> int:
    """How many recovery codes are good."""
    unused = (RecoveryCode.user_id == user_id, col(RecoveryCode.used_at).is_(None))
    return (await session.exec(select(func.count()).select_from(RecoveryCode).where(*unused))).one()
