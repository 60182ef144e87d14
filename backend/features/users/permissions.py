"""What may be done with accounts, and from which rank on."""

from backend.core.auth import Permission, Rank

CONSOLE = "console:enter"

PERMISSIONS = (
    Permission(name=CONSOLE, summary="Sign in to the console", rank=Rank.STAFF),
    Permission(name="users:read", summary="See all accounts and their sessions", rank=Rank.STAFF),
    Permission(name="users:write", summary="Create, change and delete accounts, end sessions", rank=Rank.ADMIN),
)
