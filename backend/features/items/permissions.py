"""What may be done with items, and from which rank on."""

from backend.core.auth import Permission, Rank

PERMISSIONS = (
    Permission(name="items:read", summary="See the store's items", rank=Rank.USER),
    Permission(name="items:write", summary="Create items; change and delete one's own", rank=Rank.USER),
    Permission(name="items:buy", summary="Buy items", rank=Rank.USER),
    Permission(name="items:manage", summary="Change and delete anybody's items", rank=Rank.STAFF),
)
