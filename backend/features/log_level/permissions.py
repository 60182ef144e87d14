"""Who may change how much is logged."""

from backend.core.auth import Permission, Rank

MANAGE = "logs:manage"
PERMISSIONS = (Permission(name=MANAGE, summary="See and change the level of the log", rank=Rank.ADMIN),)
