"""Who may see the delays, and lift them."""

from backend.core.auth import Permission, Rank

PERMISSIONS = (
    Permission(name="lockout:read", summary="See who has to wait before signing in", rank=Rank.STAFF),
    Permission(name="lockout:lift", summary="Let somebody sign in again at once", rank=Rank.ADMIN),
)
