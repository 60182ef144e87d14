"""What may be done with roles, and from which rank on."""

from backend.core.auth import Permission, Rank

PERMISSIONS = (
    Permission(name="roles:read", summary="See all roles, and who holds them", rank=Rank.STAFF),
    Permission(name="roles:write", summary="Create, change and delete roles, give and take them", rank=Rank.ADMIN),
)
