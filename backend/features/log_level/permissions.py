"""Who may change how much is logged."""

from backend.core.auth import Permission, Rank

PERMISSIONS = (Permission(name="logs:manage", summary="See and change the level of the log", rank=Rank.ADMIN),)
