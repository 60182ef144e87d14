"""What happens to roles, for the log of who did what."""

from dataclasses import dataclass
from typing import ClassVar

from backend.core.events import SecurityEvent


@dataclass(frozen=True, kw_only=True)
class RoleEvent(SecurityEvent):
    """About a role, not about an account."""

    user_id: int | None = None
    role_id: int
    role: str


@dataclass(frozen=True, kw_only=True)
class RoleCreated(RoleEvent):
    action: ClassVar[str] = "role.created"
    permissions: list[str]


@dataclass(frozen=True, kw_only=True)
class RoleRenamed(RoleEvent):
    action: ClassVar[str] = "role.renamed"
    before: str


@dataclass(frozen=True, kw_only=True)
class RolePermissionsChanged(RoleEvent):
    action: ClassVar[str] = "role.permissions_changed"
    before: list[str]
    after: list[str]


@dataclass(frozen=True, kw_only=True)
class RoleDeleted(RoleEvent):
    action: ClassVar[str] = "role.deleted"
    permissions: list[str]
    holders: int


@dataclass(frozen=True, kw_only=True)
class RolesGranted(SecurityEvent):
    """A person holds a role more, and perhaps others no longer; the names of all theirs."""

    action: ClassVar[str] = "roles.granted"
    before: list[str]
    after: list[str]


@dataclass(frozen=True, kw_only=True)
class RolesRevoked(SecurityEvent):
    """A person holds a role less; the names of all theirs."""

    action: ClassVar[str] = "roles.revoked"
    before: list[str]
    after: list[str]
