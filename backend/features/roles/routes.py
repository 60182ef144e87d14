"""/roles, /permissions, and the roles of a person."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from backend.core.auth import Principal, Rank, requires
from backend.core.db import Session
from backend.core.errors import Responses
from backend.core.feature import Registry
from backend.core.paging import Page, PageNumber
from backend.core.preconditions import IfMatch, check_if_match, etag
from backend.core.read_session import ReadSession
from backend.core.schemas import Id, Search
from backend.features.roles import holders, service
from backend.features.roles.models import Role
from backend.features.roles.schemas import HeldRole, PermissionOut, RoleIn, RoleOut, RolePatch, RoleSet
from backend.features.users.service import get_user

router = APIRouter(tags=["roles"])

Reader = Annotated[Principal, requires("roles:read")]
Writer = Annotated[Principal, requires("roles:write")]
Q = Annotated[Search, Query(description="Part of the name")]

MORE: Responses = {403: {"description": "It takes permissions that you do not hold yourself"}}
CREATED: Responses = {**MORE, 409: {"description": "The name is taken"}}
CHANGED: Responses = {
    **MORE,
    409: {"description": "The name is taken, or somebody else changed the role at the same time"},
    412: {"description": "The role has changed since you read it"},
}


def _out(session: Session, role: Role) -> RoleOut:
    names = sorted(role.names)
    unknown = [name for name in names if name not in service.declared(session)]
    return RoleOut.model_validate({**role.model_dump(), "permissions": names, "unknown": unknown})


def _shown(session: Session, role: Role, response: Response) -> RoleOut:
    response.headers["ETag"] = etag(role.version, RoleOut)
    return _out(session, role)


@router.get("/permissions")
async def list_permissions(request: Request, caller: Reader) -> list[PermissionOut]:
    """All that callers may be permitted to do, as the features declare it, and which ranks hold it without a role."""
    registry: Registry = request.app.state.registry
    return [
        PermissionOut(
            name=one.name,
            summary=one.summary,
            feature=feature.name,
            ranks=[rank.name.lower() for rank in Rank if rank >= one.rank],
        )
        for feature in registry.features
        for one in feature.all_permissions
    ]


@router.get("/roles")
async def page_roles(
    session: ReadSession, response: Response, caller: Reader, query: PageNumber, q: Q = ""
) -> Page[RoleOut]:
    """Roles by page number, by name, with the total."""
    rows, total = await service.page_roles(session, query, q=q)
    total.tell(response)
    return Page[RoleOut].of([_out(session, row) for row in rows], query, total)


@router.post("/roles", status_code=201, responses=CREATED)
async def create_role(body: RoleIn, request: Request, session: Session, response: Response, caller: Writer) -> RoleOut:
    """Create a role. It may permit only what you hold yourself."""
    role = await service.create_role(session, caller=caller, **body.model_dump())
    response.headers["Location"] = f"{request.url.path}/{role.id}"
    return _shown(session, role, response)


@router.get("/roles/{role_id:int}")
async def read_role(role_id: Id, session: Session, response: Response, caller: Reader) -> RoleOut:
    """One role, with its `ETag`."""
    return _shown(session, await service.get_role(session, role_id), response)


@router.put("/roles/{role_id:int}", responses=CHANGED)
async def put_role(
    role_id: Id, body: RoleIn, session: Session, response: Response, caller: Writer, if_match: IfMatch = None
) -> RoleOut:
    """Replace a role; fields left out take their defaults. What its holders may do changes at once."""
    role = await service.get_role(session, role_id)
    check_if_match(if_match, role.version)
    return _shown(session, await service.update_role(session, role, caller=caller, **body.model_dump()), response)


@router.patch("/roles/{role_id:int}", responses=CHANGED)
async def patch_role(
    role_id: Id, body: RolePatch, session: Session, response: Response, caller: Writer, if_match: IfMatch = None
) -> RoleOut:
    """Change some fields of a role. Permissions are lost at once, and gained with the next access token."""
    role = await service.get_role(session, role_id)
    check_if_match(if_match, role.version)
    changes = body.model_dump(exclude_unset=True)
    return _shown(session, await service.update_role(session, role, caller=caller, **changes), response)


@router.delete("/roles/{role_id:int}", status_code=204, responses=CHANGED)
async def delete_role(role_id: Id, session: Session, caller: Writer, if_match: IfMatch = None) -> None:
    """Delete a role. Those who hold it lose at once what it permits."""
    role = await service.get_role(session, role_id)
    check_if_match(if_match, role.version)
    await service.delete_role(session, role, caller=caller)


async def _held(session: Session, user_id: int) -> list[HeldRole]:
    return [
        HeldRole(**_out(session, role).model_dump(), granted_at=row.granted_at, granted_by=row.granted_by)
        for role, row in await holders.list_held(session, user_id)
    ]


@router.get("/users/{user_id:int}/roles")
async def list_user_roles(user_id: Id, session: Session, caller: Reader) -> list[HeldRole]:
    """The roles that a person holds."""
    await get_user(session, user_id)
    return await _held(session, user_id)


@router.put("/users/{user_id:int}/roles", responses=MORE)
async def put_user_roles(user_id: Id, body: RoleSet, session: Session, caller: Writer) -> list[HeldRole]:
    """Let a person hold these roles and no others.

    What they lose is lost at once; what they gain comes with their next access token.
    """
    await holders.put_roles(session, await get_user(session, user_id), body.roles, caller=caller)
    return await _held(session, user_id)
