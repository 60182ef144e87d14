"""Who may see how the API is used."""

from backend.core.auth import Permission, Rank

PERMISSIONS = (Permission(name="analytics:read", summary="See how the API is used", rank=Rank.STAFF),)
