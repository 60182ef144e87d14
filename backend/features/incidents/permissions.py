"""Who may tell people what is going on. What they are told is public."""

from backend.core.auth import Permission, Rank

PERMISSIONS = (Permission(name="incidents:manage", summary="Open incidents and write updates", rank=Rank.STAFF),)
