"""Who may see hosts, processes and errors."""

from backend.core.auth import Permission, Rank

PERMISSIONS = (Permission(name="processes:read", summary="See which processes run, and what failed", rank=Rank.STAFF),)
