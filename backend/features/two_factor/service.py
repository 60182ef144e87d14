"""The rules about second factors. The API and the console both call these functions."""

from dataclasses import dataclass
from datetime import datetime

from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.auth import Principal, Rank, granted
from backend.core.config import Settings
from backend.core.errors import Conflict, Forbidden, NotFound
from backend.core.events import emit
from backend.core.models import key_of, utc_now
from backend.core.principals import forget
from backend.features.two_factor import codes
from backend.features.two_factor.encryption import encrypted
from backend.features.two_factor.events import (
    RecoveryCodesRenewed,
    SecondFactorDisabled,
    SecondFactorEnabled,
    SecondFactorReset,
)
from backend.features.two_factor.models import RecoveryCode, TotpSecret
from backend.features.two_factor.proof import codes_left, locked, take, take_step
from backend.features.two_factor.settings import TwoFactorSettings
from backend.features.users import service as users
from backend.features.users import sessions
from backend.features.users.authority import held_by
from backend.features.users.models import User
from backend.features.users.passwords import UNUSABLE
from backend.features.users.tokens import sha256


@dataclass(frozen=True, kw_only=True)
class State:
    """A person's second factor. `pending`: begun, and its code not shown yet. `required`: it cannot be switched off."""

    enabled: bool
    pending: bool
    required: bool
    confirmed_at: datetime | None
    recovery_codes_left: int


async def is_enabled(session: AsyncSession, user_id: int) -> bool:
    mine = (TotpSecret.user_id == user_id, col(TotpSecret.confirmed_at).is_not(None))
    return (await session.exec(select(TotpSecret.id).where(*mine))).first() is not None


async def is_required(session: AsyncSession, user_id: int, rank: Rank) -> bool:
    """Whether this person holds more than an ordinary account does, and must have a second factor for it."""
    if not TwoFactorSettings.current().required_for_staff:
        return False
    ordinary = granted(session.info["permissions"], Rank.USER)
    return bool(await held_by(session, user_id, rank, withheld=True) - ordinary)


async def state_of(session: AsyncSession, user_id: int, rank: Rank) -> State:
    found = (await session.exec(select(TotpSecret).where(TotpSecret.user_id == user_id))).first()
    confirmed_at = found.confirmed_at if found else None
    return State(
        enabled=confirmed_at is not None,
        pending=found is not None and confirmed_at is None,
        required=await is_required(session, user_id, rank),
        confirmed_at=confirmed_at,
        recovery_codes_left=await codes_left(session, user_id),
    )


def refuse_without_password(user: User) -> None:
    """Conflict for an account that only others vouch for: the password is what shows that it is its owner."""
    if user.password_hash == UNUSABLE:
        raise Conflict("Your account has no password yet. Set one first, by asking for a mail with a link")


async def begin(session: AsyncSession, user: User) -> tuple[str, str]:
    """A new secret, and its URI for the app. Not asked for until `confirm`; one that was not confirmed is replaced."""
    found = await locked(session, key_of(user))
    if found is not None and found.confirmed_at is not None:
        raise Conflict("Your second factor is on. Switch it off first to use another app")
    secret = codes.new_secret()
    mine = found or TotpSecret(user_id=key_of(user), encrypted="")
    mine.encrypted, mine.created_at = encrypted(secret, key_of(user)), utc_now()
    session.add(mine)
    await session.flush()
    return secret, codes.uri(secret, account=user.email, issuer=Settings.current().api.title)


async def confirm(session: AsyncSession, caller: Principal, code: str) -> list[str]:
    """Switch it on, once the app shows the right code; the recovery codes, which are never shown again.

    Every other session of theirs ends: it was opened with one factor.
    """
    user_id = caller.id
    found = await locked(session, user_id)
    if found is None or found.confirmed_at is not None:
        raise Conflict("There is no second factor to confirm: begin with a new one")
    take_step(found, code)
    found.confirmed_at = utc_now()
    forget(session, user_id)
    await emit(session, SecondFactorEnabled(user_id=user_id))
    await sessions.end(session, user_id, reason="second factor switched on", but=caller.credential)
    return await _new_recovery_codes(session, user_id)


async def _new_recovery_codes(session: AsyncSession, user_id: int) -> list[str]:
    await session.exec(delete(RecoveryCode).where(col(RecoveryCode.user_id) == user_id))
    fresh = codes.new_recovery_codes()
    session.add_all(RecoveryCode(user_id=user_id, code_hash=sha256(codes.plain(code))) for code in fresh)
    await session.flush()
    return fresh


async def _enabled(session: AsyncSession, user_id: int) -> TotpSecret:
    found = await locked(session, user_id)
    if found is None or found.confirmed_at is None:
        raise Conflict("Your second factor is off")
    return found


async def renew_recovery_codes(session: AsyncSession, user_id: int, code: str) -> list[str]:
    """New recovery codes; the earlier ones are worthless."""
    await take(session, await _enabled(session, user_id), code)
    await emit(session, RecoveryCodesRenewed(user_id=user_id))
    return await _new_recovery_codes(session, user_id)


async def disable(session: AsyncSession, caller: Principal, code: str) -> None:
    """Switch one's own off. Conflict when it is required. Every other session of theirs ends."""
    user_id = caller.id
    found = await _enabled(session, user_id)
    if await is_required(session, user_id, caller.rank):
        raise Conflict("What your account may do requires a second factor")
    await take(session, found, code)
    await remove(session, user_id)
    await emit(session, SecondFactorDisabled(user_id=user_id))
    await sessions.end(session, user_id, reason="second factor switched off", but=caller.credential)


async def remove(session: AsyncSession, user_id: int) -> int:
    """Without asking; returns whether there was one."""
    forget(session, user_id)
    await session.exec(delete(RecoveryCode).where(col(RecoveryCode.user_id) == user_id))
    return (await session.exec(delete(TotpSecret).where(col(TotpSecret.user_id) == user_id))).rowcount


async def reset(session: AsyncSession, caller: Principal, user_id: int) -> None:
    """Remove the second factor of somebody who lost it, and end their sessions: whoever has them signs in anew."""
    user = await users.get_user(session, user_id)
    if user_id == caller.id:
        raise Forbidden("Switch your own off with your password and a code")
    await users.may_manage(session, caller, user)
    if not await remove(session, user_id):
        raise NotFound("This account has no second factor")
    await emit(session, SecondFactorReset(user_id=user_id))
    await sessions.end(session, user_id, reason="second factor reset")
