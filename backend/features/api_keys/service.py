"""The rules about API keys. The API and the console both call these functions."""

import secrets
import string
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, or_
from sqlmodel import col, delete, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.auth import Principal
from backend.core.db import release
from backend.core.errors import Conflict, Forbidden, NotFound, Unprocessable
from backend.core.events import emit
from backend.core.models import key_of, utc_now
from backend.core.principals import forget
from backend.features.api_keys.events import ApiKeyCreated, ApiKeyRevoked, ApiKeyRotated
from backend.features.api_keys.models import ApiKey
from backend.features.api_keys.settings import ApiKeysSettings
from backend.features.users.events import AccountReclaimed
from backend.features.users.models import User
from backend.features.users.tokens import sha256

LETTERS = string.ascii_letters + string.digits
KEPT_FOR = timedelta(days=30)  # a key that is over stays in the list for so long


def good() -> tuple[ColumnElement[bool], ...]:
    """The conditions under which a key opens anything."""
    return (
        col(ApiKey.revoked_at).is_(None),
        or_(col(ApiKey.expires_at).is_(None), col(ApiKey.expires_at) > utc_now()),
    )


def _invalid(field: str, message: str) -> Unprocessable:
    return Unprocessable(details=[{"field": f"body.{field}", "message": message, "type": "value_error"}])


def _check_held(caller: Principal, scopes: Iterable[str]) -> None:
    """Nobody hands on more than they may do in this very request: a narrow token makes no wide key."""
    if missing := sorted(set(scopes) - caller.permissions):
        raise Forbidden("You cannot give a key what you may not do yourself", details={"missing": missing})


def _end(expires_at: datetime | None, days: int | None) -> datetime | None:
    """The moment at which a new key ends, as asked for, or as late as may be; None: never."""
    now, longest = utc_now(), ApiKeysSettings.current().max_days
    field = "expires_at" if expires_at else "expires_in_days"
    days = days or (0 if expires_at else longest)
    ends = expires_at.replace(microsecond=0) if expires_at else now + timedelta(days=days) if days else None
    if ends and ends <= now:
        raise _invalid(field, "This moment is past")
    if ends and longest and ends > now + timedelta(days=longest):
        raise _invalid(field, f"Keys are good for {longest} days at most")
    return ends


async def _store(
    session: AsyncSession, user_id: int, *, name: str, scopes: str, expires_at: datetime | None
) -> tuple[ApiKey, str]:
    prefix = "mk_" + "".join(secrets.choice(LETTERS) for _ in range(8))
    key = f"{prefix}_{secrets.token_urlsafe(32)}"
    made = ApiKey(user_id=user_id, name=name, prefix=prefix, key_hash=sha256(key), scopes=scopes, expires_at=expires_at)
    session.add(made)
    await session.flush()
    return made, key


async def _make_room(session: AsyncSession, user_id: int) -> None:
    """Let go of keys that ended long ago. Conflict when this person has as many in use as may be."""
    await release(session)  # on MySQL, what was read so far would hide keys that were made since
    await session.exec(select(User.id).where(User.id == user_id).with_for_update())  # one at a time
    mine, long_ago = col(ApiKey.user_id) == user_id, utc_now() - KEPT_FOR
    over = or_(col(ApiKey.expires_at) < long_ago, col(ApiKey.revoked_at) < long_ago)
    await session.exec(delete(ApiKey).where(mine, over))
    # one that was rotated is on its way out, and does not count
    in_use = (await session.exec(select(ApiKey.id).where(mine, col(ApiKey.replaced_by).is_(None), *good()))).all()
    most = ApiKeysSettings.current().per_person
    if len(in_use) >= most:
        raise Conflict(f"You have {most} keys in use, which is the limit: revoke one first")


