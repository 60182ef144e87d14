"""What may be done with accounts, and from which rank on."""

from backend.core.auth import Permission, Rank

PERMISSIONS = (
    Permission(name="users:read", summary="See all accounts", rank=Rank.STAFF),
    Permission(name="users:write", summary="Create, change and delete accounts", rank=Rank.ADMIN),
)
