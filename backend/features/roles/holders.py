"""Who holds which roles: looked up, replaced, given, taken."""

from collections.abc import Sequence

from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.auth import Principal
from backend.core.errors import Conflict, Unprocessable
from backend.core.events import emit
from backend.core.models import key_of
from backend.core.principals import forget
from backend.features.roles.events import RolesGranted, RolesRevoked
from backend.features.roles.models import Role, UserRole
from backend.features.roles.service import refuse_more
from backend.features.users.models import User
from backend.features.users.service import may_manage


async def list_held(session: AsyncSession, user_id: int) -> Sequence[tuple[Role, UserRole]]:
    """The roles of a person by name, each with the row that says since when."""
    statement = select(Role, UserRole).join(UserRole, col(UserRole.role_id) == Role.id)
    return (await session.exec(statement.where(UserRole.user_id == user_id).order_by(col(Role.name)))).all()


async def put_roles(session: AsyncSession, user: User, role_ids: Sequence[int], *, caller: Principal) -> None:
    """Let a person hold these roles and no others."""
    await _change(session, user, await _locked(session, user), set(role_ids), caller)


async def give_role(session: AsyncSession, user: User, role_id: int, *, caller: Principal) -> UserRole:
    """Let a person hold one role more."""
    held = await _locked(session, user)
    if role_id in held:
        raise Conflict("This person holds this role already")
    await _change(session, user, held, held | {role_id}, caller)
    return (await session.exec(select(UserRole).where(UserRole.user_id == user.id, UserRole.role_id == role_id))).one()


async def take_role(session: AsyncSession, user: User, role_id: int, *, caller: Principal) -> None:
    """Let a person hold one role less."""
    held = await _locked(session, user)
    await _change(session, user, held, held - {role_id}, caller)


async def _locked(session: AsyncSession, user: User) -> set[int]:
    """The ids of the roles that a person holds. Of two who change them at once, the second sees what the first did."""
    await session.exec(select(User.id).where(User.id == user.id).with_for_update())
    # locking as well: on MySQL a plain SELECT would show what was there when the transaction began
    return set(
        (await session.exec(select(UserRole.role_id).where(UserRole.user_id == user.id).with_for_update())).all()
    )


async def _change(session: AsyncSession, user: User, held: set[int], wanted: set[int], caller: Principal) -> None:
    await may_manage(session, caller, user)  # so they hold no more than the caller, and lose no more
    roles = {key_of(role): role for role in await session.exec(select(Role).where(col(Role.id).in_(held | wanted)))}
    if missing := sorted(wanted - roles.keys()):
        details = [
            {"field": "body.roles", "message": f"There is no role {one}", "type": "unknown_role"} for one in missing
        ]
        raise Unprocessable("There is no such role", details=details)
    given, taken = wanted - held, held & roles.keys() - wanted
    for role_id in given:  # names without a feature too: it may come back
        refuse_more(caller, roles[role_id].names)
    if not (given or taken):
        return
    user_id = key_of(user)
    await session.exec(delete(UserRole).where(col(UserRole.user_id) == user_id, col(UserRole.role_id).in_(taken)))
    session.add_all(UserRole(user_id=user_id, role_id=one, granted_by=caller.id) for one in sorted(given))
    await session.flush()
    forget(session, user_id)
    before, after = (sorted(roles[one].name for one in ids & roles.keys()) for ids in (held, wanted))
    await emit(session, (RolesGranted if given else RolesRevoked)(user_id=user_id, before=before, after=after))
