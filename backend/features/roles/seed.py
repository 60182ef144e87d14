"""Demo roles, of permissions that are there whenever roles are."""

from collections.abc import Callable

from sqlmodel import Session, col, select

from backend.features.roles.models import Role, RolePermission

LOOKING = ("console:enter", "users:read", "users:view", "sessions:view")

ROLES = {
    "Support desk": ("Looks accounts up, changes nothing", LOOKING),
    "Account manager": ("Looks after accounts", (*LOOKING, "users:write", "users:create", "users:edit")),
}


def seed(session: Session, count: int, advance: Callable[[int], object]) -> None:
    """Add the demo roles that are not there, whatever the `count`: a handful is what people have."""
    there = set(session.exec(select(Role.name).where(col(Role.name).in_(ROLES))).all())
    for name, (summary, permissions) in ROLES.items():
        if name not in there:
            session.add(
                Role(name=name, summary=summary, permissions=[RolePermission(permission=one) for one in permissions])
            )
            advance(1)
    session.flush()
