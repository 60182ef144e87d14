"""The rules about roles. The API and the console both call these functions.

Nobody gives, takes or changes what they do not hold themselves, in this very request: `caller.permissions` is bounded
by the token or key they showed. Else the right to change roles would be the right to everything.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy.orm.attributes import flag_modified
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.auth import Permission, Principal
from backend.core.errors import Conflict, Forbidden, NotFound, Unprocessable
from backend.core.events import emit
from backend.core.models import key_of
from backend.core.paging import PageQuery, Total, paged
from backend.core.principals import forget_all
from backend.features.roles.events import RoleCreated, RoleDeleted, RolePermissionsChanged, RoleRenamed
from backend.features.roles.models import Role, RolePermission, UserRole
from backend.features.users.events import PermissionsAsked


async def add_what_roles_hold(session: AsyncSession, asked: PermissionsAsked) -> None:
    """The answer to "what may this person do?": one statement, and none while their principal is known."""
    theirs = (
        select(RolePermission.permission)
        .join(UserRole, col(UserRole.role_id) == RolePermission.role_id)
        .where(UserRole.user_id == asked.user_id)
    )
    asked.held.update((await session.exec(theirs)).all())


def declared(session: AsyncSession) -> dict[str, Permission]:
    """The permissions that the features of this app declare, by name."""
    permissions: dict[str, Permission] = session.info["permissions"]
    return permissions


def refuse_more(caller: Principal, names: Iterable[str]) -> None:
    """Forbidden unless the caller holds all of these."""
    if missing := sorted(set(names) - caller.permissions):
        raise Forbidden("This takes permissions that you do not hold yourself", details={"missing": missing})


def _refuse_undeclared(session: AsyncSession, names: Iterable[str]) -> None:
    if unknown := sorted(set(names) - declared(session).keys()):
        details = [
            {"field": "body.permissions", "message": f"There is no permission {name}", "type": "unknown_permission"}
            for name in unknown
        ]
        raise Unprocessable(f"There is no permission {', '.join(unknown)}", details=details)


async def _refuse_taken(session: AsyncSession, name: str, *, but: int | None = None) -> None:
    taken = (await session.exec(select(Role.id).where(Role.name == name))).first()
    if taken is not None and taken != but:
        raise Conflict("There is a role with this name already", details={"field": "name"})


async def page_roles(session: AsyncSession, query: PageQuery, *, q: str = "") -> tuple[Sequence[Role], Total]:
    """One page of the roles with `q` in their names, by name, and how many there are."""
    found = [col(Role.name).icontains(q, autoescape=True)] if q else []
    return await paged(session, select(Role).where(*found).order_by(col(Role.name), col(Role.id)), query)


async def get_role(session: AsyncSession, role_id: int) -> Role:
    role = await session.get(Role, role_id)
    if role is None:
        raise NotFound("There is no such role")
    return role


async def create_role(
    session: AsyncSession, *, caller: Principal, name: str, summary: str = "", permissions: Iterable[str] = ()
) -> Role:
    """Store a new role, which nobody holds yet."""
    names = sorted(set(permissions))
    _refuse_undeclared(session, names)
    refuse_more(caller, names)
    await _refuse_taken(session, name)
    role = Role(name=name, summary=summary, permissions=[RolePermission(permission=one) for one in names])
    session.add(role)
    await session.flush()
    await emit(session, RoleCreated(role_id=key_of(role), role=name, permissions=names))
    return role


def _put_permissions(role: Role, names: frozenset[str]) -> None:
    kept = [one for one in role.permissions if one.permission in names]
    role.permissions = [*kept, *(RolePermission(permission=name) for name in sorted(names - role.names))]
    flag_modified(role, "name")  # else a change of these rows alone would leave the role's version as it is


async def update_role(session: AsyncSession, role: Role, *, caller: Principal, **fields: Any) -> Role:
    """Change a role; what its holders may do changes with it. Names that it has already need no feature."""
    name, before = role.name, role.names
    after = frozenset(fields.pop("permissions", before))
    _refuse_undeclared(session, after - before)
    refuse_more(caller, (before | after) & declared(session).keys())
    if fields.get("name", name) != name:
        await _refuse_taken(session, fields["name"], but=role.id)
    for field, value in fields.items():
        setattr(role, field, value)
    if after != before:
        _put_permissions(role, after)
    session.add(role)
    await session.flush()
    about: dict[str, Any] = {"role_id": key_of(role), "role": role.name}
    if role.name != name:
        await emit(session, RoleRenamed(before=name, **about))
    if after != before:
        forget_all(session)
        await emit(session, RolePermissionsChanged(before=sorted(before), after=sorted(after), **about))
    return role


async def delete_role(session: AsyncSession, role: Role, *, caller: Principal) -> None:
    """Remove a role; those who hold it lose it."""
    refuse_more(caller, role.names & declared(session).keys())
    held = select(func.count()).select_from(UserRole).where(UserRole.role_id == role.id)
    holders, names = (await session.exec(held)).one(), sorted(role.names)
    await session.delete(role)
    await session.flush()
    forget_all(session)
    await emit(session, RoleDeleted(role_id=key_of(role), role=role.name, permissions=names, holders=holders))
