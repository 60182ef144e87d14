"""What may be done with the cache, and from which rank on."""

from backend.core.auth import Permission, Rank

PERMISSIONS = (
    Permission(name="cache:read", summary="See how the cache does", rank=Rank.STAFF),
    Permission(name="cache:clear", summary="Empty the cache", rank=Rank.ADMIN),
)
