"""The rules about accounts. Everything that changes one, in the API and in the console, passes through here."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, or_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.auth import NOT_THEM, Permission, Principal, Rank, granted
from backend.core.cache import invalidate
from backend.core.db import release
from backend.core.errors import Conflict, Forbidden, NotFound
from backend.core.events import emit
from backend.core.models import key_of, utc_now
from backend.core.paging import PageQuery, Total, counted, paged
from backend.core.principals import forget
from backend.features.users import sessions
from backend.features.users.authority import held_by
from backend.features.users.events import (
    AccountCreated,
    AccountDeleted,
    ActiveChanged,
    EmailChanged,
    EmailVerified,
    PasswordChanged,
    RoleChanged,
)
from backend.features.users.models import User
from backend.features.users.passwords import UNUSABLE, check_strength, hash_password
from backend.features.users.schemas import UserFilter


async def _refuse_taken(session: AsyncSession, email: str, *, but: int | None = None) -> None:
    taken = (await session.exec(select(User.id).where(User.email == email))).first()
    if taken is not None and taken != but:
        raise Conflict("There is an account with this e-mail address already", details={"field": "email"})


async def create_user(session: AsyncSession, *, email: str, password: str | None, **fields: Any) -> User:
    """Store a new account. Conflict when the address is taken, Unprocessable when the password is weak.

    `password=None`: they come in another way, and no password fits.
    """
    password_hash = UNUSABLE
    if password is not None:
        await release(session)
        await check_strength(password, email, fields.get("full_name", ""))
        password_hash = await hash_password(password)
    await _refuse_taken(session, email)
    user = User(email=email, password_hash=password_hash, **fields)
    session.add(user)
    await session.flush()
    await emit(session, AccountCreated(user_id=key_of(user), email=email))
    return user


async def get_user(session: AsyncSession, user_id: int) -> User:
    user = await session.get(User, user_id)
    if user is None:
        raise NotFound("There is no such account")
    return user


def _conditions(chosen: UserFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if chosen.q:
        columns = (col(User.email), col(User.full_name))
        conditions.append(or_(*(column.icontains(chosen.q, autoescape=True) for column in columns)))
    if chosen.role is not None:
        conditions.append(col(User.role) == chosen.role)
    if chosen.is_active is not None:
        conditions.append(col(User.is_active) == chosen.is_active)
    if chosen.created_from is not None:
        conditions.append(col(User.created_at) >= chosen.created_from)
    if chosen.created_to is not None:
        conditions.append(col(User.created_at) < chosen.created_to)
    return conditions


async def count_users(session: AsyncSession, chosen: UserFilter) -> Total:
    return await counted(session, select(User).where(*_conditions(chosen)))


async def list_users(session: AsyncSession, chosen: UserFilter, query: PageQuery) -> tuple[Sequence[User], Total]:
    """One page of the accounts that match, and how many do."""
    column = col(getattr(User, chosen.sort.lstrip("-")))
    order = (column.desc(), col(User.id).desc()) if chosen.sort.startswith("-") else (column, col(User.id))
    return await paged(session, select(User).where(*_conditions(chosen)).order_by(*order), query)


async def keep_an_admin(session: AsyncSession, user: User) -> None:
    """Conflict when `user` is the last active administrator, who must stay one: nobody could let others in again.

    Locks the administrators' rows, in order: two who step down at the same moment are told apart.
    """
    if user.role != "admin" or not user.is_active:
        return
    active = select(User.id).where(User.role == "admin", col(User.is_active)).order_by(col(User.id)).with_for_update()
    if not [other for other in (await session.exec(active)).all() if other != user.id]:
        raise Conflict("This is the last active administrator")


async def may_manage(session: AsyncSession, caller: Principal, user: User | None, *, role: str = "user") -> None:
    """Forbidden when the account holds more than the caller, or would get a role above the caller's own.

    Else the right to change accounts would be the right to everything: one sets an administrator's password. It counts
    what this very request may do: a token or key for less, an administrator's too, does not reach beyond itself. Who
    acts as somebody else manages nobody: they would open and close doors in another's name.
    """
    if caller.actor is not None:
        raise Forbidden(NOT_THEM)
    permissions: dict[str, Permission] = session.info["permissions"]
    theirs = caller.permissions | granted(permissions, Rank.USER)  # who signs up holds the latter
    rank = Rank[role.upper()]
    if rank > caller.rank or granted(permissions, rank) - theirs:
        raise Forbidden("You cannot give a role above your own")
    if user is None or user.id is None:
        return
    rank = Rank[user.role.upper()]
    if rank > caller.rank or await held_by(session, user.id, rank, withheld=True) - theirs:
        raise Forbidden("This account may do more than you")


def refuse_shortcuts(caller: Principal, user: User, *, password: bool) -> None:
    """Forbidden when people give themselves a new password without showing the present one: it may not be them."""
    if password and user.id == caller.id:
        raise Forbidden("Change your own password at /api/v1/auth/password, with the present one")


async def update_user(session: AsyncSession, user: User, *, password: str | None = None, **fields: Any) -> User:
    """Change an account. A new password, or being deactivated, ends the sessions of that person."""
    email = fields.get("email", user.email)
    if password is not None:
        await release(session)
        await check_strength(password, email, fields.get("full_name", user.full_name))
        fields["password_hash"] = await hash_password(password)
    if fields.get("role", user.role) != "admin" or not fields.get("is_active", user.is_active):
        await keep_an_admin(session, user)
    if email != user.email:
        await _refuse_taken(session, email, but=user.id)
        fields["email_verified_at"] = None
    before = user.email, user.role, user.is_active
    for name, value in fields.items():
        setattr(user, name, value)
    session.add(user)
    await session.flush()
    _outdated(session, user)
    if (user.email, user.role, user.is_active) != before:
        forget(session, key_of(user))
    await _tell(session, user, *before)
    if password is not None:
        await emit(session, PasswordChanged(user_id=key_of(user), email=user.email))
        await sessions.end(session, key_of(user), reason="password changed")
    if not user.is_active:
        await sessions.end(session, key_of(user), reason="account deactivated")
    return user


def _outdated(session: AsyncSession, user: User) -> None:
    invalidate(session, f"user:{user.id}")


async def _tell(session: AsyncSession, user: User, email: str, role: str, active: bool) -> None:
    if user.email != email:
        await emit(session, EmailChanged(user_id=key_of(user), before=email, after=user.email))
    if user.role != role:
        await emit(session, RoleChanged(user_id=key_of(user), before=role, after=user.role))
    if user.is_active != active:
        await emit(session, ActiveChanged(user_id=key_of(user), active=user.is_active))


async def new_hash(session: AsyncSession, user: User, password: str) -> str:
    """The hash of a new password, for `store_password`. Unprocessable when it is weak. No transaction is held."""
    await release(session)
    await check_strength(password, user.email, user.full_name)
    return await hash_password(password)


async def store_password(
    session: AsyncSession, user: User, password_hash: str, *, keep_session: int | None = None, reason: str
) -> None:
    """Give an account a new password; every session of that person ends, except the one they did it in."""
    user.password_hash = password_hash
    session.add(user)
    await session.flush()
    _outdated(session, user)
    await emit(session, PasswordChanged(user_id=key_of(user), email=user.email))
    await sessions.end(session, key_of(user), reason=reason, but=keep_session)


async def mark_verified(session: AsyncSession, user: User) -> None:
    """Note that the account's address is its owner's; once is enough."""
    if not user.email_verified:
        user.email_verified_at = utc_now()
        session.add(user)
        await session.flush()
        _outdated(session, user)
        await emit(session, EmailVerified(user_id=key_of(user), email=user.email))


async def delete_user(session: AsyncSession, user: User) -> None:
    """Remove an account for good; what it owned stays, without an owner."""
    await keep_an_admin(session, user)
    forget(session, key_of(user))
    await emit(session, AccountDeleted(user_id=key_of(user), email=user.email))
    await session.delete(user)
    await session.flush()
