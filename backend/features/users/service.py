"""The rules about accounts. Everything that changes one, in the API and in the console, passes through here."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, func, or_, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.db import Database, release
from backend.core.errors import Conflict, NotFound, Unauthorized
from backend.core.paging import PageQuery
from backend.features.users.emails import is_storable, normalised
from backend.features.users.models import ConsoleSession, User
from backend.features.users.passwords import check_strength, hash_password, verify_password
from backend.features.users.schemas import EMAIL_MAX, PASSWORD_MAX, UserFilter

WRONG = "Wrong e-mail address or password"


async def _refuse_taken(session: AsyncSession, email: str, *, but: int | None = None) -> None:
    taken = (await session.exec(select(User.id).where(User.email == email))).first()
    if taken is not None and taken != but:
        raise Conflict("There is an account with this e-mail address already", details={"field": "email"})


async def create_user(session: AsyncSession, *, email: str, password: str, **fields: Any) -> User:
    """Store a new account. Conflict when the address is taken, Unprocessable when the password is weak."""
    check_strength(password, email)
    await release(session)
    password_hash = await hash_password(password)
    await _refuse_taken(session, email)
    user = User(email=email, password_hash=password_hash, **fields)
    session.add(user)
    await session.flush()
    return user


async def check_password(database: Database, *, email: str, password: str) -> User:
    """The active account with this address and password; Unauthorized, for every reason in the same words and time.

    Sessions of its own: no connection and no lock is held while the hash is computed.
    """
    user = None
    if not is_storable(email + password) or len(password) > PASSWORD_MAX or len(email) > EMAIL_MAX:
        password = ""  # still costs its hash, which belongs to nobody
    else:
        async with database.session(reading=True) as session:
            user = (await session.exec(select(User).where(User.email == normalised(email)))).first()
    fits, better = await verify_password(password, user.password_hash if user else None)
    if user is None or not fits or not user.is_active:
        raise Unauthorized(WRONG)
    if better:
        async with database.session() as session:  # neither an edit of the account nor one of a gone account's row
            same = (col(User.id) == user.id, col(User.password_hash) == user.password_hash)
            await session.exec(update(User).where(*same).values(password_hash=better, updated_at=User.updated_at))
            await session.commit()
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


async def count_users(session: AsyncSession, chosen: UserFilter) -> int:
    return (await session.exec(select(func.count()).select_from(User).where(*_conditions(chosen)))).one()


async def list_users(session: AsyncSession, chosen: UserFilter, query: PageQuery) -> Sequence[User]:
    column = col(getattr(User, chosen.sort.lstrip("-")))
    order = (column.desc(), col(User.id).desc()) if chosen.sort.startswith("-") else (column, col(User.id))
    statement = select(User).where(*_conditions(chosen)).order_by(*order)
    return (await session.exec(statement.offset(query.offset).limit(query.page_size))).all()


async def keep_an_admin(session: AsyncSession, user: User) -> None:
    """Conflict when `user` is the last active administrator, who must stay one: nobody could let others in again.

    Locks the administrators' rows, in order: two who step down at the same moment are told apart.
    """
    if user.role != "admin" or not user.is_active:
        return
    active = select(User.id).where(User.role == "admin", col(User.is_active)).order_by(col(User.id)).with_for_update()
    if not [other for other in (await session.exec(active)).all() if other != user.id]:
        raise Conflict("This is the last active administrator")


async def update_user(session: AsyncSession, user: User, *, password: str | None = None, **fields: Any) -> User:
    """Change an account. A new password, or being deactivated, ends the console sessions of that person."""
    email = fields.get("email", user.email)
    if password is not None:
        check_strength(password, email)
        await release(session)
        fields["password_hash"] = await hash_password(password)
    if fields.get("role", user.role) != "admin" or not fields.get("is_active", user.is_active):
        await keep_an_admin(session, user)
    if email != user.email:
        await _refuse_taken(session, email, but=user.id)
    for name, value in fields.items():
        setattr(user, name, value)
    session.add(user)
    if password is not None or not user.is_active:
        await end_console_sessions(session, user)
    await session.flush()
    return user


async def end_console_sessions(session: AsyncSession, user: User) -> None:
    connection = await session.connection()
    await connection.execute(delete(ConsoleSession).where(col(ConsoleSession.user_id) == user.id))


async def delete_user(session: AsyncSession, user: User) -> None:
    """Remove an account for good; what it owned stays, without an owner."""
    await keep_an_admin(session, user)
    await session.delete(user)
    await session.flush()
