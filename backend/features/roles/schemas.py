"""What goes in and out of the roles API."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from backend.core.db import MAX_ID
from backend.core.schemas import NO_NUL, TRIMMED, WHOLE, Input, Output, absent

SCOPE = r"^[\x21\x23-\x5b\x5d-\x7e]+$"  # RFC 6749 §3.3: a scope-token

RoleName = Annotated[
    str, StringConstraints(min_length=1, max_length=100, pattern=TRIMMED), Field(examples=["Support desk"])
]
Summary = Annotated[
    str, StringConstraints(max_length=500, pattern=NO_NUL), Field(examples=["Looks accounts up, changes nothing"])
]
PermissionName = Annotated[str, StringConstraints(max_length=100, pattern=SCOPE)]
Permissions = Annotated[list[PermissionName], Field(max_length=500, examples=[["console:enter", "users:read"]])]
RoleId = Annotated[int, Field(ge=1, le=MAX_ID), WHOLE]


class RoleIn(Input):
    """A role as it shall be, to create or replace one. It permits what is declared, see `/permissions`."""

    name: RoleName
    summary: Summary = ""
    permissions: Permissions = Field(default_factory=list)


class RolePatch(Input):
    """The fields to change; what is left out stays."""

    name: RoleName = absent()
    summary: Summary = absent()
    permissions: Permissions = absent()


class RoleOut(Output):
    """A role. `version` is also its `ETag`."""

    id: int = Field(examples=[3])
    name: str = Field(examples=["Support desk"])
    summary: str = Field(examples=["Looks accounts up, changes nothing"])
    permissions: list[str] = Field(examples=[["console:enter", "users:read"]])
    unknown: list[str] = Field(
        examples=[[]], description="Those of its permissions that no feature declares any more: they permit nothing"
    )
    created_at: datetime
    updated_at: datetime
    version: int


class HeldRole(RoleOut):
    """A role that a person holds."""

    granted_at: datetime
    granted_by: int | None = Field(description="Null when that account is gone")


class RoleSet(Input):
    """The roles that a person shall hold, by their ids: these and no others."""

    roles: list[RoleId] = Field(max_length=100, examples=[[3]])


class PermissionOut(Output):
    """Something that a caller may do, as a feature declares it."""

    name: str = Field(examples=["users:read"])
    summary: str = Field(examples=["See all accounts and their sessions"])
    feature: str = Field(examples=["users"])
    ranks: list[Literal["user", "staff", "admin"]] = Field(
        examples=[["staff", "admin"]], description="Who holds it without any role"
    )


class HolderForm(Input):
    """The console's form that gives a role to a person."""

    role_id: RoleId
    user_id: Annotated[int, Field(ge=1, le=MAX_ID), WHOLE]