async def create_key(
    session: AsyncSession,
    caller: Principal,
    *,
    name: str,
    scopes: Sequence[str],
    expires_at: datetime | None,
    expires_in_days: int | None,
) -> tuple[ApiKey, str]:
    """A new key of the caller's, and its text, which is nowhere else."""
    if not set(scopes) <= session.info["permissions"].keys():
        raise _invalid("scopes", "One of these is no permission of ours")
    _check_held(caller, scopes)
    ends = _end(expires_at, expires_in_days)
    await _make_room(session, caller.id)
    made, key = await _store(session, caller.id, name=name, scopes=" ".join(sorted(set(scopes))), expires_at=ends)
    created = ApiKeyCreated(user_id=caller.id, key_id=key_of(made), prefix=made.prefix, name=name, scopes=made.scopes)
    await emit(session, created)
    return made, key


async def list_keys(session: AsyncSession, user_id: int) -> Sequence[ApiKey]:
    """A person's keys, newest first, with those that ended lately."""
    return (await session.exec(select(ApiKey).where(ApiKey.user_id == user_id).order_by(col(ApiKey.id).desc()))).all()


async def get_key(session: AsyncSession, key_id: int, *, user_id: int) -> ApiKey:
    """NotFound when this person has no such key."""
    key = (await session.exec(select(ApiKey).where(ApiKey.id == key_id, ApiKey.user_id == user_id))).first()
    if key is None:
        raise NotFound("There is no such API key")
    return key


async def rename_key(session: AsyncSession, key: ApiKey, *, name: str) -> ApiKey:
    key.name = name
    session.add(key)
    await session.flush()
    return key


def _as_long_again(old: ApiKey) -> datetime | None:
    """When a successor ends: after as long as the old key was made for, within what keys may have now; None: never."""
    longest = timedelta(days=ApiKeysSettings.current().max_days)
    lifetimes = [one for one in (old.expires_at and old.expires_at - old.created_at, longest) if one]
    return utc_now() + min(lifetimes) if lifetimes else None


async def rotate_key(
    session: AsyncSession, caller: Principal, old: ApiKey, *, overlap_hours: int | None
) -> tuple[ApiKey, str]:
    """A successor that may do the same for as long again; the old key works on for the overlap.

    Conflict when it is over, or has a successor: of several who rotate it at once, one does.
    """
    _check_held(caller, old.scopes.split())
    hours = ApiKeysSettings.current().overlap_hours if overlap_hours is None else overlap_hours
    ends = utc_now() + timedelta(hours=hours)
    if old.expires_at and old.expires_at < ends:
        ends = old.expires_at
    new, key = await _store(session, old.user_id, name=old.name, scopes=old.scopes, expires_at=_as_long_again(old))
    unreplaced = (col(ApiKey.id) == old.id, col(ApiKey.replaced_by).is_(None), *good())
    replaced = await session.exec(update(ApiKey).where(*unreplaced).values(replaced_by=new.id, expires_at=ends))
    if replaced.rowcount != 1:
        raise Conflict("This key is over, or was rotated already")
    forget(session, old.user_id)
    told = ApiKeyRotated(
        user_id=old.user_id,
        key_id=key_of(old),
        prefix=old.prefix,
        successor=key_of(new),
        overlap_ends=ends.isoformat(),
    )
    await emit(session, told)
    return new, key


async def revoke_key(session: AsyncSession, key: ApiKey) -> None:
    """From now on it opens nothing; without Redis, other processes learn of it by time (`core/principals.py`)."""
    if key.revoked_at is not None:
        return
    key.revoked_at = utc_now()
    session.add(key)
    await session.flush()
    forget(session, key.user_id)
    await emit(session, ApiKeyRevoked(user_id=key.user_id, key_id=key_of(key), prefix=key.prefix))


async def revoke_all(session: AsyncSession, event: AccountReclaimed) -> None:
    """Whoever made the account may have made keys, too."""
    for key in await list_keys(session, event.user_id):
        await revoke_key(session, key)
