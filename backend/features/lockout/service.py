"""The rules: who has to wait, and for how long.

Between the check and its answer others may have failed, too. A failure that finds a delay begun meanwhile is refused as
if the check had found it: of a hundred guesses sent at once a few are told apart, the others hear "wait".
"""

from collections.abc import Sequence
from contextvars import ContextVar
from datetime import timedelta

from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core import context
from backend.core.errors import TooManyRequests
from backend.core.events import emit
from backend.core.models import key_of, utc_now
from backend.features.lockout import table
from backend.features.lockout.events import LockoutLifted, SignInDelayed
from backend.features.lockout.keys import Key, keys
from backend.features.lockout.models import ACCOUNT, ADDRESS, PAIR, Throttle
from backend.features.lockout.settings import LockoutSettings
from backend.features.users.events import IdentityProven, PasswordChanged, SignInAttempted, SignInFailed

# Whether this attempt has been counted in advance; asked only by what follows in the same request.
_claimed: ContextVar[bool] = ContextVar("claimed", default=False)
NOTHING = {"failures": 0, "blocked_until": None}


def _of_this_request(email: str) -> list[Key]:
    """In the order of their hashes: transactions that lock rows in one order never wait for each other in a circle."""
    return sorted(keys(email, context.address()), key=lambda key: key.hash)


def delay(kind: str, failures: int) -> int:
    """Seconds to wait after so many failures: 0, then 1, 2, 4 … up to the longest."""
    rules = LockoutSettings.current()
    free = {PAIR: rules.pair_failures, ACCOUNT: rules.account_failures, ADDRESS: rules.address_failures}[kind]
    longest = rules.account_max_seconds if kind == ACCOUNT else rules.max_seconds
    if failures < free:
        return 0
    return int(min(longest, 2 ** min(failures - free, longest.bit_length())))


def _refuse_blocked(rows: Sequence[Throttle]) -> None:
    """TooManyRequests while a delay lasts. To those who have signed in from here lately only their own applies."""
    now = utc_now()
    familiar = any(row.familiar_until and row.familiar_until > now for row in rows)
    ends = [row.blocked_until for row in rows if row.blocked_until and (row.kind == PAIR or not familiar)]
    if ends and (left := int((max(ends) - now).total_seconds())) > 0:
        raise TooManyRequests(f"Too many failed sign-ins: try again in {left} seconds", retry_after=left)


async def check(session: AsyncSession, attempt: SignInAttempted) -> None:
    """Before anything is looked up or hashed, and in the same way for accounts that nobody has."""
    _claimed.set(False)
    _refuse_blocked(await table.rows_of(session, _of_this_request(attempt.email)))


async def _add(session: AsyncSession, mine: Sequence[Key], user_id: int | None) -> Sequence[Throttle]:
    """One failure more under each key, with the delays that follow. TooManyRequests when one had begun meanwhile."""
    quiet = timedelta(minutes=LockoutSettings.current().forget_minutes)
    for key in mine:
        await table.add_failure(session, key, None if key.kind == ADDRESS else user_id, quiet)
    rows = await table.rows_of(session, mine)
    _refuse_blocked(rows)
    for row in rows:
        if seconds := delay(row.kind, row.failures):
            row.blocked_until = utc_now() + timedelta(seconds=seconds + 1)  # now has lost its fraction: never shorter
            row.forgotten_at = row.blocked_until + quiet
    await session.flush()
    return rows


async def count(session: AsyncSession, failed: SignInFailed) -> None:
    """One more failure; what it delays is written down."""
    if failed.reason == TooManyRequests.code:  # ours: nothing was told, so nothing was guessed
        return
    mine = _of_this_request(failed.email)
    if _claimed.get():
        await _add(session, [key for key in mine if key.kind == ADDRESS], None)
        rows = await table.rows_of(session, mine)
    else:
        rows = await _add(session, mine, failed.user_id)
    for row in rows:
        if seconds := delay(row.kind, row.failures):
            event = SignInDelayed(user_id=row.user_id, email=failed.email, kind=row.kind, seconds=seconds)
            await emit(session, event)


async def _claim(session: AsyncSession, mine: Sequence[Key], user_id: int) -> None:
    """Count a code before it is looked at: nothing slow stands between a thousand guesses sent at once.

    A transaction of its own, before the one at hand begins: SQLite has one writer.
    """
    async with AsyncSession(session.bind, join_transaction_mode="create_savepoint") as own:
        await _add(own, mine, user_id)
        await own.commit()
    _claimed.set(True)


async def succeed(session: AsyncSession, proven: IdentityProven) -> None:
    """Forget the account's failures and remember the place. Undone by the rollback when more is asked and missing.

    First of all in its transaction: on MySQL, what was read before would be what is read here.
    """
    now, user_id = utc_now(), key_of(proven.user)
    mine = _of_this_request(proven.user.email)
    own = [key for key in mine if key.kind != ADDRESS]
    if proven.code:
        await _claim(session, own, user_id)
    for key in own:  # all locked, in their order, before any is read
        await table.upsert(session, key, {"kind": key.kind}, user_id=user_id, failures=0, forgotten_at=now)
    if proven.method == "password" and not proven.code:  # another issuer's word is not guessed
        _refuse_blocked(await table.rows_of(session, mine))
    until = now + timedelta(days=LockoutSettings.current().familiar_days)
    for key in own:
        known = {"familiar_until": until, "user_id": user_id} if key.kind == PAIR else {}
        await session.exec(update(Throttle).where(col(Throttle.key_hash) == key.hash).values(**NOTHING, **known))


async def start_again(session: AsyncSession, changed: PasswordChanged) -> None:
    """Wrong guesses at the old password say nothing about the new one: who reset it by mail may enter."""
    await _clear(session, changed.user_id)


async def _clear(session: AsyncSession, user_id: int | None) -> int:
    blocked = (col(Throttle.user_id) == user_id) & (col(Throttle.failures) > 0)
    ids = (await session.exec(select(Throttle.id).where(blocked).order_by(col(Throttle.key_hash)))).all()
    for one in ids:
        await session.exec(update(Throttle).where(col(Throttle.id) == one).values(**NOTHING))
    return len(ids)


async def delays_of(session: AsyncSession, user_id: int) -> Sequence[Throttle]:
    """The delays of an account that last, the longest first."""
    lasting = (Throttle.user_id == user_id, col(Throttle.blocked_until) > utc_now())
    return (await session.exec(select(Throttle).where(*lasting).order_by(col(Throttle.blocked_until).desc()))).all()


async def lift(session: AsyncSession, user_id: int) -> None:
    """Forget the failed sign-ins to an account, from wherever; where its owner has signed in stays known."""
    if await _clear(session, user_id):
        await emit(session, LockoutLifted(user_id=user_id))


async def lift_one(session: AsyncSession, row: Throttle) -> None:
    """Forget what one delay comes from."""
    await session.exec(update(Throttle).where(col(Throttle.id) == row.id).values(**NOTHING))
    await emit(session, LockoutLifted(user_id=row.user_id, address=row.address))
