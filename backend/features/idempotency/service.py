"""The life of a key: claimed before the work, done with it, or given back.

A claim is committed before the work begins, so that all processes see it. `finish` belongs to the transaction of the
work and refuses when the claim is no longer ours: of two that carry out the same request, at most one can commit.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, tuple_
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, delete, insert, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.db import Database
from backend.core.errors import AppError, Unauthorized
from backend.core.models import utc_now
from backend.features.idempotency.errors import IdempotencyKeyReused, StillRunning
from backend.features.idempotency.models import IdempotencyKey
from backend.features.idempotency.settings import IdempotencySettings
from backend.features.users.models import User

BATCH = 1000  # keys deleted in one transaction
DONE = ""  # instead of a claim


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to carry out a request."""

    user_id: int
    key_hash: str
    fingerprints: tuple[str, ...]  # any of these is the same request
    token: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def place(self) -> str:
        """What the answer is sealed for."""
        return f"{self.user_id} {self.key_hash}"

    def held(self, token: str | None = None) -> tuple[ColumnElement[bool], ...]:
        """The row, as long as nobody has changed it."""
        return (
            col(IdempotencyKey.user_id) == self.user_id,
            col(IdempotencyKey.key_hash) == self.key_hash,
            col(IdempotencyKey.claim) == (self.token if token is None else token),
        )

    def values(self) -> dict[str, Any]:
        now, settings = utc_now(), IdempotencySettings.current()
        return {
            "fingerprint": self.fingerprints[0],
            "claim": self.token,
            "claimed_until": now + timedelta(seconds=settings.lock_seconds),
            "expires_at": now + timedelta(hours=settings.hours),
            "answer": None,
        }


async def claim(database: Database, wanted: Claim) -> IdempotencyKey | None:
    """None when the claim is ours now; else the row of the same request that is done already.

    IdempotencyKeyReused when it was another request; StillRunning while the first one runs; Unauthorized when the
    account is gone.
    """
    async with database.session() as session:
        try:
            row = {"user_id": wanted.user_id, "key_hash": wanted.key_hash, **wanted.values()}
            await session.exec(insert(IdempotencyKey).values(row))
            await session.commit()
        except IntegrityError:
            await session.rollback()
        else:
            return None
        return await _claim_existing(session, wanted)


async def _claim_existing(session: AsyncSession, wanted: Claim) -> IdempotencyKey | None:
    there = await session.get(IdempotencyKey, (wanted.user_id, wanted.key_hash))
    if there is None:
        raise await _not_ours(session, wanted)
    now = utc_now()
    if there.expires_at > now:
        if there.fingerprint not in wanted.fingerprints:
            raise IdempotencyKeyReused
        if there.claim == DONE:
            return there
        if there.claimed_until > now:
            raise StillRunning
    taken = await session.exec(update(IdempotencyKey).where(*wanted.held(there.claim)).values(**wanted.values()))
    await session.commit()
    if not taken.rowcount:
        raise StillRunning  # another one was faster
    return None


async def _not_ours(session: AsyncSession, wanted: Claim) -> AppError:
    """Another one has the key, or had it until a moment ago; or its person is gone, and known elsewhere only."""
    person = (await session.exec(select(User.id).where(User.id == wanted.user_id))).first()
    return StillRunning() if person else Unauthorized()


async def finish(session: AsyncSession, mine: Claim, answer: str | None) -> None:
    """Note that the work is done, in its transaction. Do not commit when it raises.

    StillRunning when somebody else has taken over; Unauthorized when the account was deleted meanwhile.
    """
    done = await session.exec(update(IdempotencyKey).where(*mine.held()).values(claim=DONE, answer=answer))
    if not done.rowcount:
        raise await _not_ours(session, mine)


async def give_back(database: Database, mine: Claim) -> None:
    """Nothing was done: the key is as if never used. Without effect when the work is done after all."""
    async with database.session() as session:
        await session.exec(delete(IdempotencyKey).where(*mine.held()))
        await session.commit()


async def delete_expired(database: Database, *, batch: int = BATCH) -> int:
    """Delete one batch of keys whose time is over; returns how many. Several processes may do it at once.

    They are looked up first: as long as there is nothing to delete, nothing is locked.
    """
    place = col(IdempotencyKey.user_id), col(IdempotencyKey.key_hash)
    over = col(IdempotencyKey.expires_at) <= utc_now()
    async with database.session(reading=True) as session:
        expired: Sequence[Any] = (await session.exec(select(*place).where(over).limit(batch))).all()
    if not expired:
        return 0
    async with database.session() as session:
        deleted = await session.exec(delete(IdempotencyKey).where(tuple_(*place).in_(expired), over))
        await session.commit()
    return int(deleted.rowcount)
