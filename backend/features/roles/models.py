"""The tables of roles, of what they permit, and of who holds them."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import UniqueConstraint, select
from sqlalchemy.orm import column_property
from sqlmodel import Field, Relationship, SQLModel, col

from backend.core.models import TABLE_OPTIONS, Record, utc_now
from backend.features.users.models import User


class RolePermission(SQLModel, table=True):
    """That a role holds a permission. Its feature may be gone; the name then means nothing, and is kept."""

    __tablename__: ClassVar[str] = "role_permissions"
    __table_args__ = TABLE_OPTIONS

    role_id: int | None = Field(default=None, foreign_key="roles.id", ondelete="CASCADE", primary_key=True)
    permission: str = Field(max_length=100, primary_key=True)


class Role(Record, table=True):
    """A bundle of permissions under a name."""

    __tablename__: ClassVar[str] = "roles"

    name: str = Field(max_length=100, unique=True)
    summary: str = Field(max_length=500, default="")
    permissions: list[RolePermission] = Relationship(
        cascade_delete=True, sa_relationship_kwargs={"lazy": "selectin", "order_by": RolePermission.permission}
    )

    @property
    def names(self) -> frozenset[str]:
        """What it permits, names without a feature included."""
        return frozenset(one.permission for one in self.permissions)

    def __str__(self) -> str:
        return self.name


class UserRole(SQLModel, table=True):
    """That a person holds a role, since when, and by whom."""

    __tablename__: ClassVar[str] = "user_roles"
    __table_args__ = (UniqueConstraint("user_id", "role_id"), TABLE_OPTIONS)

    id: int | None = Field(default=None, primary_key=True)
    user_id: int = Field(foreign_key="users.id", ondelete="CASCADE")
    role_id: int = Field(foreign_key="roles.id", ondelete="CASCADE", index=True)
    granted_at: datetime = Field(default_factory=utc_now, nullable=False)
    granted_by: int | None = Field(default=None, foreign_key="users.id", ondelete="SET NULL", index=True)

    # For the console, which shows, sorts and searches them: part of the same SELECT, so a list is no N+1.
    email: ClassVar[Any] = None
    role_name: ClassVar[Any] = None

    def __str__(self) -> str:
        return f"{self.email}: {self.role_name}"


def _looked_up(column: Any, key: Any, reference: Any) -> Any:
    return column_property(select(column).where(key == reference).correlate(UserRole).scalar_subquery())


UserRole.email = _looked_up(col(User.email), col(User.id), col(UserRole.user_id))
UserRole.role_name = _looked_up(col(Role.name), col(Role.id), col(UserRole.role_id))
