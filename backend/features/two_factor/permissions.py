"""What may be done with other people's second factors."""

from backend.core.auth import Permission, Rank

RESET = "two_factor:reset"

PERMISSIONS = (Permission(name=RESET, summary="Remove the second factor of somebody who lost it", rank=Rank.ADMIN),)
