"""What may be done with other people's API keys. One's own need no permission."""

from backend.core.auth import Permission, Rank

MANAGE = "api_keys:manage"

PERMISSIONS = (Permission(name=MANAGE, summary="See and revoke anybody's API keys", rank=Rank.ADMIN),)
