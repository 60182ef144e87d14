"""Who may read the audit log. Nobody may write it."""

from backend.core.auth import Permission, Rank

PERMISSIONS = (Permission(name="audit:read", summary="Read the audit log", rank=Rank.ADMIN),)
